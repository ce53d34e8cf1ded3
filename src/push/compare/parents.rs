//! The snapshots before this one: what need not be read again. Walked in step with the file system, never held whole.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, OnceLock};

use rustix::fs::Stat;

use super::renames::Moved;
use crate::context::Context;
use crate::error::Result;
use crate::format::codec;
use crate::format::node::{CHANGED, Content, Node, PARTIAL, Xattrs};
use crate::format::record::{Extra, Snapshot};
use crate::format::reference::{Extent, Ref};
use crate::name::ObjectId;
use crate::push::read::attributes;
use crate::repo::State;
use crate::time::Time;
use crate::trees::{Entries, Trees};

/// How long before a push began a file must have been left alone for its times to prove that the push saw its last
/// state: clocks of file systems tick every 10 ms at worst.
pub const GRANULE: i64 = 20_000_000;
/// The same where times are whole seconds, or two (FAT).
const COARSE: i64 = 2_000_000_000;
/// The key in a snapshot's `extra` under which stands when its push began, where that is not the snapshot's time.
const BEGUN: u32 = 1;

/// Everything that is needed to trust or distrust what earlier snapshots say.
pub struct Parents {
    /// In order of preference: the unfinished push that this one continues, then the last whole one.
    pub snapshots: Vec<Snapshot>,
    doomed: HashSet<ObjectId>,
    /// Made when it is needed first.
    pub moved: OnceLock<Moved>,
    /// Which device a file system (by the begin of the push and its number there) is now.
    pub devices: Mutex<HashMap<(i64, u32), u64>>,
}

impl Parents {
    /// The newest snapshots of the same host and paths, else the newest of the same host. Snapshots from the future
    /// cannot prove that a file was left alone since.
    pub fn choose(state: &State, host: &str, group: u64, now: Time) -> Self {
        let mut all = state.snapshots();
        all.retain(|s| began(s) <= now && s.root.is_some());
        all.sort_by_key(began);
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
        let (moved, devices) = Default::default();
        Parents { snapshots, doomed: state.condemned_packs(), moved, devices }
    }

    /// Nothing in these packs may be taken over.
    pub fn doom(&mut self, packs: &BTreeSet<ObjectId>) {
        self.doomed.extend(packs);
    }

    /// The root directories.
    pub fn roots<'r>(&self, ctx: &'r Context<'r>, trees: &'r Trees<'r>) -> Vec<Old<'r>> {
        self.snapshots.iter().map(|s| Old::new(ctx, trees, begun(s), s.root)).collect()
    }

    /// Whether a reference may be taken over: prune has no plans for its pack.
    pub fn lasts(&self, r: &Ref) -> bool {
        self.doomed.is_empty() || !self.doomed.contains(&r.pack.id)
    }

    /// Whether the file is the one that `node` describes, untouched since; then its contents and attributes are too.
    pub fn untouched(&self, old: &Found, stat: &Stat) -> bool {
        let node = &old.node;
        let granule = if stat.st_ctime_nsec == 0 { COARSE } else { GRANULE };
        node.ctime == attributes::ctime(stat)
            && node.inode == attributes::id(stat).1
            && node.mtime == attributes::mtime(stat)
            && node.ctime < old.time.saturating_sub(granule)
    }

    /// Whether the contents of a regular file can be taken over without opening it.
    pub fn same_file(&self, ctx: &Context, trees: &Trees<'_>, old: &Found, stat: &Stat) -> bool {
        self.whole(ctx, trees, &old.node, stat) && self.untouched(old, stat) && self.xattrs_last(&old.node)
    }

    /// Whether the node has all contents of a regular file of this size, in packs that last.
    pub fn whole(&self, ctx: &Context, trees: &Trees<'_>, node: &Node, stat: &Stat) -> bool {
        matches!(node.content, Content::File(_) | Content::Large { .. })
            && node.content.size() == stat.st_size as u64
            && node.flags & (PARTIAL | CHANGED) == 0
            && self.content_lasts(ctx, trees, node)
    }

    /// Whether the file goes on where the saved beginning of it ends.
    pub fn same_beginning(&self, ctx: &Context, trees: &Trees<'_>, old: &Found, stat: &Stat) -> bool {
        let node = &old.node;
        matches!(node.content, Content::File(_) | Content::Large { .. })
            && node.flags & (PARTIAL | CHANGED) == PARTIAL
            && node.content.size() <= stat.st_size as u64
            && self.untouched(old, stat)
            && self.content_lasts(ctx, trees, node)
    }

    fn content_lasts(&self, ctx: &Context, trees: &Trees<'_>, node: &Node) -> bool {
        let lasts = |extent: &Extent| match extent {
            Extent::Data(r) => self.lasts(r),
            Extent::Hole(_) => true,
        };
        match &node.content {
            Content::File(extents) => extents.iter().all(lasts),
            Content::Large { list, .. } if self.doomed.is_empty() => self.lasts(list),
            Content::Large { list, .. } => {
                self.lasts(list) && trees.extents(ctx, &node.content).all(|e| e.is_ok_and(|e| lasts(&e)))
            }
            _ => true,
        }
    }

    /// Whether stored attributes can be taken over.
    pub fn xattrs_last(&self, node: &Node) -> bool {
        match &node.xattrs {
            Xattrs::Inline(_) => true,
            Xattrs::Stored(r) => self.lasts(r),
        }
    }
}

/// When the push began, in nanoseconds.
pub fn begun(s: &Snapshot) -> i64 {
    attributes::nanoseconds(began(s))
}

/// When the push began: what a file's times are compared with. The snapshot's own time is what the user wants it to be.
pub fn began(s: &Snapshot) -> Time {
    let noted = s.extra.iter().find(|extra| extra.0 == BEGUN);
    noted.and_then(|(_, bytes)| codec::decode("when a push began", bytes).ok()).unwrap_or(s.time)
}

/// For [`Snapshot::extra`]: when the push began, if the snapshot bears another time.
pub fn note_begin(time: Time, begun: Time) -> Vec<Extra> {
    let note = || (BEGUN, codec::encode(&begun).into());
    (time != begun).then(note).into_iter().collect()
}

/// A node of an earlier snapshot.
pub struct Found {
    pub node: Node,
    /// It was at another path.
    pub moved: bool,
    /// When the push that saved it began, in nanoseconds.
    pub time: i64,
}

/// A directory of an earlier snapshot, read in order.
pub struct Old<'r> {
    ctx: &'r Context<'r>,
    trees: &'r Trees<'r>,
    time: i64,
    moved: bool,
    entries: Entries<'r>,
}

impl<'r> Old<'r> {
    fn new(ctx: &'r Context<'r>, trees: &'r Trees<'r>, time: i64, page: Option<Ref>) -> Self {
        Old { ctx, trees, time, moved: false, entries: trees.entries(ctx, page.as_ref()).keeping_pages() }
    }

    /// A directory that is at another path now, as it was when a push at `time` saved it.
    pub fn moved(ctx: &'r Context<'r>, trees: &'r Trees<'r>, time: i64, page: Option<Ref>) -> Self {
        Old { moved: true, ..Old::new(ctx, trees, time, page) }
    }

    /// The directory that `found`, an entry of this one, is.
    pub fn below(&self, found: &Found) -> Option<Old<'r>> {
        match found.node.content {
            Content::Directory(page) => {
                Some(Old { moved: self.moved, ..Old::new(self.ctx, self.trees, self.time, page) })
            }
            _ => None,
        }
    }

    /// The entry of this name. Names must be asked for in ascending order. Where the old directory is damaged, it is as
    /// if nothing more were in it.
    pub fn seek(&mut self, name: &[u8]) -> Result<Option<Found>> {
        match self.entries.seek(name) {
            Ok(node) => Ok(node.map(|node| Found { node, moved: self.moved, time: self.time })),
            Err(e) if e.kind().is_damage() => {
                self.entries.clear();
                self.ctx
                    .warn(&format!("a directory of the parent snapshot cannot be read, its files are read again: {e}"));
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Pages that were read since the last call, each with its first name: they are kept where nothing below changed.
    pub fn take_pages(&mut self) -> Vec<(Vec<u8>, Ref)> {
        self.entries.take_pages()
    }
}
