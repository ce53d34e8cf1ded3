//! The second phase: secures, drops in a record, folds the log once more, deletes.

use std::collections::BTreeSet;

use super::run::{Run, Step};
use super::survey::Survey;
use super::{ATTEMPTS, Amount, doubt};
use crate::error::{Error, Kind, Result};
use crate::format::record::Head;
use crate::name::{Name, ObjectId};
use crate::repo::parallel;

/// Objects that are deleted at the same time.
const WRITERS: usize = 8;
/// Objects between two looks at the clock.
const BATCH: usize = 64;

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
        for batch in all.chunks(BATCH) {
            self.ctx.check()?;
            if survey.watch.elapsed(self.repo.clock()) >= self.options.grace / 2 && !self.options.exclusive {
                let text = "the run took too long (was this machine suspended?), so the rest was not deleted";
                return Err(Error::new(Kind::Tampering, text).hint("run `nfreezer prune` again"));
            }
            if self.is_time_over() {
                self.report.is_stopped_early = true;
                return Ok(());
            }
            let storage = self.repo.storage();
            let removed = parallel(WRITERS, batch.to_vec(), |(name, size)| (size, storage.remove(self.ctx, &name)));
            for (size, result) in removed {
                result.map_err(|e| e.while_doing("cannot delete"))?;
                self.report.deleted.add(size);
                self.ctx.done(1, size);
            }
        }
        Ok(())
    }
}
