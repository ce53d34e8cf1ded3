//! `nfreezer key`: the key files of a repository, each of which opens it with a passphrase of its own.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::access::{self, make_local_key};
use super::common::{Common, open_repository, open_storage, open_to_write, size};
use super::passphrase::{self, Given};
use super::show::{self, Output};
use super::{OK, paper_key, signals};
use crate::crypto::kdf::KdfCost;
use crate::crypto::keys::LocalKey;
use crate::crypto::secret::Passphrase;
use crate::error::{Error, Kind, Result};
use crate::name::{ObjectId, hex};
use crate::repo::keys::{self, Key};
use crate::repo::{Repository, Unlock};
use crate::time::Time;

/// What nobody should believe.
const NO_REVOCATION: &str = "who kept a copy of the removed key file (the server may have) can still open the repository with its \
    passphrase, now and later: removing it revokes nothing";

/// Arguments of `key`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the key files
    List,
    /// Add a key file with another passphrase
    Add(New),
    /// Remove a key file
    Remove {
        /// Its id, or how it begins
        id: String,
    },
    /// Change the passphrase: add a key file with the new one, then remove the one that was opened
    Passwd(New),
    /// Make a page to print: the key file as text and as a QR code
    Export {
        /// The id of a key file, or how it begins; without it the one that the passphrase opens
        id: Option<String>,
        /// Write it to a new file instead of standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Bring an exported key file back to a repository that has lost it
    Import {
        /// The page, its lines typed in, the text of its QR code, or the key file itself
        file: PathBuf,
    },
}

/// What a new key file is made of.
#[derive(clap::Args)]
struct New {
    /// What to call it, at most 63 bytes
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// A file that holds the new passphrase [env: NFREEZER_NEW_PASSWORD_FILE; the passphrase itself: NFREEZER_NEW_PASSWORD]
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// A shell command that prints the new passphrase [env: NFREEZER_NEW_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND")]
    new_password_command: Option<String>,
    /// Make a passphrase that cannot be guessed and print it once
    #[arg(long, conflicts_with_all = ["new_password_file", "new_password_command"])]
    generate_passphrase: bool,
    /// Memory that opening needs with it, and that each guess costs: 64M to 2G; as before without it
    #[arg(long, value_name = "SIZE", value_parser = size)]
    kdf_memory: Option<u64>,
    /// A local key that the new key file needs (made if it is not there), instead of the one of --local-key
    #[arg(long, value_name = "FILE", conflicts_with = "without_local_key")]
    new_local_key: Option<PathBuf>,
    /// The new key file needs no local key
    #[arg(long)]
    without_local_key: bool,
}

/// Runs one of them.
pub fn run(common: &Common, args: &Args) -> Result<u8> {
    let mut out = Output::new(common.json);
    let fields = match &args.command {
        Command::List => list(common, &mut out)?,
        Command::Add(new) => {
            let repo = open_checked(common, new)?;
            let (id, fields) = add(common, &mut out, &repo, new)?;
            say(common, &mut out, format_args!("added key {}", id.short()))?;
            fields
        }
        Command::Remove { id } => {
            let repo = open_to_write(common, false)?;
            let id = find(&repo, id)?;
            repo.remove_key(signals::context(), &id)?;
            say(common, &mut out, format_args!("removed key {}; {NO_REVOCATION}", id.short()))?;
            show::object(json!({ "removed": id.to_string() }))
        }
        Command::Passwd(new) => passwd(common, &mut out, new)?,
        Command::Export { id, output } => export(common, &mut out, id.as_deref(), output.as_ref())?,
        Command::Import { file } => {
            let bytes = paper_key::read(file)?;
            let storage = open_storage(common)?;
            let local_key = access::access(common)?.local_key;
            let passphrase = || passphrase::of_repository(common);
            let (id, _) = keys::import(signals::context(), &*storage, &bytes, local_key.as_ref(), passphrase)?;
            say(common, &mut out, format_args!("key {} is in its place again", id.short()))?;
            show::object(json!({ "key": id.to_string() }))
        }
    };
    out.object("summary", fields)?;
    out.flush().map(|()| OK)
}

fn say(common: &Common, out: &mut Output, line: std::fmt::Arguments<'_>) -> Result<()> {
    if common.quiet { Ok(()) } else { out.line(line) }
}

fn list(common: &Common, out: &mut Output) -> Result<Map<String, Value>> {
    let repo = open_repository(common)?;
    let keys = repo.key_files(signals::context())?;
    let (opened, info) = repo.opened_by();
    out.line("  ID        Cost                 Stored               Label")?;
    for key in &keys {
        let mine = key.id == *opened;
        let label = if mine { show::text(info.label.as_bytes()) } else { String::new() };
        let (time, mark) = match mine {
            true => (show::time(Time::from_seconds(info.created as i64)), '*'),
            false => (show::time(Time::from_seconds(key.stored)), ' '),
        };
        let cost = match &key.what {
            Ok((cost, local)) => format!("{}{}", show_cost(cost), if *local { " + local key" } else { "" }),
            Err(why) => format!("NOT USABLE: {}", show::message(why)),
        };
        out.line(format_args!("{mark} {}  {cost:<19}  {time}  {label}", key.id.short()).to_string().trim_end())?;
        out.object("key", fields(key, mine.then_some(info)))?;
    }
    out.line("* opened by this passphrase; labels of the others are readable with their passphrases only")?;
    Ok(show::object(json!({ "keys": keys.len(), "opened": opened.to_string() })))
}

fn show_cost(cost: &KdfCost) -> String {
    format!("{} x {} ({})", show::size(u64::from(cost.memory_kib) << 10), cost.passes, cost.lanes)
}

fn fields(key: &Key, info: Option<&crate::format::keyfile::KeyInfo>) -> Map<String, Value> {
    let cost = key.what.as_ref().ok();
    show::object(json!({
        "id": key.id.to_string(), "short_id": key.id.short(), "stored": show::rfc3339(Time::from_seconds(key.stored)),
        "opened": info.is_some(), "label": info.map(|info| &info.label),
        "created": info.map(|info| show::rfc3339(Time::from_seconds(info.created as i64))),
        "memory": cost.map(|(cost, _)| u64::from(cost.memory_kib) << 10), "passes": cost.map(|(cost, _)| cost.passes),
        "lanes": cost.map(|(cost, _)| cost.lanes), "local_key": cost.map(|(_, local)| local),
        "problem": key.what.as_ref().err(),
    }))
}

/// Opens the repository when it is known where the new passphrase comes from.
fn open_checked(common: &Common, new: &New) -> Result<Repository> {
    new.given().check()?;
    new.kdf_memory.map(cost).transpose()?;
    open_to_write(common, false)
}

impl New {
    fn given(&self) -> Given<'_> {
        let (file, command) = (self.new_password_file.as_deref(), self.new_password_command.as_deref());
        Given { option: "new-password", variable: "NFREEZER_NEW_PASSWORD", file, command }
    }
}

fn add(common: &Common, out: &mut Output, repo: &Repository, new: &New) -> Result<(ObjectId, Map<String, Value>)> {
    let (_, (before, needed)) =
        repo.read_key(signals::context(), repo.opened_by().0).or_else(|e| match common.access.key_file {
            // It came from paper, and the repository has none that could be looked at.
            Some(_) => Ok((Vec::new(), (KdfCost::DEFAULT, false))),
            None => Err(e),
        })?;
    let cost = new.kdf_memory.map_or(Ok(before), cost)?;
    let local_key = match (&new.new_local_key, new.without_local_key) {
        (Some(path), _) => Some(local_key(common, out, path)?),
        (None, true) => None,
        (None, false) => access::access(common)?.local_key.filter(|_| needed || common.access.local_key.is_some()),
    };
    let (passphrase, generated) = passphrase::new(&new.given(), new.generate_passphrase)?;
    let passphrase = passphrase.with_local_key(local_key);
    let unlock = Unlock { passphrase: &passphrase, cost, label: &new.label };
    let id = repo.add_key(signals::context(), unlock)?;
    let mut fields = show::object(json!({ "added": id.to_string() }));
    reveal(out, &mut fields, generated)?;
    Ok((id, fields))
}

/// Shows a passphrase that was made, this once.
pub fn reveal(out: &mut Output, fields: &mut Map<String, Value>, made: Option<Zeroizing<String>>) -> Result<()> {
    let Some(made) = made else { return Ok(()) };
    out.line(format_args!("passphrase: {}", made.as_str()))?;
    out.line("write it down now, it is not shown again")?;
    fields.insert("passphrase".into(), made.as_str().into());
    Ok(())
}

/// A local key, and a word about it if it is new.
pub fn local_key(common: &Common, out: &mut Output, path: &std::path::Path) -> Result<LocalKey> {
    let (key, made) = make_local_key(path)?;
    if made && !common.quiet {
        let name = show::text(path.as_os_str().as_encoded_bytes());
        out.line(format_args!(
            "made the local key {name}: keep copies of it, away from the server; without it nothing can be read"
        ))?;
    }
    Ok(key)
}

/// Adds, then removes: whatever happens in between, one of them opens the repository.
fn passwd(common: &Common, out: &mut Output, new: &New) -> Result<Map<String, Value>> {
    let repo = open_checked(common, new)?;
    let (old, info) = repo.opened_by();
    let label = if new.label.is_empty() { info.label.clone() } else { new.label.clone() };
    let new = New { label, ..new.copied() };
    let (id, mut fields) = add(common, out, &repo, &new)?;
    out.flush()?;
    let short = id.short();
    repo.remove_key(signals::context(), old).map_err(|e| {
        let hint = e.hint_text().unwrap_or("the old passphrase still opens the repository").to_owned();
        e.while_doing(format_args!("the new passphrase opens the repository (key {short}), but so does the old one"))
            .hint(hint)
    })?;
    say(common, out, format_args!("added key {short} and removed key {}; {NO_REVOCATION}", old.short()))?;
    fields.insert("removed".into(), old.to_string().into());
    Ok(fields)
}

impl New {
    fn copied(&self) -> New {
        New {
            label: self.label.clone(),
            new_password_file: self.new_password_file.clone(),
            new_password_command: self.new_password_command.clone(),
            new_local_key: self.new_local_key.clone(),
            ..*self
        }
    }
}

/// The key file that an id or its beginning names.
fn find(repo: &Repository, text: &str) -> Result<ObjectId> {
    let wanted = text.to_ascii_lowercase();
    let usage = |text: String| Error::new(Kind::Usage, text).hint("`nfreezer key list` shows them");
    if wanted.len() < 4 || !wanted.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(usage("a key is named by 4 or more digits of its id".into()));
    }
    let keys = repo.key_files(signals::context())?;
    let found: Vec<_> = keys.iter().filter(|key| key.id.to_string().starts_with(&wanted)).collect();
    match found.as_slice() {
        [key] => Ok(key.id),
        [] => Err(usage(format!("there is no key {wanted}"))),
        _ => Err(usage(format!("{} keys begin with {wanted}", found.len()))),
    }
}

fn export(common: &Common, out: &mut Output, id: Option<&str>, output: Option<&PathBuf>) -> Result<Map<String, Value>> {
    let repo = open_repository(common)?;
    let id = id.map(|id| find(&repo, id)).transpose()?.unwrap_or(*repo.opened_by().0);
    let (file, (cost, local)) = repo.read_key(signals::context(), &id)?;
    let mine = Some(repo.opened_by()).filter(|(opened, _)| **opened == id).map(|(_, info)| info);
    let heading = paper_key::Heading {
        address: show::text(repo.storage().address().as_bytes()),
        repository: hex(&repo.id().0),
        key: id.short(),
        label: mine.map(|info| show::text(info.label.as_bytes())).unwrap_or_default(),
        made: mine.map(|info| show::time(Time::from_seconds(info.created as i64))),
        cost: show_cost(&cost),
        local,
    };
    let text = paper_key::text(&heading, &file)?;
    match output {
        Some(path) => {
            let name = show::text(path.as_os_str().as_encoded_bytes());
            let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let written = new.and_then(|mut new| new.write_all(text.as_bytes()).and_then(|()| new.sync_all()));
            written.map_err(|e| Error::io(format!("write {name}"), e))?;
            say(common, out, format_args!("wrote key {} to {name}: print it", id.short()))?;
        }
        None => text.lines().try_for_each(|line| out.line(line))?,
    }
    Ok(show::object(
        json!({ "key": id.to_string(), "text": paper_key::code_text(&file), "lines": paper_key::lines(&file) }),
    ))
}

/// Argon2's cost with this much memory.
pub fn cost(memory: u64) -> Result<KdfCost> {
    let wrong = || Error::new(Kind::Usage, "--kdf-memory must be 64M to 2G");
    let memory_kib = u32::try_from(memory >> 10).map_err(|_| wrong())?;
    let cost = KdfCost { memory_kib, ..KdfCost::DEFAULT };
    cost.check().map(|()| cost).map_err(|_| wrong())
}

/// Random digits that nobody guesses: 125 bits, in groups of five.
pub fn generate() -> Result<(Passphrase, Zeroizing<String>)> {
    let random = Zeroizing::new(crate::repo::random::<16>()?);
    let digits = Zeroizing::new(paper_key::encode(random.as_slice()).to_ascii_lowercase());
    let groups: Vec<&str> = (0..5).map(|i| &digits[5 * i..5 * i + 5]).collect();
    let text = Zeroizing::new(groups.join("-"));
    let passphrase = Passphrase::new(text.to_string()).ok_or_else(|| Error::failed("no random digits"))?;
    Ok((passphrase, text))
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

    #[test]
    fn a_made_passphrase_has_125_random_bits_that_can_be_typed() {
        let made: std::collections::HashSet<String> = (0..100).map(|_| generate().unwrap().1.to_string()).collect();
        assert_eq!(made.len(), 100);
        for text in &made {
            assert_eq!((text.len(), text.matches('-').count()), (29, 4), "{text}");
            assert!(
                text.bytes()
                    .all(|c| c == b'-' || c.is_ascii_digit() || c.is_ascii_lowercase() && !b"ilou".contains(&c)),
                "{text}"
            );
        }
    }
}
