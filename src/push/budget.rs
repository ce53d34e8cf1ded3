//! The memory of a push: one bound, divided into allowances for everything that grows.

use crate::crypto::chunker;
use crate::error::{Error, Kind, Result};
use crate::format::limits;

const MIB: u64 = 1 << 20;
/// The program, its stacks and small allocations.
const BASE: u64 = 16 * MIB;
/// A worker: its window, a chunk that it was handed, its compressor.
const WORKER: u64 = 2 * chunker::MAX as u64 + chunker::MAX as u64 + 2 * MIB;
/// A pack that is open, being sealed or being uploaded.
const PACK: u64 = limits::PACK as u64 + 64 * 1024;
/// Least memory that a push needs, in bytes: one worker, one pack each that is open, uploaded and of metadata, and the
/// allowances that are fractions of the memory (1/16 + 1/12 + 1/24 + 1/32 = 7/32), in steps of 8 MiB.
pub const LEAST: u64 = ((BASE + 3 * PACK + WORKER) * 32).div_ceil(25).next_multiple_of(8 * MIB);
/// A chunk of this push in its map, and while it is committed.
const CHUNK: u64 = 170;
/// A node between walk and tree.
const NODE: u64 = 400;
/// More workers than this do not help on any network.
const WORKERS: usize = 4;
/// OpenSSH takes 2 MiB of each upload per round trip, so a network with a long round trip needs many uploads.
const UPLOADS: usize = 8;

/// The allowances of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Threads that seal and upload packs.
    pub uploads: usize,
    /// Open data packs.
    pub open: usize,
    /// Threads that read files.
    pub workers: usize,
    /// Chunks that no record names yet.
    pub chunks: usize,
    /// Nodes between walk and tree.
    pub nodes: usize,
    /// Bytes of the index.
    pub index: usize,
    /// Bytes of the cache of blocks.
    pub cache: usize,
}

/// Fails if a push into this many repositories cannot be made with `memory` bytes.
///
/// # Errors
///
/// Of kind [`Kind::Usage`].
pub fn check_memory(memory: u64, repositories: usize) -> Result<()> {
    let repositories = repositories.max(1) as u64;
    if memory / repositories >= LEAST {
        return Ok(());
    }
    let given = memory / MIB;
    let text = if repositories == 1 {
        format!("a push cannot be made with {given} MiB of memory")
    } else {
        format!("a push into {repositories} repositories cannot be made with {given} MiB of memory")
    };
    Err(Error::new(Kind::Usage, text).hint(format!("pass --memory {}M, or more", LEAST * repositories / MIB)))
}

impl Budget {
    /// Divides `memory` bytes on a machine with `cores` cores. `wanted`: bytes that the index can use.
    /// Several repositories have equal shares; this is the budget of one of them.
    pub fn new(repositories: usize, memory: u64, wanted: u64, cores: usize) -> Result<Self> {
        check_memory(memory, repositories)?;
        let memory = memory / repositories.max(1) as u64;
        let (chunks, nodes, cache) = (memory / 16, memory / 12, memory / 24);
        // One pack that is uploaded, one that is open, one of metadata.
        let mut left = memory.saturating_sub(BASE + chunks + nodes + cache + 3 * PACK + WORKER);
        let index = wanted.clamp(memory / 32, memory / 4).min(left);
        left -= index;
        let (mut uploads, mut open, mut workers) = (1, 1, 1);
        let mut take = |what: &mut usize, most: usize, cost: u64| {
            if *what < most && left >= cost {
                left -= cost;
                *what += 1;
            }
        };
        // In turn, in the order of benefit.
        take(&mut open, 2, PACK);
        for _ in 1..UPLOADS {
            take(&mut uploads, UPLOADS, PACK);
            take(&mut workers, cores.min(WORKERS), WORKER);
        }
        let nodes = (nodes / NODE) as usize;
        let (index, cache, chunks) = (index as usize, cache as usize, (chunks / CHUNK) as usize);
        Ok(Budget { uploads, open, workers, chunks, nodes, index, cache })
    }

    /// Returns the sum of all allowances in bytes.
    #[cfg(test)]
    fn sum(&self) -> u64 {
        let packs = (self.uploads + self.open + 1) as u64 * PACK;
        let shares = self.chunks as u64 * CHUNK + self.nodes as u64 * NODE + (self.index + self.cache) as u64;
        BASE + packs + self.workers as u64 * WORKER + shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_the_whole_and_grow_with_it() {
        for memory in [104, 128, 192, 256, 512, 4096] {
            for wanted in [0, 1 << 20, 80 << 20] {
                let budget = Budget::new(1, memory * MIB, wanted, 8).unwrap();
                assert!(budget.sum() <= memory * MIB, "{memory} {wanted}: {budget:?}");
            }
        }
        let usual = Budget::new(1, 256 * MIB, 0, 8).unwrap();
        assert_eq!((usual.uploads, usual.open, usual.workers), (4, 2, 4));
        assert_eq!(Budget::new(1, 256 * MIB, 0, 2).unwrap().uploads, 6);
        let least = Budget::new(1, LEAST, 320 << 20, 8).unwrap();
        assert_eq!((least.uploads, least.open, least.workers), (1, 1, 1));
        assert_eq!(Budget::new(1, 256 * MIB, 0, 1).unwrap().workers, 1);
    }

    #[test]
    fn too_little_is_refused_with_the_least() {
        let error = Budget::new(1, LEAST - 1, 0, 8).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.hint_text().unwrap().contains("--memory 104M"));
    }
}
