//! Random reads of large files: how much to fetch around a read that has to wait. Pure: it counts bytes, reads no clock and
//! fetches nothing.
//!
//! A random read costs a round trip, in which the network could have carried many more bytes. The reads may be dense (a
//! database that fits into the cache) or sparse (some pages of a large disk image). Only the success of earlier fetches
//! shows which. So each file has a budget of bytes to fetch around its reads:
//!
//! - A read that jumps and waits adds as many bytes as it needs itself. So a reader that never takes a byte of a stretch
//!   causes about twice the bytes of its reads, and [`GRANT`].
//! - A read that finds its bytes in a stretch has saved a round trip. It adds half of the bytes that the network carries in
//!   that time. So the transfer of further bytes takes at most half of the time that was saved.
//! - A stretch is aligned, and its length is a power of two, up to [`LARGEST`]. It is the longest one around the read for
//!   whose missing units the budget pays.
//! - The stretches of a file take at most three quarters of the cache. Beyond that, a further unit would evict one that is as
//!   likely to be read. That room comes back as other bytes pass through the cache.
//! - Where the network carries little in a round trip, because it is near or slow, nothing is fetched around a read.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Mutex;

use lru::LruCache;

use crate::crypto::seal::BLOCK;

/// Unit of a file, in bytes.
const UNIT: u64 = BLOCK as u64;
/// Bytes in a round trip below which nothing is fetched around a read.
const LEAST: u64 = 4 * UNIT;
/// Largest stretch, in bytes: a full pack.
const LARGEST: u64 = 16 << 20;
/// Jumps without a stretch. Programs look at the beginning and at the end of a file to find its type.
const FREE_JUMPS: u32 = 2;
/// The jump that adds [`GRANT`] to the budget. Without it, the first success would take more round trips.
const GRANT_AT: u32 = 4;
const GRANT: u64 = 1 << 20;
/// Files that are remembered.
const FILES: NonZeroUsize = NonZeroUsize::new(256).expect("positive");
/// Reads of a file that are remembered.
const RECENT: usize = 8;
/// Most units that are remembered; with a cache of 1 GiB, each of its blocks is one.
const UNITS: usize = 16 << 10;

/// The state of the network and of the cache.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Bytes that the network carries in the time of a round trip.
    pub round_trip: u64,
    /// Bytes that were fetched into the cache so far.
    pub fetched: u64,
}

/// A read of a large file.
#[derive(Clone, Debug)]
pub struct RandomRead {
    /// The bytes of the file that are read.
    pub bytes: Range<u64>,
    /// The bytes of the file that are fetched for it if it waits.
    pub needs: Range<u64>,
    /// Size of the file.
    pub size: u64,
    /// Not all of it is in memory.
    pub waits: bool,
}

/// The random reads of a mount.
pub struct RandomReads {
    state: Mutex<State>,
    /// Bytes of the stretches of one file that the cache has room for.
    room: u64,
}

struct State {
    files: LruCache<u64, File>,
    /// The units that were fetched by random reads (false) or around them and not read yet (true), by file and number.
    units: LruCache<(u64, u64), bool>,
}

struct File {
    /// Ends of the last reads.
    recent: VecDeque<u64>,
    jumps: u32,
    budget: u64,
    room: u64,
    /// [`Traffic::fetched`] when the room was computed last, and bytes of stretches since then that are not yet in it.
    fetched: u64,
    owed: u64,
}

impl RandomReads {
    /// `cache`: capacity of the cache of blocks, in bytes.
    pub fn new(cache: u64) -> Self {
        let units = NonZeroUsize::new((cache / UNIT) as usize).map_or(NonZeroUsize::MIN, |units| units);
        let units = units.min(NonZeroUsize::new(UNITS).expect("positive"));
        let state = State { files: LruCache::new(FILES), units: LruCache::new(units) };
        RandomReads { state: Mutex::new(state), room: cache / 4 * 3 }
    }

    /// Notes a read; returns the ranges to fetch around it.
    pub fn note(&self, ino: u64, read: &RandomRead, traffic: Traffic) -> Vec<Range<u64>> {
        let (units_read, waits) = (aligned(&read.needs), read.waits);
        let State { files, units } = &mut *self.state.lock().expect("no holder panics");
        let file = files.get_or_insert_mut(ino, || File::new(self.room, traffic));
        let has_saved = take(units, ino, units_read.clone(), waits);
        if has_saved {
            file.add(traffic.round_trip / 2);
        }
        if !file.jumps_to(&read.bytes) || !waits {
            return Vec::new();
        }
        file.jumps = file.jumps.saturating_add(1);
        file.add((units_read.end - units_read.start) * UNIT);
        if file.jumps == GRANT_AT {
            file.add(GRANT.min(traffic.round_trip));
        }
        file.refill(self.room, traffic.fetched);
        if file.jumps <= FREE_JUMPS || traffic.round_trip < LEAST {
            return Vec::new();
        }
        let stretch = stretch(units, ino, units_read, read.size.div_ceil(UNIT), file.budget.min(file.room));
        let runs = missing(units, ino, stretch);
        for unit in runs.iter().cloned().flatten() {
            units.put((ino, unit), true);
            file.room = file.room.saturating_sub(UNIT);
            file.owed += UNIT;
        }
        file.budget = file.budget.saturating_sub(runs.iter().map(cost).sum());
        runs.into_iter().map(|run| run.start * UNIT..(run.end * UNIT).min(read.size)).collect()
    }
}

impl File {
    fn new(room: u64, traffic: Traffic) -> Self {
        File { recent: VecDeque::new(), jumps: 0, budget: 0, room, fetched: traffic.fetched, owed: 0 }
    }

    /// Notes a read; returns whether it is far from the last ones, or before them. The kernel sends the reads of a sequential
    /// reader slightly out of order.
    fn jumps_to(&mut self, read: &Range<u64>) -> bool {
        let near = 4 * (read.end - read.start);
        let is_near = |end: &u64| read.start + near / 4 >= *end && read.start <= *end + near;
        let jumps = !self.recent.iter().any(is_near);
        self.recent.push_back(read.end);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        jumps
    }

    fn add(&mut self, bytes: u64) {
        self.budget = (self.budget + bytes).min(LARGEST);
    }

    /// Brings back the room of stretches that other bytes have displaced.
    fn refill(&mut self, room: u64, fetched: u64) {
        let passed = fetched.saturating_sub(self.fetched);
        let own = passed.min(self.owed);
        self.fetched = fetched;
        self.owed -= own;
        self.room = (self.room + passed - own).min(room);
    }
}

/// Marks the units of a read as read. Returns whether the read found some of them in a stretch.
fn take(units: &mut LruCache<(u64, u64), bool>, ino: u64, read: Range<u64>, waits: bool) -> bool {
    let mut has_saved = false;
    for unit in read {
        match units.get_mut(&(ino, unit)) {
            Some(is_ahead) => has_saved |= std::mem::replace(is_ahead, false) && !waits,
            None if waits => drop(units.put((ino, unit), false)),
            None => {}
        }
    }
    has_saved
}

/// Returns the longest stretch around these units whose missing units the allowance pays for.
fn stretch(units: &LruCache<(u64, u64), bool>, ino: u64, read: Range<u64>, end: u64, allowance: u64) -> Range<u64> {
    let (mut found, mut len) = (read.clone(), 2);
    while len * UNIT <= LARGEST {
        let start = found.start / len * len;
        let stop = found.end.next_multiple_of(len).min(end).max(found.end);
        if missing(units, ino, start..stop).iter().map(cost).sum::<u64>() > allowance {
            break;
        }
        (found, len) = (start..stop, len * 2);
    }
    found
}

/// Returns the bytes that are fetched for a run of units: half a block more at each end, since the blocks of a pack do not begin
/// where the units of a file do.
fn cost(run: &Range<u64>) -> u64 {
    (run.end - run.start + 1) * UNIT
}

/// Returns the units of a stretch that were not fetched yet.
fn missing(units: &LruCache<(u64, u64), bool>, ino: u64, stretch: Range<u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for unit in stretch.filter(|unit| !units.contains(&(ino, *unit))) {
        match runs.last_mut() {
            Some(run) if run.end == unit => run.end += 1,
            _ => runs.push(unit..unit + 1),
        }
    }
    runs
}

/// Returns the units that hold these bytes.
fn aligned(range: &Range<u64>) -> Range<u64> {
    range.start / UNIT..range.end.div_ceil(UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const CACHE: u64 = 96 * MIB;

    /// A reader whose fetches arrive at once, with a cache of blocks that drops the oldest one.
    struct Reader {
        reads: RandomReads,
        cache: LruCache<u64, ()>,
        round_trip: u64,
        waits: u64,
        fetched: u64,
    }

    impl Reader {
        fn new(round_trip: u64) -> Self {
            let blocks = NonZeroUsize::new((CACHE / UNIT) as usize).unwrap();
            Reader { reads: RandomReads::new(CACHE), cache: LruCache::new(blocks), round_trip, waits: 0, fetched: 0 }
        }

        fn fetch(&mut self, unit: u64) {
            if self.cache.get(&unit).is_none() {
                self.cache.put(unit, ());
                self.fetched += UNIT;
            }
        }

        fn read(&mut self, at: u64, size: u64) {
            let waits = self.cache.get(&(at / UNIT)).is_none();
            let traffic = Traffic { round_trip: self.round_trip, fetched: self.fetched };
            let read = RandomRead { bytes: at..at + 4096, needs: at..at + 4096, size, waits };
            let runs = self.reads.note(9, &read, traffic);
            self.waits += u64::from(waits);
            self.fetch(at / UNIT);
            runs.iter().flat_map(aligned).for_each(|unit| self.fetch(unit));
        }
    }

    /// Reads 4 KiB at `count` places of a file; returns the round trips and the MiB fetched, as percentages of the ones
    /// without stretches.
    fn random(count: u64, size: u64, round_trip: u64) -> (u64, u64) {
        let run = |round_trip| {
            let (mut reader, mut dice) = (Reader::new(round_trip), 7u64);
            for _ in 0..count {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                reader.read((dice >> 24) % (size / 4096) * 4096, size);
            }
            (reader.waits, reader.fetched)
        };
        let (plain, now) = (run(0), run(round_trip));
        (now.0 * 100 / plain.0, now.1 * 100 / plain.1)
    }

    #[test]
    fn a_dense_reader_gets_the_file_and_a_sparse_one_twice_its_bytes() {
        let far = 5 * MIB;
        let (waits, bytes) = random(1000, 16 * MIB, far);
        assert!(waits <= 10 && bytes <= 105, "16 MiB: {waits} % of the round trips, {bytes} % of the bytes");
        let (waits, bytes) = random(1000, 128 * MIB, far);
        assert!(waits <= 58 && bytes <= 250, "128 MiB: {waits} % of the round trips, {bytes} % of the bytes");
        let (waits, bytes) = random(1000, 1024 * MIB, far);
        assert!(waits <= 100 && bytes <= 350, "1 GiB: {waits} % of the round trips, {bytes} % of the bytes");
        let (waits, bytes) = random(100, 4096 * MIB, far);
        assert!(waits == 100 && bytes <= 216, "4 GiB: {waits} % of the round trips, {bytes} % of the bytes");
    }

    #[test]
    fn a_network_that_is_near_or_slow_gets_nothing_more() {
        assert_eq!(random(1000, 16 * MIB, LEAST - 1), (100, 100));
    }

    #[test]
    fn sequential_readers_and_looks_at_both_ends_of_a_file_get_no_stretch() {
        let reads = RandomReads::new(CACHE);
        let traffic = Traffic { round_trip: 5 * MIB, fetched: 0 };
        let read = |bytes: Range<u64>| RandomRead { needs: bytes.clone(), bytes, size: 100 * MIB, waits: true };
        let note = |ino, at: u64, len: u64| reads.note(ino, &read(at..at + len), traffic);
        for i in [1, 0, 2, 4, 3, 6, 5, 7] {
            assert_eq!(note(1, i << 17, 1 << 17), []);
        }
        assert_eq!([0, 99 * MIB].map(|at| note(2, at, 4096)), [[], []]);
        assert!(!note(2, 50 * MIB, 4096).is_empty());
    }

    #[test]
    fn a_backward_reader_soon_waits_seldom() {
        let mut reader = Reader::new(5 * MIB);
        (0..4096).rev().for_each(|i| reader.read(i * 8192, 32 * MIB));
        assert!(reader.waits < 30, "{} of 512 blocks", reader.waits);
    }

    #[test]
    fn room_comes_back_when_other_bytes_pass_through_the_cache() {
        let mut file = File::new(100, Traffic { round_trip: 0, fetched: 0 });
        (file.room, file.owed) = (0, 100);
        file.refill(100, 100);
        assert_eq!(file.room, 0, "the stretches themselves were fetched");
        file.refill(100, 130);
        assert_eq!(file.room, 30);
        file.refill(100, 900);
        assert_eq!(file.room, 100);
    }
}
