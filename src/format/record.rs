//! Records of the log. A push commits one record. The state of a repository is the fold of all records.
//!
//! ```text
//! plaintext = be32(head length) || head || zeros to `align` || section || .. || zero padding
//! align     = 64 KiB if any section is that long, else 32; sections follow each other, each at a multiple of `align`
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::codec::{self, malformed, padded_record};
use super::limits;
use super::reference::Ref;
use crate::crypto::seal::BLOCK;
use crate::error::Result;
use crate::name::{ObjectId, hex};
use crate::time::Time;

/// The first part of a record. The heads of all records suffice to open a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// 1 + the highest sequence among `heads`; also in the file name.
    pub sequence: u32,
    /// Ids of the frontier records that the writer saw, ascending. They reveal a missing record.
    pub heads: Vec<ObjectId>,
    /// Time of the commit by the writer's clock, in seconds since the epoch.
    pub time: i64,
    /// Snapshots added, ascending by id.
    pub snapshots: Vec<Snapshot>,
    /// Changes of snapshots, strictly ascending by [`Mark::order`].
    pub marks: Vec<Mark>,
    /// Condemned packs, with the time in seconds since the epoch, ascending by id.
    pub condemned: Vec<(ObjectId, i64)>,
    /// Packs that prune dropped, ascending. Their chunks are in other packs or lost.
    pub dropped: Vec<ObjectId>,
    /// Records whose whole contents are in this one, ascending.
    pub superseded: Vec<ObjectId>,
    /// Places of the sections.
    pub sections: Vec<Section>,
    /// Values of later versions, ascending by key. Readers ignore unknown keys.
    pub extra: Vec<Extra>,
}

/// A key and a value, defined by a later version.
pub type Extra = (u32, serde_bytes::ByteBuf);

/// The key in [`Snapshot::extra`] for the start of the push, if it differs from the snapshot's time.
pub const BEGUN: u32 = 1;
/// The key in [`Snapshot::extra`] for the id of the snapshot that this one replaces.
pub const REPLACES: u32 = 2;
/// The key in [`Snapshot::extra`] for the id of the snapshot that this one is a copy of.
pub const COPY_OF: u32 = 3;
/// The tag of a pinned snapshot, which is never forgotten by a policy.
pub const PINNED: &str = "pinned";

/// The id of a snapshot: 16 random bytes, shown as 32 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotId(pub [u8; 16]);

impl SnapshotId {
    /// Returns the first eight hex digits.
    pub fn short(&self) -> String {
        hex(&self.0[..4])
    }

    /// Returns the id padded with zeros to the length of an object id.
    pub fn padded(&self) -> [u8; 32] {
        let mut padded = [0; 32];
        padded[..16].copy_from_slice(&self.0);
        padded
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// One backup of some paths at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Random id.
    pub id: SnapshotId,
    /// Start of the push, or the time of `--time`.
    pub time: Time,
    /// Name of the machine.
    pub host: String,
    /// Name of the user that ran the push.
    pub user: String,
    /// The sources as absolute paths, ascending; cut off where the snapshot would exceed [`limits::SNAPSHOT`].
    pub paths: Vec<serde_bytes::ByteBuf>,
    /// Number of paths that were cut off.
    pub more_paths: u32,
    /// `name_hash(2, host || 0 || path || 0 || ..)` over all paths. Snapshots of one group are compared
    /// with each other.
    pub group: u64,
    /// Labels, ascending.
    pub tags: Vec<String>,
    /// Free text, may be empty.
    pub description: String,
    /// The top page of the root directory; `None` if nothing was saved.
    pub root: Option<Ref>,
    /// Whether it is a checkpoint of an unfinished push.
    pub partial: bool,
    /// Bit 0: the server could not sync to disk.
    pub warnings: u32,
    /// Statistics.
    pub stats: Stats,
    /// Program that wrote the snapshot, for example `nfreezer 0.1.0`.
    pub program: String,
    /// Values of later versions, ascending by key. Readers ignore unknown keys.
    pub extra: Vec<Extra>,
}

impl Snapshot {
    /// Removes paths from the end of the list until the snapshot fits into a head. Returns whether it fits then.
    pub fn shorten_paths(&mut self) -> bool {
        while codec::encode(self).len() > limits::SNAPSHOT {
            if self.paths.pop().is_none() {
                return false;
            }
            self.more_paths = self.more_paths.saturating_add(1);
        }
        true
    }
}

/// The server could not sync to disk when the snapshot was written.
pub const NOT_SYNCED: u32 = 1;

/// Statistics of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Number of regular files.
    pub files: u64,
    /// Number of directories.
    pub directories: u64,
    /// Number of other nodes.
    pub others: u64,
    /// Sum of the sizes of the files.
    pub bytes: u64,
    /// Files that the parent does not have.
    pub new: u64,
    /// Files with other contents or attributes than in the parent.
    pub changed: u64,
    /// Plaintext bytes of new chunks.
    pub added: u64,
    /// Bytes of packs written for new chunks.
    pub stored: u64,
    /// Number of nodes that could not be read.
    pub unreadable: u64,
    /// Number of nodes with extended attributes. With 0 a mount switches them off.
    pub xattrs: u64,
    /// Milliseconds from the start of the push to its commit.
    pub milliseconds: u64,
}

/// A change of a snapshot. Of two marks, the later by (sequence, record) is valid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Sequence of the record that held the mark first: the one of this head, or a lower one.
    pub sequence: u32,
    /// The record that held the mark first; `None` for this one.
    pub record: Option<ObjectId>,
    /// The changed snapshot.
    pub snapshot: SnapshotId,
    /// Time of the change, in seconds since the epoch.
    pub time: i64,
    /// The change.
    pub action: Action,
}

impl Mark {
    /// Returns a mark of the record that is being written; the commit fills in its sequence.
    pub fn new(snapshot: SnapshotId, time: i64, action: Action) -> Self {
        Mark { sequence: 0, record: None, snapshot, time, action }
    }

    /// Returns the sort key of marks in a head. Two marks with one key contradict each other.
    pub fn order(&self) -> (u32, Option<ObjectId>, SnapshotId, bool) {
        (self.sequence, self.record, self.snapshot, matches!(self.action, Action::Tag(_)))
    }
}

/// The change that a mark makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Hides the snapshot. Its contents may be pruned later.
    Forget,
    /// Shows the snapshot again.
    Undelete,
    /// Replaces the tags, ascending.
    Tag(Vec<String>),
}

/// Type of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SectionKind {
    /// Rows of packs, see [`super::index::encode_packs`].
    Packs,
    /// Index entries, see [`super::index::encode`].
    Index {
        /// Position in [`Head::sections`] of the packs section that the pack numbers refer to.
        packs: u32,
    },
    /// The sorted prefixes of the ids of all merged records, see [`super::ancestry`].
    Ancestry,
}

/// Place of a section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Type of the section.
    pub kind: SectionKind,
    /// The record that holds the section (sequence, id, plaintext length); `None` for this one.
    pub record: Option<(u32, ObjectId, u64)>,
    /// Offset in the record's plaintext, counted from [`Record::base`].
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
    /// For an index: the first 8 bytes of the first id of each 64 KiB.
    pub fences: Vec<u64>,
}

/// A decoded record: the head and the start of the sections.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The head.
    pub head: Head,
    /// End of the head in the plaintext, rounded up to `align`. Section offsets count from here.
    pub base: u64,
}

/// A section of a new record.
pub struct NewSection {
    /// Type of the section.
    pub kind: SectionKind,
    /// Contents.
    pub bytes: Vec<u8>,
    /// Fences of an index.
    pub fences: Vec<u64>,
}

/// Encodes the plaintext of a record with these new sections, and enters them into the head. Fails where [`decode`]
/// would, so a record that readers refuse is never committed.
pub fn encode(mut head: Head, sections: &[NewSection]) -> Result<Vec<u8>> {
    let align = align(sections.iter().map(|s| s.bytes.len() as u32));
    let mut end = 0;
    for s in sections {
        let sha256 = Sha256::digest(&s.bytes).into();
        let len = s.bytes.len() as u32;
        head.sections.push(Section { kind: s.kind, record: None, offset: end, len, sha256, fences: s.fences.clone() });
        end = (end + len).next_multiple_of(align as u32);
    }
    let bytes = codec::encode(&head);
    let mut plain = [&(bytes.len() as u32).to_be_bytes(), bytes.as_slice()].concat();
    decode(head.sequence, &plain)?;
    for s in sections {
        plain.resize(plain.len().next_multiple_of(align), 0);
        plain.extend_from_slice(&s.bytes);
    }
    plain.resize(padded_record(plain.len(), limits::RECORD_FLOOR), 0);
    let fits = bytes.len() <= limits::HEAD && plain.len() <= limits::RECORD;
    if fits { Ok(plain) } else { Err(malformed("a record", "too long")) }
}

fn align(mut lengths: impl Iterator<Item = u32>) -> usize {
    if lengths.any(|len| len as usize >= BLOCK) { BLOCK } else { 32 }
}

/// Reads the end of the head in the plaintext, from the first four bytes.
pub fn head_end(first: [u8; 4]) -> Result<usize> {
    let len = u32::from_be_bytes(first) as usize;
    if len <= limits::HEAD { Ok(len + 4) } else { Err(malformed("a record", "its head is too long")) }
}

/// Decodes the head of the record with `sequence` in its name, from the first [`head_end`] bytes of plaintext.
pub fn decode(sequence: u32, start: &[u8]) -> Result<Record> {
    let wrong = |why| malformed("a record", why);
    let head: Head = codec::decode("the head of a record", start.get(4..).unwrap_or_default())?;
    if head.sequence != sequence {
        return Err(wrong("its sequence differs from its name"));
    }
    let sorted = head.heads.is_sorted_by(|a, b| a < b)
        && head.snapshots.is_sorted_by(|a, b| a.id < b.id)
        && head.condemned.is_sorted_by(|a, b| a.0 < b.0)
        && head.dropped.is_sorted_by(|a, b| a < b)
        && head.superseded.is_sorted_by(|a, b| a < b)
        && head.marks.is_sorted_by(|a, b| a.order() < b.order())
        && head.extra.is_sorted_by(|a, b| a.0 < b.0);
    if !sorted {
        return Err(wrong("a list is out of order"));
    }
    let dated = |m: &Mark| if m.record.is_some() { m.sequence < sequence } else { m.sequence == sequence };
    if !head.marks.iter().all(dated) {
        return Err(wrong("a mark of another time"));
    }
    head.snapshots.iter().try_for_each(check_snapshot)?;
    if !head.sections.iter().all(|s| section_fits(&head, s)) {
        return Err(wrong("a section is out of bounds"));
    }
    let own = head.sections.iter().filter(|s| s.record.is_none()).map(|s| s.len);
    let base = start.len().next_multiple_of(align(own)) as u64;
    Ok(Record { head, base })
}

/// Returns whether the place, length and fences of a section are possible.
fn section_fits(head: &Head, s: &Section) -> bool {
    let len = s.len as usize;
    let held_before = s.record.is_none_or(|(before, _, len)| before < head.sequence && len <= limits::RECORD as u64);
    let fits_kind = match s.kind {
        SectionKind::Packs => len.is_multiple_of(super::index::PACK_ROW) && s.fences.is_empty(),
        SectionKind::Ancestry => len.is_multiple_of(8) && s.fences.is_empty(),
        SectionKind::Index { packs } => {
            let packs = head.sections.get(packs as usize);
            packs.is_some_and(|packs| packs.kind == SectionKind::Packs)
                && len.is_multiple_of(super::index::ENTRY)
                && s.fences.len() == len.div_ceil(super::index::FENCED)
                && s.fences.is_sorted()
        }
    };
    len <= limits::SECTION && held_before && fits_kind
}

fn check_snapshot(s: &Snapshot) -> Result<()> {
    let fits =
        codec::encode(s).len() <= limits::SNAPSHOT && s.time.is_valid() && s.extra.is_sorted_by(|a, b| a.0 < b.0);
    let root = s.root.as_ref().map_or(Ok(()), Ref::check);
    if fits { root } else { Err(malformed("a snapshot", "out of bounds")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_left_out_until_a_snapshot_fits() {
        let paths = (0..300).map(|i| format!("/srv/data/{i:040}").into_bytes().into()).collect();
        let mut snapshot = Snapshot { paths, ..Snapshot::default() };
        assert!(snapshot.shorten_paths() && codec::encode(&snapshot).len() <= limits::SNAPSHOT);
        assert!(snapshot.paths.len() > 50 && snapshot.paths.len() + snapshot.more_paths as usize == 300);
        let before = snapshot.clone();
        assert!(snapshot.shorten_paths() && snapshot == before, "it fits already");
        assert!(!Snapshot { description: "x".repeat(5000), ..Snapshot::default() }.shorten_paths());
    }
}
