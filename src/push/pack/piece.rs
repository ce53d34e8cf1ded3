//! A part of a file between reading it and writing its node.

use super::chunks::Place;
use crate::crypto::keys::ChunkId;

/// A stretch of a file.
#[derive(Clone, Copy, Debug)]
pub enum Piece {
    /// A chunk of this run, whose pack may still be open.
    New(ChunkId),
    /// A chunk that the repository had.
    Known(ChunkId, Place),
    /// A hole of so many bytes.
    Hole(u64),
    /// A chunk that another worker is at; the worker that gave it away fills this in.
    Awaited,
}

impl Piece {
    /// Whether two readings gave the same contents.
    pub fn same(a: &[Piece], b: &[Piece]) -> bool {
        let content = |piece: &Piece| match piece {
            Piece::New(id) | Piece::Known(id, _) => (Some(*id), 0),
            Piece::Hole(len) => (None, *len),
            Piece::Awaited => (None, 0),
        };
        a.iter().map(content).eq(b.iter().map(content))
    }
}
