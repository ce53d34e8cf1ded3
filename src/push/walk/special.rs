//! The contents of symlinks, devices, fifos and sockets.

use std::sync::Arc;

use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;

use crate::format::limits;
use crate::format::node::Content;
use crate::push::read::attributes;
use crate::push::read::dir::Dir;

/// Returns the content of an entry that is neither a directory nor a regular file.
pub fn content(dir: &Arc<Dir>, name: &[u8], stat: &Stat) -> Result<Content, Errno> {
    let device = (fs::major(stat.st_rdev as _), fs::minor(stat.st_rdev as _));
    Ok(match attributes::kind(stat) {
        FileType::Symlink => {
            let target = dir.on_entry(name, |dir, name| fs::readlinkat(&dir.fd, name, Vec::new()))?.into_bytes();
            let fits = (1..=limits::TARGET).contains(&target.len());
            Content::Symlink(Some(target).filter(|_| fits).ok_or(Errno::NAMETOOLONG)?)
        }
        FileType::BlockDevice => Content::Block(device.0, device.1),
        FileType::CharacterDevice => Content::Char(device.0, device.1),
        FileType::Fifo => Content::Fifo,
        FileType::Socket => Content::Socket,
        _ => return Err(Errno::OPNOTSUPP),
    })
}
