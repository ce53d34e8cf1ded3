//! References: where the bytes of a chunk are. A reference names the place, so browsing needs no index.

use serde::{Deserialize, Serialize};

use super::codec::malformed;
use super::limits;
use crate::crypto::keys::ChunkId;
use crate::error::Result;
use crate::name::ObjectId;

/// A pack and the length of its plaintext, which is all that is needed to verify and decrypt any of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PackRef {
    /// Its object id.
    pub id: ObjectId,
    /// Its plaintext length in bytes.
    pub len: u32,
}

impl PackRef {
    /// Stands in a page for the pack that the page itself is in, whose id is not known before it is full.
    pub const SELF: PackRef = PackRef { id: ObjectId([0; 32]), len: 0 };
}

/// A chunk, by contents and by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ref {
    /// What it holds.
    pub id: ChunkId,
    /// The pack it was written to.
    pub pack: PackRef,
    /// Where it starts in the pack's plaintext.
    pub offset: u32,
    /// Its length in the pack: equal to `len` if it is raw, else smaller (see [`super::stored`]).
    pub stored: u32,
    /// Its plaintext length.
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

/// A stretch of a file's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Bytes of a chunk.
    Data(Ref),
    /// This many zero bytes that the source does not store.
    Hole(u64),
}

impl Extent {
    /// Bytes of the file that it covers.
    pub fn len(&self) -> u64 {
        match self {
            Extent::Data(r) => r.len.into(),
            Extent::Hole(len) => *len,
        }
    }

    /// Only of what [`Extent::check`] refuses.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks lengths and place.
    pub fn check(&self) -> Result<()> {
        match self {
            Extent::Data(r) => r.check(),
            Extent::Hole(len) => {
                (1..=limits::FILE).contains(len).then_some(()).ok_or_else(|| malformed("a hole", "out of bounds"))
            }
        }
    }
}

/// A reference within a page: packs by their number in the page's table, the offset relative to the end of the
/// page's previous reference into the same pack (0 for the first), `stored` 0 for raw chunks.
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

/// The table of packs of one page, in order of first use, with the end of the last reference into each.
/// The pack that the page itself is in stands there as [`PackRef::SELF`].
pub(super) struct PackTable(Vec<(PackRef, u32)>);

impl PackTable {
    pub(super) fn new() -> Self {
        PackTable(Vec::new())
    }

    /// From the rows of a page that was read from the pack `own`.
    pub(super) fn read(packs: Vec<PackRef>, own: &PackRef) -> Self {
        let name = |pack| if pack == PackRef::SELF { *own } else { pack };
        PackTable(packs.into_iter().map(|pack| (name(pack), 0)).collect())
    }

    /// The rows of a page that goes to or was read from the pack `own`.
    pub(super) fn rows(&self, own: &PackRef) -> Vec<PackRef> {
        self.0.iter().map(|(pack, _)| if pack == own { PackRef::SELF } else { *pack }).collect()
    }

    pub(super) fn encode(&mut self, r: &Ref) -> WireRef {
        let pack = self.0.iter().rposition(|(pack, _)| *pack == r.pack).unwrap_or_else(|| {
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
