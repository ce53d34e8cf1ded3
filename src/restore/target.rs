//! The target of a restore: where it must not be, and the paths of its entries.

use std::path::{Path, PathBuf};

use super::dir::{Identity, identity, join};
use crate::error::{Error, Kind, Result};
use crate::mounts::is_within;

/// The paths of a target, for people.
pub(super) struct Paths {
    target: Vec<u8>,
    /// The path in the snapshot of the directory whose entries land in the target.
    base: Vec<u8>,
}

impl Paths {
    pub fn new(target: &Path, base: &[u8]) -> Self {
        let target = target.components().collect::<PathBuf>();
        Paths { target: target.into_os_string().into_encoded_bytes(), base: base.to_vec() }
    }

    /// Returns the path in the target of an entry with this path in the snapshot.
    pub fn in_target(&self, path: &[u8]) -> Vec<u8> {
        let below = path.strip_prefix(self.base.as_slice()).unwrap_or(path);
        join(self.target.clone(), below.strip_prefix(b"/").unwrap_or(below))
    }
}

/// Returns the identity of a path; links are followed.
pub(super) fn identity_of(path: &Path) -> Option<Identity> {
    rustix::fs::stat(path).ok().map(|stat| identity(&stat))
}

/// Fails if the target is the folder of the repository, or lies in it: objects would be overwritten or deleted.
pub(super) fn check_outside(repository: &Path, target: &Path) -> Result<()> {
    let absolute = std::path::absolute(target).map_err(|e| Error::io("find the target", e))?;
    // The target may not exist yet; then its nearest existing directory counts.
    let existing = absolute.ancestors().find_map(|path| path.canonicalize().ok()).unwrap_or_default();
    if identity_of(repository).is_some_and(|own| is_within(&existing, own)) {
        let text = format!("cannot restore into {}: it is the repository itself, or lies in it", target.display());
        return Err(Error::new(Kind::Usage, text).hint("give another folder with --target"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_named_where_they_lie() {
        for (target, base, path, expected) in [
            ("out", "/home/me", "/home/me/a/b", "out/a/b"),
            ("out/", "/", "/home", "out/home"),
            ("/", "/", "/home", "/home"),
            ("/", "/home", "/home/me", "/me"),
        ] {
            let found = Paths::new(Path::new(target), base.as_bytes()).in_target(path.as_bytes());
            assert_eq!(String::from_utf8(found).unwrap(), expected, "{target} {path}");
        }
    }
}
