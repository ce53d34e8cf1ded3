//! The scheduler. Each client is a thread, but only one of them runs at a time: a client passes the turn on with every
//! request. The seed selects the next client and the elapsed time, so equal seeds result in equal runs.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::name::ObjectId;

use super::dice::Dice;
use super::plan::{Plan, Seconds};
use super::server::Server;

/// Panic payload of a killed client. No code of the client runs after it.
pub struct Killed;

/// All clients, the server and the time.
pub struct World {
    inner: Mutex<Inner>,
    turns: Vec<Condvar>,
}

/// The part of the world that the client with the turn may change.
pub struct Inner {
    pub dice: Dice,
    pub plan: Plan,
    pub now: Seconds,
    pub server: Server,
    clients: Vec<Client>,
    turn: usize,
    trace: Option<Vec<String>>,
    pub requests: u64,
    /// Packs in the drop records of pruners that are suspended before the put of the record.
    pub dropping: BTreeSet<ObjectId>,
    /// Whether faults have ended and all clocks are true.
    pub is_calm: bool,
}

struct Client {
    name: String,
    /// Time before which the client does not run.
    wakes: Seconds,
    is_done: bool,
    /// Difference between its clock and the true time.
    skew: Seconds,
    booted: Seconds,
}

/// 2026-01-01, the true time at which a run starts.
pub const START: Seconds = 1_767_225_600;

impl World {
    pub fn new(seed: u64, mut plan: Plan, server: Server, names: &[String], is_traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let clients = names.iter().enumerate().map(|(client, name)| Client {
            name: name.clone(),
            wakes: START + dice.roll(plan.grace),
            is_done: false,
            skew: if plan.in_1970 == Some(client) { -START } else { plan.skew(&mut dice) },
            booted: START - dice.roll(1_000_000),
        });
        let clients: Vec<Client> = clients.collect();
        let turns = names.iter().map(|_| Condvar::new()).collect();
        let trace = is_traced.then(Vec::new);
        let (requests, dropping, is_calm) = Default::default();
        let mut inner = Inner { dice, plan, now: START, server, clients, turn: 0, trace, requests, dropping, is_calm };
        inner.next();
        World { inner: Mutex::new(inner), turns }
    }

    /// Passes the turn on and waits for the next one, at least `pause` seconds of true time.
    pub fn turn(&self, client: usize, pause: Seconds) -> MutexGuard<'_, Inner> {
        let mut inner = self.wait(client, self.lock());
        inner.clients[client].wakes = inner.now + pause;
        inner.next();
        self.turns[inner.turn].notify_one();
        self.wait(client, inner)
    }

    /// Removes the client from the schedule.
    pub fn finish(&self, client: usize) {
        let mut inner = self.wait(client, self.lock());
        inner.clients[client].is_done = true;
        inner.next();
        self.turns[inner.turn].notify_one();
    }

    fn wait<'g>(&self, client: usize, mut inner: MutexGuard<'g, Inner>) -> MutexGuard<'g, Inner> {
        while inner.turn != client {
            inner = self.turns[client].wait(inner).unwrap();
        }
        inner
    }

    /// Returns the world without a turn. For clocks, which take no time, and for use after all clients are done.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl Inner {
    /// Chooses the client whose turn it is.
    fn next(&mut self) {
        self.now += self.dice.roll(self.plan.latency);
        let Some(first) = self.clients.iter().filter(|c| !c.is_done).map(|c| c.wakes).min() else { return };
        self.now = self.now.max(first);
        let is_ready = |c: &Client| !c.is_done && c.wakes <= self.now;
        let goes_on = is_ready(&self.clients[self.turn]) && self.dice.chance(self.plan.burst);
        if !goes_on {
            let ready: Vec<usize> = (0..self.clients.len()).filter(|i| is_ready(&self.clients[*i])).collect();
            self.turn = self.dice.pick(&ready);
        }
        self.server.arrive(self.now);
    }

    /// Removes a client from the schedule before its start.
    pub fn retire(&mut self, client: usize) {
        self.clients[client].is_done = true;
        if self.turn == client {
            self.next();
        }
    }

    /// Returns whether all writers are done.
    pub fn writers_are_done(&self) -> bool {
        self.clients[..self.plan.writers].iter().all(|client| client.is_done)
    }

    /// Ends all faults, and leaves only this client active.
    pub fn calm(&mut self, client: usize) {
        self.is_calm = true;
        self.plan.calm();
        self.server.calm();
        self.clients[client].is_done = false;
        (self.clients[client].wakes, self.turn) = (self.now, client);
    }

    /// Returns the wall-clock time of a client.
    pub fn wall(&self, client: usize) -> Seconds {
        self.now + if self.is_calm { 0 } else { self.clients[client].skew }
    }

    /// Returns the time since a client was started.
    pub fn boot(&self, client: usize) -> Seconds {
        self.now - self.clients[client].booted
    }

    /// Returns whether a fault with this rate of the plan happens now.
    pub fn goes_wrong(&mut self, rate: impl Fn(&Plan) -> i64) -> bool {
        let rate = rate(&self.plan);
        !self.is_calm && self.dice.chance(rate)
    }

    /// Changes the clock of a client.
    pub fn jump(&mut self, client: usize) {
        let skew = self.plan.skew(&mut self.dice);
        self.clients[client].skew = skew;
        self.note(client, || format!("its clock jumps: {skew:+} s from now on"));
    }

    /// Starts the machine of a client again.
    pub fn reboot(&mut self, client: usize) {
        self.clients[client].booted = self.now;
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, client: usize, text: impl FnOnce() -> String) {
        let Some(trace) = &mut self.trace else { return };
        let past = self.now - START;
        let (days, hours, minutes) = (past / 86_400, past / 3600 % 24, past / 60 % 60);
        let line =
            format!("{days:3} d {hours:02}:{minutes:02}:{:02} {:9} {}", past % 60, self.clients[client].name, text());
        trace.push(line);
    }

    /// Returns the trace.
    pub fn trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }
}
