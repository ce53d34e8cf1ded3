//! The records that make a push count: checkpoints with what there is so far, and the last one with the whole snapshot.

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
use crate::repo::{Index, Repository, State, now, random};
use crate::trees::MetaPack;

/// What the log knows of this run, and all that a further record needs.
pub struct Ledger<'c> {
    pub repo: &'c Repository,
    /// Not ended by a stop: what is complete is committed.
    pub ctx: &'c Context<'c>,
    /// Ends some seconds after a stop.
    pub last: &'c Context<'c>,
    pub state: &'c mut State,
    pub chunks: &'c Chunks,
    pub packs: &'c Packs<'c>,
    pub index: &'c Index,
    pub started: Instant,
    /// The snapshot that is to be, but for its id, root and figures.
    pub draft: Snapshot,
    /// The last partial snapshot of this run.
    pub partial: Option<SnapshotId>,
    /// Packs that are not there any more; the next record condemns them.
    pub absent: BTreeSet<ObjectId>,
    /// Packs that were doomed when this run began, and those that it has condemned.
    pub doomed: HashSet<ObjectId>,
    /// Others were condemned meanwhile: what this run refers to may soon be gone.
    pub outdated: &'c AtomicBool,
}

/// How a record is committed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CommitMode {
    /// On top of the log as it is now.
    Refreshed,
    /// On top of the log as it is known, in one call of the storage: the push ends early.
    Immediate,
}

/// A snapshot, and the record that holds it; `None` if the repository had the same tree already.
pub struct Committed {
    pub snapshot: Snapshot,
    pub record: Option<ObjectId>,
}

impl Ledger<'_> {
    /// Commits the snapshot with everything that was not committed yet. All unfinished ones of its group end with it.
    pub fn whole(&mut self, root: Option<Ref>, stats: Stats, meta: &MetaPack<'_>) -> Result<Committed> {
        let snapshot = self.snapshot(root, stats, false)?;
        let replaced = self.unfinished().map(|s| s.id).collect();
        let record = self.commit(Some(snapshot.clone()), replaced, Some(meta), CommitMode::Refreshed)?;
        Ok(Committed { snapshot, record: Some(record) })
    }

    /// Gives the snapshot without committing it: another one holds the same. If unfinished ones of its group are about,
    /// they would seem to be newer, so then it is needed all the same.
    pub fn unchanged(&mut self, root: Option<Ref>, stats: Stats, meta: &MetaPack<'_>) -> Result<Committed> {
        if self.unfinished().next().is_some() {
            return self.whole(root, stats, meta);
        }
        if !self.packs.ready().is_empty() {
            self.contents()?;
        }
        Ok(Committed { snapshot: self.snapshot(root, stats, false)?, record: None })
    }

    /// Commits what is stored so far, with a snapshot of the part of the tree that is known. It takes the place of the one
    /// before, and of those of earlier pushes that did not get as far.
    pub fn partial(&mut self, root: Option<Ref>, stats: Stats, meta: &MetaPack<'_>, mode: CommitMode) -> Result<()> {
        let snapshot = self.snapshot(root, stats, true)?;
        let further = |s: &Snapshot| s.stats.files <= stats.files && s.stats.bytes <= stats.bytes;
        let replaced = self.unfinished().filter(|s| self.partial == Some(s.id) || further(s)).map(|s| s.id);
        let mut replaced: Vec<SnapshotId> = replaced.chain(self.partial).collect();
        replaced.sort_unstable();
        replaced.dedup();
        let id = snapshot.id;
        self.commit(Some(snapshot), replaced, Some(meta), mode)?;
        self.partial = Some(id);
        Ok(())
    }

    /// Commits what is stored, without a snapshot: the next push finds its contents and does not send them again.
    pub fn contents(&mut self) -> Result<()> {
        self.commit(None, Vec::new(), None, CommitMode::Immediate).map(drop)
    }

    fn snapshot(&self, root: Option<Ref>, stats: Stats, partial: bool) -> Result<Snapshot> {
        let stats = Stats { milliseconds: self.started.elapsed().as_millis() as u64, ..stats };
        let mut snapshot = Snapshot { id: SnapshotId(random()?), root, stats, partial, ..self.draft.clone() };
        if snapshot.shorten_paths() {
            Ok(snapshot)
        } else {
            Err(Error::failed("the description and the tags of the snapshot are longer than 4,000 bytes"))
        }
    }

    /// Partial snapshots of the same host and paths.
    fn unfinished(&self) -> impl Iterator<Item = Snapshot> + '_ {
        let ours = |s: &Snapshot| s.partial && s.group == self.draft.group && s.host == self.draft.host;
        self.state.snapshots().into_iter().filter(ours)
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
        let marks = replaced.into_iter().map(|snapshot| Mark::new(snapshot, now().seconds, Action::Forget)).collect();
        let condemned = self.absent.iter().map(|id| (*id, now().seconds)).collect();
        let head = Head { snapshots: snapshot.into_iter().collect(), marks, condemned, ..Head::default() };
        if mode == CommitMode::Immediate {
            let record = self.repo.commit_at_once(self.last, self.state, head, &sections)?;
            self.packs.committed(&ready);
            self.doomed.extend(std::mem::take(&mut self.absent));
            return Ok(record);
        }
        let whole = head.snapshots.iter().any(|s| !s.partial);
        let (known, outdated) = (&self.doomed, self.outdated);
        let record = self.repo.commit_if(self.ctx, self.state, head, &sections, |state| {
            if whole { still_current(state, known, outdated) } else { Ok(()) }
        })?;
        self.doomed.extend(std::mem::take(&mut self.absent));
        self.index.committed(self.state, &record, sections);
        self.packs.committed(&ready);
        Ok(record)
    }
}

/// Fails if packs were condemned since the push began: a whole snapshot must not refer to any of them.
fn still_current(state: &State, known: &HashSet<ObjectId>, outdated: &AtomicBool) -> Result<()> {
    if state.condemned_packs().is_subset(known) {
        return Ok(());
    }
    outdated.store(true, Ordering::Relaxed);
    Err(Error::failed("packs were condemned while the push went on").hint("the same push again goes on"))
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
