//! Collects the steps of the walk in loads, with a batch for each repository. A batch takes its place in the ordered queue of
//! its repository and goes to a worker, or, if no file in it must be read, directly to the tree.

use crossbeam_channel::Sender;

use super::destination::Destination;
use crate::context::Context;
use crate::error::Result;
use crate::progress::Event;
use crate::push::compare::old::{OldDirectory, OldNode};
use crate::push::read::item::{Item, Load, Other};

/// Items of a full batch of a repository.
const ITEMS: usize = 256;
/// Bytes to read in a full load.
pub const BYTES: u64 = 2 << 20;

/// The load that is being filled.
pub struct Batcher<'w> {
    ctx: &'w Context<'w>,
    /// Goes on for a while after the user's stop: batches that entered a queue must reach the workers.
    rest: &'w Context<'w>,
    pub destinations: &'w [Destination<'w>],
    workers: Sender<Load>,
    load: Load,
    /// All files so far.
    total: Amount,
    /// Files that need no reading, since the last load.
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
    /// `rest`: see [`super::super::read::reader::Shared`].
    pub fn new(
        ctx: &'w Context<'w>,
        rest: &'w Context<'w>,
        destinations: &'w [Destination<'w>],
        workers: Sender<Load>,
    ) -> Self {
        let (total, done) = (Amount::default(), Amount::default());
        Batcher { ctx, rest, destinations, workers, load: Load::new(destinations.len(), 0), total, done }
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
    /// to the batches.
    pub fn seek(&mut self, olds: &mut [OldDirectory<'_>], name: &[u8]) -> Result<Vec<Option<OldNode>>> {
        let mut found = Vec::with_capacity(olds.len());
        for old in olds {
            let Destination { group, parents, .. } = self.destinations[old.destination];
            found.push(group.step(|| old.seek(name))?.flatten());
            let pages = old.take_pages().into_iter().filter(|(_, page)| parents.lasts(page));
            let items = &mut self.load.batches[old.destination].items;
            items.extend(pages.map(|(first, page)| Item::Page(first, page)));
        }
        Ok(found)
    }

    /// Adds a step for a repository.
    pub fn push(&mut self, destination: usize, item: Item) {
        self.load.batches[destination].items.push(item);
    }

    /// Ends a directory for all repositories.
    pub fn leave(&mut self) {
        self.load.batches.iter_mut().for_each(|batch| batch.items.push(Item::Leave));
    }

    /// Adds a file that a worker must read for a repository. `others`: the jobs of the others that need it.
    pub fn read<J>(&mut self, destination: usize, others: &mut [Other<J>], bytes: u64) {
        for other in others {
            let batch = &mut self.load.batches[other.destination];
            other.at = batch.items.len();
            batch.items.push(Item::Awaited);
            batch.files += 1;
        }
        self.load.batches[destination].files += 1;
        self.load.files += 1;
        self.load.bytes += bytes;
    }

    /// Sends the last load and closes the queues.
    pub fn close(mut self) -> Result<()> {
        self.send()?;
        let Amount { files, bytes } = self.total;
        self.ctx.event(Event::Total { files, bytes, complete: true });
        self.destinations.iter().for_each(|destination| destination.queue.close());
        Ok(())
    }

    /// Sends the load if it is full. Called after each entry of the walk, since all steps of an entry are in the same load.
    pub fn send_if_full(&mut self) -> Result<()> {
        let is_full = self.load.bytes >= BYTES || self.load.batches.iter().any(|batch| batch.items.len() >= ITEMS);
        if is_full { self.send() } else { Ok(()) }
    }

    /// Sends the load, if anything is in it.
    pub fn send(&mut self) -> Result<()> {
        self.ctx.check()?;
        if self.load.batches.iter().all(|batch| batch.items.is_empty()) {
            return Ok(());
        }
        let mut load = std::mem::replace(&mut self.load, Load::new(self.destinations.len(), ITEMS));
        let Amount { files, bytes } = self.total;
        self.ctx.event(Event::Total { files, bytes, complete: false });
        let Amount { files, bytes } = std::mem::take(&mut self.done);
        self.ctx.event(Event::Unchanged { files, bytes });
        for (destination, batch) in self.destinations.iter().zip(&mut load.batches) {
            let nodes = batch.items.len();
            batch.number = if nodes > 0 { destination.group.step(|| destination.queue.enter(nodes))? } else { None };
            if let Some(number) = batch.number.filter(|_| batch.files == 0) {
                destination.queue.put(number, std::mem::take(batch));
            }
        }
        if load.files == 0 { Ok(()) } else { self.rest.send(&self.workers, load) }
    }
}
