//! The worker threads: they take batches from the walk and read the files and streams in them. A worker without a batch
//! processes chunks of another worker's large file.

use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};

use super::handover::Task;
use super::item::{Batch, Item};
use super::reader::Reader;
use super::workspace::Workspace;
use crate::context::SLICE;
use crate::error::Result;
use crate::progress::Event;

/// One worker thread.
pub struct Worker<'w> {
    work: Workspace<'w>,
    reader: Reader<'w>,
}

/// The next thing to do.
enum Next {
    Batch(Batch),
    Task(Task),
    Nothing,
    End,
}

impl<'w> Worker<'w> {
    /// Makes a worker that offers chunks of large files to idle workers by `offer`.
    pub fn new(work: Workspace<'w>, compression: i32, offer: Sender<Task>) -> Result<Self> {
        Ok(Worker { work, reader: Reader::new(work, compression, offer)? })
    }

    /// The body of the thread. Returns the bytes that were read.
    pub fn run(mut self, batches: &Receiver<Batch>, tasks: &Receiver<Task>) -> Result<u64> {
        let Workspace { ctx, idle, .. } = self.work;
        loop {
            match self.next(batches, tasks)? {
                Next::Batch(batch) => self.batch(batch)?,
                Next::Task(task) => self.reader.cutter.serve(&task)?,
                Next::Nothing => {}
                Next::End => break,
            }
        }
        // No batches are left. Other workers may still read large files.
        self.reader.offer = None;
        idle.fetch_add(1, Ordering::Relaxed);
        while let Some(task) = ctx.receive(tasks)? {
            self.reader.cutter.serve(&task)?;
        }
        Ok(self.reader.cutter.read)
    }

    fn next(&self, batches: &Receiver<Batch>, tasks: &Receiver<Task>) -> Result<Next> {
        let Workspace { ctx, idle, .. } = self.work;
        ctx.check()?;
        idle.fetch_add(1, Ordering::Relaxed);
        let next = crossbeam_channel::select! {
            recv(batches) -> batch => batch.map_or(Next::End, Next::Batch),
            recv(tasks) -> task => task.map_or(Next::Nothing, Next::Task),
            default(SLICE) => Next::Nothing,
        };
        idle.fetch_sub(1, Ordering::Relaxed);
        Ok(next)
    }

    fn batch(&mut self, mut batch: Batch) -> Result<()> {
        let Workspace { ctx, queue, partial, .. } = self.work;
        let number = batch.number;
        let is_alone = batch.files == 1 && batch.items.iter().all(|i| matches!(i, Item::File(_) | Item::Page(..)));
        self.reader.begin_batch(is_alone.then_some(number));
        for item in &mut batch.items {
            ctx.check()?;
            match item {
                Item::File(job) => self.reader.file(job)?,
                Item::Stream(job) => self.reader.stream(job)?,
                Item::Saved(part) => self.reader.saved(part)?,
                _ => {}
            }
        }
        self.reader.cutter.flush()?;
        let unfinished = batch.items.iter().filter(|item| matches!(item, Item::Saved(part) if !part.is_last)).count();
        ctx.event(Event::Done { files: (batch.files - unfinished) as u64, bytes: 0 });
        queue.put(number, batch);
        partial.end(number);
        Ok(())
    }
}
