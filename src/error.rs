//! The one error of the library. Its [`Kind`] decides the exit code and what a caller does next;
//! its text names the deed, the thing and the cause; its hint says what to type.

use std::fmt;
use std::io;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is. The exit codes are those of `docs/cli.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything that no other kind names: a local file, a limit, a refused request. Exit code 1.
    Failed,
    /// The command line makes no sense. Exit code 2.
    Usage,
    /// An object does not hold what it must hold: a tag, commitment, id, length or layout is wrong. Exit code 4.
    Damaged,
    /// An object that must exist does not. Exit code 4.
    Missing,
    /// An object of that name exists already (exclusive create). Exit code 1.
    Exists,
    /// There is no repository at this place. Exit code 10.
    NoRepository,
    /// No key file opens with this passphrase. Exit code 12.
    Passphrase,
    /// The server cannot be reached, refused us, or did not answer in time. Exit code 13.
    Connection,
    /// The server has no space left. Exit code 14.
    NoSpace,
    /// This process or machine has no descriptors or no memory left. Exit code 1.
    Exhausted,
    /// The server shows an older or another state than this client has seen. Exit code 15.
    Tampering,
    /// A signal asked to stop. Exit code 128 + the signal's number.
    Interrupted(i32),
    /// Another thread of the operation failed; its error is the one reported. Exit code 1.
    Cancelled,
}

impl Kind {
    /// Returns whether an object is damaged or missing: data of the repository is lost unless it is found elsewhere.
    pub fn is_damage(self) -> bool {
        matches!(self, Kind::Damaged | Kind::Missing)
    }
}

/// A failure: its kind, a message for people, and perhaps a hint and a cause.
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure of this kind; `message` names the deed, the thing and the cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, source: None }
    }

    /// A failure of kind [`Kind::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        Error::new(Kind::Failed, message)
    }

    /// A failure of kind [`Kind::Damaged`].
    pub fn damaged(message: impl Into<String>) -> Self {
        Error::new(Kind::Damaged, message)
    }

    /// Returns `cannot {doing}: {source}`, of kind [`Kind::NoSpace`] or [`Kind::Exhausted`] where the system reports that.
    pub fn io(doing: impl fmt::Display, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::NoSpace,
            _ if is_exhausted(&source) => Kind::Exhausted,
            _ => Kind::Failed,
        };
        let error = Error::new(kind, format!("cannot {doing}: {source}")).because(source);
        if kind == Kind::Exhausted {
            error.hint("raise the limit of open files (`ulimit -n`) or free memory")
        } else {
            error
        }
    }

    /// Adds what the user can type or do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause, for logs; the message already says it in words.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Puts what was being done in front of the message: `{doing}: {message}`.
    #[must_use]
    pub fn while_doing(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the user can do about it, where we know.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Whether the system has run out of descriptors or memory. Such a failure says nothing about the file it happened at.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e.as_ref() as _)
    }
}
