//! Reference lists: the extents of a file that do not fit into its node.

use serde::{Deserialize, Serialize};

use super::codec::{self, malformed};
use super::limits;
use super::reference::{Extent, PackRef, PackTable, Ref, WireExtent, WireRef};
use crate::error::Result;

/// A page of a reference list. Spans are relative to the page, so equal parts of two files have equal pages.
#[derive(Clone, Debug, PartialEq)]
pub enum List {
    /// Extents in file order.
    Leaf(Vec<Extent>),
    /// Pages below, in file order, each with its span: the bytes of the file that it covers.
    Upper(Vec<(u64, Ref)>),
}

/// Most rows of a page. A row is at most 75 bytes (of an upper page: span 9, id 16, pack 2, skip 4, stored 4, len 4, and
/// 36 in the table of packs), so a page stays below [`limits::PAGE`].
const ROWS: usize = 3072;

#[derive(Serialize, Deserialize)]
struct Wire {
    packs: Vec<PackRef>,
    rows: WireRows,
}

#[derive(Serialize, Deserialize)]
enum WireRows {
    Leaf(Vec<WireExtent>),
    Upper(Vec<(u64, WireRef)>),
}

impl List {
    /// Returns whether a page ends after its row number `row` (from 0), which refers to `last`. From 256 rows on the
    /// chunk id (a PRF of the contents) decides with a probability of 1 in 1,024, so that an insertion changes few pages.
    pub fn ends(row: usize, last: &Ref) -> bool {
        row + 1 >= ROWS || (row + 1 >= 256 && u16::from_be_bytes([last.id.0[0], last.id.0[1]]) & 1023 == 0)
    }

    /// Returns the bytes of the file that the page covers.
    pub fn span(&self) -> u64 {
        match self {
            List::Leaf(extents) => extents.iter().fold(0, |sum, e| sum.saturating_add(e.len())),
            List::Upper(rows) => rows.iter().fold(0, |sum, row| sum.saturating_add(row.0)),
        }
    }

    /// Encodes the page as a chunk of the pack `own` ([`PackRef::SELF`] for an open pack).
    pub fn encode(&self, own: &PackRef) -> Vec<u8> {
        let mut table = PackTable::new();
        let rows = match self {
            List::Leaf(extents) => WireRows::Leaf(extents.iter().map(|e| table.encode_extent(e)).collect()),
            List::Upper(rows) => WireRows::Upper(rows.iter().map(|(span, r)| (*span, table.encode(r))).collect()),
        };
        codec::encode(&Wire { packs: table.rows(own), rows })
    }

    /// Inverts [`List::encode`]. Refuses all other bytes.
    pub fn decode(bytes: &[u8], own: &PackRef) -> Result<Self> {
        let wrong = |why| malformed("a reference list", why);
        if bytes.len() > limits::PAGE {
            return Err(wrong("it is too long"));
        }
        let wire: Wire = postcard::from_bytes(bytes).map_err(|_| wrong("it does not parse"))?;
        let mut table = PackTable::read(wire.packs, own);
        let list = match &wire.rows {
            WireRows::Leaf(rows) => List::Leaf(rows.iter().map(|e| table.decode_extent(e)).collect::<Result<_>>()?),
            WireRows::Upper(rows) => {
                List::Upper(rows.iter().map(|(span, r)| Ok((*span, table.decode(r)?))).collect::<Result<_>>()?)
            }
        };
        let (rows, empty_row) = match &list {
            List::Leaf(extents) => (extents.len(), false),
            List::Upper(rows) => (rows.len(), rows.iter().any(|(span, _)| *span == 0)),
        };
        if rows == 0 || rows > ROWS || empty_row || list.span() > limits::FILE || list.encode(own) != bytes {
            return Err(wrong("out of bounds or not in canonical form"));
        }
        Ok(list)
    }
}
