//! The set of chunks, each with its pack, that the trees of some snapshots reach; for `prune`.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::Trees;
use super::hash_set::{EACH, HashSet46};
use super::reach::{Visit, walk_in_waves};
use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::{Error, Kind, Result};
use crate::format::node::Node;
use crate::format::reference::Ref;
use crate::name::ObjectId;

/// The reachable part of one pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Distinct chunks.
    pub chunks: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

impl std::ops::Add for Reached {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Reached { chunks: self.chunks + other.chunks, bytes: self.bytes + other.bytes }
    }
}

/// The chunks that trees reach, each in the pack that a reference names. A chunk in a condemned pack is *displaced*: it is
/// reachable in every pack that has it too, since readers look for it there. Hashes under a key of this run stand for the
/// chunks, at most 8 bytes each; a collision can only make an unreachable chunk look reachable.
pub struct Reachable {
    key: RandomState,
    found: Found,
}

#[derive(Default)]
struct Found {
    /// Hashes of (chunk, pack).
    places: HashSet46,
    /// Hashes of chunks that count in every pack.
    anywhere: HashSet46,
    packs: HashMap<ObjectId, Reached>,
    /// The error that makes the set incomplete.
    incomplete: Option<Error>,
}

/// Which packs are asked about, and how much may be held.
pub struct Scope<'s> {
    /// Packs whose chunks are wanted; a caller with little memory asks about some packs at a time.
    pub is_wanted: &'s (dyn Fn(&ObjectId) -> bool + Sync),
    /// Packs that are condemned or dropped. Packs that are missing or damaged must be condemned before this is asked.
    pub condemned: &'s HashSet<ObjectId>,
    /// Most bytes of memory.
    pub memory: u64,
}

impl Reachable {
    /// Reads all pages of the trees with these roots, and reports each as a file that is done.
    ///
    /// # Errors
    ///
    /// A page that cannot be read anywhere: nothing may be removed while its references are unknown. More reachable chunks
    /// than `scope.memory` holds: fewer packs at a time need less.
    pub fn of(ctx: &Context, trees: &Trees<'_>, roots: &[Ref], scope: &Scope<'_>) -> Result<Self> {
        let (reachable, gap) = Self::with_gaps(ctx, trees, [roots, &[]], scope)?;
        gap.map_or(Ok(reachable), Err)
    }

    /// Returns the set like [`Reachable::of`], and the error that makes it incomplete. An incomplete set proves nothing. The
    /// second roots belong to forgotten snapshots, whose packs may have been removed.
    pub fn with_gaps(
        ctx: &Context,
        trees: &Trees<'_>,
        roots: [&[Ref]; 2],
        scope: &Scope<'_>,
    ) -> Result<(Self, Option<Error>)> {
        let (found, is_forgotten) = Default::default();
        let collector = Collector { ctx, is_forgotten, key: RandomState::new(), found, scope };
        let tops: Vec<_> = roots.concat().into_iter().map(|root| (ChunkKind::Page, root)).collect();
        collector.references(&tops);
        walk_in_waves(ctx, trees.repo(), Some(trees.lookup()), &roots, scope.memory / 2, &collector)?;
        let mut found = collector.found.into_inner().expect("no holder panics");
        let gap = found.incomplete.take();
        Ok((Reachable { key: collector.key, found }, gap))
    }

    /// Returns whether a tree names this chunk in this pack.
    pub fn names(&self, chunk: &ChunkId, pack: &ObjectId) -> bool {
        self.found.places.contains(self.key.hash_one((chunk, pack)))
    }

    /// Returns whether a tree names this chunk in a condemned pack.
    pub fn is_displaced(&self, chunk: &ChunkId) -> bool {
        self.found.anywhere.contains(self.key.hash_one(chunk))
    }

    /// Returns whether a tree names a chunk in any condemned pack.
    pub fn has_displaced(&self) -> bool {
        self.displaced() > 0
    }

    /// Returns the number of chunks that trees name in condemned packs.
    pub fn displaced(&self) -> u64 {
        self.found.anywhere.len()
    }

    /// Returns whether a tree needs this chunk in this pack.
    pub fn contains(&self, chunk: &ChunkId, pack: &ObjectId) -> bool {
        self.names(chunk, pack) || self.is_displaced(chunk)
    }

    /// Returns the packs that trees name.
    pub fn packs(&self) -> impl Iterator<Item = &ObjectId> {
        self.found.packs.keys()
    }

    /// Returns the reachable part of this pack.
    pub fn in_pack(&self, pack: &ObjectId) -> Reached {
        self.found.packs.get(pack).copied().unwrap_or_default()
    }
}

struct Collector<'s> {
    ctx: &'s Context<'s>,
    /// The trees of forgotten snapshots are being read.
    is_forgotten: AtomicBool,
    key: RandomState,
    found: Mutex<Found>,
    scope: &'s Scope<'s>,
}

impl Collector<'_> {
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().expect("no holder panics")
    }
}

impl Visit for Collector<'_> {
    fn references(&self, references: &[(ChunkKind, Ref)]) {
        let mut found = self.lock();
        for (_, r) in references {
            if self.scope.condemned.contains(&r.pack.id) {
                found.anywhere.insert(self.key.hash_one(r.id));
            }
            if (self.scope.is_wanted)(&r.pack.id) && found.places.insert(self.key.hash_one((&r.id, &r.pack.id))) {
                let reached = found.packs.entry(r.pack.id).or_default();
                reached.chunks += 1;
                reached.bytes += u64::from(r.stored);
            }
        }
        let most = self.scope.memory / 2 / EACH;
        if found.places.len() + found.anywhere.len() > most {
            found.places.clear();
            found.anywhere.clear();
            let text = format!("more than {most} chunks are reachable, which needs more memory");
            found.incomplete.get_or_insert(Error::new(Kind::Failed, text));
        }
    }

    fn read(&self, bytes: u64, _: &[Node]) {
        self.ctx.done(1, bytes);
    }

    fn wave(&self, number: usize) {
        self.is_forgotten.store(number > 0, Ordering::Relaxed);
    }

    fn unreadable(&self, page: &Ref, why: &Error) {
        let is_removed = self.scope.condemned.contains(&page.pack.id) && why.kind() == Kind::Missing;
        if is_removed && self.is_forgotten.load(Ordering::Relaxed) {
            return;
        }
        self.lock().incomplete.get_or_insert(Error::new(why.kind(), why.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::background;
    use crate::trees::sample_trees_for_tests::{data, dir, file, repository, write};

    #[test]
    fn chunks_are_reachable_where_trees_name_them() {
        let (_, repo) = repository();
        let below = [("x".into(), file(1, 11)), ("y".into(), file(2, 22))].into();
        let tree = [("a".into(), file(3, 11)), ("d".into(), dir(4, below))].into();
        let [root] = write(&repo, [&tree]);
        let root = root.unwrap();
        let trees = Trees::new(&repo);
        let find = |is_wanted: &(dyn Fn(&ObjectId) -> bool + Sync), condemned: &HashSet<ObjectId>, memory| {
            Reachable::of(background(), &trees, &[root], &Scope { is_wanted, condemned, memory })
        };
        let all = find(&|_| true, &HashSet::new(), 1 << 20).unwrap();
        let contents = data(11).pack.id;
        assert!(all.contains(&data(11).id, &contents) && all.contains(&root.id, &root.pack.id));
        assert!(!all.contains(&data(12).id, &contents), "no tree has this chunk");
        assert!(!all.contains(&data(11).id, &root.pack.id), "nor this one there");
        assert_eq!(all.in_pack(&contents), Reached { chunks: 2, bytes: 200 });
        let meta = find(&|id| *id == root.pack.id, &HashSet::new(), 1 << 20).unwrap();
        assert_eq!((meta.in_pack(&contents), meta.in_pack(&root.pack.id).chunks), (Reached::default(), 2));
        let condemned = find(&|_| true, &HashSet::from([contents]), 1 << 20).unwrap();
        assert!(condemned.contains(&data(11).id, &ObjectId([1; 32])), "any pack may be its last");
        assert!(find(&|_| true, &HashSet::new(), 60).is_err(), "too many chunks for so little memory");
    }
}
