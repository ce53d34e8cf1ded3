//! Verifies records that supersede others ([`super::supersede`]): reads the superseded records that are still listed.
//!
//! A client verifies each superseding record once: when it reads it for the first time, if it knew the log before. The
//! records that it verified are stored as seen. The records that one of them supersedes are contained in it, so they need not be read
//! again for the next record that supersedes both. A client without seen data relies on `check`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::log::Listed;
use super::state::{Known, State};
use super::supersede::{Claim, Contents, lacks};
use super::{Repository, parallel};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::{Folder, ObjectId};

/// Records that are read at the same time.
const READERS: usize = 48;

impl State {
    /// Returns the claims that were found false, each with the part of the superseded record that is lacking.
    pub fn false_claims(&self) -> &BTreeMap<Claim, String> {
        &self.false_claims
    }

    /// Compares a superseding record that was read with one that it supersedes. A false claim is noted, and the superseded
    /// record is live from then on.
    pub(super) fn compare(&mut self, by: &ObjectId, of: Contents<'_>) {
        let Some(known) = self.known.get(by) else { return };
        if let Some(what) = lacks(Contents { id: by, head: &known.record.head }, of) {
            self.false_claims.insert(Claim { by: *by, of: *of.id }, what);
        }
    }

    /// Returns whether a record claims to contain another one that it does not contain.
    pub(super) fn makes_false_claims(&self, by: &ObjectId) -> bool {
        self.false_claims.keys().any(|claim| claim.by == *by)
    }

    /// Returns the live records that supersede others.
    pub(super) fn superseding(&self) -> Vec<ObjectId> {
        let live = self.live().filter(|(_, known)| !known.record.head.superseded.is_empty());
        live.map(|(id, _)| *id).collect()
    }
}

impl Repository {
    /// Verifies all live records that supersede others, whatever was verified before. Notes false claims in `state`, and
    /// reads the records that are live because of them.
    pub fn verify_superseding(&self, ctx: &Context, state: &mut State) -> Result<()> {
        let listing: Vec<Listed> = self.storage.list(ctx, Folder::Log)?.iter().filter_map(Listed::of).collect();
        self.verify(ctx, state, &listing, &BTreeSet::new())
    }

    /// Verifies the live records that supersede others and are not in `verified`. Repeats this until no further record
    /// becomes live.
    pub(super) fn verify(
        &self,
        ctx: &Context,
        state: &mut State,
        listing: &[Listed],
        verified: &BTreeSet<ObjectId>,
    ) -> Result<()> {
        let mut done = verified.clone();
        loop {
            let open: Vec<ObjectId> = state.superseding().into_iter().filter(|id| !done.contains(id)).collect();
            if open.is_empty() {
                return Ok(());
            }
            let before = state.false_claims().len();
            for by in open {
                self.verify_one(ctx, state, listing, verified, &by)?;
                done.insert(by);
            }
            if state.false_claims().len() > before {
                self.read_new(ctx, state, listing.to_vec())?;
            }
        }
    }

    fn verify_one(
        &self,
        ctx: &Context,
        state: &mut State,
        listing: &[Listed],
        verified: &BTreeSet<ObjectId>,
        by: &ObjectId,
    ) -> Result<()> {
        let superseded: HashSet<ObjectId> = state.superseded_by(by).collect();
        let listed = listing.iter().filter(|listed| superseded.contains(&listed.id));
        let (first, rest): (Vec<Listed>, Vec<Listed>) = listed.partition(|listed| verified.contains(&listed.id));
        let mut covered = HashSet::new();
        for (id, known) in self.read_superseded(ctx, state, first)? {
            let head = &known.record.head;
            state.compare(by, Contents { id: &id, head });
            covered.extend(head.superseded.iter().copied());
        }
        let rest = rest.into_iter().filter(|listed| !covered.contains(&listed.id)).collect();
        for (id, known) in self.read_superseded(ctx, state, rest)? {
            state.compare(by, Contents { id: &id, head: &known.record.head });
        }
        Ok(())
    }

    /// Reads records that are not known. Leaves out those that cannot be read: nothing can be compared with them.
    fn read_superseded(&self, ctx: &Context, state: &State, listed: Vec<Listed>) -> Result<Vec<(ObjectId, Known)>> {
        let read = parallel(READERS, listed, |listed| match state.known.get(&listed.id) {
            Some(known) => Ok(Some((listed.id, known.clone()))),
            None => readable(self.read_record(ctx, &listed)).map(|known| known.map(|known| (listed.id, known))),
        });
        read.into_iter().filter_map(Result::transpose).collect()
    }

    /// Verifies the records that supersede others and that this client has not verified at this address, unless the
    /// log is new to it.
    pub(super) fn verify_new(&self, ctx: &Context, state: &mut State, listing: &[Listed]) -> Result<()> {
        match self.verified() {
            Some(verified) => self.verify(ctx, state, listing, &verified),
            None => Ok(()),
        }
    }
}

fn readable(read: Result<Known>) -> Result<Option<Known>> {
    match read {
        Err(e) if matches!(Error::kind(&e), Kind::Missing | Kind::Damaged) => Ok(None),
        other => other.map(Some),
    }
}
