//! Symbolic links, named pipes, sockets and device nodes.

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::dir::{self, Held};
use super::{Run, add, attributes, rename};
use crate::error::{Error, Result};
use crate::format::node::{Content, Node};

/// Creates the node under a temporary name, sets its attributes and renames it. Returns `None` if only root could create it.
pub(super) fn make(run: &Run<'_>, held: &Held, node: &Node, replace: bool) -> Result<Option<(u64, u64)>> {
    let failed = |e: Errno| Error::io("make it", e.into());
    let name = dir::temporary()?;
    match create(held, node, &name) {
        Ok(()) => {}
        Err(Errno::PERM) if matches!(node.content, Content::Block(..) | Content::Char(..)) => {
            add(&run.tally.left_out, 1);
            return Ok(None);
        }
        Err(e) => {
            // Some file systems report an error although they made something of that name.
            held.unlink(&name);
            return Err(failed(e));
        }
    }
    match dress(run, held, node, &name) {
        Ok(id) => {
            rename::place(held, &name, &node.name, replace)?;
            add(&run.tally.others, 1);
            Ok(Some(id))
        }
        Err(e) => {
            held.unlink(&name);
            Err(failed(e))
        }
    }
}

fn create(held: &Held, node: &Node, name: &[u8]) -> Result<(), Errno> {
    let special = |sort, (major, minor)| {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(&held.fd, name, sort, Mode::RUSR | Mode::WUSR, device)
    };
    match &node.content {
        Content::Symlink(target) => rustix::fs::symlinkat(target.as_slice(), &held.fd, name),
        Content::Fifo => special(FileType::Fifo, (0, 0)),
        Content::Socket => special(FileType::Socket, (0, 0)),
        Content::Block(major, minor) => special(FileType::BlockDevice, (*major, *minor)),
        Content::Char(major, minor) => special(FileType::CharacterDevice, (*major, *minor)),
        Content::File(_) | Content::Large { .. } | Content::Directory(_) | Content::Unreadable(_) => Err(Errno::INVAL),
    }
}

/// Sets attributes through a descriptor of the very inode that was made.
fn dress(run: &Run<'_>, held: &Held, node: &Node, name: &[u8]) -> Result<(u64, u64), Errno> {
    let fd = rustix::fs::openat(&held.fd, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    let own = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_nlink == 1;
    if !own || !is_of_kind(&stat, &node.content) {
        return Err(Errno::STALE);
    }
    let symlink = matches!(node.content, Content::Symlink(_));
    attributes::of_path(run, &fd, node, symlink, &|| held.path(&node.name));
    Ok(dir::identity(&stat))
}

/// Returns whether the existing entry is the same, with equal attributes.
pub(super) fn is_unchanged(run: &Run<'_>, held: &Held, node: &Node, stat: &Stat) -> bool {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let symlink = matches!(node.content, Content::Symlink(_));
    is_equal(held, node, stat)
        && dir::has_links(stat, node)
        && rustix::fs::openat(&held.fd, &node.name, flags, Mode::empty())
            .is_ok_and(|fd| attributes::are_set_of_path(run, &fd, node, symlink, &|| held.path(&node.name)))
}

fn is_of_kind(stat: &Stat, content: &Content) -> bool {
    let device = |(major, minor): (u32, u32)| stat.st_rdev == rustix::fs::makedev(major, minor);
    match (FileType::from_raw_mode(stat.st_mode), content) {
        (FileType::Symlink, Content::Symlink(_)) => true,
        (FileType::Fifo, Content::Fifo) | (FileType::Socket, Content::Socket) => true,
        (FileType::BlockDevice, Content::Block(major, minor)) => device((*major, *minor)),
        (FileType::CharacterDevice, Content::Char(major, minor)) => device((*major, *minor)),
        _ => false,
    }
}

/// Returns whether the existing entry is the same.
pub(super) fn is_equal(held: &Held, node: &Node, stat: &Stat) -> bool {
    let same_target = |target: &[u8]| {
        rustix::fs::readlinkat(&held.fd, &node.name, Vec::new()).is_ok_and(|there| there.to_bytes() == target)
    };
    is_of_kind(stat, &node.content)
        && match &node.content {
            Content::Symlink(target) => same_target(target),
            _ => true,
        }
}
