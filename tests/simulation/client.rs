//! The clients: their operations, and the memory that survives a kill.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::context::background;
use crate::error::{Error, Result};
use crate::forget::undelete as show_again;
use crate::format::record::{Action, Head, Mark, Snapshot, SnapshotId};
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::repo::{Access, Repository, deterministic};
use crate::seen::SeenStore;
use crate::trees::{Reachable, Scope, Trees};

use super::base::base;
use super::dice::Dice;
use super::plan::{Rule, Script};
use super::push::{End, Push};
use super::storage::{ClientClock, Line};
use super::tree::Model;
use super::world::{Killed, World};

/// Attempts of a push before it fails.
const ATTEMPTS: usize = 4;

/// A snapshot that was reported as saved.
#[derive(Clone)]
pub struct Saved {
    pub id: SnapshotId,
    pub model: Model,
    pub client: usize,
}

/// The actions of all clients, for the verdict at the end.
#[derive(Default)]
pub struct Journal {
    pub saved: Vec<Saved>,
    /// Snapshots that a client tried to forget.
    pub forgotten: BTreeSet<SnapshotId>,
    pub errors: Vec<String>,
    pub panics: Vec<String>,
}

/// A machine that runs a client.
pub struct Machine {
    pub world: Arc<World>,
    pub journal: Arc<Mutex<Journal>>,
    pub client: usize,
    pub name: String,
    /// Folder of the client's memory (seen heads).
    pub seen: PathBuf,
    pub dice: Dice,
}

impl Machine {
    /// Opens the repository like a new process.
    pub fn open(&self) -> Repository {
        let line = Arc::new(Line { world: Arc::clone(&self.world), client: self.client });
        let access = Access { seen: Some(SeenStore::at(&self.seen)), ..Access::default() };
        let clock = ClientClock { world: Arc::clone(&self.world), client: self.client };
        let plan = self.world.lock().plan.clone();
        let grace = Duration::from_secs(plan.grace.unsigned_abs());
        let repo = base().repo.behind_with(line, &access).with_clock(Arc::new(clock)).with_grace(grace);
        if plan.removed == Some(Rule::SecondLook) && self.client < plan.writers {
            repo.without_second_look()
        } else {
            repo
        }
    }

    pub fn note(&self, text: &str) {
        self.world.lock().note(self.client, || text.to_owned());
    }

    /// Waits, then runs an operation, which may be killed at each of its requests.
    pub fn run(&mut self, what: &str, operation: impl FnOnce(&mut Machine) -> Result<()>) {
        let pause = {
            let inner = &mut *self.world.lock();
            inner.plan.pause(&mut self.dice)
        };
        drop(self.world.turn(self.client, pause));
        self.note(&format!("--- {what}"));
        match catch_unwind(AssertUnwindSafe(|| operation(self))) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                self.note(&format!("{what} fails: {e}"));
                self.journal.lock().unwrap().errors.push(format!("{} {what}: {e:?}", self.name));
            }
            Err(panic) if panic.is::<Killed>() => {
                self.note("is killed");
                if self.dice.chance(500) {
                    self.world.lock().reboot(self.client);
                }
            }
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// Runs the work of a client on its own thread. Removes the client from the schedule at the end, also after a panic.
pub fn work(mut machine: Machine, seed: u64, work: impl FnOnce(&mut Machine)) {
    deterministic::seed(seed);
    drop(machine.world.turn(machine.client, 0));
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&mut machine))) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default();
        machine.journal.lock().unwrap().panics.push(format!("{}: {text}", machine.name));
    }
    machine.world.finish(machine.client);
}

/// Runs a client that pushes, forgets and undeletes.
pub fn writer(machine: &mut Machine) {
    let (pushes, forgotten, undeleted, partial) = {
        let plan = &machine.world.lock().plan;
        (plan.pushes, plan.forgotten, plan.undeleted, plan.partial)
    };
    let script = machine.world.lock().plan.script;
    let mut model = Model::default();
    for round in 0..pushes {
        match script {
            Some(Script::Undelete) => {
                undelete_late(machine, &mut model);
                continue;
            }
            Some(Script::Return) => {
                push_again(machine, &mut model, round as u8);
                continue;
            }
            None => {}
        }
        if !machine.dice.chance(150) {
            model.change(machine.client, &mut machine.dice);
        }
        let end = match machine.dice.chance(partial) {
            true => machine.dice.pick(&[End::Partial, End::Immediate]),
            false => End::Whole,
        };
        machine.run("push", |machine| push(machine, &model, end));
        if machine.dice.chance(forgotten) {
            machine.run("forget", forget_one);
        }
        if machine.dice.chance(undeleted) {
            machine.run("undelete", undelete);
        }
    }
}

/// Runs [`Script::Undelete`].
fn undelete_late(machine: &mut Machine, model: &mut Model) {
    for _ in 0..2 {
        model.change(machine.client, &mut machine.dice);
        machine.run("push", |machine| push(machine, model, End::Whole));
    }
    machine.run("forget", forget_one);
    for _ in 0..300 {
        let dropping = machine.world.turn(machine.client, 1200).dropping.clone();
        if !dropping.is_empty() && undelete_one(machine, |repo, s| names_any(repo, s, &dropping)).is_ok_and(|done| done)
        {
            break;
        }
    }
}

/// Returns whether the tree of a snapshot names one of these packs.
fn names_any(repo: &Repository, snapshot: &Snapshot, packs: &BTreeSet<ObjectId>) -> bool {
    let (trees, condemned) = (Trees::new(repo), HashSet::new());
    let scope = Scope { is_wanted: &|id| packs.contains(id), condemned: &condemned, memory: 1 << 20 };
    let roots: Vec<Ref> = snapshot.root.into_iter().collect();
    Reachable::of(background(), &trees, &roots, &scope).is_ok_and(|found| found.packs().next().is_some())
}

/// Runs [`Script::Return`].
fn push_again(machine: &mut Machine, model: &mut Model, round: u8) {
    model.change(machine.client, &mut machine.dice);
    let mut more = model.clone();
    more.0.insert("again".into(), [("file".into(), vec![100 + 40 * machine.client as u8 + round])].into());
    for model in [&*model, &more, &*model] {
        machine.run("push", |machine| push(machine, model, End::Whole));
    }
    machine.run("forget", |machine| forget(machine, |own| own.checked_sub(2)));
    let pause = {
        let inner = machine.world.lock();
        machine.dice.roll(inner.plan.grace)
    };
    drop(machine.world.turn(machine.client, pause));
    machine.run("push", |machine| push(machine, &more, End::Whole));
}

fn push(machine: &mut Machine, model: &Model, end: End) -> Result<()> {
    let repo = machine.open();
    for _ in 0..ATTEMPTS {
        if attempt(machine, &repo, model, end)? {
            return Ok(());
        }
        machine.note("begins again: packs were condemned meanwhile");
    }
    Err(Error::failed("packs were condemned while the push went on"))
}

/// Tries a push once. Returns whether the snapshot is reliable.
fn attempt(machine: &mut Machine, repo: &Repository, model: &Model, end: End) -> Result<bool> {
    let ctx = background();
    let mut state = repo.state(ctx)?;
    let mut dice = machine.dice.fork();
    let mut push = Push::new(ctx, repo, &machine.name, &state, &mut dice)?;
    let model = if end == End::Whole { model.clone() } else { model.part(&mut machine.dice) };
    let (root, sections) = push.store(&model)?;
    let (id, head) = push.head(&state, root, end)?;
    // The snapshots that this one replaces are no longer expected.
    machine.journal.lock().unwrap().forgotten.extend(head.marks.iter().map(|mark| mark.snapshot));
    if end == End::Immediate {
        repo.commit_at_once(ctx, &state, head, &sections)?;
        return Ok(true);
    }
    let is_outdated = Cell::new(false);
    let commit = repo.commit_if(ctx, &mut state, head, &sections, |state| {
        is_outdated.set(!push.is_current(state, root)?);
        if is_outdated.get() { Err(Error::failed("packs were condemned meanwhile")) } else { Ok(()) }
    });
    let commit = match commit {
        Err(_) if is_outdated.get() => return Ok(false),
        other => other?,
    };
    if let Some(doubt) = commit.doubt {
        machine.note(&format!("takes snapshot {} back: {doubt}", id.short()));
        machine.journal.lock().unwrap().forgotten.insert(id);
        let mark = Mark::new(id, repo.now().seconds, Action::Forget);
        repo.commit_at_once(ctx, &state, Head { marks: vec![mark], ..Head::default() }, &[])?;
        return Ok(false);
    }
    if end == End::Whole {
        machine.note(&format!("has saved snapshot {}", id.short()));
        machine.journal.lock().unwrap().saved.push(Saved { id, model, client: machine.client });
    }
    let _ = repo.merge(ctx, &mut state);
    Ok(true)
}

/// Forgets one of the client's snapshots.
fn forget_one(machine: &mut Machine) -> Result<()> {
    let mut dice = machine.dice.fork();
    forget(machine, |own| (own >= 2).then(|| dice.roll(own as i64 - 1) as usize))
}

/// Forgets one of the client's snapshots. `which` receives their number and returns an index.
fn forget(machine: &mut Machine, which: impl FnOnce(usize) -> Option<usize>) -> Result<()> {
    let ctx = background();
    let repo = machine.open();
    let mut state = repo.state(ctx)?;
    let own: Vec<_> = state.snapshots().into_iter().filter(|s| s.host == machine.name).collect();
    let Some(id) = which(own.len()).map(|number| own[number].id) else { return Ok(()) };
    machine.note(&format!("forgets snapshot {}", id.short()));
    machine.journal.lock().unwrap().forgotten.insert(id);
    let mark = Mark::new(id, repo.now().seconds, Action::Forget);
    repo.commit(ctx, &mut state, Head { marks: vec![mark], ..Head::default() }, &[]).map(drop)
}

fn undelete(machine: &mut Machine) -> Result<()> {
    undelete_one(machine, |_, _| true).map(drop)
}

/// Undeletes one of the client's wanted snapshots, which must not lose data from then on. Returns whether one existed.
fn undelete_one(machine: &mut Machine, is_wanted: impl Fn(&Repository, &Snapshot) -> bool) -> Result<bool> {
    let ctx = background();
    let repo = machine.open();
    let mut state = repo.state(ctx)?;
    let saved: BTreeSet<SnapshotId> = {
        let journal = machine.journal.lock().unwrap();
        journal.saved.iter().filter(|saved| saved.client == machine.client).map(|saved| saved.id).collect()
    };
    let own = state.forgotten().into_iter().filter(|s| saved.contains(&s.id) && is_wanted(&repo, s));
    let own: Vec<_> = own.collect();
    if own.is_empty() {
        return Ok(false);
    }
    let snapshot = &own[machine.dice.roll(own.len() as i64) as usize];
    show_again(ctx, &repo, &mut state, std::slice::from_ref(snapshot))?;
    machine.note(&format!("has undeleted snapshot {}", snapshot.id.short()));
    machine.journal.lock().unwrap().forgotten.remove(&snapshot.id);
    Ok(true)
}
