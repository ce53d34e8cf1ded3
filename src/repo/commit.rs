//! Stores packs, and commits the record that names them.

use std::sync::Arc;

use super::state::{Known, State};
use super::{Repository, random};
use crate::context::Context;
use crate::crypto::seal::{self, ObjectType};
use crate::error::{Error, Kind, Result};
use crate::format::record::{self, Head, NewSection};
use crate::format::reference::PackRef;
use crate::name::{Name, ObjectId};

/// Most attempts to store an object. If an upload breaks, its name may stay taken by the incomplete file, and the next
/// attempt uses a new id. The storage spaces the attempts, since each needs a new connection.
const ATTEMPTS: usize = 100;

impl Repository {
    /// Seals and stores a pack. Returns when the server has acknowledged it (written, synced, closed, size checked). Seals
    /// in place, so an upload holds its pack once; `buffer` can be reused afterwards.
    pub fn put_pack(&self, ctx: &Context, kind: ObjectType, buffer: &mut Vec<u8>) -> Result<PackRef> {
        let len = buffer.len() as u32;
        Ok(PackRef { id: self.put_sealed(ctx, kind, buffer, Name::Pack)?, len })
    }

    /// Commits one record that follows all records of the log: refreshes `state`, fills in `sequence` (of new marks too),
    /// `heads`, `time` and the inherited ids ([`State::inherit`]), stores the record and adds it to `state`. All packs that
    /// the record names must be stored before.
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
        Err(Error::failed(format!("the server reported {ATTEMPTS} times that a new random name already exists")))
    }
}
