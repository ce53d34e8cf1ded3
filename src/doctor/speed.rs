//! Latency and throughput, with bounded bytes and time.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Finding;
use super::own::Own;
use crate::context::Context;
use crate::error::Result;
use crate::name::Name;
use crate::repo::{parallel, random};
use crate::storage::Storage;

/// Round trips that are measured.
const ROUND_TRIPS: usize = 9;
/// A round trip from which on many small requests are slow.
const SLOW_TRIP: Duration = Duration::from_millis(250);
/// Size of an object that is sent.
const PIECE: usize = 1 << 20;
/// Objects that are sent, and where they cannot be removed again.
const PIECES: (usize, usize) = (24, 2);
/// Objects on their way at once.
const THREADS: usize = 4;
/// Time after which no object is begun.
const MOST: Duration = Duration::from_secs(5);
/// Bytes per second below which a first backup takes weeks.
const SLOW: f64 = 100.0 * 1024.0;

/// Measures the median of some round trips.
pub fn latency(ctx: &Context, storage: &dyn Storage) -> Result<Finding> {
    let mut trips = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let started = Instant::now();
        storage.size(ctx, &Name::Config)?;
        trips.push(started.elapsed());
    }
    trips.sort_unstable();
    let median = trips[ROUND_TRIPS / 2];
    let text = format!("a round trip takes {:.1} ms", median.as_secs_f64() * 1000.0);
    let finding = if median > SLOW_TRIP {
        Finding::warning("latency", text, "a server that is nearer makes `mount`, `prune` and `check` faster")
    } else {
        Finding::ok("latency", text)
    };
    Ok(finding.with([("round_trip_microseconds", i64::try_from(median.as_micros()).unwrap_or(i64::MAX))]))
}

/// Sends objects and reads them again. `stays`: they cannot be removed, so fewer are sent.
pub fn throughput(ctx: &Context, storage: &dyn Storage, own: &Own<'_>, stays: bool) -> Result<[Finding; 2]> {
    let bytes = noise()?;
    let pieces = vec![(); if stays { PIECES.1 } else { PIECES.0 }];
    let names = Mutex::new(Vec::new());
    let upload = measured("upload", pieces, |()| {
        let name = own.put(ctx, &bytes)?;
        names.lock().expect("no holder panics").push(name);
        Ok(())
    })?;
    let names = names.into_inner().expect("no holder panics");
    let download = measured("download", names, |name| storage.read(ctx, &name, 0, PIECE).map(drop))?;
    Ok([upload, download])
}

/// Runs `work`, which moves one object, for each item until the time is over.
fn measured<T: Send>(test: &'static str, items: Vec<T>, work: impl Fn(T) -> Result<()> + Sync) -> Result<Finding> {
    let started = Instant::now();
    let moved = parallel(THREADS, items, |item| {
        if started.elapsed() > MOST {
            return Ok(0);
        }
        work(item).map(|()| PIECE as u64)
    });
    let bytes: u64 = moved.into_iter().sum::<Result<u64>>()?;
    let time = started.elapsed();
    let rate = bytes as f64 / time.as_secs_f64().max(1e-6);
    let text = format!("{:.1} MiB/s ({} MiB in {:.1} s)", rate / 1048576.0, bytes >> 20, time.as_secs_f64());
    let finding = if rate < SLOW {
        Finding::warning(test, text, "the first push takes long: it may be interrupted, and continues where it stopped")
    } else {
        Finding::ok(test, text)
    };
    Ok(finding.with([("bytes_per_second", rate as i64), ("bytes", i64::try_from(bytes).unwrap_or(i64::MAX))]))
}

/// Returns bytes that nothing can compress.
fn noise() -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(PIECE);
    while bytes.len() < PIECE {
        bytes.extend(random::<4096>()?);
    }
    Ok(bytes)
}
