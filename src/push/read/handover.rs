//! Hands chunks of a large file over to idle workers, so that one file is cut by one thread and compressed by several.

use crossbeam_channel::{Receiver, Sender};

use crate::context::Context;
use crate::error::Result;
use crate::push::pack::piece::Piece;

/// Results for one file that may wait until they are collected.
const RESULTS: usize = 64;

/// A chunk that was handed over to another worker.
pub struct Task {
    /// The number of the repository.
    pub destination: usize,
    pub plain: Vec<u8>,
    /// The place of its piece in the file.
    at: usize,
    done: Sender<TaskResult>,
}

struct TaskResult {
    at: usize,
    piece: Piece,
}

impl Task {
    /// Returns the piece to the worker that handed the chunk over. If that worker found the file unreadable, it does not
    /// wait, and the piece is dropped.
    pub fn finish(&self, piece: Piece) {
        let _ = self.done.send(TaskResult { at: self.at, piece });
    }
}

/// The chunks of one file that were handed over.
pub struct Handover {
    done: Sender<TaskResult>,
    results: Receiver<TaskResult>,
    open: usize,
    /// The number of the repository.
    destination: usize,
}

impl Handover {
    /// Begins a file, whose chunks belong to this repository.
    pub fn new(destination: usize) -> Self {
        let (done, results) = crossbeam_channel::bounded(RESULTS);
        Handover { done, results, open: 0, destination }
    }

    /// Hands over a chunk if a worker waits at the other end of `offer`, which has no buffer. Returns whether one did. The
    /// piece is [`Piece::Awaited`] until [`Handover::collect`].
    pub fn offer(&mut self, plain: &[u8], pieces: &mut Vec<Piece>, offer: &Sender<Task>) -> bool {
        let task =
            Task { destination: self.destination, plain: plain.to_vec(), at: pieces.len(), done: self.done.clone() };
        if offer.try_send(task).is_err() {
            return false;
        }
        self.open += 1;
        pieces.push(Piece::Awaited);
        true
    }

    /// Fills in the pieces that are done.
    pub fn collect_done(&mut self, pieces: &mut [Piece]) {
        while let Ok(result) = self.results.try_recv() {
            self.fill_in(result, pieces);
        }
    }

    /// Waits for all pieces and fills them in.
    pub fn collect(&mut self, ctx: &Context, pieces: &mut [Piece]) -> Result<()> {
        while self.open > 0 {
            if let Some(result) = ctx.receive(&self.results)? {
                self.fill_in(result, pieces);
            }
        }
        Ok(())
    }

    fn fill_in(&mut self, result: TaskResult, pieces: &mut [Piece]) {
        pieces[result.at] = result.piece;
        self.open -= 1;
    }
}
