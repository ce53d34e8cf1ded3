//! Keeps a second run of the same profile away, by a lock file in the state folder.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::cli::environment::state_folder;
use crate::cli::escape;
use crate::error::{Error, Result};

/// Locks a profile until the result is dropped. `None` if there is no state folder.
pub fn lock(profile: &str) -> Result<Option<File>> {
    let Some(folder) = state_folder().map(|folder| folder.join("profiles")) else { return Ok(None) };
    let path = folder.join(format!("{profile}.lock"));
    let failed = |e: std::io::Error| Error::io(format!("lock {}", escape::path(&path)), e);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = file.take(20).read_to_string(&mut holder);
            let text = format!("another run of profile {profile} is not finished: process {}", holder.trim());
            return Err(Error::failed(text).hint("nothing was done; wait until it ends"));
        }
        other => other.map_err(|e| failed(e.into()))?,
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(Some(file))
}
