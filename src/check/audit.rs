//! Verifies a sample of random blocks and computes the statement that it proves. The server cannot foresee which blocks are
//! read. So a server that has lost or withholds a part of the data is detected with a known probability, whichever part it is.

use std::collections::BTreeSet;

use super::Meter;
use super::data::below;
use super::packs::{Harm, Packs};
use crate::context::Context;
use crate::crypto::seal::{BLOCK, ObjectType};
use crate::error::Result;
use crate::format::reference::PackRef;
use crate::repo::{Repository, parallel};

/// Blocks that are read at the same time.
const READERS: usize = 16;
/// Confidence of the statement.
pub(super) const SURE: f64 = 0.99;

/// The result of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Audit {
    /// Blocks that were drawn, with repetition.
    pub samples: u64,
    /// Blocks among them that are missing or damaged.
    pub bad: u64,
    /// The bytes that they were drawn from: plaintext of all packs that are needed, missing ones included.
    pub of: u64,
    /// With a certainty of 99 % at least this part of the bytes is intact; `None` if a block was bad.
    pub intact: Option<f64>,
}

/// Returns the largest share that is intact with certainty `sure` after `samples` clean samples. If a part p of the bytes
/// were damaged, all samples would be clean with probability (1-p)^n. That is below 1 - `sure` for every p above
/// 1 - (1 - sure)^(1/n).
pub fn intact(samples: u64, sure: f64) -> f64 {
    if samples == 0 { 0.0 } else { ((1.0 - sure).ln() / samples as f64).exp() }
}

/// Draws and verifies blocks of `bytes` together. Faults are entered into `packs`.
pub(super) fn run(repo: &Repository, packs: &mut Packs, bytes: u64, meter: Meter<'_>) -> Result<Audit> {
    let wanted = packs.needed();
    let mut total = 0u64;
    let mut ends = Vec::with_capacity(wanted.len());
    for (pack, ..) in &wanted {
        total += u64::from(pack.len);
        ends.push(total);
    }
    if total == 0 {
        return Ok(Audit { samples: 0, bad: 0, of: 0, intact: None });
    }
    let samples = bytes.div_ceil(BLOCK as u64).max(1);
    meter.more(samples * BLOCK as u64);
    let mut drawn = Vec::with_capacity(samples.min(1 << 20) as usize);
    for _ in 0..samples {
        let at = below(total)?;
        let number = ends.partition_point(|end| *end <= at);
        let start = ends[number] - u64::from(wanted[number].0.len);
        drawn.push((number, ((at - start) / BLOCK as u64) as u32));
    }
    drawn.sort_unstable();
    let results = parallel(READERS, drawn, |(number, block)| {
        meter.ctx.check()?;
        let (pack, kind, there) = &wanted[number];
        let good = *there && verify(meter.ctx, repo, packs, *kind, pack, block)?;
        meter.done(0, BLOCK as u64);
        Ok(good)
    });
    let mut bad = 0;
    for good in results {
        bad += u64::from(!good?);
    }
    Ok(Audit { samples, bad, of: total, intact: (bad == 0).then(|| intact(samples, SURE)) })
}

fn verify(
    ctx: &Context,
    repo: &Repository,
    packs: &Packs,
    kind: ObjectType,
    pack: &PackRef,
    block: u32,
) -> Result<bool> {
    let harm = match repo.pack_blocks(ctx, kind, pack, block..block + 1) {
        Ok(read) if read.iter().all(Option::is_some) => return Ok(true),
        Ok(_) => Harm { blocks: BTreeSet::from([block]), ..Harm::default() },
        Err(e) if e.kind().is_damage() => Harm { whole: Some(e.to_string()), ..Harm::default() },
        Err(e) => return Err(e),
    };
    packs.harmed(&pack.id, harm);
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_is_that_of_the_formula() {
        for samples in [1, 32, 459, 100_000] {
            let p = 1.0 - intact(samples, SURE);
            let missed = (1.0 - p).powf(samples as f64);
            assert!((missed - 0.01).abs() < 1e-9, "{samples} samples: {missed}");
        }
        // The figures of docs/cli.md.
        assert!((intact(32, SURE) - 0.866).abs() < 0.001, "2 MiB");
        assert!(intact(458, SURE) < 0.99 && intact(459, SURE) >= 0.99, "28.7 MiB");
    }
}
