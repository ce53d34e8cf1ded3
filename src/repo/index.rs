//! Looks up where chunks of earlier pushes are. An allowance bounds the memory, however large the repository is; sections
//! that do not fit are read when a question needs them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, RwLock};

use super::Repository;
use super::fingerprints::Fingerprints;
use super::log::State;
use super::section::{Effort, Form, Section};
use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::Result;
use crate::format::record::{NewSection, SectionKind};
use crate::format::reference::Ref;
use crate::name::ObjectId;

/// Bytes that an index may hold unless the caller says otherwise: the fingerprints of 25 million chunks.
const ALLOWANCE: usize = 80 << 20;

/// The index of a repository as of one [`State`]. Nothing is read before the first question, and only
/// [`Index::committed`] changes it. Every call may come from many threads at once.
pub struct Index {
    allowance: usize,
    view: RwLock<Arc<View>>,
}

/// The sections and condemned packs of one state.
#[derive(Clone)]
struct View {
    /// The sections in force, each with the live record that names it.
    sections: Vec<(ObjectId, Arc<Section>)>,
    doomed: HashSet<ObjectId>,
}

impl Index {
    /// The index of this state.
    pub fn new(state: &State) -> Self {
        let sections = state.index_sections();
        let sections = sections.into_iter().map(|(holder, place)| (holder, Arc::new(Section::new(place)))).collect();
        let view = View { sections, doomed: state.doomed_packs() };
        view.settle(ALLOWANCE);
        Index { allowance: ALLOWANCE, view: RwLock::new(Arc::new(view)) }
    }

    /// The same index with another allowance, in bytes.
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.allowance = bytes;
        self.view().settle(bytes);
        self
    }

    /// Bytes that are held at the moment, without the cache of blocks that all readers share.
    pub fn held(&self) -> usize {
        self.view().sections.iter().map(|(_, section)| section.held()).sum()
    }

    /// Returns where a chunk is, in a pack that is neither condemned nor dropped. A section that cannot be read is an
    /// error unless another one has the chunk: the caller decides whether to go on as if it were unknown.
    pub fn find(&self, ctx: &Context, repo: &Repository, id: &ChunkId) -> Result<Option<(ChunkKind, Ref)>> {
        let mut found = None;
        let visited = self.visit(ctx, repo, id, |row| {
            if row.is_condemned {
                return ControlFlow::Continue(());
            }
            found = Some((row.kind, row.place));
            ControlFlow::Break(())
        });
        if found.is_some() { Ok(found) } else { visited.map(|()| None) }
    }

    /// Hands every row of a chunk to `visit`, until it breaks. Where sections cannot be read, that is an error after the
    /// rows of all others were visited. No lock is held meanwhile.
    pub fn visit(
        &self,
        ctx: &Context,
        repo: &Repository,
        id: &ChunkId,
        mut visit: impl FnMut(IndexRow) -> ControlFlow<()>,
    ) -> Result<()> {
        let view = self.view();
        let mut open: Vec<&Section> = view.sections.iter().map(|(_, section)| &**section).collect();
        let mut failed = None;
        // Sections in memory come first, then those that no other thread is reading, then the rest.
        for effort in [Effort::Memory, Effort::Free, Effort::Wait] {
            let mut left = Vec::new();
            for section in open {
                match view.row(ctx, repo, section, id, effort) {
                    Ok(None) => left.push(section),
                    Ok(Some(None)) => {}
                    Ok(Some(Some(row))) if visit(row).is_break() => return Ok(()),
                    Ok(Some(Some(_))) => {}
                    Err(e) => failed = Some(e),
                }
            }
            open = left;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Adds what `record`, just committed by this client with these new sections, says about chunks; nothing is
    /// fetched. `state` is the one after the commit. Sections of records that it supersedes count no longer, unless it
    /// names them itself; packs that were condemned meanwhile are not given any more.
    pub fn committed(&self, state: &State, record: &ObjectId, sections: Vec<NewSection>) {
        let mut view = self.view.write().expect("no holder panics");
        let mut next = View::clone(&view);
        next.doomed = state.doomed_packs();
        let superseded: BTreeSet<ObjectId> = state.superseded_by(record).collect();
        let (stale, kept): (Vec<_>, Vec<_>) =
            next.sections.into_iter().partition(|(holder, _)| superseded.contains(holder));
        let mut known: BTreeMap<_, _> = stale.into_iter().map(|(_, section)| (section.place.key(), section)).collect();
        next.sections = kept;
        let mut bytes = sections.into_iter();
        for place in state.sections_of(record) {
            let own = place.object.id == *record;
            let new = if own { bytes.next().map(|section| section.bytes) } else { None };
            if matches!(place.section.kind, SectionKind::Index { .. }) {
                let section = known.remove(&place.key()).unwrap_or_else(|| Arc::new(Section::new(place)));
                new.into_iter().for_each(|bytes| section.give(bytes));
                next.sections.push((*record, section));
            }
        }
        next.settle(self.allowance);
        *view = Arc::new(next);
    }

    /// From now on nothing in these packs is given. (A commit forgets that: its record must condemn them.)
    pub fn doom(&self, packs: &BTreeSet<ObjectId>) {
        let mut view = self.view.write().expect("no holder panics");
        let mut next = View::clone(&view);
        next.doomed.extend(packs);
        *view = Arc::new(next);
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().expect("no holder panics"))
    }
}

/// A row of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// The kind of the chunk.
    pub kind: ChunkKind,
    /// Where it is.
    pub place: Ref,
    /// Its pack is condemned or dropped.
    pub is_condemned: bool,
}

impl View {
    /// Returns the row of a chunk in one section. The outer `None`: that takes more effort.
    fn row(
        &self,
        ctx: &Context,
        repo: &Repository,
        section: &Section,
        id: &ChunkId,
        effort: Effort,
    ) -> Result<Option<Option<IndexRow>>> {
        let Some(found) = section.find(ctx, repo, id, effort)? else { return Ok(None) };
        let Some((number, entry)) = found else { return Ok(Some(None)) };
        let place = entry.in_pack(section.pack(ctx, repo, number)?);
        place.check()?;
        Ok(Some(Some(IndexRow { kind: entry.kind, place, is_condemned: self.doomed.contains(&place.pack.id) })))
    }

    /// Allots the allowance to the sections, and drops everything that is held beyond it.
    fn settle(&self, allowance: usize) {
        let lengths: Vec<_> = self.sections.iter().map(|(_, section)| section.len()).collect();
        for ((_, section), form) in self.sections.iter().zip(plan(&lengths, allowance)) {
            section.allow(form);
        }
    }
}

/// Returns the form in which each section of these lengths is held: fingerprints of as many as possible, the smaller ones
/// first (every question for a new chunk asks each section, so their number counts); with the rest of the allowance, the
/// smaller ones whole.
fn plan(lengths: &[usize], allowance: usize) -> Vec<Form> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|i| lengths[*i]);
    let (mut plan, mut left) = (vec![Form::Places; lengths.len()], allowance);
    for i in &order {
        if let Some(rest) = left.checked_sub(Fingerprints::size(lengths[*i])) {
            (plan[*i], left) = (Form::Fingerprints, rest);
        }
    }
    for i in order {
        let more = lengths[i] - Fingerprints::size(lengths[i]).min(lengths[i]);
        if plan[i] == Form::Fingerprints && left >= more {
            (plan[i], left) = (Form::Whole, left - more);
        }
    }
    plan
}
