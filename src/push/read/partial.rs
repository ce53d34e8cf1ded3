//! Files that are being read: their beginnings, so that a checkpoint can store them.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::context::Context;
use crate::error::Result;
use crate::format::node::Node;
use crate::push::pack::data_packs::DataPacks;
use crate::push::pack::piece::Piece;
use crate::repo::Index;

/// Size from which on a file is alone in its batch. When the batch is next in the queue, the file's directory is the
/// current one of the tree, so a checkpoint can add the beginning of the file there.
pub const LARGE: u64 = 16 << 20;

/// The beginning of a file.
#[derive(Clone)]
pub struct PartialFile {
    pub node: Node,
    pub pieces: Vec<Piece>,
    /// Number of pieces at the beginning whose packs are stored.
    pub resolved: usize,
    /// Bytes of those pieces that are new in the repository.
    pub new: u64,
}

impl PartialFile {
    pub fn new(node: Node, pieces: Vec<Piece>) -> Self {
        PartialFile { node, pieces, resolved: 0, new: 0 }
    }

    /// Resolves pieces up to the first one whose pack is not stored. Returns whether there is none.
    ///
    /// `pressed`: see [`DataPacks::resolve`].
    pub fn resolve(&mut self, ctx: &Context, data: &DataPacks<'_>, index: &Index, pressed: bool) -> Result<bool> {
        while let Some(piece) = self.pieces.get(self.resolved) {
            let Some(known) = data.resolve(ctx, piece, index, pressed)? else { return Ok(false) };
            if let (Piece::New(_), Piece::Known(_, place)) = (piece, &known) {
                self.new += u64::from(place.len);
            }
            self.pieces[self.resolved] = known;
            self.resolved += 1;
        }
        Ok(true)
    }
}

/// The files that are being read and are alone in their batch, by the number of the batch.
#[derive(Default)]
pub struct PartialFiles(Mutex<HashMap<u64, PartialFile>>);

impl PartialFiles {
    /// Adds a file, or starts again with a file that is read again.
    pub fn begin(&self, batch: u64, node: Node) {
        self.0.lock().expect("no holder panics").insert(batch, PartialFile::new(node, Vec::new()));
    }

    /// Appends pieces to a file.
    pub fn extend(&self, batch: u64, pieces: &[Piece]) {
        if let Some(file) = self.0.lock().expect("no holder panics").get_mut(&batch) {
            file.pieces.extend_from_slice(pieces);
        }
    }

    /// Removes a file.
    pub fn end(&self, batch: u64) {
        self.0.lock().expect("no holder panics").remove(&batch);
    }

    /// Returns the beginning of a file, with its pieces resolved.
    pub fn get(&self, ctx: &Context, batch: u64, data: &DataPacks<'_>, index: &Index) -> Result<Option<PartialFile>> {
        let mut all = self.0.lock().expect("no holder panics");
        let Some(file) = all.get_mut(&batch) else { return Ok(None) };
        file.resolve(ctx, data, index, false)?;
        Ok(Some(file.clone()))
    }
}
