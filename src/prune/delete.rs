//! The second phase: secures, drops in a record, folds the log once more, deletes.

use std::collections::BTreeSet;

use super::run::{Run, Step};
use super::survey::Survey;
use super::{ATTEMPTS, Amount, doubt};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::format::record::Head;
use crate::name::{Name, ObjectId};
use crate::repo::parallel;

/// Requests to delete objects at the same time. The clock is looked at after all of them.
const WRITERS: usize = 32;
/// Most objects that could not be deleted and are named.
const NAMED: usize = 10;

impl Run<'_> {
    /// Deletes condemned objects.
    pub fn delete(&mut self, mut survey: Survey, ready: BTreeSet<ObjectId>) -> Result<Step> {
        let (records, packs): (BTreeSet<_>, BTreeSet<_>) = ready.iter().partition(|id| survey.log.contains_key(*id));
        let Some(mut safe) = self.secure(&mut survey, &packs)? else { return Ok(Step::Again) };
        let new: Vec<ObjectId> = safe.iter().filter(|id| !survey.dropped.contains(id)).copied().collect();
        if !new.is_empty() {
            let now = self.repo.now().seconds;
            let Some(record) = self.commit(&mut survey, Head { dropped: new, ..Head::default() }, &[])? else {
                return Ok(Step::Again);
            };
            let clocks = self.compare_clocks(&survey, &record, now)?;
            if let Some(why) = clocks.filter(|_| self.options.rules.own_sight && !self.options.exclusive) {
                self.report.doubt = Some(why);
                return Ok(Step::Done);
            }
        }
        let records = self.fold_again(&mut survey, &mut safe, records)?;
        self.remove(&survey, &safe, &records)?;
        Ok(Step::Done)
    }

    /// Folds the log once more, until nothing is new. A record that arrived before the drop record may need a
    /// dropped pack. Returns the records that may be deleted.
    fn fold_again(
        &mut self,
        survey: &mut Survey,
        safe: &mut BTreeSet<ObjectId>,
        mut records: BTreeSet<ObjectId>,
    ) -> Result<BTreeSet<ObjectId>> {
        for _ in 0..ATTEMPTS {
            if !self.options.rules.fold_again {
                return Ok(records);
            }
            let mut state = survey.state.clone();
            self.repo.refresh(self.ctx, &mut state)?;
            if !survey.is_outdated(&state, &self.own) {
                return Ok(records);
            }
            *survey = Survey::take(self.ctx, self.repo, self.options)?;
            records.retain(|id| survey.superseded.contains(id) || survey.torsos.contains(id));
            match self.secure(survey, safe)? {
                Some(still) => *safe = still,
                None => safe.clear(),
            }
        }
        Err(doubt("other clients write all the time").hint("run `nfreezer prune` again"))
    }

    /// Deletes packs, then records.
    fn remove(&mut self, survey: &Survey, packs: &BTreeSet<ObjectId>, records: &BTreeSet<ObjectId>) -> Result<()> {
        let packs = packs.iter().map(|id| (Name::Pack(*id), survey.packs.get(id).map_or(0, |pack| pack.size())));
        let records = records.iter().filter_map(|id| survey.log.get(id)).map(|entry| (entry.name, entry.size));
        let all: Vec<(Name, u64)> = packs.chain(records).collect();
        let bytes = all.iter().map(|(_, size)| size).sum();
        self.begin("deleting", "object", Amount { objects: all.len() as u64, bytes });
        let mut rest = &all[..];
        while !rest.is_empty() {
            self.ctx.check()?;
            if survey.watch.elapsed(self.repo.clock()) >= self.options.grace / 2 && !self.options.exclusive {
                let text = "the run took too long (was this machine suspended?), so the rest was not deleted";
                return Err(Error::new(Kind::Tampering, text).hint("run `nfreezer prune` again"));
            }
            if self.is_time_over() {
                self.report.is_stopped_early = true;
                return Ok(());
            }
            let at_once = self.repo.storage().removed_at_once().max(1);
            let (now, later) = rest.split_at(rest.len().min(at_once * WRITERS));
            self.remove_batches(now.chunks(at_once).collect())?;
            rest = later;
        }
        Ok(())
    }

    /// Deletes batches of objects at once, and counts the deleted ones.
    fn remove_batches(&mut self, batches: Vec<&[(Name, u64)]>) -> Result<()> {
        let (storage, ctx) = (self.repo.storage(), self.ctx);
        let results = parallel(WRITERS, batches, |batch| {
            let names: Vec<Name> = batch.iter().map(|(name, _)| *name).collect();
            let refused = storage.remove_all(ctx, &names)?;
            let is_gone = |name: &Name| refused.iter().all(|(other, _)| other != name);
            let mut gone = Amount::default();
            batch.iter().filter(|(name, _)| is_gone(name)).for_each(|(_, size)| gone.add(*size));
            ctx.done(gone.objects, gone.bytes);
            Ok((gone, refused))
        });
        let (mut refused, mut failed) = (Vec::new(), None);
        for result in results {
            match result {
                Ok((gone, others)) => {
                    self.report.deleted.objects += gone.objects;
                    self.report.deleted.bytes += gone.bytes;
                    refused.extend(others);
                }
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        failed.map_or_else(|| not_deleted(ctx, refused), |e: Error| Err(e.while_doing("cannot delete")))
    }
}

/// Fails if objects could not be deleted. Names the others in warnings.
fn not_deleted(ctx: &Context, refused: Vec<(Name, Error)>) -> Result<()> {
    let count = refused.len();
    let mut errors = refused.into_iter();
    let Some((_, first)) = errors.next() else { return Ok(()) };
    errors.take(NAMED).for_each(|(_, e)| ctx.warn(&e.to_string()));
    let first = first.while_doing("cannot delete");
    Err(if count > 1 { first.while_doing(format_args!("{count} objects were not deleted")) } else { first })
}
