//! Runs a program of the system with a short input, and returns its output.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::cli::escape;
use crate::error::{Error, Result};

/// The end of a program.
pub struct Outcome {
    pub is_success: bool,
    pub output: String,
    /// Its messages on one line, escaped.
    pub errors: String,
}

/// Runs a program to its end. Fails if it does not exist.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Result<Outcome> {
    let failed = |e| Error::io(format!("run the program {program}"), e);
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input is judged by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let errors = escape::message(errors.split_whitespace().collect::<Vec<_>>().join(" ").as_str());
    let is_success = output.status.success();
    Ok(Outcome { is_success, output: String::from_utf8_lossy(&output.stdout).into_owned(), errors })
}
