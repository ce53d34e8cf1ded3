//! Reads packs to their end: every block is verified by its tag, every chunk in the pack's table by its id.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::packs::{Harm, Packs};
use super::{Meter, Report};
use crate::allowance::Allowance;
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::{self, BLOCK, ObjectType};
use crate::error::Result;
use crate::format::limits;
use crate::format::pack::{self, Entry};
use crate::format::reference::PackRef;
use crate::format::stored;
use crate::name::Name;
use crate::repo::{Repository, parallel, random};

/// Small packs that are read at the same time at most.
const THREADS: usize = 48;
/// Full packs that are read at the same time at most.
const FULL_PACKS: u64 = 12;
/// Blocks of one read: 2 MiB.
const RUN: u32 = 32;

/// Which packs are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// All that are needed.
    All,
    /// Random ones that have this share of all bytes together.
    Share(f64),
    /// Random packs with this many bytes together.
    Bytes(u64),
    /// Random packs until this time is over.
    Time(Duration),
    /// Part n of m, always the same packs: those whose id is n - 1 modulo m.
    Slice(u64, u64),
}

/// Reads this part of the packs, and enters their faults.
pub(super) fn read(
    repo: &Repository,
    packs: &Packs,
    part: &Part,
    memory: u64,
    meter: Meter<'_>,
    report: &mut Report,
) -> Result<()> {
    let chosen = choose(packs.wanted(), part)?;
    let bytes = |packs: &[(PackRef, ObjectType)]| packs.iter().map(|(pack, _)| pack.file_len()).sum::<u64>();
    meter.more(bytes(&chosen));
    let deadline = match part {
        Part::Time(time) => Instant::now().checked_add(*time),
        _ => None,
    };
    report.read = read_packs(repo, packs, chosen, memory, deadline, meter)?;
    Ok(())
}

/// Reads the packs among these objects that the repository needs, and enters their faults.
pub(super) fn read_suspects(
    repo: &Repository,
    packs: &Packs,
    suspects: &BTreeSet<Name>,
    meter: Meter<'_>,
) -> Result<()> {
    let mut chosen = packs.wanted();
    chosen.retain(|(pack, _)| suspects.contains(&Name::Pack(pack.id)));
    read_packs(repo, packs, chosen, FULL_PACKS * held(limits::PACK as u64), None, meter).map(drop)
}

/// Reads packs until the deadline. Returns the number of the packs and the bytes that were read.
fn read_packs(
    repo: &Repository,
    packs: &Packs,
    chosen: Vec<(PackRef, ObjectType)>,
    memory: u64,
    deadline: Option<Instant>,
    meter: Meter<'_>,
) -> Result<(u64, u64)> {
    let allowance = Allowance::new(memory.min(FULL_PACKS * held(limits::PACK as u64)));
    let done = Mutex::new((0, 0));
    let results = parallel(THREADS, chosen, |(pack, kind)| {
        let _share = allowance.take(meter.ctx, held(pack.len.into()))?;
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(());
        }
        packs.harmed(&pack.id, read_pack(repo, kind, &pack, meter)?);
        let mut done = done.lock().expect("no holder panics");
        *done = (done.0 + 1, done.1 + pack.file_len());
        Ok(())
    });
    results.into_iter().collect::<Result<()>>()?;
    Ok(done.into_inner().expect("no holder panics"))
}

/// Returns the memory that a thread needs for a pack of this length: the pack, a stretch of it as it came, and a chunk.
fn held(len: u64) -> u64 {
    len + len.min(8 << 20)
}

/// Random ones in random order, but for [`Part::Slice`].
fn choose(mut packs: Vec<(PackRef, ObjectType)>, part: &Part) -> Result<Vec<(PackRef, ObjectType)>> {
    let total: u64 = packs.iter().map(|(pack, _)| pack.file_len()).sum();
    let most = match part {
        Part::All => return Ok(packs),
        Part::Slice(n, m) => {
            let number = |pack: &PackRef| u64::from_be_bytes(*pack.id.0.first_chunk().expect("32 bytes"));
            packs.retain(|(pack, _)| number(pack) % m == n - 1);
            return Ok(packs);
        }
        Part::Share(share) => (total as f64 * share).ceil() as u64,
        Part::Bytes(bytes) => *bytes,
        Part::Time(_) => total,
    };
    for last in (1..packs.len()).rev() {
        packs.swap(last, below(last as u64 + 1)? as usize);
    }
    let mut sum = 0u64;
    packs.retain(|(pack, _)| {
        let wanted = sum < most;
        sum = sum.saturating_add(if wanted { pack.file_len() } else { 0 });
        wanted
    });
    Ok(packs)
}

/// Returns a random number below `end`, each with the same chance; the server cannot foresee it.
pub(super) fn below(end: u64) -> Result<u64> {
    let fair = u64::MAX - u64::MAX % end;
    loop {
        let number = u64::from_be_bytes(random()?);
        if number < fair {
            return Ok(number % end);
        }
    }
}

fn read_pack(repo: &Repository, kind: ObjectType, pack: &PackRef, meter: Meter<'_>) -> Result<Harm> {
    let mut harm = Harm::default();
    let mut plain: Vec<u8> = Vec::with_capacity(pack.len as usize);
    let blocks = seal::blocks(pack.len.into()) as u32;
    for first in (0..blocks).step_by(RUN as usize) {
        meter.ctx.check()?;
        let run = first..blocks.min(first + RUN);
        match repo.pack_blocks(meter.ctx, kind, pack, run.clone()) {
            Ok(read) => {
                for (i, block) in run.zip(read) {
                    let end = (pack.len as usize).min((i as usize + 1) * BLOCK);
                    match block {
                        Some(block) => plain.extend_from_slice(&block),
                        None => {
                            plain.resize(end, 0);
                            harm.blocks.insert(i);
                        }
                    }
                }
            }
            Err(e) if e.kind().is_damage() => {
                harm.whole = Some(e.to_string());
                return Ok(harm);
            }
            Err(e) => return Err(e),
        }
        let (start, end) = seal::block_place(pack.len.into(), first.into(), u64::from(blocks.min(first + RUN)));
        meter.done(0, end as u64 + if first == 0 { start } else { 0 });
    }
    chunks(repo, kind, pack, &plain, &mut harm);
    Ok(harm)
}

/// Verifies the chunks of a pack whose plaintext this is, but for damaged blocks.
fn chunks(repo: &Repository, kind: ObjectType, pack: &PackRef, plain: &[u8], harm: &mut Harm) {
    let damaged = |from: u64, to: u64| {
        let (first, last) = (from / BLOCK as u64, to.max(from + 1).div_ceil(BLOCK as u64));
        harm.blocks.range(first as u32..last as u32).next().is_some()
    };
    let table = match table(pack, plain) {
        Ok(table) => table,
        // Damage of its blocks is entered already.
        Err(_) if damaged(u64::from(pack.len).saturating_sub(4), pack.len.into()) => return,
        Err(e) => {
            harm.table = Some(e.to_string());
            return;
        }
    };
    let (entries, start) = table;
    if damaged(start as u64, pack.len.into()) {
        return;
    }
    let mut wrong = HashSet::new();
    for entry in entries {
        let at = entry.offset as usize..(entry.offset + entry.stored) as usize;
        if !damaged(at.start as u64, at.end as u64) && !is_right(repo, kind, &entry, pack, &plain[at]) {
            wrong.insert(entry.id);
        }
    }
    harm.chunks = wrong;
}

fn table(pack: &PackRef, plain: &[u8]) -> Result<(Vec<Entry>, usize)> {
    let last = plain.last_chunk().copied().unwrap_or_default();
    let start = plain.len().saturating_sub(pack::table_len(pack.len, last)?);
    Ok((pack::decode_table(pack.id, pack.len, &plain[start..])?, start))
}

fn is_right(repo: &Repository, kind: ObjectType, entry: &Entry, pack: &PackRef, bytes: &[u8]) -> bool {
    let fits = (entry.kind == ChunkKind::Data) == (kind == ObjectType::Data);
    let plain = stored::unpack(&entry.in_pack(*pack), bytes.to_vec());
    fits && plain
        .is_ok_and(|plain| plain.len() == entry.len as usize && repo.keys().chunk_id(entry.kind, &plain) == entry.id)
}
