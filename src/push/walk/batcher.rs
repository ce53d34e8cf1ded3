//! Collects the steps of the walk in batches. A batch takes its place in the ordered queue and goes to a worker, or, if no
//! file in it must be read, directly to the tree.

use crossbeam_channel::Sender;

use crate::context::Context;
use crate::error::Result;
use crate::progress::Event;
use crate::push::compare::old::{OldDirectory, OldNode};
use crate::push::compare::parents::Parents;
use crate::push::pack::queue::Queue;
use crate::push::read::item::{Batch, Item};

/// Items of a full batch.
const ITEMS: usize = 256;
/// Bytes to read in a full batch.
pub const BYTES: u64 = 2 << 20;

/// The batch that is being filled.
pub struct Batcher<'w> {
    ctx: &'w Context<'w>,
    queue: &'w Queue<'w, Batch>,
    workers: Sender<Batch>,
    batch: Batch,
    /// All files so far.
    total: Amount,
    /// Files that need no reading, since the last batch.
    done: Amount,
}

#[derive(Clone, Copy, Default)]
struct Amount {
    files: u64,
    bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

impl<'w> Batcher<'w> {
    pub fn new(ctx: &'w Context<'w>, queue: &'w Queue<'w, Batch>, workers: Sender<Batch>) -> Self {
        let (total, done) = (Amount::default(), Amount::default());
        Batcher { ctx, queue, workers, batch: Batch::default(), total, done }
    }

    /// Counts a file for the progress display.
    pub fn met(&mut self, bytes: u64) {
        self.total.add(bytes);
    }

    /// Counts a file whose contents a parent has, and names it.
    pub fn same(&mut self, path: &[u8], bytes: u64, renamed: bool) {
        self.ctx.event(Event::Same { path, renamed });
        self.done(bytes);
    }

    /// Counts a file that needs no reading.
    pub fn done(&mut self, bytes: u64) {
        self.done.add(bytes);
    }

    /// Returns the entry of this name in each of the directories of the parents. The pages that were read for this are added
    /// to the batch.
    pub fn seek(
        &mut self,
        parents: &Parents,
        olds: &mut [OldDirectory<'_>],
        name: &[u8],
    ) -> Result<Vec<Option<OldNode>>> {
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

    /// Sends the last batch and closes the queue.
    pub fn close(mut self) -> Result<()> {
        self.send()?;
        let Amount { files, bytes } = self.total;
        self.ctx.event(Event::Total { files, bytes, complete: true });
        self.queue.close();
        Ok(())
    }

    /// Sends the batch, if anything is in it.
    pub fn send(&mut self) -> Result<()> {
        self.ctx.check()?;
        if self.batch.items.is_empty() {
            return Ok(());
        }
        let next = Batch { items: Vec::with_capacity(ITEMS), ..Batch::default() };
        let mut batch = std::mem::replace(&mut self.batch, next);
        let Amount { files, bytes } = self.total;
        self.ctx.event(Event::Total { files, bytes, complete: false });
        let Amount { files, bytes } = std::mem::take(&mut self.done);
        self.ctx.event(Event::Unchanged { files, bytes });
        batch.number = self.queue.enter(batch.items.len())?;
        if batch.files == 0 {
            self.queue.put(batch.number, batch);
            return Ok(());
        }
        self.ctx.send(&self.workers, batch)
    }
}
