//! Reads the log: lists it, reads the new records and brings a [`State`] up to date.

use std::collections::HashSet;
use std::sync::Arc;

use super::fetch::Span;
use super::object::Object;
use super::state::{Known, State};
use super::{Repository, parallel};
use crate::context::Context;
use crate::crypto::seal::{self, BLOCK, ObjectType};
use crate::error::{Error, Kind, Result};
use crate::format::record::{self, SectionKind};
use crate::format::{ancestry, limits};
use crate::name::{Folder, Name, ObjectId};
use crate::seen::SeenHead;
use crate::storage::Entry;

/// Records that are read at the same time: most of them are small.
const READERS: usize = 48;
/// Records of the first wave. A log that merges keep short has as many that are needed, and the older ones are superseded.
const WAVE: usize = 16;
/// Records up to this size are read whole, with one round trip.
const WHOLE: u64 = 256 << 10;
/// Most listings of the log in one refresh.
const LISTINGS: usize = 3;

/// Result of [`Repository::read_new`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NewRecords {
    /// A record was read.
    is_new: bool,
    /// A listed record was no longer there.
    vanished: bool,
}

/// A record in a listing of the log.
#[derive(Clone, Copy)]
pub(super) struct Listed {
    sequence: u32,
    pub id: ObjectId,
    size: u64,
}

impl Listed {
    pub fn of(entry: &Entry) -> Option<Self> {
        match entry.name {
            Name::Record { sequence, id } => Some(Listed { sequence, id, size: entry.size }),
            _ => None,
        }
    }

    fn name(&self) -> Name {
        Name::Record { sequence: self.sequence, id: self.id }
    }
}

impl State {
    /// Reduces a listing to the records that must be read, in ascending order of urgency: not known, and not superseded
    /// unless a live record names a section in it. Returns whether any is left.
    fn keep_unread(&self, listing: &mut Vec<Listed>) -> bool {
        let superseded = self.superseded();
        let followed: HashSet<&ObjectId> = self.known.values().flat_map(|k| &k.record.head.heads).collect();
        let holders = self.holders();
        listing.retain(|listed| {
            let is_needed = !superseded.contains(&listed.id) || holders.contains(&listed.id);
            is_needed && !self.known.contains_key(&listed.id)
        });
        listing.sort_by_cached_key(|listed| {
            let is_named = followed.contains(&listed.id) || holders.contains(&listed.id);
            (is_named, listed.sequence)
        });
        !listing.is_empty()
    }
}

impl Repository {
    /// Reads the log.
    pub fn state(&self, ctx: &Context) -> Result<State> {
        let mut state = State::default();
        self.refresh(ctx, &mut state)?;
        Ok(state)
    }

    /// Reads the new records of the log. A listing is not atomic, so it is repeated if a named record is missing.
    /// Returns whether any record is new.
    pub fn refresh(&self, ctx: &Context, state: &mut State) -> Result<bool> {
        let (mut is_new, mut unexplained) = (false, Vec::new());
        for _ in 0..LISTINGS {
            // Before the listing, so that a record which another process commits and stores as seen meanwhile is
            // in both or in the listing only.
            let seen = self.seen_heads();
            let entries = self.storage.list(ctx, Folder::Log)?;
            let listing: Vec<Listed> = entries.iter().filter_map(Listed::of).collect();
            state.listing = entries.iter().filter_map(|entry| Some((Listed::of(entry)?.id, entry.clone()))).collect();
            state.listed = listing.iter().map(|listed| listed.id).collect();
            let read = self.read_new(ctx, state, listing.clone())?;
            self.verify_new(ctx, state, &listing)?;
            is_new |= read.is_new;
            if self.lacks_records(state, &self.unexplained(state, &seen)) {
                self.read_ancestry(ctx, state)?;
            }
            unexplained = self.unexplained(state, &seen);
            if !read.vanished && !self.lacks_records(state, &unexplained) {
                break;
            }
        }
        self.check_rollback(state, &unexplained, is_new)?;
        state.forget();
        Ok(is_new)
    }

    fn lacks_records(&self, state: &State, unexplained: &[SeenHead]) -> bool {
        !unexplained.is_empty() || !state.missing().is_empty() || self.lacks_expected(state)
    }

    /// Reads the records of a listing that are neither known nor superseded by a known record.
    ///
    /// The newest records are read first, since they supersede others, and with them the records that known records name
    /// as predecessors, since a merge names the records that it did not merge. So a log that merges keep short is read
    /// in a few waves, however long it is. Waves that supersede nothing double in size.
    pub(super) fn read_new(&self, ctx: &Context, state: &mut State, mut listing: Vec<Listed>) -> Result<NewRecords> {
        let (mut read, mut wave) = (NewRecords::default(), WAVE);
        while state.keep_unread(&mut listing) {
            let before = listing.len();
            let most_urgent = listing.split_off(listing.len().saturating_sub(wave));
            let results = parallel(READERS, most_urgent, |listed| (listed, self.read_record(ctx, &listed)));
            for (listed, result) in results {
                match result {
                    Ok(known) => {
                        state.incomplete.remove(&listed.id);
                        state.known.insert(listed.id, known);
                        read.is_new = true;
                    }
                    Err(e) if e.kind() == Kind::Missing => read.vanished = true,
                    Err(e) if e.kind() == Kind::Damaged => {
                        drop(state.incomplete.insert(listed.id, (listed.size, e.to_string())))
                    }
                    Err(e) => return Err(e),
                }
            }
            state.keep_unread(&mut listing);
            wave = if listing.len() + wave < before { WAVE } else { wave * 2 };
        }
        Ok(read)
    }

    pub(super) fn read_ancestry(&self, ctx: &Context, state: &mut State) -> Result<()> {
        let places = state.live().flat_map(|(id, _)| state.sections_of(id));
        let places: Vec<_> = places.filter(|place| place.section.kind == SectionKind::Ancestry).collect();
        for place in places {
            let bytes = self.section(ctx, &place)?;
            state.ancestry.extend(ancestry::decode(&bytes));
        }
        Ok(())
    }

    pub(super) fn read_record(&self, ctx: &Context, listed: &Listed) -> Result<Known> {
        let len = seal::plain_len(listed.size).filter(|len| *len >= 4 && *len <= limits::RECORD as u64);
        let len = len.ok_or_else(|| Error::damaged("it was cut off while it was written, or is being written"))?;
        let object = Object { name: listed.name(), id: listed.id, kind: ObjectType::Record, len };
        let whole = if listed.size <= WHOLE { len } else { BLOCK as u64 };
        let start = match self.fetcher.read(ctx, &object, 0..whole.min(len), Span::Exact) {
            // The head may be valid if a section is damaged.
            Err(e) if e.kind() == Kind::Damaged => {
                self.fetcher.read(ctx, &object, 0..len.min(BLOCK as u64), Span::Exact)?
            }
            other => other?,
        };
        let end = record::head_end(start[..4].try_into().expect("at least four bytes"))?;
        let start = match start.get(..end) {
            Some(head) => head.to_vec(),
            None => self.fetcher.read(ctx, &object, 0..end as u64, Span::Exact)?,
        };
        Ok(Known { sequence: listed.sequence, len, record: Arc::new(record::decode(listed.sequence, &start)?) })
    }
}
