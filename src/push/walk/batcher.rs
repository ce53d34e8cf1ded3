//! The walker's end of the line: steps become batches, batches go to the workers and take their place in the line.

use crossbeam_channel::Sender;

use crate::context::Context;
use crate::error::Result;
use crate::progress::Event;
use crate::push::compare::parents::{Found, Old, Parents};
use crate::push::pack::queue::Queue;
use crate::push::read::item::{Batch, Item};

/// A batch is full at so many items ..
const ITEMS: usize = 256;
/// .. or so many bytes to read.
pub const BYTES: u64 = 2 << 20;

pub struct Batcher<'w> {
    ctx: &'w Context<'w>,
    queue: &'w Queue<'w, Batch>,
    work: Sender<Batch>,
    batch: Batch,
    /// Files and bytes met so far, and those that nobody needs to read, since the last batch.
    total: (u64, u64),
    done: (u64, u64),
}

impl<'w> Batcher<'w> {
    pub fn new(ctx: &'w Context<'w>, queue: &'w Queue<'w, Batch>, work: Sender<Batch>) -> Self {
        Batcher { ctx, queue, work, batch: Batch::default(), total: (0, 0), done: (0, 0) }
    }

    /// A file was met.
    pub fn met(&mut self, bytes: u64) {
        self.total = (self.total.0 + 1, self.total.1 + bytes);
    }

    /// A file needs no reading.
    pub fn done(&mut self, bytes: u64) {
        self.done = (self.done.0 + 1, self.done.1 + bytes);
    }

    /// What earlier snapshots have under this name. Their pages come along.
    pub fn seek(&mut self, parents: &Parents, olds: &mut [Old<'_>], name: &[u8]) -> Result<Vec<Option<Found>>> {
        let mut found = Vec::with_capacity(olds.len());
        for old in olds {
            found.push(old.seek(name)?);
            let pages = old.take_pages().into_iter().filter(|(_, page)| parents.lasts(page));
            self.batch.items.extend(pages.map(|(first, page)| Item::Page(first, page)));
        }
        Ok(found)
    }

    /// Adds a step; a full batch goes to the workers.
    pub fn push(&mut self, item: Item) -> Result<()> {
        self.batch.items.push(item);
        if self.batch.items.len() >= ITEMS || self.batch.bytes >= BYTES { self.send() } else { Ok(()) }
    }

    /// Adds a file that a worker must read.
    pub fn read(&mut self, item: Item, bytes: u64) -> Result<()> {
        self.batch.files += 1;
        self.batch.bytes += bytes;
        self.push(item)
    }

    /// Sends what is left and closes the line.
    pub fn close(mut self) -> Result<()> {
        self.send()?;
        let (files, bytes) = self.total;
        self.ctx.event(Event::Total { files, bytes, complete: true });
        self.queue.close();
        Ok(())
    }

    /// Sends what there is, if there is anything.
    pub fn send(&mut self) -> Result<()> {
        self.ctx.check()?;
        if self.batch.items.is_empty() {
            return Ok(());
        }
        let next = Batch { items: Vec::with_capacity(ITEMS), ..Batch::default() };
        let mut batch = std::mem::replace(&mut self.batch, next);
        self.ctx.event(Event::Total { files: self.total.0, bytes: self.total.1, complete: false });
        let (files, bytes) = std::mem::take(&mut self.done);
        self.ctx.event(Event::Done { files, bytes });
        batch.number = self.queue.enter(batch.items.len())?;
        if batch.files == 0 {
            self.queue.finish(batch.number, batch);
            return Ok(());
        }
        self.ctx.send(&self.work, batch)
    }
}
