//! The records of a push: checkpoints with a partial snapshot, then the record with the whole snapshot.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::index;
use crate::format::record::{Action, Head, Mark, NewSection, Snapshot, SnapshotId, Stats};
use crate::format::reference::Ref;
use crate::format::sections::index_sections;
use crate::name::ObjectId;
use crate::push::pack::chunks::Chunks;
use crate::push::pack::packs::{Packs, StoredPack};
use crate::repo::{Index, Repository, State, random};
use crate::trees::{MetaPack, names_condemned_since};

/// Bytes of memory for the walk over a new tree, if packs were condemned meanwhile.
const MEMORY: u64 = 8 << 20;

/// The state of the record log, and the inputs of the next record.
pub struct Ledger<'c> {
    pub repo: &'c Repository,
    /// Not cancelled by a stop: a complete snapshot is committed.
    pub ctx: &'c Context<'c>,
    /// Cancelled some seconds after a stop: for the last checkpoint.
    pub last: &'c Context<'c>,
    pub state: &'c mut State,
    pub chunks: &'c Chunks,
    pub packs: &'c Packs<'c>,
    pub index: &'c Index,
    pub started: Instant,
    /// Figures of the snapshot that is copied. A copy has them too.
    pub figures: Option<Stats>,
    /// The snapshot to be, without id, root and figures.
    pub draft: Snapshot,
    /// The last partial snapshot of this push.
    pub partial: Option<SnapshotId>,
    /// Packs that the server does not have. The next record condemns them.
    pub missing: BTreeSet<ObjectId>,
    /// Packs that were condemned when this push started, and packs that it has condemned.
    pub condemned: HashSet<ObjectId>,
    /// Set if other clients condemned packs meanwhile, which the snapshot may refer to.
    pub outdated: &'c AtomicBool,
}

/// The way in which a record is committed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CommitMode {
    /// On top of the log, which is listed again first.
    Refreshed,
    /// On top of the known records, in one call of the storage: the push ends early.
    Immediate,
}

/// A snapshot, and the record that holds it; `None` if the repository had the same tree already.
pub struct Committed {
    pub snapshot: Snapshot,
    pub record: Option<ObjectId>,
}

impl Ledger<'_> {
    /// Commits the whole snapshot with all packs that no record names yet. It replaces all partial snapshots of the group.
    pub fn whole(&mut self, root: Option<Ref>, stats: Stats, meta: &MetaPack<'_>) -> Result<Committed> {
        let snapshot = self.snapshot(root, stats, false)?;
        let replaced = self.partial_snapshots().map(|s| s.id).collect();
        let record = self.commit(Some(snapshot.clone()), replaced, Some(meta), CommitMode::Refreshed)?;
        Ok(Committed { snapshot, record: Some(record) })
    }

    /// Returns the snapshot without committing it, because the newest one has the same tree. If the group has partial
    /// snapshots, which would seem to be newer, the snapshot is still committed.
    pub fn unchanged(&mut self, root: Option<Ref>, stats: Stats, meta: &MetaPack<'_>) -> Result<Committed> {
        if self.partial_snapshots().next().is_some() {
            return self.whole(root, stats, meta);
        }
        if !self.packs.ready().is_empty() {
            self.contents()?;
        }
        Ok(Committed { snapshot: self.snapshot(root, stats, false)?, record: None })
    }

    /// Commits a partial snapshot and the packs that are stored. It replaces the previous partial snapshot of this push, and
    /// all partial snapshots of earlier pushes with fewer files and bytes.
    pub fn partial(&mut self, root: Option<Ref>, stats: Stats, meta: &MetaPack<'_>, mode: CommitMode) -> Result<()> {
        let snapshot = self.snapshot(root, stats, true)?;
        let smaller = self.partial_snapshots().filter(|s| s.stats.files <= stats.files && s.stats.bytes <= stats.bytes);
        let mut replaced: Vec<SnapshotId> = smaller.map(|s| s.id).chain(self.partial).collect();
        replaced.sort_unstable();
        replaced.dedup();
        let id = snapshot.id;
        self.commit(Some(snapshot), replaced, Some(meta), mode)?;
        self.partial = Some(id);
        Ok(())
    }

    /// Commits the packs that are stored, without a snapshot, so that the next push finds their chunks.
    pub fn contents(&mut self) -> Result<()> {
        self.commit(None, Vec::new(), None, CommitMode::Immediate).map(drop)
    }

    fn snapshot(&self, root: Option<Ref>, stats: Stats, partial: bool) -> Result<Snapshot> {
        let stats = Stats { milliseconds: self.started.elapsed().as_millis() as u64, ..stats };
        let stats = self.figures.filter(|_| !partial).unwrap_or(stats);
        let mut snapshot = Snapshot { id: SnapshotId(random()?), root, stats, partial, ..self.draft.clone() };
        if snapshot.shorten_paths() {
            Ok(snapshot)
        } else {
            Err(Error::failed("the description and the tags of the snapshot are longer than 4,000 bytes"))
        }
    }

    /// Returns the partial snapshots of the same host and paths, of a copy the partial copies of the same snapshot.
    fn partial_snapshots(&self) -> impl Iterator<Item = Snapshot> + '_ {
        let draft = &self.draft;
        let is_same = |s: &Snapshot| s.group == draft.group && s.host == draft.host && s.copy_of() == draft.copy_of();
        self.state.snapshots().into_iter().filter(move |s| s.partial && is_same(s))
    }

    fn commit(
        &mut self,
        snapshot: Option<Snapshot>,
        replaced: Vec<SnapshotId>,
        meta: Option<&MetaPack<'_>>,
        mode: CommitMode,
    ) -> Result<ObjectId> {
        let ready = self.packs.ready();
        let sections = sections(self.chunks, &ready, meta);
        let now = self.repo.now().seconds;
        let marks = replaced.into_iter().map(|snapshot| Mark::new(snapshot, now, Action::Forget)).collect();
        let condemned = self.missing.iter().map(|id| (*id, now)).collect();
        let head = Head { snapshots: snapshot.into_iter().collect(), marks, condemned, ..Head::default() };
        if mode == CommitMode::Immediate {
            let record = self.repo.commit_at_once(self.last, self.state, head, &sections)?;
            self.packs.committed(&ready);
            self.condemned.extend(std::mem::take(&mut self.missing));
            return Ok(record);
        }
        let roots: Vec<Ref> = head.snapshots.iter().filter_map(|s| s.root).collect();
        let whole: Vec<SnapshotId> = head.snapshots.iter().filter(|s| !s.partial).map(|s| s.id).collect();
        let known: HashSet<ObjectId> = self.condemned.union(&self.missing.iter().copied().collect()).copied().collect();
        let (repo, ctx, outdated) = (self.repo, self.ctx, self.outdated);
        let commit = repo.commit_if(ctx, self.state, head, &sections, |state| {
            if !names_condemned_since(ctx, repo, state, &known, &roots, MEMORY)? {
                return Ok(());
            }
            outdated.store(true, Ordering::Relaxed);
            Err(condemned_meanwhile())
        })?;
        if let Some(doubt) = commit.doubt {
            outdated.store(true, Ordering::Relaxed);
            self.take_back(&whole)?;
            return Err(doubt);
        }
        let record = commit.record;
        self.condemned.extend(std::mem::take(&mut self.missing));
        self.index.committed(self.state, &record, sections);
        self.packs.committed(&ready);
        Ok(record)
    }

    /// Forgets snapshots that were committed and must not count.
    fn take_back(&mut self, snapshots: &[SnapshotId]) -> Result<()> {
        if snapshots.is_empty() {
            return Ok(());
        }
        let now = self.repo.now().seconds;
        let marks = snapshots.iter().map(|snapshot| Mark::new(*snapshot, now, Action::Forget)).collect();
        let head = Head { marks, ..Head::default() };
        self.repo.commit_at_once(self.ctx, self.state, head, &[]).map(drop)
    }
}

fn condemned_meanwhile() -> Error {
    Error::failed("packs were condemned while the push went on")
        .hint("run the same push again: it continues with the stored data")
}

/// Returns the sections that make these packs known.
fn sections(chunks: &Chunks, ready: &[StoredPack], meta: Option<&MetaPack<'_>>) -> Vec<NewSection> {
    let packs: Vec<_> = ready.iter().map(|pack| (pack.pack, pack.kind)).collect();
    // Numbers count packs of earlier pushes and metadata packs too; rows do not.
    let row = |number: u32| ready.binary_search_by_key(&number, |pack| pack.number).ok().map(|row| row as u32);
    let mut entries = chunks.in_packs(row);
    let rows: HashMap<ObjectId, u32> = ready.iter().map(|pack| pack.pack.id).zip(0..).collect();
    let uncommitted = meta.into_iter().flat_map(MetaPack::uncommitted);
    entries.extend(uncommitted.filter_map(|(pack, entry)| Some((*rows.get(&pack.id)?, *entry))));
    index_sections(&packs, index::rows(&entries), 0)
}
