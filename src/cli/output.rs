//! Writes results to standard output, as lines or as JSON objects, and messages to standard error. A closed pipe is not a
//! failure.

use std::fmt::Display;
use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::escape::{self, is_harmful};
use crate::error::{Error, Result};
use crate::name::hex;

/// Version of the JSON objects; it grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// Enters a name into an object: `key` as UTF-8, and where that is not exact, `key_bytes` in hex.
pub fn put_bytes(object: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(exact) => drop(object.insert(key.into(), exact.into())),
        Err(_) => {
            object.insert(key.into(), String::from_utf8_lossy(bytes).into());
            object.insert(format!("{key}_bytes"), hex(bytes).into());
        }
    }
}

/// Enters a list of paths into an object like [`put_bytes`]: `key_bytes` has all of them if one is not UTF-8.
pub fn put_paths<P: AsRef<[u8]>>(object: &mut Map<String, Value>, key: &str, paths: &[P]) {
    let all = |exact: fn(&[u8]) -> String| paths.iter().map(|path| exact(path.as_ref())).collect::<Vec<_>>();
    object.insert(key.into(), all(|path| String::from_utf8_lossy(path).into_owned()).into());
    if paths.iter().any(|path| std::str::from_utf8(path.as_ref()).is_err()) {
        object.insert(format!("{key}_bytes"), all(hex).into());
    }
}

/// Returns the fields of a JSON object in braces.
pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Returns one JSON object on one line, of ASCII and printable characters only: characters that a terminal could obey are escaped.
pub fn json_line(kind: &str, fields: Map<String, Value>) -> String {
    let rest = Value::Object(fields).to_string();
    let comma = if rest == "{}" { "" } else { "," };
    let plain = format!("{{\"type\":\"{kind}\",\"schema\":{SCHEMA}{comma}{}", &rest[1..]);
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        if is_harmful(c) {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|u| out.push_str(&format!("\\u{u:04x}")));
        } else {
            out.push(c);
        }
    }
    out
}

/// Standard output. Lines for people, or with `--json` objects for scripts.
pub struct Output {
    json: bool,
    closed: bool,
    out: io::BufWriter<io::Stdout>,
}

impl Output {
    /// `json`: objects only.
    pub fn new(json: bool) -> Self {
        Output { json, closed: false, out: io::BufWriter::with_capacity(64 << 10, io::stdout()) }
    }

    /// Returns whether objects are wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Returns whether the reader has closed the pipe, so that further output is useless.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Prints one line of text, already escaped; nothing with `--json`.
    pub fn line(&mut self, line: impl Display) -> Result<()> {
        if self.json { Ok(()) } else { self.write(&line.to_string()) }
    }

    /// Prints one object; nothing without `--json`.
    pub fn object(&mut self, kind: &str, fields: Map<String, Value>) -> Result<()> {
        if self.json { self.write(&json_line(kind, fields)) } else { Ok(()) }
    }

    /// Writes the buffer.
    pub fn flush(&mut self) -> Result<()> {
        let flushed = self.out.flush();
        self.checked(flushed)
    }

    fn write(&mut self, line: &str) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        // One call, so that no output of another thread gets into a line.
        let written = self.out.write_all(format!("{line}\n").as_bytes());
        self.checked(written)
    }

    fn checked(&mut self, result: io::Result<()>) -> Result<()> {
        match result {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other.map_err(|e| Error::io("write to standard output", e)),
        }
    }
}

/// Returns whether standard output is discarded. The runtime opens `/dev/null` in the place of a closed one.
pub fn leads_nowhere() -> bool {
    let id = |stat: rustix::fs::Stat| (stat.st_mode & 0o170_000, stat.st_rdev);
    let null = rustix::fs::stat("/dev/null").map(id);
    null.is_ok() && rustix::fs::fstat(io::stdout()).map(id) == null
}

/// Prints a help text or the version. A closed pipe is not a failure.
pub fn print_help(help: &clap::Error) -> Result<()> {
    match help.print() {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("write to standard output", e)),
        _ => Ok(()),
    }
}

/// Writes one line to standard error. A failure is ignored.
pub fn notice(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes a line from or for another process of nfreezer to standard output, unchanged.
pub fn relay(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(|e| Error::io("write to standard output", e))
}

/// Prints a failure on standard error, and as an object with `--json`.
pub fn error(json: bool, error: &Error, code: u8) {
    notice(format_args!("nfreezer: error: {}", escape::message(&error.to_string())));
    if let Some(hint) = error.hint_text() {
        notice(format_args!("hint: {}", escape::message(hint)));
    }
    if json {
        error_object(error, code);
    }
}

/// Prints a failure as an object. A failure to print it is ignored.
pub fn error_object(error: &Error, code: u8) {
    let fields = json!({ "message": error.to_string(), "hint": error.hint_text(), "code": code });
    let mut out = Output::new(true);
    let _ = out.object("error", object(fields)).and_then(|()| out.flush());
}

/// Prints a warning on standard error, and as an object with `--json`.
pub fn warning(out: &mut Output, text: &str) -> Result<()> {
    notice(format_args!("nfreezer: warning: {}", escape::message(text)));
    out.object("warning", object(json!({ "message": text })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t70a_json_is_valid_exact_and_harmless() {
        let mut fields = Map::new();
        put_bytes(&mut fields, "path", "\u{1b}[2J\u{202e}\u{9b}\u{7f}\u{e0061}\"".as_bytes());
        put_bytes(&mut fields, "name", b"a\xff");
        let line = json_line("node", fields);
        assert!(!line.chars().any(is_harmful), "{line}");
        let back: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["path"], "\u{1b}[2J\u{202e}\u{9b}\u{7f}\u{e0061}\"");
        assert_eq!((back["name_bytes"].as_str(), back["schema"].as_u64()), (Some("61ff"), Some(1)));
    }
}
