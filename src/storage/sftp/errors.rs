//! Errors for the refusals of an SFTP server. Version 3 has few codes and OpenSSH's texts repeat them, so messages name
//! the possible causes.

use super::packet::{self, Cursor, Malformed, Reply};
use super::session::call::Call;
use crate::error::{Error, Kind};
use crate::name::Name;
use crate::storage::Space;
use crate::storage::net::Fault;

/// A status that is not OK.
#[derive(Debug)]
pub struct Refusal {
    pub code: u32,
    pub text: String,
}

impl Refusal {
    /// Returns whether code or text name a full disk or quota.
    pub fn names_no_space(&self) -> bool {
        let text = self.text.to_lowercase();
        matches!(self.code, packet::NO_SPACE | packet::QUOTA)
            || ["no space", "disk full", "quota", "not enough space"].iter().any(|words| text.contains(words))
    }

    pub fn error(&self, doing: &str, path: &str) -> Error {
        match self.code {
            packet::PERMISSION_DENIED => {
                let error = Error::failed(format!("cannot {doing} {path} on the server: permission denied"));
                error.hint(match doing {
                    "read" | "list" | "look at" | "open" => "it belongs to another account, or a folder above it is closed for this one",
                    _ => "an append-only key cannot do this (`init` and `key remove` need a full one), or the folder belongs to another account",
                })
            }
            packet::NO_SUCH_FILE => {
                Error::new(Kind::Missing, format!("cannot {doing} {path} on the server: it does not exist"))
            }
            packet::UNSUPPORTED => Error::failed(format!("cannot {doing} {path}: the server does not support this")),
            _ if self.text.is_empty() || self.text.eq_ignore_ascii_case("failure") => {
                Error::failed(format!("cannot {doing} {path}: the server refused and gave no reason"))
                    .hint("the log of the server may name it (a quota, a read-only or broken disk, ...)")
            }
            code => Error::failed(format!("cannot {doing} {path}: the server says \"{}\" (code {code})", self.text)),
        }
    }
}

/// Returns the fault for an answer that does not fit the request.
pub fn refused(call: &Call<'_>, doing: &str, path: &str, reply: Reply<'_>) -> Fault {
    match reply {
        Reply::Status(code, text) if code != packet::OK => Fault::Final(Refusal { code, text }.error(doing, path)),
        _ => call.nonsense("an answer of a wrong type"),
    }
}

/// Something else stands where an object should be.
pub fn no_object(name: &Name) -> Fault {
    Fault::Final(Error::damaged(format!("{name} is not a regular file")))
}

/// Returns the fault of a server that cannot be used.
pub fn unusable(text: &str) -> Fault {
    Fault::Final(Error::failed(text))
}

/// The reason of a file system for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    Full,
    ReadOnly,
    /// It has none, or it is not known.
    Other,
}

/// The answer to `statvfs@openssh.com`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes in all and bytes that this account may write.
    pub space: Space,
    /// No further file can be made.
    lacks_files: bool,
    is_read_only: bool,
}

impl FileSystem {
    /// Reads eleven numbers: block size, fragment size, blocks, free, available, files, free, available, id, flags, longest
    /// name.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Cursor::new(bytes);
        let mut numbers = [0; 11];
        for number in &mut numbers {
            *number = from.u64()?;
        }
        let [_, fragment, blocks, _, available, files, _, files_available, _, flags, _] = numbers;
        let space = Space { total: blocks.saturating_mul(fragment), free: available.saturating_mul(fragment) };
        Ok(FileSystem { space, lacks_files: files > 0 && files_available == 0, is_read_only: flags & 1 != 0 })
    }

    /// Returns why `len` bytes could not be written.
    pub fn reason(&self, len: u64) -> Disk {
        if self.is_read_only {
            return Disk::ReadOnly;
        }
        // a torso of this object may fill the space that was free; file systems keep back about a MiB for themselves
        if self.space.free < len.max(1 << 20) || self.lacks_files { Disk::Full } else { Disk::Other }
    }
}
