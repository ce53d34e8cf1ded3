//! Where the passphrase comes from: a file, a command, the environment, or the person at the terminal. Never from the
//! command line, where every user of the machine could read it. Two sources at once are refused: nobody could tell which
//! one counts.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::{Common, key, show};
use crate::crypto::secret::Passphrase;
use crate::error::{Error, Kind, Result};
use crate::storage::Prompt;

/// Longest passphrase in bytes, so that a wrong file name does not fill the memory.
const LONGEST: u64 = 64 << 10;

enum Source {
    File(PathBuf),
    Command(String),
    Text(&'static str, Zeroizing<String>),
}

/// The passphrase of an existing repository.
pub fn of_repository(common: &Common) -> Result<Passphrase> {
    match Given::of(common).source()? {
        Some(source) => read(source),
        None => ask(&format!("passphrase of {}: ", common.repository()?), &Given::of(common)),
    }
}

/// The passphrase of a new repository, and its text if it was made here.
pub fn of_new_repository(common: &Common, make: bool) -> Result<(Passphrase, Option<Zeroizing<String>>)> {
    new(&Given::of(common), make)
}

/// A new passphrase: who types it types it twice, and who types nothing is offered one.
pub fn new(given: &Given<'_>, make: bool) -> Result<(Passphrase, Option<Zeroizing<String>>)> {
    if make {
        return key::generate().map(|(passphrase, text)| (passphrase, Some(text)));
    }
    if let Some(source) = given.source()? {
        return Ok((read(source)?, None));
    }
    let typed = type_in("new passphrase (nothing: one is made for you): ", given)?;
    let first = match Passphrase::new(typed) {
        Some(first) => first,
        None => {
            let (first, text) = key::generate()?;
            Terminal.show(&format!("passphrase: {}\r\nwrite it down now, it is not shown again", text.as_str()))?;
            first
        }
    };
    let second = ask("the same again: ", given)?;
    if first.expose() != second.expose() {
        return Err(Error::new(Kind::Usage, "the two passphrases differ").hint("nothing was changed; try again"));
    }
    Ok((first, None))
}

/// The passphrase of a repository of the Python nFreezer, by options and variables of its own.
pub fn of_old_repository(given: &Given<'_>, address: &str) -> Result<Passphrase> {
    match given.source()? {
        Some(source) => read(source),
        None => ask(&format!("passphrase of the old repository {address}: "), given),
    }
}

/// Refuses two sources before anything is connected.
pub fn check_sources(common: &Common) -> Result<()> {
    Given::of(common).check()
}

/// What the command line says about one passphrase, and how the options and variables for it are named.
pub struct Given<'g> {
    /// `--{option}-file`, `--{option}-command`
    pub option: &'static str,
    /// The variable that holds it; `_FILE` and `_COMMAND` behind it name the others.
    pub variable: &'static str,
    /// The file that was given.
    pub file: Option<&'g Path>,
    /// The command that was given.
    pub command: Option<&'g str>,
}

impl<'g> Given<'g> {
    fn of(common: &'g Common) -> Self {
        let (file, command) = (common.password_file.as_deref(), common.password_command.as_deref());
        Given { option: "password", variable: "NFREEZER_PASSWORD", file, command }
    }

    /// Refuses two sources.
    pub fn check(&self) -> Result<()> {
        self.source().map(drop)
    }

    fn source(&self) -> Result<Option<Source>> {
        let Given { option, variable, file, command } = *self;
        let utf8 = |what: &str, value: &OsStr| {
            value.to_str().map(str::to_owned).ok_or_else(|| Error::new(Kind::Usage, format!("{what} is not UTF-8")))
        };
        let mut found: Vec<(String, Source)> = Vec::new();
        if let Some(path) = file {
            found.push((format!("--{option}-file"), Source::File(path.into())));
        }
        if let Some(command) = command {
            found.push((format!("--{option}-command"), Source::Command(command.into())));
        }
        // Options win over the environment.
        let options = !found.is_empty();
        let env = |name: &str| std::env::var_os(name).filter(|value| !options && !value.is_empty());
        if let Some(value) = env(variable) {
            found.push((variable.into(), Source::Text(variable, utf8(variable, &value)?.into())));
        }
        let name = format!("{variable}_FILE");
        if let Some(value) = env(&name) {
            found.push((name, Source::File(value.into())));
        }
        let name = format!("{variable}_COMMAND");
        if let Some(value) = env(&name) {
            let command = utf8(&name, &value)?;
            found.push((name, Source::Command(command)));
        }
        if found.len() > 1 {
            let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
            let text = format!("the passphrase has more than one source: {}", names.join(", "));
            return Err(Error::new(Kind::Usage, text).hint("give one of them"));
        }
        Ok(found.pop().map(|(_, source)| source))
    }
}

fn read(source: Source) -> Result<Passphrase> {
    match source {
        Source::Text(name, text) => checked(Zeroizing::new(text.as_bytes().to_vec()), name),
        Source::File(path) => {
            let name = format!("the passphrase file {}", show::text(path.as_os_str().as_encoded_bytes()));
            let bytes = read_private(&path).map_err(|e| {
                Error::new(Kind::Usage, format!("cannot read {name}: {e}"))
                    .hint("nothing was done; give the file that holds the passphrase")
            })?;
            if bytes.ends_with(b"\r\n") {
                show::notice(format_args!(
                    "nfreezer: warning: {name} ends with CRLF, as Windows writes lines: the CR counts as a part of the passphrase"
                ));
            }
            checked(without_newline(bytes), &name)
        }
        Source::Command(command) => checked(without_newline(run(&command)?), "the output of the passphrase command"),
    }
}

/// A small secret file; warns if other users may read it.
pub fn read_private(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        let name = show::text(path.as_os_str().as_encoded_bytes());
        show::notice(format_args!("nfreezer: warning: other users of this machine may read {name} (chmod 600 helps)"));
    }
    bounded(file)
}

fn run(command: &str) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |e| Error::io("run the passphrase command", e);
    let mut child = Command::new("/bin/sh").arg("-c").arg(command).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let output = child.stdout.take().map(bounded).transpose();
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(Error::failed(format!("the passphrase command failed: {status}")));
    }
    Ok(output.map_err(failed)?.unwrap_or_default())
}

fn bounded(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Reserved at once: a growing vector would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
    from.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than 64 KiB"));
    }
    Ok(bytes)
}

fn without_newline(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    bytes
}

fn checked(bytes: Zeroizing<Vec<u8>>, name: &str) -> Result<Passphrase> {
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::new(Kind::Usage, format!("{name} is not UTF-8")))?;
    Passphrase::new(text.to_owned()).ok_or_else(|| Error::new(Kind::Usage, format!("{name} is empty")))
}

fn ask(text: &str, given: &Given<'_>) -> Result<Passphrase> {
    let typed = type_in(text, given)?;
    Passphrase::new(typed).ok_or_else(|| Error::new(Kind::Usage, "an empty passphrase protects nothing"))
}

fn type_in(text: &str, given: &Given<'_>) -> Result<String> {
    let Given { option, variable, .. } = given;
    Terminal.secret(text).map_err(|e| match e.kind() {
        Kind::Interrupted(_) => e,
        _ => Error::new(Kind::Usage, format!("there is no passphrase, and {e}"))
            .hint(format!("give --{option}-file, --{option}-command, or {variable}, _FILE or _COMMAND")),
    })
}

/// Asks at `/dev/tty`, without echo. What is asked may hold the words of a server.
pub struct Terminal;

impl Terminal {
    /// Shows a secret on the terminal itself, not in what may be redirected.
    fn show(&self, text: &str) -> Result<()> {
        let tty = File::options().write(true).open("/dev/tty");
        let shown = tty.and_then(|mut tty| tty.write_all(format!("{text}\r\n").as_bytes()));
        shown.map_err(|e| Error::io("show the passphrase on the terminal", e))
    }
}

impl Prompt for Terminal {
    fn secret(&self, text: &str) -> Result<String> {
        rpassword::prompt_password(format!("nfreezer: {}", show::message(text))).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => Error::new(Kind::Interrupted(2), "interrupted"),
            _ => Error::new(Kind::Failed, format!("nobody can be asked for it: {e}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_newline_is_taken_off_and_nothing_else() {
        let strip = |text: &[u8]| without_newline(Zeroizing::new(text.to_vec())).to_vec();
        assert_eq!(strip(b"a\n"), b"a");
        assert_eq!(strip(b" a \n\n"), b" a \n");
        assert_eq!(strip(b"a"), b"a");
        assert_eq!(strip(b"\n"), b"");
    }

    #[test]
    fn empty_or_endless_is_refused() {
        assert_eq!(checked(Zeroizing::default(), "x").unwrap_err().kind(), Kind::Usage);
        assert_eq!(checked(Zeroizing::new(vec![0xff]), "x").unwrap_err().kind(), Kind::Usage);
        assert!(bounded(io::repeat(b'a')).is_err());
    }
}
