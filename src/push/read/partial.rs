//! Files that are on their way: what is known of one before it is whole, so that a checkpoint can hold its beginning.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::context::Context;
use crate::error::Result;
use crate::format::node::Node;
use crate::push::pack::data_packs::DataPacks;
use crate::push::pack::piece::Piece;
use crate::repo::Index;

/// A file of this size on travels alone: when it is next in the line, its directory is the one that is being put
/// together, so what is read of it so far can be entered there.
pub const LARGE: u64 = 16 << 20;

/// The beginning of a file.
#[derive(Clone)]
pub struct PartialFile {
    pub node: Node,
    pub pieces: Vec<Piece>,
    /// So many pieces are in packs that the server has acknowledged.
    pub resolved: usize,
    /// Bytes of those that this push has brought.
    pub new: u64,
}

impl PartialFile {
    pub fn new(node: Node, pieces: Vec<Piece>) -> Self {
        PartialFile { node, pieces, resolved: 0, new: 0 }
    }

    /// Goes on to the first piece that is not acknowledged; gives whether there is none.
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

/// Files that are being read and travel alone, by the number of their batch.
#[derive(Default)]
pub struct PartialFiles(Mutex<HashMap<u64, PartialFile>>);

impl PartialFiles {
    /// The file is read from its beginning, perhaps again.
    pub fn begin(&self, batch: u64, node: Node) {
        self.0.lock().expect("no holder panics").insert(batch, PartialFile::new(node, Vec::new()));
    }

    /// More of it was read.
    pub fn extend(&self, batch: u64, pieces: &[Piece]) {
        if let Some(file) = self.0.lock().expect("no holder panics").get_mut(&batch) {
            file.pieces.extend_from_slice(pieces);
        }
    }

    /// It has come to its end.
    pub fn end(&self, batch: u64) {
        self.0.lock().expect("no holder panics").remove(&batch);
    }

    /// What there is of it so far.
    pub fn get(&self, ctx: &Context, batch: u64, data: &DataPacks<'_>, index: &Index) -> Result<Option<PartialFile>> {
        let mut all = self.0.lock().expect("no holder panics");
        let Some(file) = all.get_mut(&batch) else { return Ok(None) };
        file.resolve(ctx, data, index, false)?;
        Ok(Some(file.clone()))
    }
}
