//! Prompts for secrets at `/dev/tty`, without echo.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::escape;
use crate::error::{Error, Kind, Result};
use crate::storage::Prompt;

/// The terminal of this process. A prompt may quote a server, so it is escaped.
pub struct Terminal;

/// Held while a prompt waits for its answer, since several repositories are opened at the same time.
static PROMPT: Mutex<()> = Mutex::new(());

impl Terminal {
    /// Writes a secret to the terminal itself, since standard output may be redirected.
    pub fn show(&self, text: &str) -> Result<()> {
        let tty = File::options().write(true).open("/dev/tty");
        let shown = tty.and_then(|mut tty| tty.write_all(format!("{text}\r\n").as_bytes()));
        shown.map_err(|e| Error::io("show the passphrase on the terminal", e))
    }
}

impl Prompt for Terminal {
    fn secret(&self, text: &str) -> Result<String> {
        let _one_at_a_time = PROMPT.lock().unwrap_or_else(PoisonError::into_inner);
        rpassword::prompt_password(format!("nfreezer: {}", escape::message(text))).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => Error::new(Kind::Interrupted(2), "interrupted"),
            _ => match File::options().read(true).write(true).open("/dev/tty") {
                Ok(_) => Error::new(Kind::Failed, format!("cannot ask for it on the terminal: {e}")),
                Err(_) => Error::new(Kind::Failed, "there is no terminal to ask for it"),
            },
        })
    }
}
