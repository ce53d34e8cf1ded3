//! Looks up the place of a chunk by its id. Holds as much of the index in memory as an allowance permits, and reads the
//! rest from the server when it is needed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, RwLock};

use super::fingerprints::Fingerprints;
use super::section::{Effort, Form, IndexSection};
use super::state::State;
use super::{Repository, parallel};
use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::{Error, Result};
use crate::format::record::{NewSection, SectionKind};
use crate::format::reference::Ref;
use crate::name::ObjectId;

/// Default allowance in bytes: the fingerprints of 25 million chunks.
const ALLOWANCE: usize = 80 << 20;
/// Sections that one look-up reads at the same time. Each is read whole if it has at most 1 MiB.
const READERS: usize = 16;

/// The index of a repository as of one [`State`]. Reads nothing before the first look-up. Only [`Index::committed`] and
/// [`Index::condemn`] change it. All methods may be called from many threads at once.
pub struct Index {
    allowance: usize,
    view: RwLock<Arc<View>>,
}

/// The sections that look-ups use.
#[derive(Clone)]
struct View {
    /// Live sections, each with the record that names it.
    sections: Vec<(ObjectId, Arc<IndexSection>)>,
    condemned: HashSet<ObjectId>,
}

impl Index {
    /// Creates the index of a state.
    pub fn new(state: &State) -> Self {
        let sections = state.index_sections();
        let sections =
            sections.into_iter().map(|(holder, place)| (holder, Arc::new(IndexSection::new(place)))).collect();
        let view = View { sections, condemned: state.condemned_packs() };
        view.allot(ALLOWANCE);
        Index { allowance: ALLOWANCE, view: RwLock::new(Arc::new(view)) }
    }

    /// Sets the allowance in bytes.
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.allowance = bytes;
        self.view().allot(bytes);
        self
    }

    /// Returns the bytes in memory, without the block cache that all readers share.
    pub fn held(&self) -> usize {
        self.view().sections.iter().map(|(_, section)| section.held()).sum()
    }

    /// Returns where a chunk is, in a pack that is neither condemned nor dropped. A section that cannot be read is an
    /// error unless another one has the chunk: the caller decides whether to treat the chunk as unknown.
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
    /// rows of all others were visited. No lock is held meanwhile. Takes two rounds at most, for up to 17 sections, while
    /// no other thread reads them.
    pub fn visit(
        &self,
        ctx: &Context,
        repo: &Repository,
        id: &ChunkId,
        visit: impl FnMut(IndexRow) -> ControlFlow<()>,
    ) -> Result<()> {
        let view = self.view();
        let row = |section: &IndexSection, effort| view.row(ctx, repo, section, id, effort);
        let mut rows = Rows { visit, open: Vec::new(), failed: None };
        for (_, section) in &view.sections {
            if rows.take(section, row(section, Effort::Memory)).is_break() {
                return Ok(());
            }
        }
        // `prune` moves chunks, and then the newest section has their places. The others are read at once.
        let mut newest = std::mem::take(&mut rows.open);
        newest.sort_by_key(|section| Reverse(section.sequence()));
        let others = newest.split_off(newest.len().min(1));
        for (sections, effort) in [(newest, Effort::Wait), (others, Effort::Free)] {
            for (section, answer) in parallel(READERS, sections, |section| (section, row(section, effort))) {
                if rows.take(section, answer).is_break() {
                    return Ok(());
                }
            }
        }
        for section in std::mem::take(&mut rows.open) {
            if rows.take(section, row(section, Effort::Wait)).is_break() {
                return Ok(());
            }
        }
        rows.failed.map_or(Ok(()), Err)
    }

    /// Adds the sections of `record`, which this client has just committed with these new sections, without reading them
    /// back. `state` is the one after the commit. Drops sections of superseded records unless `record` names them, and
    /// ignores packs that were condemned meanwhile.
    pub fn committed(&self, state: &State, record: &ObjectId, sections: Vec<NewSection>) {
        let mut view = self.view.write().expect("no holder panics");
        let mut next = View::clone(&view);
        next.condemned = state.condemned_packs();
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
                let section = known.remove(&place.key()).unwrap_or_else(|| Arc::new(IndexSection::new(place)));
                new.into_iter().for_each(|bytes| section.keep(bytes));
                next.sections.push((*record, section));
            }
        }
        next.allot(self.allowance);
        *view = Arc::new(next);
    }

    /// Ignores these packs until the next [`Index::committed`], whose record must condemn them.
    pub fn condemn(&self, packs: &BTreeSet<ObjectId>) {
        let mut view = self.view.write().expect("no holder panics");
        let mut next = View::clone(&view);
        next.condemned.extend(packs);
        *view = Arc::new(next);
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().expect("no holder panics"))
    }
}

/// A row of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// Type of the chunk.
    pub kind: ChunkKind,
    /// Its place.
    pub place: Ref,
    /// Its pack is condemned or dropped.
    pub is_condemned: bool,
}

/// The rows of a chunk, as the sections answer.
struct Rows<'s, V> {
    visit: V,
    /// Sections that need a higher effort.
    open: Vec<&'s IndexSection>,
    /// Why a section cannot be read.
    failed: Option<Error>,
}

impl<'s, V: FnMut(IndexRow) -> ControlFlow<()>> Rows<'s, V> {
    /// Takes the answer of a section.
    fn take(&mut self, section: &'s IndexSection, answer: Result<Option<Option<IndexRow>>>) -> ControlFlow<()> {
        match answer {
            Ok(Some(Some(row))) => return (self.visit)(row),
            Ok(Some(None)) => {}
            Ok(None) => self.open.push(section),
            Err(e) => self.failed = Some(e),
        }
        ControlFlow::Continue(())
    }
}

impl View {
    /// Returns the row of a chunk in one section. The outer `None`: that takes more effort.
    fn row(
        &self,
        ctx: &Context,
        repo: &Repository,
        section: &IndexSection,
        id: &ChunkId,
        effort: Effort,
    ) -> Result<Option<Option<IndexRow>>> {
        let Some(found) = section.find(ctx, repo, id, effort)? else { return Ok(None) };
        let Some((number, entry)) = found else { return Ok(Some(None)) };
        let place = entry.in_pack(section.pack(ctx, repo, number)?);
        place.check()?;
        Ok(Some(Some(IndexRow { kind: entry.kind, place, is_condemned: self.condemned.contains(&place.pack.id) })))
    }

    /// Allots memory to each section, and drops data beyond the allotment.
    fn allot(&self, allowance: usize) {
        let lengths: Vec<_> = self.sections.iter().map(|(_, section)| section.len()).collect();
        for ((_, section), form) in self.sections.iter().zip(plan(&lengths, allowance)) {
            section.allow(form);
        }
    }
}

/// Returns the form in memory of sections of these lengths: fingerprints of as many sections as possible, smaller
/// sections first (each look-up of a new chunk asks all sections, so their number counts). With the rest of the
/// allowance, smaller sections are held whole.
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
