//! Records of the log. One push commits by one record; the state of a repository is the fold of all of them.
//!
//! ```text
//! plaintext = be32(head length) || head || zeros to `align` || section || .. || zero padding
//! align     = 64 KiB if any section is that long, else 32; sections follow each other, each aligned alike
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::codec::{self, malformed, padded};
use super::limits;
use super::reference::Ref;
use crate::crypto::seal::BLOCK;
use crate::error::Result;
use crate::name::{ObjectId, hex};
use crate::time::Time;

/// The first part of a record: all that is needed to open a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// 1 + the highest sequence among `heads`; also in the file name.
    pub sequence: u32,
    /// Ids of the frontier records that the writer saw, ascending: a missing record shows.
    pub heads: Vec<ObjectId>,
    /// When it was written, in seconds since the epoch, by the writer's clock.
    pub time: i64,
    /// Snapshots added, ascending by id.
    pub snapshots: Vec<Snapshot>,
    /// What became of snapshots, strictly ascending by (sequence, record, snapshot, whether it is [`Action::Tag`]).
    pub marks: Vec<Mark>,
    /// Packs that prune will drop, with the time of the mark, ascending by id.
    pub condemned: Vec<(ObjectId, i64)>,
    /// Packs that prune dropped: their chunks live elsewhere or nowhere, ascending.
    pub dropped: Vec<ObjectId>,
    /// Records whose whole contents are in this one, ascending.
    pub superseded: Vec<ObjectId>,
    /// Where the sections are.
    pub sections: Vec<Section>,
    /// What later versions have to say, ascending by key; keys that are not known are ignored.
    pub extra: Vec<Extra>,
}

/// A key and a value that a later version gives a meaning.
pub type Extra = (u32, serde_bytes::ByteBuf);

/// The id of a snapshot: 16 random bytes, shown as 32 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotId(pub [u8; 16]);

impl SnapshotId {
    /// Returns the first eight hex digits.
    pub fn short(&self) -> String {
        hex(&self.0[..4])
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
    /// Random.
    pub id: SnapshotId,
    /// When the push began (or what `--time` says): seconds since the epoch, nanoseconds.
    pub time: Time,
    /// The machine's name.
    pub host: String,
    /// Who ran the push.
    pub user: String,
    /// The sources as absolute paths, ascending; the first ones only, if they are many.
    pub paths: Vec<serde_bytes::ByteBuf>,
    /// How many more there are.
    pub more_paths: u32,
    /// `name_hash(2, host || 0 || path || 0 || ..)` over all paths: snapshots of one group follow each other.
    pub group: u64,
    /// Labels, ascending.
    pub tags: Vec<String>,
    /// Free text, perhaps empty.
    pub description: String,
    /// The top page of the root directory; `None` if nothing at all was saved.
    pub root: Option<Ref>,
    /// A checkpoint of an unfinished push.
    pub partial: bool,
    /// Bit 0: the server could not sync to disk.
    pub warnings: u32,
    /// Figures.
    pub stats: Stats,
    /// The program that wrote it, for example `nfreezer 0.1.0`.
    pub program: String,
    /// What later versions have to say, ascending by key; keys that are not known are ignored.
    pub extra: Vec<Extra>,
}

impl Snapshot {
    /// Takes paths off the end of the list until the snapshot fits into a head. Returns whether it fits then.
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

/// Figures of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Regular files in it.
    pub files: u64,
    /// Directories in it.
    pub directories: u64,
    /// Other nodes in it.
    pub others: u64,
    /// Sum of the sizes of its files.
    pub bytes: u64,
    /// Files whose contents or attributes were not in the parent.
    pub new: u64,
    /// Files that were there with other contents or attributes.
    pub changed: u64,
    /// Plaintext bytes of chunks that the repository did not have.
    pub added: u64,
    /// Bytes of packs written for them.
    pub stored: u64,
    /// Nodes that could not be read.
    pub unreadable: u64,
    /// Nodes with extended attributes; 0 lets a mount switch them off.
    pub xattrs: u64,
    /// Milliseconds from the start of the push to its commit.
    pub milliseconds: u64,
}

/// What became of a snapshot; of two marks the later by (sequence, record) holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// The sequence of the record that first held it: below that of the head, or equal to it if that is this one.
    pub sequence: u32,
    /// That record, if it is not this one.
    pub record: Option<ObjectId>,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When, in seconds since the epoch.
    pub time: i64,
    /// What.
    pub action: Action,
}

impl Mark {
    /// Returns a mark of the record that is being written; the commit fills in its sequence.
    pub fn new(snapshot: SnapshotId, time: i64, action: Action) -> Self {
        Mark { sequence: 0, record: None, snapshot, time, action }
    }

    /// Where it stands in a head; two marks of one order contradict each other.
    pub fn order(&self) -> (u32, Option<ObjectId>, SnapshotId, bool) {
        (self.sequence, self.record, self.snapshot, matches!(self.action, Action::Tag(_)))
    }
}

/// What a mark does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// It is no longer shown, and its contents may be pruned later.
    Forget,
    /// It is shown again.
    Undelete,
    /// It has these tags from now on, ascending.
    Tag(Vec<String>),
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SectionKind {
    /// Rows of packs, see [`super::index::encode_packs`].
    Packs,
    /// Index entries, see [`super::index::encode`].
    Index {
        /// The packs section that its pack numbers count in, by position in [`Head::sections`].
        packs: u32,
    },
    /// The sorted prefixes of the ids of all records ever folded, see [`super::ancestry`].
    Ancestry,
}

/// Where a section is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// The record that holds it, if not this one: sequence, id, plaintext length.
    pub record: Option<(u32, ObjectId, u64)>,
    /// Offset in the record's plaintext, from the end of its head rounded up to `align`.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
    /// Index: the first 8 bytes of the first id of each 64 KiB.
    pub fences: Vec<u64>,
}

/// A record as it was read: its head and where its sections begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The head.
    pub head: Head,
    /// Offset in the plaintext that section offsets count from.
    pub base: u64,
}

/// A section of a new record.
pub struct NewSection {
    /// What it holds.
    pub kind: SectionKind,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Fences of an index.
    pub fences: Vec<u64>,
}

/// The plaintext of a record with these new sections, which are entered into the head. Fails where [`decode`] would:
/// what no reader accepts is never committed.
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
    plain.resize(padded(plain.len(), limits::RECORD_FLOOR), 0);
    let fits = bytes.len() <= limits::HEAD && plain.len() <= limits::RECORD;
    if fits { Ok(plain) } else { Err(malformed("a record", "too long")) }
}

fn align(mut lengths: impl Iterator<Item = u32>) -> usize {
    if lengths.any(|len| len as usize >= BLOCK) { BLOCK } else { 32 }
}

/// Bytes of plaintext that hold the whole head, from the first four.
pub fn head_end(first: [u8; 4]) -> Result<usize> {
    let len = u32::from_be_bytes(first) as usize;
    if len <= limits::HEAD { Ok(len + 4) } else { Err(malformed("a record", "its head is too long")) }
}

/// The head of the record that the log calls `sequence`, from its first [`head_end`] bytes of plaintext.
pub fn decode(sequence: u32, start: &[u8]) -> Result<Record> {
    let wrong = |why| malformed("a record", why);
    let head: Head = codec::decode("the head of a record", start.get(4..).unwrap_or_default())?;
    if head.sequence != sequence {
        return Err(wrong("its sequence is not that of its name"));
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
    let section_fits = |s: &Section| {
        let packs = |i: u32| head.sections.get(i as usize).is_some_and(|p| p.kind == SectionKind::Packs);
        s.len as usize <= limits::SECTION
            && s.record.is_none_or(|(before, _, len)| before < sequence && len <= limits::RECORD as u64)
            && match s.kind {
                SectionKind::Packs => (s.len as usize).is_multiple_of(super::index::PACK_ROW) && s.fences.is_empty(),
                SectionKind::Ancestry => s.len.is_multiple_of(8) && s.fences.is_empty(),
                SectionKind::Index { packs: i } => {
                    let fences = (s.len as usize).div_ceil(super::index::FENCED);
                    packs(i)
                        && (s.len as usize).is_multiple_of(super::index::ENTRY)
                        && s.fences.len() == fences
                        && s.fences.is_sorted()
                }
            }
    };
    if !head.sections.iter().all(section_fits) {
        return Err(wrong("a section is out of bounds"));
    }
    let own = head.sections.iter().filter(|s| s.record.is_none()).map(|s| s.len);
    let base = start.len().next_multiple_of(align(own)) as u64;
    Ok(Record { head, base })
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
