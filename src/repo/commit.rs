//! Writing: packs, and the one record that makes them count.

use std::sync::Arc;

use super::log::{Known, State};
use super::{Repository, now, random};
use crate::context::Context;
use crate::crypto::seal::{self, ObjectType};
use crate::error::{Error, Kind, Result};
use crate::format::record::{self, Head, NewSection};
use crate::format::reference::PackRef;
use crate::name::{Name, ObjectId};

/// Attempts under a new id, where a name is taken by the torso of an upload that broke. Each costs a connection, so that they are
/// spaced and bounded by the storage; on a line that breaks every few seconds there are many before one gets through.
const ATTEMPTS: usize = 100;

impl Repository {
    /// Seals and stores a pack. Returns when the server has it (written, synced, closed, its size checked). What is in
    /// `buffer` is sealed there, so that an upload holds its pack once; afterwards the buffer can be used again.
    pub fn put_pack(&self, ctx: &Context, kind: ObjectType, buffer: &mut Vec<u8>) -> Result<PackRef> {
        let len = buffer.len() as u32;
        Ok(PackRef { id: self.put_sealed(ctx, kind, buffer, Name::Pack)?, len })
    }

    /// Commits one record on top of everything the log holds now: fills in `sequence` (of its own marks too), `heads` and
    /// `time`, and what it takes over from the records that it supersedes. `state` is refreshed first and knows the new
    /// record afterwards. Every pack it names must be stored already.
    pub fn commit(&self, ctx: &Context, state: &mut State, head: Head, sections: &[NewSection]) -> Result<ObjectId> {
        self.commit_if(ctx, state, head, sections, |_| Ok(()))
    }

    /// Commits like [`Repository::commit`], but calls `check` with the refreshed state first. If it fails, nothing is
    /// written.
    pub fn commit_if(
        &self,
        ctx: &Context,
        state: &mut State,
        head: Head,
        sections: &[NewSection],
        check: impl FnOnce(&State) -> Result<()>,
    ) -> Result<ObjectId> {
        self.refresh(ctx, state)?;
        check(state)?;
        let (id, record) = self.put_record(ctx, state, head, sections)?;
        state.learn(id, record);
        self.remember(state);
        Ok(id)
    }

    /// Commits like [`Repository::commit`], on top of what `state` knows already: one call of the storage, for an operation
    /// that ends early. Records side by side are folded alike.
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
        head.time = now().seconds;
        head.snapshots.sort_by_key(|s| s.id);
        let sequence = head.sequence;
        head.marks.iter_mut().filter(|m| m.record.is_none()).for_each(|m| m.sequence = sequence);
        head.marks.sort_by_key(record::Mark::order);
        let mut plain = record::encode(head, sections).map_err(|e| e.while_doing("cannot commit"))?;
        let end = record::head_end(plain[..4].try_into().expect("a record begins with its length"))?;
        let record = Arc::new(record::decode(sequence, &plain[..end])?);
        let known = Known { sequence, len: plain.len() as u64, record };
        let id = self.put_sealed(ctx, ObjectType::Record, &mut plain, |id| Name::Record { sequence, id })?;
        Ok((id, known))
    }

    fn put_sealed(
        &self,
        ctx: &Context,
        kind: ObjectType,
        buffer: &mut Vec<u8>,
        name: impl Fn(ObjectId) -> Name,
    ) -> Result<ObjectId> {
        for _ in 0..ATTEMPTS {
            let id = seal::seal_in_place(&self.keys, kind, &random()?, buffer);
            match self.storage.put(ctx, &name(id), buffer) {
                Err(e) if e.kind() == Kind::Exists => {
                    *buffer = seal::open(&self.keys, kind, id, std::mem::take(buffer))?
                }
                other => return other.map(|()| id),
            }
        }
        Err(Error::failed(format!("the server answers {ATTEMPTS} times that a random new name exists already")))
    }
}
