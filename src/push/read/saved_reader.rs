//! Reads the files of a snapshot of another repository. Their chunks stay as they are cut; only their ids are computed anew,
//! under the keys of this repository.

use super::cutter::Cutter;
use super::item::SavedPart;
use super::reader::Reader;
use super::saved::Reading;
use crate::error::Result;
use crate::format::reference::{Extent, Ref};
use crate::progress::Event;
use crate::push::pack::piece::Piece;
use crate::trees::lacks_parts;

impl Reader<'_> {
    /// Reads a part of a file of the other repository.
    ///
    /// # Errors
    ///
    /// A chunk cannot be read anywhere. In a file that `repair` has marked, a hole takes its place.
    pub fn saved(&mut self, part: &mut SavedPart) -> Result<()> {
        // A copy has one destination.
        let Some(lane) = self.lanes.first_mut() else { return Ok(()) };
        let Some(reading) = lane.cutter.work.reading else { return Ok(()) };
        let _announced = reading.fetch.announced(std::mem::take(&mut part.announced));
        for extent in std::mem::take(&mut part.extents) {
            let piece = match extent {
                Extent::Hole(len) => Piece::Hole(len),
                Extent::Data(r) => match saved_chunk(&mut lane.cutter, reading, &r) {
                    Err(e) if e.kind().is_damage() && lacks_parts(&part.node) => Piece::Hole(r.len.into()),
                    piece => piece.map_err(|e| reading.saved.unreadable(e, &part.path))?,
                },
            };
            Piece::append(&mut part.pieces, piece);
        }
        Ok(())
    }
}

fn saved_chunk(cutter: &mut Cutter<'_>, Reading { saved, fetch }: Reading<'_>, r: &Ref) -> Result<Piece> {
    let ctx = cutter.work.ctx;
    ctx.check()?;
    if let Some(id) = saved.copied.get(&r.id)
        && let Some(piece) = cutter.known(id, r.len as usize)?
    {
        cutter.read += u64::from(r.len);
        ctx.event(Event::Done { files: 0, bytes: r.len.into() });
        return Ok(piece);
    }
    let chunk = fetch.stored_chunk(ctx, r)?;
    let (id, piece) = cutter.stored(&chunk)?;
    ctx.event(Event::Done { files: 0, bytes: r.len.into() });
    saved.copied.put(r.id, id);
    Ok(piece)
}
