//! Stores packs, and commits the record that names them.
//!
//! `prune` deletes packs without a lock, so a commit lists the log before and after the record is stored (format.md 11.2).
//! A pack that was condemned before the second listing is noticed by the writer. A pack that is condemned later is kept,
//! because the deleting run sees the record.

use std::sync::Arc;
use std::time::Duration;

use super::state::{Known, State};
use super::{Repository, Stopwatch, random};
use crate::context::Context;
use crate::crypto::seal::{self, Hedge, ObjectType};
use crate::error::{Error, Kind, Result};
use crate::format::pack::{self, Entry};
use crate::format::record::{self, Head, NewSection};
use crate::format::reference::PackRef;
use crate::name::{Name, ObjectId};

/// Most attempts to store an object. If an upload breaks, its name may stay taken by the incomplete file, and the next
/// attempt uses a new id. The storage spaces the attempts, since each needs a new connection.
const ATTEMPTS: usize = 100;

/// Time between the condemnation of an object and its deletion. Half of it is the longest time between the two listings of
/// a commit.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// A record that was stored.
#[derive(Debug)]
pub struct Commit {
    /// Its id.
    pub record: ObjectId,
    /// The reason why the record must not count: the second listing showed a reason, or came too late.
    pub doubt: Option<Error>,
}

impl Repository {
    /// Seals and stores a pack. Returns when the server has acknowledged it (written, synced, closed, size checked). Seals
    /// in place, so an upload holds its pack once; `buffer` can be reused afterwards.
    pub fn put_pack(&self, ctx: &Context, kind: ObjectType, buffer: &mut Vec<u8>) -> Result<PackRef> {
        let len = buffer.len() as u32;
        Ok(PackRef { id: self.put_sealed(ctx, kind, Hedge::Plaintext, buffer, Name::Pack)?, len })
    }

    /// Seals and stores a data pack like [`Repository::put_pack`], without hashing its raw chunks again. The ids in
    /// `entries` must have been computed from the plaintexts of the chunks in `buffer`, not read from another pack.
    pub fn put_new_pack(&self, ctx: &Context, buffer: &mut Vec<u8>, entries: &[Entry]) -> Result<PackRef> {
        let (len, hedge) = (buffer.len() as u32, Hedge::Rest(pack::rest(buffer, entries)));
        Ok(PackRef { id: self.put_sealed(ctx, ObjectType::Data, hedge, buffer, Name::Pack)?, len })
    }

    /// Commits one record that follows all records of the log: refreshes `state`, fills in `sequence` (of new marks too),
    /// `heads`, `time` and the inherited ids ([`State::inherit`]), stores the record, adds it to `state` and refreshes
    /// `state` again. All packs that the record names must be stored before.
    ///
    /// # Errors
    ///
    /// Fails also if the record was stored and the second listing does not show it, or came too late.
    pub fn commit(&self, ctx: &Context, state: &mut State, head: Head, sections: &[NewSection]) -> Result<ObjectId> {
        let commit = self.commit_if(ctx, state, head, sections, |_| Ok(()))?;
        commit.doubt.map_or(Ok(commit.record), Err)
    }

    /// Commits like [`Repository::commit`], but calls `check` with the state after both listings. If it fails after the
    /// first one, nothing is written. If it fails after the second one, the record is in doubt.
    pub fn commit_if(
        &self,
        ctx: &Context,
        state: &mut State,
        head: Head,
        sections: &[NewSection],
        check: impl Fn(&State) -> Result<()>,
    ) -> Result<Commit> {
        let begun = Stopwatch::start(&*self.clock);
        self.refresh(ctx, state)?;
        check(state)?;
        let (record, known) = self.put_record(ctx, state, head, sections)?;
        state.learn(record, known);
        self.remember(state);
        if !self.looks_again {
            return Ok(Commit { record, doubt: None });
        }
        // Fails also if the new record is not listed.
        self.refresh(ctx, state)?;
        let doubt = check(state).err().or_else(|| self.too_late(begun.elapsed(&*self.clock)));
        Ok(Commit { record, doubt })
    }

    fn too_late(&self, span: Duration) -> Option<Error> {
        let text = "the commit took too long (was this machine suspended?): objects may have been deleted meanwhile";
        (span >= self.grace / 2).then(|| Error::failed(text).hint("run the same command again"))
    }

    /// Commits like [`Repository::commit`], without refreshing `state`: one call of the storage, for an operation that ends
    /// early. The fold does not depend on whether records follow each other.
    pub fn commit_at_once(
        &self,
        ctx: &Context,
        state: &State,
        head: Head,
        sections: &[NewSection],
    ) -> Result<ObjectId> {
        let (id, record) = self.put_record(ctx, state, head, sections)?;
        self.remember_own(record.seen(&id));
        Ok(id)
    }

    fn put_record(
        &self,
        ctx: &Context,
        state: &State,
        mut head: Head,
        sections: &[NewSection],
    ) -> Result<(ObjectId, Known)> {
        head.sequence = state.next_sequence();
        head.heads.extend(state.frontier());
        state.inherit(&mut head);
        head.time = self.now().seconds;
        head.snapshots.sort_by_key(|s| s.id);
        let sequence = head.sequence;
        head.marks.iter_mut().filter(|m| m.record.is_none()).for_each(|m| m.sequence = sequence);
        head.marks.sort_by_key(record::Mark::order);
        let mut plain = record::encode(head, sections).map_err(|e| e.while_doing("cannot commit"))?;
        let end = record::head_end(plain[..4].try_into().expect("a record begins with its length"))?;
        let record = Arc::new(record::decode(sequence, &plain[..end])?);
        let known = Known { sequence, len: plain.len() as u64, record };
        let name = |id| Name::Record { sequence, id };
        let id = self.put_sealed(ctx, ObjectType::Record, Hedge::Plaintext, &mut plain, name)?;
        Ok((id, known))
    }

    fn put_sealed(
        &self,
        ctx: &Context,
        kind: ObjectType,
        hedge: Hedge,
        buffer: &mut Vec<u8>,
        name: impl Fn(ObjectId) -> Name,
    ) -> Result<ObjectId> {
        for _ in 0..ATTEMPTS {
            let id = seal::seal_in_place(&self.keys, kind, &random()?, hedge, buffer);
            match self.storage.put(ctx, &name(id), buffer) {
                Err(e) if e.kind() == Kind::Exists => {
                    *buffer = seal::open(&self.keys, kind, id, std::mem::take(buffer))?
                }
                Err(e) => return Err(e),
                Ok(()) => {
                    self.fetcher.disk().iter().for_each(|disk| disk.add_own(kind, &name(id), &id, buffer));
                    return Ok(id);
                }
            }
        }
        Err(Error::failed(format!("the server reported {ATTEMPTS} times that a new random name already exists")))
    }
}
