//! The storage of one client. Each request waits for its turn, and the client may be killed at it.

use std::sync::Arc;
use std::time::Duration;

use crate::context::Context;
use crate::crypto::seal::{self, ObjectType};
use crate::error::{Error, Kind, Result};
use crate::format::record;
use crate::name::{Folder, Name, ObjectId};
use crate::repo::Clock;
use crate::storage::{Capabilities, Entry, Storage};
use crate::time::Time;

use super::base::base;
use super::plan::{Plan, Script};
use super::server::{Arrival, Upload};
use super::world::{Inner, Killed, World};

/// The connection of one client to the server.
pub struct Line {
    pub world: Arc<World>,
    pub client: usize,
}

/// Sequence of the last record that exists at the start of every run. Traces leave these records out.
const OLD: u32 = super::base::RECORDS as u32;

/// The fate of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    RequestLost,
    AnswerLost,
    KilledBefore,
    KilledAfter,
}

impl Line {
    fn request<T>(
        &self,
        text: impl FnOnce() -> String,
        deed: impl FnOnce(&mut Inner) -> Result<T>,
        show: impl FnOnce(&T) -> String,
    ) -> Result<T> {
        let pause = self.nap(false);
        let mut inner = self.world.turn(self.client, pause);
        inner.requests += 1;
        if inner.goes_wrong(|plan| plan.jumps) {
            inner.jump(self.client);
        }
        let fate = fate(&mut inner);
        let happens = !matches!(fate, Fate::RequestLost | Fate::KilledBefore);
        let result = if happens { deed(&mut inner) } else { Err(Error::new(Kind::Connection, "not sent")) };
        inner.note(self.client, || {
            let answer = match &result {
                Ok(value) => show(value),
                Err(e) => e.to_string(),
            };
            let fate = if fate == Fate::Answered { String::new() } else { format!(" ({fate:?})") };
            format!("{}{fate} -> {answer}", text())
        });
        if matches!(fate, Fate::KilledBefore | Fate::KilledAfter) {
            drop(inner);
            std::panic::resume_unwind(Box::new(Killed));
        }
        match fate {
            Fate::AnswerLost => Err(Error::new(Kind::Connection, "the connection broke")),
            _ => result,
        }
    }

    /// Returns the time for which the machine is suspended before its next request.
    fn nap(&self, is_commit: bool) -> i64 {
        let inner = &mut *self.world.lock();
        let is_writer = self.client < inner.plan.writers;
        let commits = |plan: &Plan| if is_writer { plan.commit_naps } else { plan.prune_naps };
        let rate = |plan: &Plan| plan.suspended + if is_commit { commits(plan) } else { 0 };
        if !inner.goes_wrong(rate) {
            return 0;
        }
        // A pruner that is suspended for half of the grace time deletes nothing.
        let is_short = is_commit && !is_writer && inner.dice.chance(800);
        let nap = if is_short { inner.dice.roll(inner.plan.grace / 3) } else { inner.plan.nap(&mut inner.dice) };
        inner.note(self.client, || format!("is suspended for {:.1} h", nap as f64 / 3600.0));
        nap
    }
}

fn fate(inner: &mut Inner) -> Fate {
    if inner.goes_wrong(|plan| plan.killed) {
        return inner.dice.pick(&[Fate::KilledBefore, Fate::KilledAfter]);
    }
    if inner.goes_wrong(|plan| plan.lost) {
        return inner.dice.pick(&[Fate::RequestLost, Fate::AnswerLost]);
    }
    Fate::Answered
}

/// Returns the short form of a name in traces.
fn short(name: &Name) -> String {
    match name {
        Name::Record { sequence, id } => format!("record {sequence} {}", id.short()),
        Name::Pack(id) => format!("pack {}", id.short()),
        other => other.to_string(),
    }
}

impl Storage for Line {
    fn create_folders(&self, _: &Context) -> Result<()> {
        Ok(())
    }

    fn list(&self, _: &Context, folder: Folder) -> Result<Vec<Entry>> {
        let list = |inner: &mut Inner| {
            let Inner { server, plan, dice, now, .. } = inner;
            Ok(server.list(self.client, folder, *now, plan, dice))
        };
        let show = |entries: &Vec<Entry>| {
            let is_new = |entry: &&Entry| !matches!(entry.name, Name::Record { sequence, .. } if sequence <= OLD);
            let names: Vec<String> = entries.iter().filter(is_new).map(|entry| short(&entry.name)).collect();
            format!("[{}]", names.join(", "))
        };
        self.request(|| format!("lists {}", folder.path()), list, show)
    }

    fn foreign(&self, _: &Context, _: Folder) -> Result<usize> {
        Ok(0)
    }

    fn size(&self, _: &Context, name: &Name) -> Result<u64> {
        let size = |inner: &mut Inner| {
            deny(inner, name)?;
            inner.server.get(name, inner.now).map(|object| object.bytes.len() as u64)
        };
        self.request(|| format!("asks for the size of {}", short(name)), size, u64::to_string)
    }

    fn read(&self, _: &Context, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>> {
        let read = |inner: &mut Inner| {
            deny(inner, name)?;
            inner.server.read(name, offset, len, inner.now)
        };
        self.request(|| format!("reads {}", short(name)), read, |_| "ok".into())
    }

    fn put(&self, ctx: &Context, name: &Name, bytes: &[u8]) -> Result<()> {
        ctx.check()?;
        if matches!(name, Name::Record { .. }) {
            let is_steered = self.world.lock().plan.script == Some(Script::Undelete);
            let dropped = if is_steered { dropped_packs(name, bytes)? } else { Vec::new() };
            let nap = if dropped.is_empty() { self.nap(true) } else { 3000 };
            self.world.lock().dropping.extend(&dropped);
            let mut inner = self.world.turn(self.client, nap);
            inner.dropping.retain(|id| !dropped.contains(id));
        }
        let put = |inner: &mut Inner| {
            let Inner { server, plan, dice, now, .. } = inner;
            let is_late = dice.chance(plan.late);
            let arrival = if is_late { Arrival::Late(*now + plan.nap(dice)) } else { Arrival::Now };
            server.put(Upload { client: self.client, name, bytes, arrival }, *now, plan, dice)
        };
        self.request(|| format!("puts {}", short(name)), put, |()| "ok".into())
    }

    fn remove(&self, _: &Context, name: &Name) -> Result<()> {
        let remove = |inner: &mut Inner| {
            inner.server.remove(name, inner.now);
            Ok(())
        };
        self.request(|| format!("REMOVES {}", short(name)), remove, |()| "ok".into())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable_put: true, exclusive_create: true }
    }

    fn traffic(&self) -> (u64, u64) {
        (0, 0)
    }

    fn address(&self) -> String {
        "simulated".into()
    }
}

/// Returns the packs that a record drops.
fn dropped_packs(name: &Name, bytes: &[u8]) -> Result<Vec<ObjectId>> {
    let Name::Record { sequence, id } = *name else { return Ok(Vec::new()) };
    let plain = seal::open(base().repo.keys(), ObjectType::Record, id, bytes.to_vec())?;
    let end = record::head_end(plain[..4].try_into().expect("a record begins with its length"))?;
    Ok(record::decode(sequence, &plain[..end])?.head.dropped)
}

/// Fails at the plan's rate with a server that denies a stored pack.
fn deny(inner: &mut Inner, name: &Name) -> Result<()> {
    let denies = matches!(name, Name::Pack(_)) && inner.goes_wrong(|plan| plan.denied);
    if denies { Err(Error::new(Kind::Missing, format!("no object {name} (DENIED)"))) } else { Ok(()) }
}

/// The clock of one client.
pub struct ClientClock {
    pub world: Arc<World>,
    pub client: usize,
}

impl Clock for ClientClock {
    fn wall(&self) -> Time {
        Time::from_seconds(self.world.lock().wall(self.client))
    }

    fn boot(&self) -> Duration {
        Duration::from_secs(self.world.lock().boot(self.client).unsigned_abs())
    }
}
