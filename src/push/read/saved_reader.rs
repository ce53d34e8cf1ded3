//! Reads the files of a snapshot of another repository. Their chunks stay as they are cut; only their ids are computed anew,
//! under the keys of this repository.

use super::item::SavedPart;
use super::reader::Reader;
use super::saved::Reading;
use crate::error::Result;
use crate::format::reference::{Extent, Ref};
use crate::push::pack::piece::Piece;
use crate::trees::lacks_parts;

impl Reader<'_> {
    /// Reads a part of a file of the other repository.
    ///
    /// # Errors
    ///
    /// A chunk cannot be read anywhere. In a file that `repair` has marked, a hole takes its place.
    pub fn saved(&mut self, part: &mut SavedPart) -> Result<()> {
        let Some(reading) = self.cutter.work.reading else { return Ok(()) };
        let _announced = reading.fetch.announced(std::mem::take(&mut part.announced));
        for extent in std::mem::take(&mut part.extents) {
            let piece = match extent {
                Extent::Hole(len) => Piece::Hole(len),
                Extent::Data(r) => match self.saved_chunk(reading, &r) {
                    Err(e) if e.kind().is_damage() && lacks_parts(&part.node) => Piece::Hole(r.len.into()),
                    piece => piece.map_err(|e| reading.saved.unreadable(e, &part.path))?,
                },
            };
            Piece::append(&mut part.pieces, piece);
        }
        Ok(())
    }

    fn saved_chunk(&mut self, Reading { saved, fetch }: Reading<'_>, r: &Ref) -> Result<Piece> {
        self.cutter.work.ctx.check()?;
        if let Some(id) = saved.copied.get(&r.id)
            && let Some(piece) = self.cutter.known(id, r.len as usize)?
        {
            self.cutter.count(r.len.into());
            return Ok(piece);
        }
        let chunk = fetch.stored_chunk(self.cutter.work.ctx, r)?;
        let (id, piece) = self.cutter.stored(&chunk)?;
        saved.copied.put(r.id, id);
        Ok(piece)
    }
}
