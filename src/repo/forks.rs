//! Forks: records whose writers were shown different states of the log.
//!
//! A server that hides the newest records from one client makes it write a record that does not follow them. Later both
//! records are listed, side by side: neither follows the other. Two pushes at the same time leave such records too, so
//! only records more than [`APART`] seconds apart are a fork.
//!
//! ```text
//! record  sequence  time   heads
//! a       1         09:00  -
//! b       2         10:00  a
//! c       2         10:01  a        beside b, a minute later: two pushes at the same time
//! e       2         18:00  a        written without knowledge of b, c and d: a fork
//! d       3         15:00  b, c
//! f       4         19:00  d, e     follows all others
//!
//! Follows, sorted by (sequence, id); a bit in row x and column y: x follows y
//!     a b c e d f
//! a   . . . . . .
//! b   1 . . . . .
//! c   1 . . . . .
//! e   1 . . . . .    side by side with b, c and d
//! d   1 1 1 . . .
//! f   1 1 1 1 1 .
//!
//! forks: (b, e). The pairs (c, e) and (d, e) are the same fork, and so is everything that follows e.
//! ```

use std::collections::HashMap;

use super::state::{Known, State};
use crate::name::ObjectId;
use crate::seen::SeenHead;

/// Seconds between two records from which on they were not written at the same time. Listing the log and putting a
/// record are seconds apart, minutes on a slow network.
const APART: i64 = 3600;
/// Most records that are searched for forks; each takes `COMPARED / 8` bytes.
const COMPARED: usize = 4096;

impl State {
    /// Returns pairs of records of which the later does not follow the earlier and was written long after it. Ignores
    /// records without a whole snapshot: a push that ends early commits without listing the log again.
    pub fn forks(&self) -> Vec<(SeenHead, SeenHead)> {
        let records = self.by_sequence();
        if records.len() > COMPARED {
            return Vec::new();
        }
        let follows = Follows::of(&records);
        let mut forks: Vec<(usize, usize)> = Vec::new();
        for later in (0..records.len()).filter(|i| has_whole_snapshot(records[*i].1)) {
            let continues_a_fork = forks.iter().any(|(_, fork)| follows.get(later, *fork));
            if continues_a_fork {
                continue;
            }
            let earlier = (0..records.len())
                .filter(|earlier| is_apart(records[*earlier].1, records[later].1))
                .find(|earlier| !follows.get(later, *earlier) && !follows.get(*earlier, later));
            forks.extend(earlier.map(|earlier| (earlier, later)));
        }
        let seen = |i: usize| records[i].1.seen(&records[i].0);
        forks.into_iter().map(|(earlier, later)| (seen(earlier), seen(later))).collect()
    }

    /// Returns the records that were read, each behind those that it can follow.
    fn by_sequence(&self) -> Vec<(ObjectId, &Known)> {
        let mut records: Vec<_> = self.known.iter().map(|(id, known)| (*id, known)).collect();
        records.sort_by_key(|(id, known)| (known.sequence, *id));
        records
    }
}

fn has_whole_snapshot(known: &Known) -> bool {
    known.record.head.snapshots.iter().any(|s| !s.partial)
}

fn is_apart(earlier: &Known, later: &Known) -> bool {
    later.record.head.time.saturating_sub(earlier.record.head.time) > APART
}

/// Which records follow which, as a matrix of bits, see the example above.
struct Follows {
    rows: Vec<Vec<u64>>,
}

impl Follows {
    /// Computes the matrix of records that are sorted by sequence.
    ///
    /// A record may name predecessors that were not read. If another record supersedes such a predecessor, the record
    /// follows everything that the other record follows. Else it is taken to follow all earlier records, so that it
    /// causes no warning.
    fn of(records: &[(ObjectId, &Known)]) -> Self {
        let positions: HashMap<ObjectId, usize> = records.iter().enumerate().map(|(i, (id, _))| (*id, i)).collect();
        let mut superseding = HashMap::new();
        for (i, (_, known)) in records.iter().enumerate() {
            superseding.extend(known.record.head.superseded.iter().map(|id| (*id, i)));
        }
        let empty = vec![0; records.len().div_ceil(64)];
        let mut follows = Follows { rows: vec![empty.clone(); records.len()] };
        for (i, (_, known)) in records.iter().enumerate() {
            let head = &known.record.head;
            let mut row = empty.clone();
            for id in &head.heads {
                let superseding = superseding.get(id).filter(|other| **other < i);
                if let Some(predecessor) = positions.get(id) {
                    follows.inherit(&mut row, *predecessor);
                    set(&mut row, *predecessor);
                } else if let Some(other) = superseding {
                    follows.inherit(&mut row, *other);
                } else {
                    (0..i).for_each(|earlier| set(&mut row, earlier));
                }
            }
            for superseded in head.superseded.iter().filter_map(|id| positions.get(id)).filter(|other| **other < i) {
                follows.inherit(&mut row, *superseded);
                set(&mut row, *superseded);
            }
            follows.rows[i] = row;
        }
        follows
    }

    /// Adds everything that record `other` follows to a row.
    fn inherit(&self, row: &mut [u64], other: usize) {
        row.iter_mut().zip(&self.rows[other]).for_each(|(a, b)| *a |= b);
    }

    fn get(&self, record: usize, other: usize) -> bool {
        self.rows[record][other / 64] >> (other % 64) & 1 == 1
    }
}

fn set(row: &mut [u64], bit: usize) {
    row[bit / 64] |= 1 << (bit % 64);
}
