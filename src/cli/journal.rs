//! The log of a mount: a file, standard error, or syslog.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{escape, output};
use crate::error::{Error, Result};

/// The socket of syslog.
const SYSLOG: &str = "/dev/log";

/// The destination of the messages of a mount: its log file; else standard error while there is one, then syslog.
pub struct Journal {
    file: Option<PathBuf>,
    away: AtomicBool,
}

impl Journal {
    /// Fails if the log file cannot be written.
    pub fn open(file: Option<&Path>) -> Result<Self> {
        let failed = |e| Error::io(format!("open the log {}", file.unwrap_or(Path::new("")).display()), e);
        // A mount in the background leaves the folder it was started in.
        let file = file.map(std::path::absolute).transpose().map_err(failed)?;
        file.as_deref().map(append).transpose().map_err(failed)?;
        Ok(Journal { file, away: AtomicBool::new(false) })
    }

    /// Stops writing to standard error, which has no reader from now on.
    pub fn leave_terminal(&self) {
        self.away.store(true, Relaxed);
    }

    /// Writes one line. A log that cannot be written must not end the mount.
    pub fn line(&self, text: &str) {
        let (now, text) = (jiff::Zoned::now(), escape::message(text));
        match &self.file {
            // Opened each time, so that a log that was moved away by logrotate begins anew.
            Some(file) => drop(append(file).and_then(|mut file| {
                file.write_all(format!("{} {text}\n", now.strftime("%Y-%m-%d %H:%M:%S")).as_bytes())
            })),
            None if self.away.load(Relaxed) => drop(syslog(Path::new(SYSLOG), &now, &text)),
            None => output::notice(format_args!("nfreezer: {text}")),
        }
    }
}

/// It names files of the backup, so it is private to this user.
fn append(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// As daemon.warning, in the form of syslog(3).
fn syslog(socket: &Path, now: &jiff::Zoned, text: &str) -> io::Result<usize> {
    let line = format!("<28>{} nfreezer[{}]: {text}", now.strftime("%b %e %H:%M:%S"), std::process::id());
    UnixDatagram::unbound()?.send_to(line.as_bytes(), socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_gets_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("log")).unwrap();
        let now = "2026-11-03T04:05:06+00:00[UTC]".parse().unwrap();
        syslog(&dir.path().join("log"), &now, "cannot read /a").unwrap();
        let mut buffer = [0; 200];
        let n = socket.recv(&mut buffer).unwrap();
        let expected = format!("<28>Nov  3 04:05:06 nfreezer[{}]: cannot read /a", std::process::id());
        assert_eq!(std::str::from_utf8(&buffer[..n]).unwrap(), expected);
    }
}
