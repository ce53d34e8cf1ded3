//! The error of the library. Its [`Kind`] decides the exit code and the reaction of callers. Its message names the
//! operation, the object and the cause. Its hint shows what to type.

use std::fmt;
use std::io;

use rustix::io::Errno;

/// The result of all fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kind of an error. `docs/cli.md` lists the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An error without a more specific kind: a local file, a limit, a refused request. Exit code 1.
    Failed,
    /// The command line is not valid. Exit code 2.
    Usage,
    /// An object fails its checks: a tag, commitment, id, length or layout is wrong. Exit code 4.
    Damaged,
    /// An object that must exist does not. Exit code 4.
    Missing,
    /// An object with this name already exists (exclusive create). Exit code 1.
    Exists,
    /// There is no repository at this place. Exit code 10.
    NoRepository,
    /// No key file opens with this passphrase. Exit code 12.
    Passphrase,
    /// The server cannot be reached, refuses the login, or does not answer in time. Exit code 13.
    Connection,
    /// The server has no space left. Exit code 14.
    NoSpace,
    /// This process or machine has no descriptors, threads or memory left. Exit code 1.
    Exhausted,
    /// The server shows an older or different state than this machine has seen. Exit code 15.
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

/// An error: kind, message for the user, optional hint and cause.
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Creates an error. `message` names the operation, the object and the cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, source: None }
    }

    /// Creates an error of kind [`Kind::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        Error::new(Kind::Failed, message)
    }

    /// Creates an error of kind [`Kind::Damaged`].
    pub fn damaged(message: impl Into<String>) -> Self {
        Error::new(Kind::Damaged, message)
    }

    /// Returns `cannot {doing}: {source}`, of kind [`Kind::NoSpace`] or [`Kind::Exhausted`] where the system reports that.
    pub fn io(doing: impl fmt::Display, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::NoSpace,
            _ if Errno::from_io_error(&source).is_some_and(exhausts) => Kind::Exhausted,
            _ => Kind::Failed,
        };
        let error = Error::new(kind, format!("cannot {doing}: {source}")).because(source);
        if kind == Kind::Exhausted {
            error.hint("raise the limit of open files (`ulimit -n`) or free memory")
        } else {
            error
        }
    }

    /// Returns the error of a thread that the system did not start, of kind [`Kind::Exhausted`].
    pub fn no_thread(why: impl fmt::Display) -> Self {
        Error::new(Kind::Exhausted, format!("cannot start a thread: {why}"))
            .hint("raise the limit of processes (`ulimit -u`, `TasksMax=` of systemd) or free memory")
    }

    /// Adds a hint: what the user can type or do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause. The message already contains its text.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Adds the operation in front of the message: `{doing}: {message}`.
    #[must_use]
    pub fn while_doing(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// Returns the same error without its cause, to report it in a second place.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Error { kind: self.kind, message: self.message.clone(), hint: self.hint.clone(), source: None }
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Returns whether the system has run out of descriptors or memory, which is no fault of the file in question.
pub fn exhausts(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
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
