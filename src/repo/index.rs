//! Looking chunks up: where contents live that some earlier push wrote.

use std::collections::HashSet;
use std::sync::Mutex;

use sha2::{Digest, Sha256};

use super::Repository;
use super::fetch::Span;
use super::log::{LiveSection, State};
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::error::{Error, Result};
use crate::format::index;
use crate::format::reference::{PackRef, Ref};
use crate::name::ObjectId;

/// Sections up to this size are read whole at the first question.
const SMALL: u32 = 1 << 20;
/// A larger section is read whole after this many questions: from then on that is cheaper than 64 KiB each.
const PATIENCE: u32 = 24;

/// The index of a repository as of one [`State`]. Nothing is read before the first question.
pub struct Index<'r> {
    repo: &'r Repository,
    sections: Vec<Mutex<Lookup>>,
    doomed: HashSet<ObjectId>,
}

struct Lookup {
    place: LiveSection,
    asked: u32,
    whole: Option<Vec<u8>>,
    packs: Option<Vec<PackRef>>,
}

impl<'r> Index<'r> {
    /// The index of this state.
    pub fn new(repo: &'r Repository, state: &State) -> Self {
        let lookup = |place| Mutex::new(Lookup { place, asked: 0, whole: None, packs: None });
        let sections = state.index_sections().into_iter().map(lookup).collect();
        Index { repo, sections, doomed: state.doomed_packs() }
    }

    /// Where a chunk is, in a pack that is neither condemned nor dropped. A section that cannot be read is an error:
    /// the caller decides whether to go on as if the chunk were unknown.
    pub fn find(&self, id: &ChunkId) -> Result<Option<(ChunkKind, Ref)>> {
        for section in &self.sections {
            let mut section = section.lock().expect("no holder panics");
            let Some((number, entry)) = section.find(self.repo, id)? else { continue };
            let pack = section.packs(self.repo)?.get(number as usize).copied();
            let pack = pack.ok_or_else(|| Error::damaged("an index entry names a pack that is not in its table"))?;
            let found = entry.in_pack(pack);
            found.check()?;
            if !self.doomed.contains(&pack.id) {
                return Ok(Some((entry.kind, found)));
            }
        }
        Ok(None)
    }
}

impl Lookup {
    fn find(&mut self, repo: &Repository, id: &ChunkId) -> Result<Option<(u32, crate::format::pack::Entry)>> {
        let len = self.place.section.len;
        self.asked += 1;
        if self.whole.is_none() && (len <= SMALL || self.asked > PATIENCE) {
            self.whole = Some(repo.section(&self.place)?);
        }
        if let Some(whole) = &self.whole {
            return index::find(whole, id);
        }
        let Some((from, to)) = index::place(&self.place.section.fences, len as usize, id) else { return Ok(None) };
        let start = self.place.base + u64::from(self.place.section.offset);
        let range = start + from as u64..start + to as u64;
        index::find(&repo.fetcher.read(&self.place.object, range, Span::Exact)?, id)
    }

    fn packs(&mut self, repo: &Repository) -> Result<&[PackRef]> {
        if self.packs.is_none() {
            let place = self.place.packs.as_deref().ok_or_else(|| Error::damaged("an index without its packs"))?;
            let rows = index::decode_packs(&repo.section(place)?)?;
            self.packs = Some(rows.into_iter().map(|(pack, _)| pack).collect());
        }
        Ok(self.packs.as_deref().unwrap_or_default())
    }
}

impl Repository {
    /// A whole section of a record, verified by its hash too.
    pub(super) fn section(&self, place: &LiveSection) -> Result<Vec<u8>> {
        let start = place.base + u64::from(place.section.offset);
        let range = start..start + u64::from(place.section.len);
        let bytes = self.fetcher.read(&place.object, range, Span::Exact)?;
        if Sha256::digest(&bytes)[..] != place.section.sha256 {
            return Err(Error::damaged(format!(
                "a section of record {} is not the one its head names",
                place.object.id
            )));
        }
        Ok(bytes)
    }
}
