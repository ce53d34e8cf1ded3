//! Executes a plan: repacks, condemns, and deletes objects that were condemned before.

use std::collections::BTreeSet;

use super::plan::{Amount, CLOCKS, Plan};
use super::survey::Survey;
use super::{Options, Report, doubt};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::format::record::{Action, Head, Mark, NewSection};
use crate::name::{Name, ObjectId};
use crate::progress::Event;
use crate::repo::{Repository, Stopwatch, random};
use crate::time::Time;

/// One run, which may need several attempts.
pub(super) struct Run<'r> {
    pub ctx: &'r Context<'r>,
    pub repo: &'r Repository,
    pub options: &'r Options,
    pub report: Report,
    /// Records of this run.
    pub own: BTreeSet<ObjectId>,
    pub started: Stopwatch,
}

/// The end of an attempt.
pub(super) enum Step {
    Done,
    /// Another client has written: everything is computed again.
    Again,
}

impl<'r> Run<'r> {
    pub fn new(ctx: &'r Context<'r>, repo: &'r Repository, options: &'r Options) -> Self {
        let (report, own) = Default::default();
        Run { ctx, repo, options, report, own, started: Stopwatch::start(repo.clock()) }
    }

    pub fn execute(&mut self, mut survey: Survey, plan: &Plan) -> Result<Step> {
        if self.forget_unconfirmed(&mut survey)?.is_none() {
            return Ok(Step::Again);
        }
        let mut doubt = plan.doubt.clone();
        if !plan.ready.is_empty() || self.options.exclusive {
            doubt = doubt.or(self.refused());
        }
        let mut condemn = plan.condemn.clone();
        if !plan.chosen.is_empty() {
            self.begin("repacking", "pack", plan.repack);
            let Some(repacked) = self.repack(&mut survey, &plan.chosen)? else { return Ok(Step::Again) };
            condemn.extend(repacked);
        }
        let mut ready = plan.ready.clone();
        if self.options.exclusive {
            ready.extend(&condemn);
        }
        condemn.extend(&plan.unseen);
        // Without anything to condemn, an empty record shows whether the clocks agree, before sights are stored.
        if !condemn.is_empty() || plan.has_new_marks {
            let Some(seen) = self.condemn(&mut survey, plan, &condemn)? else { return Ok(Step::Again) };
            doubt = doubt.or(seen);
        }
        if let Some(why) = doubt {
            self.report.doubt = Some(why);
            return Ok(Step::Done);
        }
        if self.is_time_over() {
            self.report.is_stopped_early = true;
            return Ok(Step::Done);
        }
        if ready.is_empty() { Ok(Step::Done) } else { self.delete(survey, ready) }
    }

    /// Returns why this key may not delete: a server that refuses to remove an object that does not exist.
    fn refused(&self) -> Option<String> {
        let name = random().map(|id| Name::Pack(ObjectId(id)));
        let answer = name.and_then(|name| self.repo.storage().remove(self.ctx, &name));
        answer.err().map(|e| format!("the server lets this key delete nothing ({e})"))
    }

    /// Condemns objects in one record. Returns a doubt about the clocks; the outer `None`: another client has written.
    fn condemn(
        &mut self,
        survey: &mut Survey,
        plan: &Plan,
        ids: &BTreeSet<ObjectId>,
    ) -> Result<Option<Option<String>>> {
        let now = self.repo.now().seconds;
        let head = Head { condemned: ids.iter().map(|id| (*id, now)).collect(), ..Head::default() };
        let record = match self.commit(survey, head.clone(), &[]) {
            Err(e) if e.kind() == Kind::NoSpace && self.options.exclusive && plan.doubt.is_none() => {
                self.make_room(plan)?;
                let dropped = plan.strays.iter().copied().collect();
                self.commit(survey, Head { dropped, ..head }, &[])?
            }
            other => other?,
        };
        let Some(record) = record else { return Ok(None) };
        for id in ids.iter().filter(|id| !plan.unseen.contains(id)) {
            let size = survey.packs.get(id).map(|pack| pack.size()).or(survey.log.get(id).map(|entry| entry.size));
            self.report.condemned.add(size.unwrap_or(0));
        }
        let clocks = self.compare_clocks(survey, &record, now)?;
        if clocks.is_none() {
            self.look(survey, ids)?;
        }
        Ok(Some(clocks.filter(|_| self.options.rules.own_sight && !self.options.exclusive)))
    }

    /// Removes the objects of interrupted pushes, to make room for the record that condemns everything else. The disk is
    /// full, and the user asserts that no other client writes.
    fn make_room(&mut self, plan: &Plan) -> Result<()> {
        for id in &plan.strays {
            self.repo.storage().remove(self.ctx, &Name::Pack(*id))?;
        }
        Ok(())
    }

    /// Stores the first sights of condemned objects and of forgotten snapshots.
    fn look(&self, survey: &Survey, condemned: &BTreeSet<ObjectId>) -> Result<()> {
        let now = self.repo.now().seconds;
        let present = survey.present_condemned();
        self.repo.look("condemned", present.union(condemned).map(|id| id.0), now)?;
        self.repo.look("forgotten", survey.forgotten(), now)?;
        Ok(())
    }

    /// Forgets the snapshots that were never reported as saved. `None`: another client has written.
    fn forget_unconfirmed(&mut self, survey: &mut Survey) -> Result<Option<()>> {
        let snapshots = std::mem::take(&mut survey.unconfirmed);
        if snapshots.is_empty() {
            return Ok(Some(()));
        }
        let now = self.repo.now().seconds;
        let marks = snapshots.iter().map(|s| Mark::new(s.id, now, Action::Forget)).collect();
        if self.commit(survey, Head { marks, ..Head::default() }, &[])?.is_none() {
            return Ok(None);
        }
        for snapshot in &snapshots {
            self.report.warnings.push(format!(
                "snapshot {} of {} was forgotten: its push was killed before it reported success, and packs that it \
                 needs were deleted meanwhile",
                snapshot.id.short(),
                snapshot.host
            ));
        }
        Ok(Some(()))
    }

    /// Commits a record on top of the facts. `None`: another client has written, and nothing was done.
    pub fn commit(&mut self, survey: &mut Survey, head: Head, sections: &[NewSection]) -> Result<Option<ObjectId>> {
        let mut state = survey.state.clone();
        let (facts, own, is_stored) = (&*survey, &self.own, std::cell::Cell::new(false));
        let commit = self.repo.commit_if(self.ctx, &mut state, head, sections, |state| {
            // After the record is stored, `fold_again` looks for new records.
            if !is_stored.replace(true) && facts.is_outdated(state, own) {
                return Err(Error::new(Kind::Exists, "another client has written"));
            }
            Ok(())
        });
        match commit {
            Err(e) if e.kind() == Kind::Exists => Ok(None),
            Err(e) => Err(e),
            Ok(commit) => {
                self.own.insert(commit.record);
                survey.state = state;
                commit.doubt.map_or(Ok(Some(commit.record)), Err)
            }
        }
    }

    /// Compares the clock of this machine with the server's, by the time of a record that was just put.
    pub fn compare_clocks(&self, survey: &Survey, record: &ObjectId, put: i64) -> Result<Option<String>> {
        let entry = survey.state.listing().get(record);
        let Some(entry) = entry else { return Err(doubt("the server does not show the record that was just stored")) };
        let differ = entry.mtime.abs_diff(put);
        Ok((differ > CLOCKS).then(|| {
            let (server, own) = (Time::from_seconds(entry.mtime), Time::from_seconds(put));
            format!("the clocks disagree: {own} here, {server} on the server")
        }))
    }

    /// Reports the beginning of a step.
    pub fn begin(&self, name: &'static str, unit: &'static str, total: Amount) {
        self.ctx.step(name, unit);
        self.ctx.event(Event::Total { files: total.objects, bytes: total.bytes, complete: true });
    }

    pub fn is_time_over(&self) -> bool {
        self.options.max_time.is_some_and(|most| self.started.elapsed(self.repo.clock()) >= most)
    }
}
