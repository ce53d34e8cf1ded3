//! Nodes by name and by inode number: look-ups, attributes, targets of symlinks, and paths for messages.

use std::sync::Arc;

use jiff::Zoned;

use super::attr::{Attr, Fault, Kind};
use super::inode_table::{DirInode, Inode};
use super::tree::{FoundNode, damaged};
use super::view::{Role, Target, View, ViewDir};
use super::{Mode, Vfs, inode, readme};
use crate::format::node::Content;
use crate::format::record::Snapshot;
use crate::moment::moment;
use crate::repo::now;
use crate::trees::root;

impl Vfs {
    /// Returns the attributes of the node called `name` in a directory, and counts one look-up; `None` if there is none.
    pub fn lookup(&self, parent: u64, name: &[u8], mode: Mode<'_>) -> Result<Option<Attr>, Fault> {
        self.wait_until_fresh(parent, mode)?;
        {
            let view = self.view();
            if let Some(dir) = view.listed_dir(parent) {
                return Ok(self.lookup_in_view(&view, dir, name));
            }
        }
        let dir = match self.known_inode(parent) {
            Some(Inode::Dir(dir)) if !dir.role.merges() => dir,
            _ => return self.merged_lookup(&self.merged(parent).ok_or(Fault::Stale)?, name, mode),
        };
        let Some(at) = self.find(dir.page, name, mode)? else { return Ok(None) };
        match self.attr(&dir, &at) {
            Some(attr) if self.hold(&dir, &at, &attr) => Ok(Some(attr)),
            Some(_) => Err(Fault::Stale),
            None => Ok(None),
        }
    }

    /// Looks up a name in a directory of the view: a listed one, a moment in `at/`, or another name that is not listed.
    fn lookup_in_view(&self, view: &View, dir: &ViewDir, name: &[u8]) -> Option<Attr> {
        if let Some(target) = dir.target(name) {
            return Some(self.target_attr(view, dir, name, target, true));
        }
        let snapshot = if dir.role == Role::At {
            let local_now = Zoned::now().with_time_zone(self.options.zone.clone());
            view.time.at(moment(std::str::from_utf8(name).ok()?, &local_now)?).cloned()?
        } else {
            view.unlisted(dir, name, now())?
        };
        // Directories with different names must not share a number.
        let salt = inode::directory(self.repo.keys(), dir.ino, name, None);
        Some(self.snapshot_attr(dir.ino, salt, name, &snapshot, true))
    }

    /// Returns the attributes of a node.
    pub fn getattr(&self, ino: u64, mode: Mode<'_>) -> Result<Attr, Fault> {
        self.wait_until_fresh(ino, mode)?;
        if let Some(attr) = self.attr_in_view(&self.view(), ino) {
            return Ok(attr);
        }
        match self.known_inode(ino) {
            Some(Inode::Dir(dir)) if !dir.role.merges() => Ok(dir.attr),
            None | Some(Inode::Dir(_)) => self.merged_attr(&self.merged(ino).ok_or(Fault::Stale)?, mode),
            Some(Inode::Entry(dir, position)) => {
                let at = self.at(&dir, position.into(), mode)?.ok_or_else(|| damaged("it ends too early"))?;
                let attr = self.attr(&dir, &at).ok_or(Fault::Stale)?;
                Ok(Attr { ino, ..attr })
            }
        }
    }

    /// Returns the attributes of `README`, or of a directory of the view that lists its own entries.
    fn attr_in_view(&self, view: &View, ino: u64) -> Option<Attr> {
        if ino == view.readme {
            return Some(self.readme_attr(view));
        }
        view.listed_dir(ino).map(|dir| self.view_attr(dir))
    }

    /// Returns the target of a symlink.
    pub fn readlink(&self, ino: u64, mode: Mode<'_>) -> Result<Vec<u8>, Fault> {
        self.with_node(ino, mode, |node| match &node.content {
            Content::Symlink(target) => Ok(target.clone()),
            _ => Err(Fault::Invalid),
        })?
    }

    /// Returns the path of a node below the mount point, for messages. Uses only memory.
    pub fn path(&self, ino: u64) -> Vec<u8> {
        let mut names = Vec::new();
        let mut dir = match self.known_inode(ino) {
            Some(Inode::Dir(dir)) => Some(dir),
            Some(Inode::Entry(dir, position)) => {
                let at = self.at(&dir, position.into(), Mode::Cached).ok().flatten();
                let name = at.and_then(|at| at.node().map(|(node, _)| node.name.clone()));
                names.push(name.unwrap_or_else(|| b"?".to_vec()));
                Some(dir)
            }
            None => None,
        };
        let mut above = ino;
        while let Some(below) = dir {
            names.push(below.name.to_vec());
            above = below.above;
            dir = below.parent.and_then(|(number, _)| self.table().get_dir(number));
        }
        names.extend(self.view().names_upwards(above));
        let names = names.iter().rev().filter(|name| !name.is_empty());
        names.flat_map(|name| [b"/".as_slice(), name]).collect::<Vec<_>>().concat()
    }

    /// Returns the attributes of a node of a snapshot; `None` for a source file that could not be read.
    pub(super) fn attr(&self, dir: &DirInode, at: &FoundNode) -> Option<Attr> {
        let (node, ino) = at.node()?;
        let keys = self.repo.keys();
        let ino = match (&node.content, ino) {
            (Content::Unreadable(_), _) => return None,
            (Content::Directory(page), _) => inode::directory(keys, dir.attr.ino, &node.name, page.as_ref()),
            (_, 0) => inode::in_directory(keys, dir.attr.ino, &dir.snapshot, node),
            (_, ino) => ino,
        };
        Some(Attr::of(node, ino, self.options.rights))
    }

    /// Counts a look-up of a node; returns false if the inode table does not know its directory any more.
    pub(super) fn hold(&self, dir: &Arc<DirInode>, at: &FoundNode, attr: &Attr) -> bool {
        let Some((node, _)) = at.node() else { return false };
        let mut table = self.table();
        if !table.get_dir(dir.number).is_some_and(|known| Arc::ptr_eq(&known, dir)) {
            return false;
        }
        match node.content {
            Content::Directory(page) => table.hold_dir(attr.ino, |number| DirInode {
                number,
                role: Role::Plain,
                parent: Some((dir.number, at.position)),
                above: dir.attr.ino,
                name: node.name.as_slice().into(),
                page,
                snapshot: dir.snapshot,
                attr: *attr,
                node: None,
            }),
            _ => table.hold_entry(attr.ino, dir.number, at.position),
        }
        true
    }

    /// Returns the attributes of the node behind a listed name of the view; with `hold`, counts a look-up of a snapshot.
    pub(super) fn target_attr(&self, view: &View, dir: &ViewDir, name: &[u8], target: &Target, hold: bool) -> Attr {
        match target {
            Target::Dir(index) => self.view_attr(&view.dirs[*index]),
            Target::Snapshot(snapshot) => self.snapshot_attr(dir.ino, dir.ino, name, snapshot, hold),
            Target::Readme => self.readme_attr(view),
        }
    }

    /// Returns the attributes of the root of a snapshot in the directory `above`. The link count 1 means that the number of
    /// subdirectories is not known, as in btrfs.
    fn snapshot_attr(&self, above: u64, salt: u64, name: &[u8], snapshot: &Snapshot, hold: bool) -> Attr {
        let node = root(snapshot);
        let ino = inode::snapshot(self.repo.keys(), salt, &snapshot.id);
        let attr = Attr { nlink: 1, ..Attr::of(&node, ino, self.options.rights) };
        if hold {
            self.table().hold_dir(ino, |number| DirInode {
                number,
                role: Role::Plain,
                parent: None,
                above,
                name: name.into(),
                page: snapshot.root,
                snapshot: snapshot.id,
                attr,
                node: Some(Box::new(node)),
            });
        }
        attr
    }

    fn readme_attr(&self, view: &View) -> Attr {
        readme::attr(self.repo.keys(), self.options.mounter, view.dirs[0].newest)
    }

    /// Returns the attributes of a directory of the view.
    pub(super) fn view_attr(&self, dir: &ViewDir) -> Attr {
        let (uid, gid) = self.options.mounter;
        let files = dir.entries.iter().filter(|(_, target)| matches!(target, Target::Readme)).count();
        let nlink = (dir.entries.len() - files) as u32 + 2;
        let kind = Kind::Directory;
        let mtime = dir.newest;
        Attr { ino: dir.ino, kind, mode: 0o755, nlink, uid, gid, size: 0, blocks: 0, mtime, device: (0, 0) }
    }
}
