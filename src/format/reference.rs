//! References: the id and the place of a chunk. Since a reference has the place, browsing needs no index.

use serde::{Deserialize, Serialize};

use super::codec::malformed;
use super::limits;
use crate::crypto::keys::ChunkId;
use crate::crypto::seal::sealed_len;
use crate::error::Result;
use crate::name::ObjectId;

/// A pack and the length of its plaintext: enough to verify and decrypt any of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PackRef {
    /// Object id.
    pub id: ObjectId,
    /// Length of the plaintext in bytes.
    pub len: u32,
}

impl PackRef {
    /// In a page: the pack that holds the page itself. Its id is unknown while the pack is open.
    pub const SELF: PackRef = PackRef { id: ObjectId([0; 32]), len: 0 };

    /// Returns the size of the pack's file in bytes.
    pub fn file_len(&self) -> u64 {
        sealed_len(self.len.into())
    }
}

/// A chunk: its id and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ref {
    /// Id, derived from the content.
    pub id: ChunkId,
    /// The pack that holds the chunk.
    pub pack: PackRef,
    /// Offset in the pack's plaintext.
    pub offset: u32,
    /// Length in the pack: equal to `len` if stored raw, else smaller (see [`super::stored`]).
    pub stored: u32,
    /// Length of the plaintext.
    pub len: u32,
}

impl Ref {
    /// Checks lengths against the limits and the place against the pack.
    pub fn check(&self) -> Result<()> {
        let end = u64::from(self.offset) + u64::from(self.stored);
        let fits = self.pack.len as usize <= limits::PACK_READ
            && (1..=limits::CHUNK as u32).contains(&self.len)
            && (1..=self.len).contains(&self.stored)
            && end <= u64::from(self.pack.len);
        fits.then_some(()).ok_or_else(|| malformed("a reference", "out of bounds"))
    }
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// The bytes of a chunk.
    Data(Ref),
    /// A hole of the source file: this many zero bytes.
    Hole(u64),
}

impl Extent {
    /// Returns the number of bytes of the file that the extent covers.
    pub fn len(&self) -> u64 {
        match self {
            Extent::Data(r) => r.len.into(),
            Extent::Hole(len) => *len,
        }
    }

    /// Returns whether the extent covers no byte; [`Extent::check`] refuses such extents.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks the lengths and the place.
    pub fn check(&self) -> Result<()> {
        match self {
            Extent::Data(r) => r.check(),
            Extent::Hole(len) => {
                (1..=limits::FILE).contains(len).then_some(()).ok_or_else(|| malformed("a hole", "out of bounds"))
            }
        }
    }
}

/// Encoded form of a [`Ref`] in a page: the pack's number in the page's table, the offset relative to the end of the
/// page's previous reference into the same pack (0 for the first), and `stored` 0 for raw chunks.
#[derive(Serialize, Deserialize)]
pub(super) struct WireRef {
    id: ChunkId,
    pack: u32,
    skip: i64,
    stored: u32,
    len: u32,
}

/// Encoded form of an [`Extent`].
#[derive(Serialize, Deserialize)]
pub(super) enum WireExtent {
    Data(WireRef),
    Hole(u64),
}

/// The table of packs of one page, in order of first use, with the end of the last reference into each. The pack that
/// holds the page itself is encoded as [`PackRef::SELF`].
pub(super) struct PackTable(Vec<(PackRef, u32)>);

impl PackTable {
    pub(super) fn new() -> Self {
        PackTable(Vec::new())
    }

    /// Builds the table from the rows of a page that was read from the pack `own`.
    pub(super) fn read(packs: Vec<PackRef>, own: &PackRef) -> Self {
        let name = |pack| if pack == PackRef::SELF { *own } else { pack };
        PackTable(packs.into_iter().map(|pack| (name(pack), 0)).collect())
    }

    /// Returns the encoded rows of a page in the pack `own`.
    pub(super) fn rows(&self, own: &PackRef) -> Vec<PackRef> {
        self.0.iter().map(|(pack, _)| if pack == own { PackRef::SELF } else { *pack }).collect()
    }

    pub(super) fn encode(&mut self, r: &Ref) -> WireRef {
        // Most references of a page name its first pack, of many packs after many pushes.
        let first = self.0.first().is_some_and(|(pack, _)| *pack == r.pack).then_some(0);
        let known = first.or_else(|| self.0.iter().rposition(|(pack, _)| *pack == r.pack));
        let pack = known.unwrap_or_else(|| {
            self.0.push((r.pack, 0));
            self.0.len() - 1
        });
        let skip = i64::from(r.offset) - i64::from(self.0[pack].1);
        self.0[pack].1 = r.offset.wrapping_add(r.stored);
        let stored = if r.stored == r.len { 0 } else { r.stored };
        WireRef { id: r.id, pack: pack as u32, skip, stored, len: r.len }
    }

    pub(super) fn decode(&mut self, w: &WireRef) -> Result<Ref> {
        let wrong = || malformed("a reference", "out of bounds");
        let (pack, end) = self.0.get_mut(w.pack as usize).ok_or_else(wrong)?;
        let offset = w.skip.checked_add(i64::from(*end)).and_then(|o| u32::try_from(o).ok()).ok_or_else(wrong)?;
        let stored = if w.stored == 0 { w.len } else { w.stored };
        let r = Ref { id: w.id, pack: *pack, offset, stored, len: w.len };
        r.check()?;
        *end = offset + stored;
        Ok(r)
    }

    pub(super) fn encode_extent(&mut self, extent: &Extent) -> WireExtent {
        match extent {
            Extent::Data(r) => WireExtent::Data(self.encode(r)),
            Extent::Hole(len) => WireExtent::Hole(*len),
        }
    }

    pub(super) fn decode_extent(&mut self, wire: &WireExtent) -> Result<Extent> {
        let extent = match wire {
            WireExtent::Data(w) => Extent::Data(self.decode(w)?),
            WireExtent::Hole(len) => Extent::Hole(*len),
        };
        extent.check()?;
        Ok(extent)
    }
}
