//! `nfreezer key`: the key files of a repository. Each opens it with its own passphrase.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::exit::OK;
use super::open::{given_local_key, storage, to_add_keys, to_read};
use super::options::{AddressArgs, ConnectionArgs, OpenArgs, OutputArgs, ReadArgs, SecretArgs};
use super::output::{self, Output};
use super::passphrase::Given;
use super::values::size;
use super::{escape, human, local_key, paper_key, signals};
use crate::crypto::kdf::KdfCost;
use crate::crypto::keys::LocalKey;
use crate::error::{Error, Kind, Result};
use crate::format::keyfile::KeyInfo;
use crate::name::{ObjectId, hex};
use crate::repo::keys::{self, Key};
use crate::repo::{Repository, Unlock};
use crate::time::Time;

const NO_REVOCATION: &str = "a copy of the removed key file (the server may have one) still opens the repository with its \
    passphrase, now and later: removing it revokes nothing";

/// Arguments of `key`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the key files
    List(ListArgs),
    /// Add a key file with another passphrase
    Add(AddArgs),
    /// Remove a key file
    Remove(RemoveArgs),
    /// Change the passphrase
    ///
    /// Adds a key file with the new passphrase, then removes the one that was opened.
    Passwd(AddArgs),
    /// Export a key file as a page to print, with a QR code
    Export(ExportArgs),
    /// Put an exported key file back into a repository that has lost it
    Import(ImportArgs),
}

#[derive(clap::Args)]
struct ListArgs {
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args)]
struct AddArgs {
    #[command(flatten)]
    new: NewKey,
    #[command(flatten)]
    repository: OpenArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args)]
struct RemoveArgs {
    /// The id of the key file, or its first 4 or more digits
    id: String,
    #[command(flatten)]
    repository: OpenArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args)]
struct ExportArgs {
    /// The id of a key file, or its first 4 or more digits
    ///
    /// Without it, the key file that the passphrase opens is exported.
    id: Option<String>,
    /// Write the page to a new file instead of standard output
    #[arg(long = "output", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args)]
struct ImportArgs {
    /// The exported page, its typed lines or QR text, or the key file
    file: PathBuf,
    #[command(flatten)]
    address: AddressArgs,
    #[command(flatten)]
    secret: SecretArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Properties of a new key file.
#[derive(clap::Args, Clone)]
struct NewKey {
    /// A name for the key file, at most 63 bytes
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// Read the new passphrase from FILE
    ///
    /// One newline at the end is removed. [env: NFREEZER_NEW_PASSWORD_FILE; the passphrase itself:
    /// NFREEZER_NEW_PASSWORD]
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Read the new passphrase from the output of a shell command [env: NFREEZER_NEW_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", hide_short_help = true)]
    new_password_command: Option<String>,
    /// Generate a passphrase and print it once
    #[arg(long, conflicts_with_all = ["new_password_file", "new_password_command"])]
    generate_passphrase: bool,
    /// Memory per guess at the passphrase: 64M to 2G
    ///
    /// By default as much as with the key file that was opened.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    kdf_memory: Option<u64>,
    /// The new key file needs this local key; it is created if it does not exist
    ///
    /// Without this option it needs the local key of --local-key, if the key file that was opened does.
    #[arg(long, value_name = "FILE", conflicts_with = "without_local_key", hide_short_help = true)]
    new_local_key: Option<PathBuf>,
    /// The new key file needs no local key
    #[arg(long, hide_short_help = true)]
    without_local_key: bool,
}

impl Args {
    /// Returns the options for the output.
    pub fn output(&self) -> OutputArgs {
        match &self.command {
            Command::List(args) => args.output,
            Command::Add(args) | Command::Passwd(args) => args.output,
            Command::Remove(args) => args.output,
            Command::Export(args) => args.output,
            Command::Import(args) => args.output,
        }
    }
}

/// Runs one of the subcommands.
pub fn run(args: &Args) -> Result<u8> {
    let mut out = Output::new(args.output().json);
    let fields = match &args.command {
        Command::List(args) => list(args, &mut out)?,
        Command::Add(args) => add(args, &mut out)?,
        Command::Remove(args) => remove(args, &mut out)?,
        Command::Passwd(args) => passwd(args, &mut out)?,
        Command::Export(args) => export(args, &mut out)?,
        Command::Import(args) => import(args, &mut out)?,
    };
    out.object("summary", fields)?;
    out.flush().map(|()| OK)
}

fn print(output: OutputArgs, out: &mut Output, line: std::fmt::Arguments<'_>) -> Result<()> {
    if output.quiet { Ok(()) } else { out.line(line) }
}

fn list(args: &ListArgs, out: &mut Output) -> Result<Map<String, Value>> {
    let repo = to_read(&args.repository, args.output)?;
    let keys = repo.key_files(signals::context())?;
    let (opened, info) = repo.opened_by();
    out.line("  ID        Cost                 Stored               Label")?;
    for key in &keys {
        let info = (key.id == *opened).then_some(info);
        out.line(row(key, info).trim_end())?;
        out.object("key", fields(key, info))?;
    }
    out.line("* opened by this passphrase; the label of another key file can be read with its own passphrase only")?;
    Ok(output::object(json!({ "keys": keys.len(), "opened": opened.to_string() })))
}

/// Returns a row of the table. `info` is given for the key file that was opened.
fn row(key: &Key, info: Option<&KeyInfo>) -> String {
    let label = info.map(|info| escape::text(info.label.as_bytes())).unwrap_or_default();
    let time = human::time(Time::from_seconds(info.map_or(key.stored, |info| info.created as i64)));
    let mark = if info.is_some() { '*' } else { ' ' };
    let cost = match &key.what {
        Ok((cost, local)) => format!("{}{}", cost_text(cost), if *local { " + local key" } else { "" }),
        Err(why) => format!("NOT USABLE: {}", escape::message(why)),
    };
    format!("{mark} {}  {cost:<19}  {time}  {label}", key.id.short())
}

fn cost_text(cost: &KdfCost) -> String {
    format!("{} x {} ({})", human::size(u64::from(cost.memory_kib) << 10), cost.passes, cost.lanes)
}

fn fields(key: &Key, info: Option<&KeyInfo>) -> Map<String, Value> {
    let cost = key.what.as_ref().ok();
    output::object(json!({
        "id": key.id.to_string(), "short_id": key.id.short(), "stored": human::rfc3339(Time::from_seconds(key.stored)),
        "opened": info.is_some(), "label": info.map(|info| &info.label),
        "created": info.map(|info| human::rfc3339(Time::from_seconds(info.created as i64))),
        "memory": cost.map(|(cost, _)| u64::from(cost.memory_kib) << 10), "passes": cost.map(|(cost, _)| cost.passes),
        "lanes": cost.map(|(cost, _)| cost.lanes), "local_key": cost.map(|(_, local)| local),
        "problem": key.what.as_ref().err(),
    }))
}

fn add(args: &AddArgs, out: &mut Output) -> Result<Map<String, Value>> {
    let repo = open_checked(args)?;
    let (id, fields) = add_key(args, &args.new.label, out, &repo)?;
    print(args.output, out, format_args!("added key {}", id.short()))?;
    Ok(fields)
}

fn remove(args: &RemoveArgs, out: &mut Output) -> Result<Map<String, Value>> {
    let repo = to_add_keys(&args.repository, args.output)?;
    let id = find(&repo, &args.id)?;
    repo.remove_key(signals::context(), &id)?;
    print(args.output, out, format_args!("removed key {}; {NO_REVOCATION}", id.short()))?;
    Ok(output::object(json!({ "removed": id.to_string() })))
}

fn import(args: &ImportArgs, out: &mut Output) -> Result<Map<String, Value>> {
    let bytes = paper_key::read(&args.file)?;
    let storage = storage(&args.address, &args.connection, args.output)?;
    let local_key = given_local_key(&args.secret)?;
    let prompt = format!("passphrase of {}: ", args.address.get()?);
    let passphrase = || Given::of(&args.secret).read(&prompt);
    let (id, _) = keys::import(signals::context(), &*storage, &bytes, local_key.as_ref(), passphrase)?;
    print(args.output, out, format_args!("imported key {}", id.short()))?;
    Ok(output::object(json!({ "key": id.to_string() })))
}

/// Checks the source of the new passphrase before it opens the repository.
fn open_checked(args: &AddArgs) -> Result<Repository> {
    args.new.given().check()?;
    args.new.kdf_memory.map(cost).transpose()?;
    to_add_keys(&args.repository, args.output)
}

impl NewKey {
    fn given(&self) -> Given<'_> {
        let (file, command) = (self.new_password_file.as_deref(), self.new_password_command.as_deref());
        Given { option: "new-password", variable: "NFREEZER_NEW_PASSWORD", file, command }
    }
}

fn add_key(args: &AddArgs, label: &str, out: &mut Output, repo: &Repository) -> Result<(ObjectId, Map<String, Value>)> {
    let (_, (before, needed)) =
        repo.read_key(signals::context(), repo.opened_by().0).or_else(|e| match args.repository.key_file {
            // The key file came from paper, and the repository may have none.
            Some(_) => Ok((Vec::new(), (KdfCost::DEFAULT, false))),
            None => Err(e),
        })?;
    let cost = args.new.kdf_memory.map_or(Ok(before), cost)?;
    let local_key = new_local_key(args, out, needed)?;
    let (passphrase, generated) = args.new.given().read_new(args.new.generate_passphrase)?;
    let passphrase = passphrase.with_local_key(local_key);
    reveal(out, generated.as_ref())?;
    let id = repo.add_key(signals::context(), Unlock { passphrase: &passphrase, cost, label })?;
    let mut fields = output::object(json!({ "added": id.to_string() }));
    fields.extend(revealed(generated.as_ref()));
    Ok((id, fields))
}

/// Returns the local key of the new key file; `needed`: the key file that was opened needs one.
fn new_local_key(args: &AddArgs, out: &mut Output, needed: bool) -> Result<Option<LocalKey>> {
    let secret = &args.repository.secret;
    if let Some(path) = &args.new.new_local_key {
        return read_or_make_local_key(args.output, out, path).map(Some);
    }
    if args.new.without_local_key || !(needed || secret.local_key.is_some()) {
        return Ok(None);
    }
    given_local_key(secret)
}

/// Prints a generated passphrase, this once, before anything is protected by it. Fails if it cannot be printed.
pub fn reveal(out: &mut Output, generated: Option<&Zeroizing<String>>) -> Result<()> {
    let Some(text) = generated else { return Ok(()) };
    if output::leads_nowhere() {
        let text = "standard output is closed or leads to /dev/null: the generated passphrase would be lost";
        return Err(Error::failed(text).hint("nothing was changed; let standard output lead to a terminal or a file"));
    }
    out.line(format_args!("passphrase: {}", text.as_str()))?;
    out.line("write it down now, it is not shown again")?;
    out.object("passphrase", revealed(Some(text)))?;
    out.flush()
}

/// Returns the field of a generated passphrase, if there is one.
pub fn revealed(generated: Option<&Zeroizing<String>>) -> Map<String, Value> {
    generated.map(|text| output::object(json!({ "passphrase": text.as_str() }))).unwrap_or_default()
}

/// Reads a local key. Creates one, and reports that, if the file does not exist.
pub fn read_or_make_local_key(output: OutputArgs, out: &mut Output, path: &Path) -> Result<LocalKey> {
    let (key, made) = local_key::read_or_make(path)?;
    if made {
        let name = escape::path(path);
        print(
            output,
            out,
            format_args!("made the local key {name}: keep copies of it, away from the server; without it all is lost"),
        )?;
    }
    Ok(key)
}

/// Adds a key file, then removes the old one. At every moment one of them opens the repository.
fn passwd(args: &AddArgs, out: &mut Output) -> Result<Map<String, Value>> {
    let repo = open_checked(args)?;
    let (old, info) = repo.opened_by();
    let label = if args.new.label.is_empty() { &info.label } else { &args.new.label };
    let (id, mut fields) = add_key(args, label, out, &repo)?;
    out.flush()?;
    let short = id.short();
    repo.remove_key(signals::context(), old).map_err(|e| {
        let hint = e.hint_text().unwrap_or("the old passphrase still opens the repository").to_owned();
        e.while_doing(format_args!("the new passphrase opens the repository (key {short}), but so does the old one"))
            .hint(hint)
    })?;
    print(args.output, out, format_args!("added key {short} and removed key {}; {NO_REVOCATION}", old.short()))?;
    fields.insert("removed".into(), old.to_string().into());
    Ok(fields)
}

/// Returns the key file that an id, or its first digits, names.
fn find(repo: &Repository, text: &str) -> Result<ObjectId> {
    let wanted = text.to_ascii_lowercase();
    if wanted.len() < 4 || !wanted.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(no_key(format!("{} is not the id of a key: 4 or more digits", escape::text(text.as_bytes()))));
    }
    let keys = repo.key_files(signals::context())?;
    let found: Vec<_> = keys.iter().filter(|key| key.id.to_string().starts_with(&wanted)).collect();
    match found.as_slice() {
        [key] => Ok(key.id),
        [] => Err(no_key(format!("the repository has no key {wanted}"))),
        _ => Err(no_key(format!("{} keys begin with {wanted}", found.len()))),
    }
}

fn no_key(text: String) -> Error {
    Error::new(Kind::Usage, text).hint("`nfreezer key list` shows the keys")
}

fn export(args: &ExportArgs, out: &mut Output) -> Result<Map<String, Value>> {
    let repo = to_read(&args.repository, args.output)?;
    let id = args.id.as_deref().map(|id| find(&repo, id)).transpose()?.unwrap_or(*repo.opened_by().0);
    let (file, (cost, local)) = repo.read_key(signals::context(), &id)?;
    let info = Some(repo.opened_by()).filter(|(opened, _)| **opened == id).map(|(_, info)| info);
    let heading = paper_key::Heading {
        address: escape::text(repo.storage().address().as_bytes()),
        repository: hex(&repo.id().0),
        key: id.short(),
        label: info.map(|info| escape::text(info.label.as_bytes())).unwrap_or_default(),
        made: info.map(|info| human::time(Time::from_seconds(info.created as i64))),
        cost: cost_text(&cost),
        local,
    };
    let text = paper_key::text(&heading, &file)?;
    match &args.file {
        Some(path) => {
            write_new(path, &text)?;
            let name = escape::path(path);
            print(args.output, out, format_args!("wrote key {} to {name}: print it", id.short()))?;
        }
        None => text.lines().try_for_each(|line| out.line(line))?,
    }
    let (text, lines) = (paper_key::code_text(&file), paper_key::lines(&file));
    Ok(output::object(json!({ "key": id.to_string(), "text": text, "lines": lines })))
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|e| Error::io(format!("write {}", escape::path(path)), e))
}

/// Returns the cost of Argon2 with this much memory.
pub fn cost(memory: u64) -> Result<KdfCost> {
    let wrong = || {
        let text = format!("--kdf-memory is {}, but must be 64M to 2G", human::size(memory));
        Error::new(Kind::Usage, text).hint("for example --kdf-memory 256M")
    };
    let memory_kib = u32::try_from(memory >> 10).map_err(|_| wrong())?;
    let cost = KdfCost { memory_kib, ..KdfCost::DEFAULT };
    cost.check().map(|()| cost).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_stays_within_what_a_key_file_may_ask_for() {
        assert_eq!(cost(64 << 20).unwrap(), KdfCost::DEFAULT);
        assert_eq!(cost(2 << 30).unwrap().memory_kib, 2 << 20);
        for bad in [0, (64 << 20) - 1, (2 << 30) + 1024, u64::MAX] {
            assert_eq!(cost(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
