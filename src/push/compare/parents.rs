//! The parents: the earlier snapshots whose files need not be read again if they did not change. Their trees are walked in
//! step with the file system and are never in memory as a whole.

use std::collections::{BTreeSet, HashSet};

use rustix::fs::Stat;

use super::old::{OldDirectory, OldNode};
use super::times::{COARSE, GRANULE, begun, begun_nanoseconds};
use crate::context::Context;
use crate::format::node::{CHANGED, Content, Node, PARTIAL, Xattrs};
use crate::format::record::Snapshot;
use crate::format::reference::{Extent, Ref};
use crate::name::ObjectId;
use crate::push::read::attributes;
use crate::repo::State;
use crate::time::Time;
use crate::trees::Trees;

/// The parents, and the packs that the new snapshot must not refer to.
pub struct Parents {
    /// In order of preference: the partial snapshot that this push continues, then the newest whole one.
    pub snapshots: Vec<Snapshot>,
    condemned: HashSet<ObjectId>,
}

impl Parents {
    /// Chooses the newest snapshots of the group, or else the newest one of the same host. Snapshots from the future are
    /// ignored, because they cannot prove that a file did not change since.
    pub fn choose(state: &State, host: &str, group: u64, now: Time) -> Self {
        let mut all = state.snapshots();
        all.retain(|s| begun(s) <= now && s.root.is_some());
        all.sort_by_key(begun);
        let mut snapshots = Vec::new();
        for s in all.iter().rev().filter(|s| s.group == group && s.host == host) {
            snapshots.push(s.clone());
            if !s.partial || snapshots.len() == 2 {
                break;
            }
        }
        if snapshots.iter().all(|s| s.partial) {
            snapshots.extend(all.iter().rev().find(|s| s.host == host && !s.partial).cloned());
        }
        Parents::of(snapshots, state)
    }

    /// Returns these snapshots of a state as parents.
    pub fn of(snapshots: Vec<Snapshot>, state: &State) -> Self {
        Parents { snapshots, condemned: state.condemned_packs() }
    }

    /// Condemns further packs for this push.
    pub fn condemn(&mut self, packs: &BTreeSet<ObjectId>) {
        self.condemned.extend(packs);
    }

    /// Returns the root directories.
    pub fn roots<'r>(&self, ctx: &'r Context<'r>, trees: &'r Trees<'r>) -> Vec<OldDirectory<'r>> {
        self.snapshots.iter().map(|s| OldDirectory::new(ctx, trees, begun_nanoseconds(s), s.root)).collect()
    }

    /// Returns whether a reference may be taken over: its pack is not condemned.
    pub fn lasts(&self, r: &Ref) -> bool {
        self.condemned.is_empty() || !self.condemned.contains(&r.pack.id)
    }

    /// Returns whether the file did not change since `old` was saved, so that its contents and attributes are the same.
    pub fn untouched(&self, old: &OldNode, stat: &Stat) -> bool {
        let node = &old.node;
        let granule = if stat.st_ctime_nsec == 0 { COARSE } else { GRANULE };
        node.ctime == attributes::ctime(stat)
            && node.inode == attributes::id(stat).1
            && node.mtime == attributes::mtime(stat)
            && node.ctime < old.begun.saturating_sub(granule)
    }

    /// Returns whether the contents of a regular file can be taken over without opening it.
    pub fn same_file(&self, ctx: &Context, trees: &Trees<'_>, old: &OldNode, stat: &Stat) -> bool {
        self.has_contents(ctx, trees, &old.node, stat) && self.untouched(old, stat) && self.xattrs_last(&old.node)
    }

    /// Returns whether the node has the whole contents of a regular file of this size, in packs that last.
    pub fn has_contents(&self, ctx: &Context, trees: &Trees<'_>, node: &Node, stat: &Stat) -> bool {
        node.content.is_file()
            && node.content.size() == stat.st_size as u64
            && node.flags & (PARTIAL | CHANGED) == 0
            && self.content_lasts(ctx, trees, node)
    }

    /// Returns whether `old` is the beginning of this file.
    pub fn same_beginning(&self, ctx: &Context, trees: &Trees<'_>, old: &OldNode, stat: &Stat) -> bool {
        let node = &old.node;
        node.content.is_file()
            && node.flags & (PARTIAL | CHANGED) == PARTIAL
            && node.content.size() <= stat.st_size as u64
            && self.untouched(old, stat)
            && self.content_lasts(ctx, trees, node)
    }

    /// Returns whether no part of the contents is in a condemned pack.
    pub fn content_lasts(&self, ctx: &Context, trees: &Trees<'_>, node: &Node) -> bool {
        match &node.content {
            Content::File(extents) => extents.iter().all(|extent| self.extent_lasts(extent)),
            Content::Large { list, .. } if self.condemned.is_empty() => self.lasts(list),
            Content::Large { list, .. } => {
                let mut extents = trees.extents(ctx, &node.content);
                self.lasts(list) && extents.all(|extent| extent.is_ok_and(|extent| self.extent_lasts(&extent)))
            }
            _ => true,
        }
    }

    fn extent_lasts(&self, extent: &Extent) -> bool {
        match extent {
            Extent::Data(r) => self.lasts(r),
            Extent::Hole(_) => true,
        }
    }

    /// Returns whether the extended attributes can be taken over.
    pub fn xattrs_last(&self, node: &Node) -> bool {
        match &node.xattrs {
            Xattrs::Inline(_) => true,
            Xattrs::Stored(r) => self.lasts(r),
        }
    }
}
