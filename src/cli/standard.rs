//! Which option reads standard input.
//!
//! Standard input can be read once. Each option that reads it claims it first, so that two of them are refused.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::escape;
use crate::error::{Error, Kind, Result};

/// The option that reads standard input.
static READER: Mutex<Option<String>> = Mutex::new(None);

/// Returns whether the file of an option is standard input, for an option that knows `-`.
pub fn is_input(file: &Path) -> bool {
    file.as_os_str() == "-" || is_input_path(file)
}

/// Returns whether a path is the one of standard input.
pub fn is_input_path(file: &Path) -> bool {
    ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"].iter().any(|name| file.as_os_str() == *name)
}

/// Names an option with its file in messages.
pub fn named(option: &str, file: &Path) -> String {
    format!("{option} {}", escape::path(file))
}

/// Claims standard input for an option. Fails if another option reads it.
pub fn claim_input(reader: &str) -> Result<()> {
    claim(reader, |_| false)
}

/// Claims standard input like [`claim_input`], also for an option that has claimed it before.
pub fn claim_input_again(reader: &str) -> Result<()> {
    claim(reader, |other| other == reader)
}

/// Fails if another option has claimed standard input.
pub fn check_claim(reader: &str) -> Result<()> {
    match &*reader_of_input() {
        Some(other) if other != reader => Err(read_twice(other, reader)),
        _ => Ok(()),
    }
}

/// Returns whether an option reads standard input, so that no command may read it.
pub fn is_claimed() -> bool {
    reader_of_input().is_some()
}

fn claim(reader: &str, is_same: impl Fn(&str) -> bool) -> Result<()> {
    let mut claimed = reader_of_input();
    if let Some(other) = claimed.as_deref().filter(|other| !is_same(other)) {
        return Err(read_twice(other, reader));
    }
    *claimed = Some(reader.to_owned());
    Ok(())
}

fn reader_of_input() -> MutexGuard<'static, Option<String>> {
    READER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_twice(a: &str, b: &str) -> Error {
    Error::new(Kind::Usage, format!("{a} and {b} both read standard input"))
        .hint("give a file to one of them: standard input can be read once")
}
