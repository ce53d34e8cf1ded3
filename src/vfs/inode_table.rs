//! The nodes that the kernel knows, by inode number: each is a directory, or a position in one. The table counts the
//! kernel's look-ups and drops a node when they are taken back. A file takes 16 bytes, and 16 more if it was looked up
//! twice; a directory stays while the kernel knows it or a node below it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::attr::Attr;
use super::inode::ROOT;
use super::view::Role;
use crate::format::node::Node;
use crate::format::record::SnapshotId;
use crate::format::reference::Ref;

/// A directory of a snapshot, or a merged directory (which has no page and no node).
pub struct DirInode {
    /// Its number in the table.
    pub number: u32,
    /// The source of its entries.
    pub role: Role,
    /// Table number of its parent directory, and its position there; `None` for the root of a snapshot.
    pub parent: Option<(u32, u32)>,
    /// Inode number of its parent directory.
    pub above: u64,
    /// Its name; empty for the root of the mount.
    pub name: Box<[u8]>,
    /// Its top page.
    pub page: Option<Ref>,
    /// Its snapshot.
    pub snapshot: SnapshotId,
    /// Its attributes, with its inode number.
    pub attr: Attr,
    /// Its node, if no directory of the table holds it: the root of a snapshot or of the mount.
    pub node: Option<Box<Node>>,
}

/// The node behind an inode number.
pub enum Inode {
    /// A directory.
    Dir(Arc<DirInode>),
    /// Another node: its directory and its position there.
    Entry(Arc<DirInode>, u32),
}

/// The nodes that the kernel knows.
#[derive(Default)]
pub struct InodeTable {
    slots: HashMap<u64, InodeSlot>,
    /// Look-ups of nodes that are not directories, beyond the first.
    repeated: HashMap<u64, u32>,
    dirs: Vec<Option<DirSlot>>,
    free: Vec<u32>,
}

struct InodeSlot {
    dir: u32,
    /// Position in the directory number `dir`; [`ITSELF`] for that directory.
    position: u32,
}

struct DirSlot {
    dir: Arc<DirInode>,
    lookups: u32,
    /// Slots and directories below it.
    below: u32,
}

const ITSELF: u32 = u32::MAX;

impl InodeTable {
    /// Returns the node with this inode number.
    pub fn get(&self, ino: u64) -> Option<Inode> {
        let slot = self.slots.get(&ino)?;
        let dir = Arc::clone(&self.dirs.get(slot.dir as usize)?.as_ref()?.dir);
        Some(if slot.position == ITSELF { Inode::Dir(dir) } else { Inode::Entry(dir, slot.position) })
    }

    /// Returns a directory by its table number.
    pub fn get_dir(&self, number: u32) -> Option<Arc<DirInode>> {
        Some(Arc::clone(&self.dirs.get(number as usize)?.as_ref()?.dir))
    }

    /// Counts one look-up of a node that is not a directory, and adds it if it is new.
    pub fn hold_entry(&mut self, ino: u64, dir: u32, position: u32) {
        if let Entry::Vacant(slot) = self.slots.entry(ino) {
            slot.insert(InodeSlot { dir, position });
            if let Some(Some(held)) = self.dirs.get_mut(dir as usize) {
                held.below += 1;
            }
            return;
        }
        let lookups = self.repeated.entry(ino).or_default();
        *lookups = lookups.saturating_add(1);
    }

    /// Counts one look-up of a directory, and adds it if it is new; `make` receives its table number.
    pub fn hold_dir(&mut self, ino: u64, make: impl FnOnce(u32) -> DirInode) {
        if let Some(slot) = self.slots.get(&ino) {
            if let Some(Some(held)) = self.dirs.get_mut(slot.dir as usize) {
                held.lookups = held.lookups.saturating_add(1);
            }
            return;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.dirs.push(None);
            self.dirs.len() as u32 - 1
        });
        let dir = make(number);
        if let Some((parent, _)) = dir.parent
            && let Some(Some(held)) = self.dirs.get_mut(parent as usize)
        {
            held.below += 1;
        }
        self.dirs[number as usize] = Some(DirSlot { dir: Arc::new(dir), lookups: 1, below: 0 });
        self.slots.insert(ino, InodeSlot { dir: number, position: ITSELF });
    }

    /// Takes back `count` look-ups, and drops the node after the last.
    pub fn forget(&mut self, ino: u64, count: u64) {
        let Some(slot) = self.slots.get(&ino).filter(|_| ino != ROOT) else { return };
        let (dir, count) = (slot.dir, u32::try_from(count).unwrap_or(u32::MAX));
        if slot.position == ITSELF {
            if let Some(Some(held)) = self.dirs.get_mut(dir as usize) {
                held.lookups = held.lookups.saturating_sub(count);
            }
            return self.drop_unused(dir);
        }
        let repeated = self.repeated.remove(&ino).unwrap_or(0);
        if count > repeated {
            self.slots.remove(&ino);
            self.release(dir);
        } else if count < repeated {
            self.repeated.insert(ino, repeated - count);
        }
    }

    fn release(&mut self, dir: u32) {
        if let Some(Some(held)) = self.dirs.get_mut(dir as usize) {
            held.below -= 1;
        }
        self.drop_unused(dir);
    }

    /// Drops a directory that the kernel does not know and that holds no known node; then its parents likewise.
    fn drop_unused(&mut self, dir: u32) {
        let mut next = Some(dir);
        while let Some(number) = next.take() {
            let Some(Some(held)) = self.dirs.get(number as usize) else { return };
            if held.below > 0 || held.lookups > 0 {
                return;
            }
            let (ino, parent) = (held.dir.attr.ino, held.dir.parent);
            self.slots.remove(&ino);
            self.dirs[number as usize] = None;
            self.free.push(number);
            let Some((parent, _)) = parent else { return };
            if let Some(Some(held)) = self.dirs.get_mut(parent as usize) {
                held.below -= 1;
                next = Some(parent);
            }
        }
    }

    /// Returns the inode numbers of the merged directories.
    pub fn merged(&self) -> Vec<u64> {
        let merged = self.dirs.iter().flatten().filter(|held| held.dir.role.merges());
        merged.map(|held| held.dir.attr.ino).collect()
    }

    /// Returns the numbers of nodes and of directories.
    pub fn len(&self) -> (usize, usize) {
        (self.slots.len(), self.dirs.len() - self.free.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;
    use crate::vfs::attr::Kind;

    fn dir(number: u32, ino: u64, parent: Option<(u32, u32)>) -> DirInode {
        let (mtime, device) = (Time::default(), (0, 0));
        let kind = Kind::Directory;
        let attr = Attr { ino, kind, mode: 0, nlink: 1, uid: 0, gid: 0, size: 0, blocks: 0, mtime, device };
        let (role, name) = (Role::Plain, Box::default());
        DirInode { number, role, parent, above: 1, name, page: None, snapshot: SnapshotId::default(), attr, node: None }
    }

    #[test]
    fn a_directory_stays_while_anything_below_it_is_known() {
        let mut table = InodeTable::default();
        table.hold_dir(10, |n| dir(n, 10, None));
        table.hold_dir(11, |n| dir(n, 11, Some((0, 3))));
        table.hold_entry(20, 1, 5);
        table.hold_entry(20, 0, 9); // another link, seen later: the first place stays
        table.forget(10, 1);
        table.forget(11, 1);
        assert_eq!(table.len(), (3, 2));
        assert!(matches!(table.get(20), Some(Inode::Entry(d, 5)) if d.attr.ino == 11));
        table.forget(20, 1);
        assert!(table.get(20).is_some() && table.get(10).is_some());
        table.forget(20, 1);
        assert_eq!(table.len(), (0, 0));
        table.hold_dir(12, |n| dir(n, 12, None));
        assert_eq!(table.len(), (1, 1), "numbers are used again");
        table.forget(99, 1);
        (0..5).for_each(|_| table.hold_entry(21, 0, 1));
        table.forget(21, 3);
        table.forget(12, 1);
        assert_eq!(table.len(), (2, 1), "two look-ups are left");
        table.forget(21, 2);
        assert_eq!((table.len(), table.repeated.len()), ((0, 0), 0));
        assert_eq!(size_of::<(u64, InodeSlot)>(), 16);
    }
}
