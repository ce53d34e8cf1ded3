//! The verdict on a run: reads all expected snapshots, prunes without faults, and searches for garbage.

use std::sync::{Arc, Mutex};

use crate::check;
use crate::context::background;
use crate::crypto::keys::ChunkId;
use crate::crypto::seal::{self, ObjectType, plain_len};
use crate::error::{Error, Result};
use crate::format::node::{Content, Node};
use crate::format::pack;
use crate::format::record::{Action, Head, Mark, Snapshot};
use crate::format::reference::{Extent, Ref};
use crate::name::{Name, ObjectId};
use crate::repo::{Access, Repository, Span, State};
use crate::seen::SeenStore;
use crate::trees::{Reachable, Scope, Trees};

use super::base::base;
use super::client::{Journal, Saved};
use super::pruner::clean;
use super::storage::{ClientClock, Line};
use super::tree::{Model, nodes, number, text};
use super::world::World;

/// The last client, which checks the result.
pub struct Judge<'j> {
    pub world: &'j Arc<World>,
    pub client: usize,
    pub journal: &'j Mutex<Journal>,
    pub seen: SeenStore,
}

impl Judge<'_> {
    /// Returns all faults.
    pub fn faults(&self) -> Result<Vec<String>> {
        self.world.lock().calm(self.client);
        let is_vandalised = self.world.lock().plan.vandal;
        if is_vandalised {
            self.undelete()?;
        }
        self.forget_unconfirmed()?;
        let mut faults = self.look("in the end")?;
        if faults.is_empty() && !is_vandalised && !self.world.lock().server.has_damage() {
            let (pruned, grace) = (self.open(), self.world.lock().plan.grace);
            clean(&pruned, grace, |seconds| drop(self.world.turn(self.client, seconds)))?;
            faults = self.look("after the last prune")?;
            faults.extend(self.garbage()?);
        }
        Ok(faults)
    }

    fn open(&self) -> Repository {
        let line = Line { world: Arc::clone(self.world), client: self.client };
        let clock = ClientClock { world: Arc::clone(self.world), client: self.client };
        let access = Access { seen: Some(self.seen.clone()), ..Access::default() };
        base().repo.behind_with(Arc::new(line), &access).with_clock(Arc::new(clock))
    }

    fn look(&self, when: &str) -> Result<Vec<String>> {
        let repo = self.open();
        let state = repo.state(background())?;
        let snapshots = state.snapshots();
        let mut faults = Vec::new();
        for saved in self.kept() {
            let name = format!("loss: {when}: snapshot {} of writer{}", saved.id.short(), saved.client);
            match snapshots.iter().find(|s| s.id == saved.id) {
                None => faults.push(format!("{name} was saved and is not there")),
                Some(snapshot) => faults.extend(self.read(&repo, snapshot, &saved.model, &name)?),
            }
        }
        if !self.world.lock().server.has_damage() {
            faults.extend(checked(&repo, &state, when)?);
        }
        Ok(faults)
    }

    /// Forgets unreadable snapshots that no push reported as saved, like `repair --yes`. A killed writer may leave one,
    /// if its record arrived and the second look did not happen.
    fn forget_unconfirmed(&self) -> Result<()> {
        let repo = self.open();
        let mut state = repo.state(background())?;
        let (now, kept) = (repo.now().seconds, self.kept());
        let mut marks = Vec::new();
        for snapshot in state.snapshots().iter().filter(|s| !kept.iter().any(|saved| saved.id == s.id)) {
            let mut reader = Reader { trees: Trees::new(&repo), found: Model::default(), lost: Vec::new() };
            reader.root(snapshot)?;
            if !reader.lost.is_empty() {
                marks.push(Mark::new(snapshot.id, now, Action::Forget));
            }
        }
        if marks.is_empty() {
            return Ok(());
        }
        repo.commit(background(), &mut state, Head { marks, ..Head::default() }, &[]).map(drop)
    }

    /// Undeletes the snapshots that the vandal forgot.
    fn undelete(&self) -> Result<()> {
        let repo = self.open();
        let mut state = repo.state(background())?;
        let forgotten: Vec<_> = state.forgotten().into_iter().map(|s| s.id).collect();
        let saved = self.kept().into_iter().map(|saved| saved.id).filter(|id| forgotten.contains(id));
        let now = repo.now().seconds;
        let marks: Vec<_> = saved.map(|id| Mark::new(id, now, Action::Undelete)).collect();
        repo.commit(background(), &mut state, Head { marks, ..Head::default() }, &[]).map(drop)
    }

    fn kept(&self) -> Vec<Saved> {
        let journal = self.journal.lock().unwrap();
        journal.saved.iter().filter(|saved| !journal.forgotten.contains(&saved.id)).cloned().collect()
    }

    /// Compares a snapshot with its model.
    fn read(&self, repo: &Repository, snapshot: &Snapshot, model: &Model, name: &str) -> Result<Option<String>> {
        let mut reader = Reader { trees: Trees::new(repo), found: Model::default(), lost: Vec::new() };
        reader.root(snapshot)?;
        for (r, why) in &reader.lost {
            if self.is_deleted_by_client(repo, r)? || !self.world.lock().server.has_damage() {
                return Ok(Some(format!("{name} lost a chunk: {why}")));
            }
        }
        let differs = reader.lost.is_empty() && reader.found != *model;
        Ok(differs.then(|| format!("{name}: {:?} instead of {model:?}", reader.found)))
    }

    /// Returns whether a client deleted the pack of this reference although no other copy of the chunk was readable.
    /// Damage by the server is not the fault of a client.
    fn is_deleted_by_client(&self, repo: &Repository, r: &Ref) -> Result<bool> {
        let Some(at) = self.world.lock().server.deleted_undamaged(&r.pack.id) else { return Ok(false) };
        let later = self.world.lock().server.damaged_after(at);
        for (pack, bytes) in later {
            if has_chunk(repo, pack, &bytes, &r.id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the packs to which no snapshot refers.
    fn garbage(&self) -> Result<Vec<String>> {
        let repo = self.open();
        let state = repo.state(background())?;
        let roots: Vec<Ref> = state.snapshots().into_iter().filter_map(|s| s.root).collect();
        let trees = Trees::new(&repo);
        let condemned = state.dropped_packs();
        let scope = Scope { is_wanted: &|_| true, condemned: &condemned, memory: 1 << 20 };
        let reachable = Reachable::of(background(), &trees, &roots, &scope)?;
        let inner = self.world.lock();
        let packs =
            inner.server.objects.keys().filter_map(|name| if let Name::Pack(id) = name { Some(id) } else { None });
        let unused = packs.filter(|id| reachable.in_pack(id).chunks == 0 && !reachable.has_displaced());
        Ok(unused.map(|id| format!("garbage: nothing needs pack {}", id.short())).collect())
    }
}

/// Returns whether a pack holds a chunk.
fn has_chunk(repo: &Repository, pack: ObjectId, bytes: &[u8], id: &ChunkId) -> Result<bool> {
    let len = plain_len(bytes.len() as u64).ok_or_else(|| Error::damaged("a torso"))?;
    let open = |kind| seal::open(repo.keys(), kind, pack, bytes.to_vec());
    let plain = open(ObjectType::Data).or_else(|_| open(ObjectType::Meta))?;
    let last = plain.last_chunk().ok_or_else(|| Error::damaged("a torso"))?;
    let table = plain.len() - pack::table_len(len as u32, *last)?;
    Ok(pack::decode_table(pack, len as u32, &plain[table..])?.iter().any(|entry| entry.id == *id))
}

fn checked(repo: &Repository, state: &State, when: &str) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let report = check::check(background(), repo, state, &check::Options::default(), &mut |found| {
        findings.push(format!("check: {when}: {found:?}"));
    })?;
    Ok(if report.is_damaged() || report.is_rolled_back() { findings } else { Vec::new() })
}

/// Reads a snapshot as far as possible.
struct Reader<'r> {
    trees: Trees<'r>,
    found: Model,
    lost: Vec<(Ref, String)>,
}

impl Reader<'_> {
    fn root(&mut self, snapshot: &Snapshot) -> Result<()> {
        for directory in self.nodes(snapshot.root.as_ref())? {
            let Content::Directory(page) = &directory.content else { return Err(Error::failed("not a directory")) };
            for file in self.nodes(page.as_ref())? {
                let Content::File(extents) = &file.content else { return Err(Error::failed("not a file")) };
                let mut chunks = Vec::new();
                for extent in extents {
                    let Extent::Data(r) = extent else { return Err(Error::failed("a hole")) };
                    let read = self.trees.chunk(background(), r, Span::Exact);
                    chunks.extend(self.kept(r, read)?.map(|bytes| number(&bytes)));
                }
                self.found.0.entry(text(&directory.name)).or_default().insert(text(&file.name), chunks);
            }
        }
        Ok(())
    }

    fn nodes(&mut self, page: Option<&Ref>) -> Result<Vec<Node>> {
        let Some(r) = page else { return Ok(Vec::new()) };
        let nodes = nodes(background(), &self.trees, page);
        Ok(self.kept(r, nodes)?.unwrap_or_default())
    }

    /// Records a lost chunk.
    fn kept<T>(&mut self, r: &Ref, read: Result<T>) -> Result<Option<T>> {
        match read {
            Err(e) if e.kind().is_damage() => {
                self.lost.push((*r, e.to_string()));
                Ok(None)
            }
            other => other.map(Some),
        }
    }
}
