//! Listings of directories: of the view, of snapshots, and (in [`super::time::merged`]) merged ones.

use std::sync::Arc;

use super::attr::{Attr, Fault};
use super::inode_table::{DirInode, Inode};
use super::view::Target;
use super::{Mode, Vfs};

/// One entry of a listing.
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its attributes.
    pub attr: Attr,
    /// The offset of the following entry.
    pub next: u64,
}

/// Takes an entry; returns whether it did not fit.
pub(super) type AddEntry<'a> = dyn FnMut(&Entry<'_>) -> bool + 'a;

impl Vfs {
    /// Lists the entries of a directory from `offset` on (0 at first, then [`Entry::next`]), until `add` returns that an
    /// entry did not fit. With `hold`, each added entry except `.` and `..` counts as one look-up.
    pub fn readdir(
        &self,
        ino: u64,
        offset: u64,
        hold: bool,
        mode: Mode<'_>,
        add: &mut AddEntry<'_>,
    ) -> Result<(), Fault> {
        self.wait_until_fresh(ino, mode)?;
        if self.list_view(ino, offset, hold, add) {
            return Ok(());
        }
        match self.known_inode(ino) {
            Some(Inode::Dir(dir)) if !dir.role.merges() => self.list_dir(&dir, offset, hold, mode, add),
            _ => {
                let merged = self.merged(ino).ok_or(Fault::Stale)?;
                self.merged_readdir(&merged, offset, hold, mode, add)
            }
        }
    }

    /// Lists a directory of the view; returns false if it is not one with entries of its own.
    fn list_view(&self, ino: u64, offset: u64, hold: bool, add: &mut AddEntry<'_>) -> bool {
        let view = self.view();
        let Some(dir) = view.listed_dir(ino) else { return false };
        if add_dots(self.view_attr(dir), self.view_attr(&view.dirs[dir.parent]), offset, add) {
            return true;
        }
        let skip = offset.saturating_sub(2) as usize;
        for (i, (name, target)) in dir.entries.iter().enumerate().skip(skip) {
            let attr = self.target_attr(&view, dir, name, target, hold);
            if add(&Entry { name, attr, next: i as u64 + 3 }) {
                if hold && matches!(target, Target::Snapshot(_)) {
                    self.forget(attr.ino, 1);
                }
                break;
            }
        }
        true
    }

    /// Lists a directory of a snapshot.
    fn list_dir(
        &self,
        dir: &Arc<DirInode>,
        offset: u64,
        hold: bool,
        mode: Mode<'_>,
        add: &mut AddEntry<'_>,
    ) -> Result<(), Fault> {
        let mut position = offset.saturating_sub(2);
        // Before `.` and `..`: with `Fault::Wait`, no entry may have been added.
        let mut next = self.at(dir, position, mode)?;
        if add_dots(dir.attr, Attr { ino: dir.above, ..dir.attr }, offset, add) {
            return Ok(());
        }
        let mut added = offset <= 1;
        while let Some(mut at) = next {
            while let Some((node, _)) = at.node() {
                if let Some(attr) = self.attr(dir, &at) {
                    let full = add(&Entry { name: &node.name, attr, next: position + 3 });
                    if full || (hold && !self.hold(dir, &at, &attr)) {
                        return Ok(());
                    }
                    added = true;
                }
                position += 1;
                at.advance();
            }
            next = match self.at(dir, position, mode) {
                // The added entries are an answer; the next request waits or fails.
                Err(_) if added => None,
                other => other?,
            };
        }
        Ok(())
    }
}

/// Adds `.` and `..`; returns whether an entry did not fit.
pub(super) fn add_dots(own: Attr, above: Attr, offset: u64, add: &mut AddEntry<'_>) -> bool {
    (offset == 0 && add(&Entry { name: b".", attr: own, next: 1 }))
        || (offset <= 1 && add(&Entry { name: b"..", attr: above, next: 2 }))
}
