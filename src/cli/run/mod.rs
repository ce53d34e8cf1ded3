//! `nfreezer run`: executes the steps of a profile, and its hooks.
//!
//! In: a profile. Out: each step is a process of this program, so that the hooks also run after a step that was killed.
//! `step` executes one, `due` decides whether it is due, `hook` runs hooks, `lock` keeps a second run away, `report` prints.

mod due;
mod hook;
mod lock;
mod report;
mod step;
mod stop;

use std::time::Instant;

use clap::Command;

use super::options::ProgressArgs;
use super::output::{self, Output};
use super::profile::{self, Loaded, Step};
use super::{escape, human, priority};
use crate::error::{Error, Result};
use hook::Hook;
use report::{Ended, Report, is_failure};

/// Arguments of `run`.
#[derive(clap::Args)]
pub struct Args {
    /// The name of a profile, or the path of its file
    profile: String,
    /// Push, copy, forget and prune as dry runs, without hooks
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Prune and check even if they are not due
    #[arg(long)]
    all: bool,
    /// Use the processor and the disk only if nothing else does
    #[arg(long)]
    low_priority: bool,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// Runs a profile; the exit code is the worst one of its steps and hooks. `cli` is the parser of the command line.
pub fn run(args: &Args, cli: &Command) -> Result<u8> {
    let loaded = profile::load(&args.profile, cli)?;
    let _lock = lock::lock(&loaded.name)?;
    if args.low_priority {
        priority::lower();
    }
    stop::catch()?;
    let mut run = Run { args, loaded: &loaded, report: Report::new(&loaded.name, crate::repo::now(), args.dry_run) };
    let started = Instant::now();
    run.execute()?;
    run.report.seconds = started.elapsed().as_secs_f64();
    run.finish()
}

struct Run<'r> {
    args: &'r Args,
    loaded: &'r Loaded,
    report: Report,
}

impl Run<'_> {
    fn execute(&mut self) -> Result<()> {
        let hooks = &self.loaded.profile.hooks;
        if self.hooks(Hook::Before, &hooks.before)? {
            self.steps()?;
            if !is_failure(self.report.code()) {
                self.hooks(Hook::After, &hooks.after)?;
            }
        }
        if is_failure(self.report.code()) {
            self.hooks(Hook::Failed, &hooks.failed)?;
        }
        self.hooks(Hook::Finally, &hooks.finally)?;
        Ok(())
    }

    /// Runs hooks in order. Reports whether all succeeded; after one that fails, the others of its kind do not run.
    fn hooks(&mut self, kind: Hook, commands: &[String]) -> Result<bool> {
        for command in commands.iter().filter(|_| !self.args.dry_run) {
            let ended = hook::run(kind, command, &self.report)?;
            let is_success = ended.code == 0;
            if !is_success {
                let text = escape::message(ended.error.as_deref().unwrap_or_default());
                output::notice(format_args!("nfreezer: error: {text}"));
            }
            self.report.hooks.push(ended);
            if !is_success {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Executes the steps. After a push that failed, only other pushes are executed: old snapshots are not to be
    /// forgotten while new ones are not saved.
    fn steps(&mut self) -> Result<()> {
        let mut has_failed = false;
        for step in &self.loaded.profile.steps {
            let ended = match self.obstacle(step, has_failed)? {
                Some(why) => Ended::skipped(step.command, why),
                None => step::execute(step, &self.arguments(step), self.args.progress.output.json)?,
            };
            has_failed |= step.command == "push" && is_failure(ended.code);
            self.report.steps.push(ended);
        }
        Ok(())
    }

    /// Returns why a step is not executed.
    fn obstacle(&self, step: &Step, has_failed: bool) -> Result<Option<String>> {
        if stop::signal().is_some() {
            return Ok(Some("the run was interrupted".into()));
        }
        if has_failed && step.command != "push" {
            return Ok(Some("a push failed".into()));
        }
        let Some(every) = step.every.filter(|_| !self.args.all) else { return Ok(None) };
        let now = crate::repo::now();
        let Some(last) = due::last(step, self.loaded.profile.repository.as_deref()) else { return Ok(None) };
        Ok((!due::is_due(last, every, now)).then(|| {
            let age = now.seconds.saturating_sub(last.seconds).unsigned_abs();
            format!("not due: the last one was {} ago, every {}", human::span(age), human::span(every.as_secs()))
        }))
    }

    /// Returns the arguments of a step that the command line of this run adds.
    fn arguments(&self, step: &Step) -> Vec<String> {
        let progress = &self.args.progress;
        let is_check = step.command == "check";
        let mut added = Vec::new();
        if progress.output.quiet {
            added.push("--quiet".to_owned());
        }
        if step.command != "forget" {
            added.extend((0..progress.verbose).map(|_| "--verbose".to_owned()));
        }
        if self.args.dry_run && !is_check {
            added.push("--dry-run".to_owned());
        }
        let low_priority = "--low-priority".to_owned();
        if self.args.low_priority && step.command == "push" && !step.arguments.contains(&low_priority) {
            added.push(low_priority);
        }
        added
    }

    fn finish(&mut self) -> Result<u8> {
        if let Some(signal) = stop::signal() {
            self.report.signal = u8::try_from(128 + signal).ok();
        }
        let mut out = Output::new(self.args.progress.output.json);
        let code = self.report.code();
        if !self.args.progress.output.quiet {
            self.report.lines().iter().try_for_each(|line| out.line(line))?;
        }
        if is_failure(code) {
            let why = self.report.failure().unwrap_or_else(|| "it was interrupted".to_owned());
            let text = escape::message(&format!("the run of profile {} failed: {why}", self.loaded.name));
            output::notice(format_args!("nfreezer: error: {text}"));
        }
        out.object("summary", self.report.fields())?;
        out.flush().map(|()| code)
    }
}

/// Returns an error about starting a process.
fn cannot_start(what: &str, error: std::io::Error) -> Error {
    Error::io(format!("start {what}"), error)
}

/// Returns the exit code of a process; 128 + the signal if one ended it.
fn code_of(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
