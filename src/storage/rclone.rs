//! Storage services behind rclone: `rclone serve sftp --stdio`, run as the SFTP server of a repository.

use std::fmt;

use crate::error::{Error, Kind, Result};

/// Options of rclone that the contract of a storage needs. rclone caches a folder's listing for five minutes by default, so
/// a second listing would not show the records of other clients. `--vfs-cache-mode off`: a file is closed when the service
/// has it, and not when a local cache has it.
const ARGUMENTS: [&str; 8] =
    ["serve", "sftp", "--stdio", "--dir-cache-time", "0s", "--poll-interval", "0", "--vfs-cache-mode=off"];

/// A folder of a storage that the user's rclone configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rclone(String);

impl Rclone {
    /// Reads `REMOTE:PATH`, in the words of rclone. Kind [`Kind::Usage`] if it names no remote.
    pub fn parse(place: &str) -> Result<Self> {
        let trimmed = place.trim_end_matches('/');
        let (remote, path) = trimmed.rsplit_once(':').unwrap_or_default();
        // `:BACKEND,OPTIONS:PATH` configures a remote in place.
        let name = remote.strip_prefix(':').unwrap_or(remote);
        if name.is_empty() || name.starts_with('-') || path.starts_with('-') {
            let text = format!("rclone:{} names no remote of rclone", place.escape_debug());
            return Err(
                Error::new(Kind::Usage, text).hint("write rclone:REMOTE:PATH; `rclone listremotes` shows the remotes")
            );
        }
        let all = if trimmed.ends_with(':') { place } else { trimmed };
        Ok(Rclone(all.into()))
    }

    /// Returns the command line of the server.
    pub(super) fn command(&self) -> Vec<String> {
        ["rclone"].iter().chain(&ARGUMENTS).map(ToString::to_string).chain([self.0.clone()]).collect()
    }
}

impl fmt::Display for Rclone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rclone:{}", self.0)
    }
}
