//! Limits the number of puts at once. If connections break again and again, fewer run: an object that is cut off is sent again
//! from its beginning, so one complete upload is worth more than four halves. The same holds for a slow connection: an
//! interrupted push loses its unfinished uploads.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::Fault;
use super::limit::Limit;
use crate::context::Context;
use crate::error::Result;

/// Lets puts in.
pub struct Gate {
    /// The upload limit.
    rate: Option<Limit>,
    state: Mutex<GateState>,
    changed: Condvar,
}

struct GateState {
    running: usize,
    running_bytes: u64,
    limit: usize,
}

/// Seconds of the rate limit that running puts may take together.
const HALF_DONE: u64 = 10;
/// Puts at once on a connection that was not measured yet.
const FIRST: usize = 3;
/// Duration of a put below which one more is admitted.
const QUICK: Duration = Duration::from_secs(3);
/// Duration of a put above which one less is admitted.
const SLOW: Duration = Duration::from_secs(10);
/// Smaller objects are not counted: a record must not wait behind packs.
const SMALL: usize = 1 << 20;

/// One put is running.
pub struct Pass<'a> {
    gate: &'a Gate,
    bytes: u64,
}

impl GateState {
    fn admits(&self, bytes: u64, most_bytes: u64) -> bool {
        let fits = self.running == 0 || self.running_bytes + bytes <= most_bytes;
        self.running < self.limit && fits
    }
}

impl Gate {
    /// Makes a gate. `rate`: the upload limit.
    pub fn new(rate: Option<Limit>) -> Self {
        let state = GateState { running: 0, running_bytes: 0, limit: FIRST };
        Gate { rate, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Returns the bound on the bytes of concurrent puts: the bytes that the rate limit allows in [`HALF_DONE`] seconds.
    fn most_bytes(&self) -> u64 {
        let rate = self.rate.as_ref().and_then(Limit::now);
        rate.map_or(u64::MAX, |rate| rate.saturating_mul(HALF_DONE))
    }

    /// Runs a put of `bytes` bytes once it may run, and learns from its end.
    pub fn run(&self, ctx: &Context, bytes: usize, put: impl FnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
        let _pass = self.enter(ctx, bytes)?;
        let started = Instant::now();
        let done = put();
        match &done {
            Ok(()) => self.stored(bytes, started.elapsed()),
            Err(Fault::Lost(_) | Fault::Busy(..)) => self.broken(),
            Err(Fault::Final(_)) => {}
        }
        done
    }

    /// Waits until one more put of `bytes` bytes may run.
    fn enter(&self, ctx: &Context, bytes: usize) -> Result<Option<Pass<'_>>> {
        if bytes < SMALL {
            return Ok(None);
        }
        let size = bytes as u64;
        let mut state = self.state.lock().expect("no holder panics");
        while !state.admits(size, self.most_bytes()) {
            state = ctx.wait(&self.changed, state)?;
        }
        state.running += 1;
        state.running_bytes += size;
        Ok(Some(Pass { gate: self, bytes: size }))
    }

    /// Reports a put that succeeded after `took`.
    fn stored(&self, bytes: usize, took: Duration) {
        let mut state = self.state.lock().expect("no holder panics");
        state.limit = match took {
            _ if bytes < SMALL => state.limit,
            _ if took < QUICK => state.limit.saturating_add(1),
            _ if took > SLOW => state.limit.min(state.running).saturating_sub(1).max(1),
            _ => state.limit,
        };
        self.changed.notify_all();
    }

    /// Halves the number of concurrent puts, after the connection broke under a put or the server was busy.
    fn broken(&self) {
        let mut state = self.state.lock().expect("no holder panics");
        state.limit = (state.limit.min(state.running) / 2).max(1);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock().expect("no holder panics");
        state.running -= 1;
        state.running_bytes -= self.bytes;
        drop(state);
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn stopped() -> Context<'static> {
        let ctx = crate::context::background().child();
        ctx.cancel();
        ctx
    }

    const PACK: usize = 16 << 20;

    fn limit(gate: &Gate) -> usize {
        gate.state.lock().unwrap().limit
    }

    #[test]
    fn fewer_after_each_break_and_more_after_each_success() {
        let gate = Gate::new(None);
        (0..20).for_each(|_| gate.stored(SMALL, Duration::ZERO));
        let passes: Vec<_> = (0..8).map(|_| gate.enter(&stopped(), SMALL).unwrap()).collect();
        gate.broken();
        assert_eq!(limit(&gate), 4);
        (0..5).for_each(|_| gate.broken());
        drop(passes);
        let one = gate.enter(&stopped(), SMALL).unwrap();
        assert!(matches!(gate.enter(&stopped(), SMALL).map(drop).unwrap_err().kind(), Kind::Cancelled));
        gate.stored(SMALL, Duration::ZERO);
        gate.enter(&stopped(), SMALL).unwrap();
        drop(one);
    }

    #[test]
    fn a_slow_line_has_one_at_a_time_and_small_objects_say_nothing_about_it() {
        let gate = Gate::new(None);
        let passes: Vec<_> = (0..FIRST).map(|_| gate.enter(&stopped(), SMALL).unwrap()).collect();
        gate.enter(&stopped(), SMALL).map(drop).unwrap_err();
        (0..5).for_each(|_| gate.stored(SMALL - 1, Duration::ZERO));
        assert_eq!(limit(&gate), FIRST);
        (0..5).for_each(|_| gate.stored(SMALL, Duration::from_secs(30)));
        assert_eq!(limit(&gate), 1);
        drop(passes);
    }

    #[test]
    fn a_low_limit_lets_in_few_and_never_keeps_out_what_is_small() {
        for (rate, most) in [(1, 1), (2 << 20, 1), (8 << 20, 5)] {
            let gate = Gate::new(Some(rate.into()));
            (0..9).for_each(|_| gate.stored(SMALL, Duration::ZERO));
            let mut passes: Vec<_> = (0..most).map(|_| gate.enter(&stopped(), PACK).unwrap()).collect();
            assert!(gate.enter(&stopped(), PACK).is_err(), "{rate}");
            assert!(gate.enter(&stopped(), SMALL - 1).unwrap().is_none());
            drop(passes.pop());
            gate.enter(&stopped(), PACK).unwrap();
        }
    }
}
