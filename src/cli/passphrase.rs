//! Reads passphrases from a file, a command, the environment, or the terminal. The command line is no source: every user of
//! the machine can read it. Two sources at once are refused, because it would not be clear which one counts.

use std::ffi::OsStr;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::environment::variable;
use super::options::{Role, SecretArgs};
use super::private_files::{read_private, read_secret};
use super::terminal::Terminal;
use super::{escape, generated, output, standard};
use crate::crypto::secret::Passphrase;
use crate::error::{Error, Kind, Result};
use crate::storage::Prompt;

enum Source {
    /// A file, and the option or variable that names it.
    File(PathBuf, String),
    Command(String),
    Text(&'static str, Zeroizing<String>),
}

/// The options and variables of one passphrase, with their values.
pub struct Given<'g> {
    /// `--{option}-file`, `--{option}-command`
    pub option: &'static str,
    /// The variable with the passphrase itself; with `_FILE` and `_COMMAND` appended, the other two.
    pub variable: &'static str,
    /// The value of the file option.
    pub file: Option<&'g Path>,
    /// The value of the command option.
    pub command: Option<&'g str>,
}

impl<'g> Given<'g> {
    /// Returns the sources of the repository's passphrase.
    pub fn of(secret: &'g SecretArgs) -> Self {
        let (file, command) = (secret.password_file.as_deref(), secret.password_command.as_deref());
        match secret.role {
            Role::Main | Role::Alone => Given { option: "password", variable: "NFREEZER_PASSWORD", file, command },
            Role::Target => Given { option: "to-password", variable: "NFREEZER_TO_PASSWORD", file, command },
        }
    }

    /// Refuses two sources, before anything is connected.
    pub fn check(&self) -> Result<()> {
        self.source().map(drop)
    }

    /// Reports whether the passphrase is typed at the terminal.
    pub fn is_typed(&self) -> Result<bool> {
        self.source().map(|source| source.is_none())
    }

    /// Reads the passphrase of something that exists, or prompts for it with `text`.
    pub fn read(&self, text: &str) -> Result<Passphrase> {
        match self.source()? {
            Some(source) => read(source),
            None => ask(text, self),
        }
    }

    /// Reads a new passphrase. It is typed twice; if nothing is typed, one is generated and shown. With `generate` it is
    /// generated and returned as text.
    pub fn read_new(&self, generate: bool) -> Result<(Passphrase, Option<Zeroizing<String>>)> {
        if generate {
            return generated::generate().map(|(passphrase, text)| (passphrase, Some(text)));
        }
        match self.source()? {
            Some(source) => Ok((read(source)?, None)),
            None => Ok((type_new(self)?, None)),
        }
    }

    /// Returns the only source; options win over the environment.
    fn source(&self) -> Result<Option<Source>> {
        let mut found = self.given_options();
        if found.is_empty() {
            found = self.given_variables()?;
        }
        if found.len() > 1 {
            let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
            let text = format!("the passphrase has more than one source: {}", names.join(", "));
            return Err(Error::new(Kind::Usage, text).hint("give one of them"));
        }
        let source = found.pop().map(|(_, source)| source);
        if let Some(Source::File(path, name)) = &source
            && standard::is_input_path(path)
        {
            standard::check_claim(&standard::named(name, path))?;
        }
        Ok(source)
    }

    fn given_options(&self) -> Vec<(String, Source)> {
        let option = format!("--{}-file", self.option);
        let file = self.file.map(|path| (option.clone(), Source::File(path.into(), option)));
        let command = |command: &str| (format!("--{}-command", self.option), Source::Command(command.into()));
        file.into_iter().chain(self.command.map(command)).collect()
    }

    fn given_variables(&self) -> Result<Vec<(String, Source)>> {
        let mut found = Vec::new();
        if let Some(value) = variable(self.variable) {
            found.push((self.variable.into(), Source::Text(self.variable, utf8(self.variable, &value)?.into())));
        }
        let name = format!("{}_FILE", self.variable);
        if let Some(value) = variable(&name) {
            found.push((name.clone(), Source::File(value.into(), name)));
        }
        let name = format!("{}_COMMAND", self.variable);
        if let Some(value) = variable(&name) {
            let command = utf8(&name, &value)?;
            found.push((name, Source::Command(command)));
        }
        Ok(found)
    }
}

fn utf8(name: &str, value: &OsStr) -> Result<String> {
    value.to_str().map(str::to_owned).ok_or_else(|| Error::new(Kind::Usage, format!("{name} is not UTF-8")))
}

fn type_new(given: &Given<'_>) -> Result<Passphrase> {
    let typed = type_in("new passphrase (press Enter to generate one): ", given)?;
    let first = match Passphrase::new(typed) {
        Some(first) => first,
        None => {
            let (first, text) = generated::generate()?;
            Terminal.show(&format!("passphrase: {}\r\nwrite it down now, it is not shown again", text.as_str()))?;
            first
        }
    };
    let second = ask("the same again: ", given)?;
    let respelled = respelled(&second);
    if first.expose() == second.expose() || respelled.is_some_and(|second| first.expose() == second.expose()) {
        return Ok(first);
    }
    Err(Error::new(Kind::Usage, "the two passphrases differ").hint("nothing was changed; run the command again"))
}

/// Returns a generated passphrase as it was printed, if this is one with other letter case or separators.
pub fn respelled(passphrase: &Passphrase) -> Option<Passphrase> {
    let text = std::str::from_utf8(passphrase.expose()).ok()?;
    generated::canonical(text).and_then(|text| Passphrase::new(text.to_string()))
}

fn read(source: Source) -> Result<Passphrase> {
    match source {
        Source::Text(name, text) => checked(Zeroizing::new(text.as_bytes().to_vec()), name),
        Source::File(path, name) => read_file(&path, &name),
        Source::Command(command) => stored(run(&command)?, "the output of the passphrase command"),
    }
}

/// `source`: the option or variable that names the file.
fn read_file(path: &Path, source: &str) -> Result<Passphrase> {
    if standard::is_input_path(path) {
        standard::claim_input_again(&standard::named(source, path))?;
    }
    let name = format!("the passphrase file {}", escape::path(path));
    let bytes = read_private(path).map_err(|e| {
        Error::new(Kind::Usage, format!("cannot read {name}: {e}"))
            .hint("nothing was done; give the file that holds the passphrase")
    })?;
    stored(bytes, &name)
}

/// Returns the passphrase of a file or a command, without the newline at its end. Bytes that are easily overlooked there cause a
/// warning, and are used as they are.
fn stored(bytes: Zeroizing<Vec<u8>>, name: &str) -> Result<Passphrase> {
    let bytes = without_newline(bytes);
    if let Some(oddity) = oddity(&bytes) {
        output::notice(format_args!("nfreezer: warning: {name} {oddity} as a part of the passphrase"));
    }
    checked(bytes, name)
}

/// Describes bytes of a passphrase that are easily overlooked in a file or in the output of a command.
fn oddity(passphrase: &[u8]) -> Option<&'static str> {
    if passphrase.starts_with(b"\xef\xbb\xbf") {
        return Some("begins with a byte order mark, as Windows writes files: the mark counts");
    }
    if passphrase.ends_with(b"\r") {
        return Some("ends with CRLF, as Windows writes lines: the CR counts");
    }
    if passphrase.contains(&b'\n') {
        return Some("has several lines: all of them count");
    }
    if passphrase.contains(&0) {
        return Some("holds a NUL, which no keyboard can type: it counts");
    }
    let has_blank = |end: Option<&u8>| end.is_some_and(u8::is_ascii_whitespace);
    let is_padded = has_blank(passphrase.first()) || has_blank(passphrase.last());
    is_padded.then_some("begins or ends with a blank: the blank counts")
}

fn run(command: &str) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |e| Error::io("run the passphrase command", e);
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdout(Stdio::piped());
    if standard::is_claimed() {
        // The command would take the bytes that another option reads.
        shell.stdin(Stdio::null());
    }
    let mut child = shell.spawn().map_err(failed)?;
    let output = child.stdout.take().map(read_secret).transpose();
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(Error::failed(format!("the passphrase command failed: {status}"))
            .hint("run it in a shell to see why; it is the value of --password-command or NFREEZER_PASSWORD_COMMAND"));
    }
    Ok(output.map_err(failed)?.unwrap_or_default())
}

fn without_newline(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    bytes
}

/// Makes a passphrase of these bytes. Errors call their source `name`.
fn checked(bytes: Zeroizing<Vec<u8>>, name: &str) -> Result<Passphrase> {
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::new(Kind::Usage, format!("{name} is not UTF-8")))?;
    Passphrase::new(text.to_owned()).ok_or_else(|| Error::new(Kind::Usage, format!("{name} is empty")))
}

fn ask(text: &str, given: &Given<'_>) -> Result<Passphrase> {
    let typed = type_in(text, given)?;
    Passphrase::new(typed).ok_or_else(|| {
        Error::new(Kind::Usage, "the passphrase is empty: it would protect nothing").hint("run the command again")
    })
}

fn type_in(text: &str, given: &Given<'_>) -> Result<String> {
    let Given { option, variable, .. } = given;
    Terminal.secret(text).map_err(|e| match e.kind() {
        Kind::Interrupted(_) => e,
        _ => Error::new(Kind::Usage, format!("no passphrase is given, and {e}")).hint(format!(
            "use --{option}-file or --{option}-command, or set {variable}, {variable}_FILE or {variable}_COMMAND"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_easily_overlooked_in_a_passphrase_is_named() {
        let cases: [(&[u8], &str); 7] = [
            (b"\xef\xbb\xbfpw", "byte order mark"),
            (b"pw\r", "CRLF"),
            (b"pw\n", "several lines"),
            (b"pw\n# note", "several lines"),
            (b"p\0w", "NUL"),
            (b"pw ", "blank"),
            (b"\tpw", "blank"),
        ];
        for (passphrase, word) in cases {
            let found = oddity(passphrase).unwrap_or_default();
            assert!(found.contains(word), "{passphrase:?}: {found}");
        }
        for usual in [&b"pw"[..], b"correct horse", "p\u{fc}w".as_bytes(), b""] {
            assert_eq!(oddity(usual), None, "{usual:?}");
        }
    }

    #[test]
    fn exactly_one_newline_is_taken_off_and_nothing_else() {
        let strip = |text: &[u8]| without_newline(Zeroizing::new(text.to_vec())).to_vec();
        assert_eq!(strip(b"a\n"), b"a");
        assert_eq!(strip(b" a \n\n"), b" a \n");
        assert_eq!(strip(b"a"), b"a");
        assert_eq!(strip(b"\n"), b"");
    }

    #[test]
    fn an_empty_passphrase_is_refused() {
        assert_eq!(checked(Zeroizing::default(), "x").unwrap_err().kind(), Kind::Usage);
        assert_eq!(checked(Zeroizing::new(vec![0xff]), "x").unwrap_err().kind(), Kind::Usage);
    }
}
