//! Names and nodes: look-ups, attributes, listings, link targets, extended attributes.

use std::sync::Arc;

use jiff::Zoned;

use super::attr::{Attr, Fault, Kind};
use super::inode_table::{Dir, Place};
use super::pages::Directory;
use super::time::moment::moment;
use super::view::{Role, Target, View, ViewDir};
use super::{Mode, Vfs, inode};
use crate::error::Error;
use crate::format::node::{Content, Node};
use crate::format::page::Page;
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::repo::now;
use crate::trees::{self, Branch, Spot, Wanted, root};

/// One entry of a listing.
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its attributes.
    pub attr: Attr,
    /// The offset at which the listing goes on behind it.
    pub next: u64,
}

/// A node where it stands: in a leaf page that is in memory.
pub(super) struct At {
    leaf: Arc<Directory>,
    index: usize,
    pub position: u32,
}

impl At {
    pub fn node(&self) -> Option<(&Node, u64)> {
        match &self.leaf.page {
            Page::Leaf(nodes) => Some((nodes.get(self.index)?, *self.leaf.inos.get(self.index)?)),
            Page::Upper(_) => None,
        }
    }
}

impl Vfs {
    /// The node called `name` in a directory, which counts as one look-up; `None`: there is none.
    pub fn lookup(&self, parent: u64, name: &[u8], mode: Mode<'_>) -> Result<Option<Attr>, Fault> {
        self.wait_until_fresh(parent, mode)?;
        if let Some(found) = self.above(parent, |view, folder| self.in_view(view, folder, name)) {
            return Ok(found);
        }
        let dir = match self.place(parent) {
            Some(Place::Dir(dir)) if !dir.role.merges() => dir,
            _ => return self.merged_lookup(&self.merged(parent).ok_or(Fault::Stale)?, name, mode),
        };
        let Some(at) = self.find(dir.page, name, mode)? else { return Ok(None) };
        match self.attr(&dir, &at) {
            Some(attr) if self.hold(&dir, &at, &attr) => Ok(Some(attr)),
            Some(_) => Err(Fault::Stale),
            None => Ok(None),
        }
    }

    /// What `f` says of a folder above the snapshots that has its own entries; `None`: it is no such folder.
    fn above<T>(&self, ino: u64, f: impl FnOnce(&View, &ViewDir) -> T) -> Option<T> {
        let view = self.view();
        view.find(ino).filter(|folder| !folder.role.merges()).map(|folder| f(&view, folder))
    }

    /// A name in a folder above the snapshots, listed or not.
    fn in_view(&self, view: &View, folder: &ViewDir, name: &[u8]) -> Option<Attr> {
        if let Some(target) = folder.target(name) {
            return Some(self.target(view, folder, name, target, true));
        }
        let snapshot = match folder.role {
            Role::At => {
                let local_now = Zoned::now().with_time_zone(self.options.zone.clone());
                view.time.at(moment(std::str::from_utf8(name).ok()?, &local_now)?).cloned()?
            }
            _ => view.shadow(folder, name, now())?,
        };
        // Directories of two names must not share a number.
        let salt = inode::directory(self.repo.keys(), folder.ino, name, None);
        Some(self.snapshot(folder.ino, salt, name, &snapshot, true))
    }

    /// The attributes of a node.
    pub fn getattr(&self, ino: u64, mode: Mode<'_>) -> Result<Attr, Fault> {
        self.wait_until_fresh(ino, mode)?;
        if let Some(attr) = self.above(ino, |_, folder| self.folder(folder)) {
            return Ok(attr);
        }
        match self.place(ino) {
            Some(Place::Dir(dir)) if !dir.role.merges() => Ok(dir.attr),
            None | Some(Place::Dir(_)) => self.merged_attr(&self.merged(ino).ok_or(Fault::Stale)?, mode),
            Some(Place::Entry(dir, position)) => {
                let at = self.at(&dir, position.into(), mode)?.ok_or_else(|| damaged("it ends too early"))?;
                Ok(self.attr(&dir, &at).map(|attr| Attr { ino, ..attr }).ok_or(Fault::Stale)?)
            }
        }
    }

    /// The entries of a directory from `offset` on (0 at first, then the `next` of an entry), until `add` says that no
    /// more fit. With `hold`, each but `.` and `..` that was added counts as one look-up.
    pub fn readdir(
        &self,
        ino: u64,
        offset: u64,
        hold: bool,
        mode: Mode<'_>,
        add: &mut dyn FnMut(&Entry<'_>) -> bool,
    ) -> Result<(), Fault> {
        self.wait_until_fresh(ino, mode)?;
        let view = self.view();
        if let Some(folder) = view.find(ino).filter(|folder| !folder.role.merges()) {
            let (own, above) = (self.folder(folder), self.folder(&view.dirs[folder.parent]));
            if dots(own, above, offset, add) {
                return Ok(());
            }
            let skip = offset.saturating_sub(2) as usize;
            for (i, (name, target)) in folder.entries.iter().enumerate().skip(skip) {
                let attr = self.target(&view, folder, name, target, hold);
                if add(&Entry { name, attr, next: i as u64 + 3 }) {
                    if hold && matches!(target, Target::Snapshot(_)) {
                        self.forget(attr.ino, 1);
                    }
                    break;
                }
            }
            return Ok(());
        }
        drop(view);
        let dir = match self.place(ino) {
            Some(Place::Dir(dir)) if !dir.role.merges() => dir,
            _ => {
                let merged = self.merged(ino).ok_or(Fault::Stale)?;
                return self.merged_readdir(&merged, offset, hold, mode, add);
            }
        };
        let mut position = offset.saturating_sub(2);
        let mut next = match self.at(&dir, position, mode) {
            // Nothing is added before it is sure that there is something to wait for.
            Err(Fault::Wait) => return Err(Fault::Wait),
            other => other?,
        };
        if dots(dir.attr, Attr { ino: dir.above, ..dir.attr }, offset, add) {
            return Ok(());
        }
        let mut added = offset <= 1;
        while let Some(mut at) = next {
            while at.node().is_some() {
                if let Some(attr) = self.attr(&dir, &at) {
                    let name = at.node().map_or(b"".as_slice(), |(node, _)| &node.name);
                    if add(&Entry { name, attr, next: position + 3 }) || (hold && !self.hold(&dir, &at, &attr)) {
                        return Ok(());
                    }
                    added = true;
                }
                position += 1;
                (at.index, at.position) = (at.index + 1, at.position + 1);
            }
            next = match self.at(&dir, position, mode) {
                // What was added is an answer; the next question waits or fails.
                Err(_) if added => None,
                other => other?,
            };
        }
        Ok(())
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, ino: u64, mode: Mode<'_>) -> Result<Vec<u8>, Fault> {
        self.with_node(ino, mode, |node| match &node.content {
            Content::Symlink(target) => Ok(target.clone()),
            _ => Err(Fault::Invalid),
        })?
    }

    /// The path of a node below the mount point, for messages; found without fetching.
    pub fn path(&self, ino: u64) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut dir = match self.place(ino) {
            Some(Place::Dir(dir)) => Some(dir),
            Some(Place::Entry(dir, position)) => {
                let name = self.at(&dir, position.into(), Mode::Cached).ok().flatten();
                let name = name.and_then(|at| at.node().map(|(node, _)| node.name.clone()));
                parts.push(name.unwrap_or_else(|| b"?".to_vec()));
                Some(dir)
            }
            None => None,
        };
        let mut above = ino;
        while let Some(d) = dir {
            parts.push(d.name.to_vec());
            above = d.above;
            dir = d.parent.and_then(|(number, _)| self.table().dir(number));
        }
        let view = self.view();
        let mut folder = view.find(above);
        while let Some(f) = folder.filter(|f| f.ino != inode::ROOT) {
            parts.push(f.name.clone());
            folder = view.dirs.get(f.parent);
        }
        parts.iter().rev().filter(|p| !p.is_empty()).flat_map(|p| [b"/".as_slice(), p]).collect::<Vec<_>>().concat()
    }

    pub(super) fn place(&self, ino: u64) -> Option<Place> {
        self.table().place(ino)
    }

    pub(super) fn with_node<T>(&self, ino: u64, mode: Mode<'_>, f: impl FnOnce(&Node) -> T) -> Result<T, Fault> {
        let (dir, position) = match self.place(ino).ok_or(Fault::Stale)? {
            Place::Dir(dir) if dir.role.merges() => return Err(Fault::Invalid),
            Place::Entry(dir, position) => (dir, position),
            Place::Dir(dir) => match (&dir.node, dir.parent) {
                (Some(node), _) => return Ok(f(node)),
                (None, Some((number, position))) => (self.table().dir(number).ok_or(Fault::Stale)?, position),
                (None, None) => return Err(Fault::Invalid),
            },
        };
        let at = self.at(&dir, position.into(), mode)?;
        let node = at.as_ref().and_then(At::node).ok_or_else(|| damaged("it ends too early"))?;
        Ok(f(node.0))
    }

    /// The entry at a position of a directory; `None` behind the last.
    pub(super) fn at(&self, dir: &Dir, position: u64, mode: Mode<'_>) -> Result<Option<At>, Fault> {
        self.descend(dir.page, Wanted::Position(position), mode)
    }

    /// The entry of a name in a directory.
    pub(super) fn find(&self, top: Option<Ref>, name: &[u8], mode: Mode<'_>) -> Result<Option<At>, Fault> {
        self.descend(top, Wanted::Name(name), mode)
    }

    fn descend(&self, top: Option<Ref>, wanted: Wanted<'_>, mode: Mode<'_>) -> Result<Option<At>, Fault> {
        let Some(top) = top else { return Ok(None) };
        let read = |branch: &Branch| self.pages.directory(&branch.page, mode);
        let Some(Spot { leaf, index, position }) = trees::descend(top, wanted, read)? else { return Ok(None) };
        let position = u32::try_from(position).ok().filter(|p| *p < u32::MAX);
        let position = position.ok_or_else(|| damaged("too many entries"))?;
        Ok(Some(At { leaf, index, position }))
    }

    /// What `stat` shows of an entry; `None` for what could not be read when the snapshot was taken.
    fn attr(&self, dir: &Dir, at: &At) -> Option<Attr> {
        let (node, ino) = at.node()?;
        let keys = self.repo.keys();
        let ino = match (&node.content, ino) {
            (Content::Unreadable(_), _) => return None,
            (Content::Directory(page), _) => inode::directory(keys, dir.attr.ino, &node.name, page.as_ref()),
            (_, 0) => inode::linked(keys, &dir.snapshot, node),
            (_, ino) => ino,
        };
        Some(Attr::of(node, ino, self.options.owner))
    }

    /// Counts a look-up of an entry. False if the directory itself is not known any more.
    fn hold(&self, dir: &Arc<Dir>, at: &At, attr: &Attr) -> bool {
        let Some((node, _)) = at.node() else { return false };
        let mut table = self.table();
        if !table.dir(dir.number).is_some_and(|known| Arc::ptr_eq(&known, dir)) {
            return false;
        }
        match node.content {
            Content::Directory(page) => table.hold_dir(attr.ino, |number| Dir {
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

    fn target(&self, view: &View, folder: &ViewDir, name: &[u8], target: &Target, hold: bool) -> Attr {
        match target {
            Target::Dir(at) => self.folder(&view.dirs[*at]),
            Target::Snapshot(snapshot) => self.snapshot(folder.ino, folder.ino, name, snapshot, hold),
        }
    }

    /// The root of a snapshot in the folder `above`. One link means "how many is not known", as btrfs says it.
    fn snapshot(&self, above: u64, salt: u64, name: &[u8], snapshot: &Snapshot, hold: bool) -> Attr {
        let ino = inode::snapshot(self.repo.keys(), salt, &snapshot.id);
        let attr = Attr { nlink: 1, ..Attr::of(&root(snapshot), ino, self.options.owner) };
        if hold {
            let dir = |number| Dir {
                number,
                role: Role::Plain,
                parent: None,
                above,
                name: name.into(),
                page: snapshot.root,
                snapshot: snapshot.id,
                attr,
                node: Some(Box::new(root(snapshot))),
            };
            self.table().hold_dir(ino, dir);
        }
        attr
    }

    pub(super) fn folder(&self, folder: &ViewDir) -> Attr {
        let (uid, gid) = self.options.mounter;
        let nlink = folder.entries.len() as u32 + 2;
        let (ino, mtime, device) = (folder.ino, folder.newest, (0, 0));
        Attr { ino, kind: Kind::Directory, mode: 0o755, nlink, uid, gid, size: 0, blocks: 0, mtime, device }
    }
}

/// `.` and `..`; gives whether no more fit.
pub(super) fn dots(own: Attr, above: Attr, offset: u64, add: &mut dyn FnMut(&Entry<'_>) -> bool) -> bool {
    (offset == 0 && add(&Entry { name: b".", attr: own, next: 1 }))
        || (offset <= 1 && add(&Entry { name: b"..", attr: above, next: 2 }))
}

pub(super) fn damaged(why: &str) -> Fault {
    Fault::Broken(Error::damaged(format!("a directory is malformed: {why}")))
}
