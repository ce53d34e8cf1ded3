//! A part of a file between reading it and writing its node.

use super::chunks::Place;
use crate::crypto::keys::ChunkId;

/// A part of a file: a chunk or a hole.
#[derive(Clone, Copy, Debug)]
pub enum Piece {
    /// A chunk of this push, whose pack may still be open.
    New(ChunkId),
    /// A chunk in a pack that is stored.
    Known(ChunkId, Place),
    /// A hole of this length in bytes.
    Hole(u64),
    /// A chunk that another worker processes. The worker that handed it over replaces this.
    Awaited,
}

impl Piece {
    /// Returns the bytes of a piece that is not new.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Known(_, place) => place.len.into(),
            Piece::Hole(len) => *len,
            Piece::New(_) | Piece::Awaited => 0,
        }
    }

    /// Appends a piece to a file. Two holes become one.
    pub fn append(pieces: &mut Vec<Piece>, piece: Piece) {
        match (pieces.last_mut(), piece) {
            (Some(Piece::Hole(before)), Piece::Hole(len)) => *before += len,
            (_, piece) => pieces.push(piece),
        }
    }

    /// Returns whether two reads of a file found the same content.
    pub fn same(a: &[Piece], b: &[Piece]) -> bool {
        let content = |piece: &Piece| match piece {
            Piece::New(id) | Piece::Known(id, _) => (Some(*id), 0),
            Piece::Hole(len) => (None, *len),
            Piece::Awaited => (None, 0),
        };
        a.iter().map(content).eq(b.iter().map(content))
    }
}
