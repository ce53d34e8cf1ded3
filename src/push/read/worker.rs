//! The worker threads: they take loads from the walk and read the files and streams in them. A worker without a load
//! processes chunks of another worker's large file.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::handover::Task;
use super::item::{Batch, Item, Job, Load};
use super::reader::{Reader, Shared};
use super::workspace::Workspace;
use crate::context::SLICE;
use crate::error::Result;
use crate::progress::Event;

/// One worker thread.
pub struct Worker<'w> {
    shared: Shared<'w>,
    /// One for each repository.
    works: &'w [Workspace<'w>],
    /// The number of workers that wait for something to do.
    idle: &'w AtomicUsize,
    reader: Reader<'w>,
}

/// The next thing to do.
enum Next {
    Load(Load),
    Task(Task),
    Nothing,
    End,
}

impl<'w> Worker<'w> {
    /// Makes a worker that offers chunks of large files to idle workers by `offer`.
    pub fn new(
        shared: Shared<'w>,
        works: &'w [Workspace<'w>],
        idle: &'w AtomicUsize,
        compression: i32,
        offer: Sender<Task>,
    ) -> Result<Self> {
        Ok(Worker { shared, works, idle, reader: Reader::new(shared, works, compression, offer)? })
    }

    /// Runs the thread. Returns the bytes that were read for each repository.
    pub fn run(mut self, loads: &Receiver<Load>, tasks: &Receiver<Task>) -> Result<Vec<u64>> {
        loop {
            match self.next(loads, tasks)? {
                Next::Load(load) => self.load(load)?,
                Next::Task(task) => self.reader.serve(&task)?,
                Next::Nothing => {}
                Next::End => break,
            }
        }
        // No loads are left. Other workers may still read large files.
        self.reader.offer = None;
        self.idle.fetch_add(1, Ordering::Relaxed);
        while let Some(task) = self.shared.rest.receive(tasks)? {
            self.reader.serve(&task)?;
        }
        Ok((0..self.works.len()).map(|destination| self.reader.lane(destination).cutter.read).collect())
    }

    fn next(&self, loads: &Receiver<Load>, tasks: &Receiver<Task>) -> Result<Next> {
        self.shared.rest.check()?;
        self.idle.fetch_add(1, Ordering::Relaxed);
        let next = crossbeam_channel::select! {
            recv(loads) -> load => load.map_or(Next::End, Next::Load),
            recv(tasks) -> task => task.map_or(Next::Nothing, Next::Task),
            default(SLICE) => Next::Nothing,
        };
        self.idle.fetch_sub(1, Ordering::Relaxed);
        Ok(next)
    }

    fn load(&mut self, mut load: Load) -> Result<()> {
        for (destination, batch) in load.batches.iter().enumerate() {
            self.reader.lane(destination).begin_batch(batch.number.filter(|_| is_alone(batch)));
        }
        for destination in 0..load.batches.len() {
            for at in 0..load.batches[destination].items.len() {
                self.item(&mut load, destination, at)?;
            }
        }
        self.reader.flush()?;
        let items = load.batches.iter().flat_map(|batch| &batch.items);
        let unfinished = items.filter(|item| matches!(item, Item::Saved(part) if !part.is_last)).count();
        self.shared.ctx.event(Event::Done { files: (load.files - unfinished) as u64, bytes: 0 });
        for (work, batch) in self.works.iter().zip(load.batches) {
            if let Some(number) = batch.number {
                work.queue.put(number, batch);
                work.partial.end(number);
            }
        }
        Ok(())
    }

    /// Reads a file for all repositories that need it. After the user's stop, files are left out.
    fn item(&mut self, load: &mut Load, destination: usize, at: usize) -> Result<()> {
        let item = &mut load.batches[destination].items[at];
        if !is_unread(item) {
            return Ok(());
        }
        let read = self.shared.ctx.check().and_then(|()| match item {
            Item::File(job) => self.reader.file(job),
            Item::Stream(job) => self.reader.stream(job),
            Item::Saved(part) => self.reader.saved(part),
            _ => Ok(()),
        });
        match read {
            Ok(()) => {}
            Err(error) if self.shared.rest.has_grace_after(&error) => {
                return self.leave_out(load, destination, at);
            }
            Err(error) => return Err(error),
        }
        match item {
            Item::File(job) => {
                let others = std::mem::take(&mut job.others);
                load.put(others, Item::File);
            }
            Item::Stream(job) => {
                let others = std::mem::take(&mut job.others);
                load.put(others, Item::Stream);
            }
            _ => {}
        }
        Ok(())
    }

    /// Leaves out a file or stream that was not read before the user's stop. The part of a file that was read is kept.
    fn leave_out(&mut self, load: &mut Load, destination: usize, at: usize) -> Result<()> {
        let item = match std::mem::replace(&mut load.batches[destination].items[at], Item::LeftOut) {
            Item::File(mut job) => {
                let is_begun = self.reader.keep_beginning(&mut job)?;
                let others = std::mem::take(&mut job.others);
                let item = if is_begun { Item::File } else { Job::left_out };
                load.put(others, item);
                item(job)
            }
            Item::Stream(mut job) => {
                load.put(std::mem::take(&mut job.others), |_| Item::LeftOut);
                Item::LeftOut
            }
            Item::Saved(mut part) => {
                part.is_cut = true;
                Item::Saved(part)
            }
            other => other,
        };
        load.batches[destination].items[at] = item;
        self.works.iter().for_each(|work| work.is_cut.store(true, Ordering::SeqCst));
        Ok(())
    }
}

/// Returns whether something must be read. A file that was read for another repository must not.
fn is_unread(item: &Item) -> bool {
    match item {
        Item::File(job) => job.dir.is_some(),
        Item::Stream(job) => job.open.is_some(),
        Item::Saved(_) => true,
        _ => false,
    }
}

/// Returns whether a file is alone in its batch.
fn is_alone(batch: &Batch) -> bool {
    let is_file = |item: &Item| matches!(item, Item::File(_) | Item::Page(..) | Item::Awaited);
    batch.files == 1 && batch.items.iter().all(is_file)
}
