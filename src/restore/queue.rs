//! The threads that fetch, verify and write the files that the walk finds.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, bounded};

use super::Run;
use super::dir::Held;
use super::file::File;
use super::{finish, local};
use crate::descriptors;
use crate::error::{Error, Kind};
use crate::format::node::Node;
use crate::format::reference::{Extent, Ref};
use crate::trees::{LinkKey, check_size};

/// Plaintext of one job; larger files are written by several threads.
const PART: u64 = 4 << 20;
/// Threads that fetch early: the files of an old snapshot lie in many small packs.
const EARLY: usize = 16;

enum Job {
    /// Chunks that follow each other in a file.
    Part(Arc<File>, u64, Vec<Ref>),
    /// A file that is there already with the same size.
    Existing(Box<File>),
}

/// A task from the walk.
pub(super) struct Queue {
    jobs: Sender<Job>,
    early: Sender<Ref>,
}

/// Runs the walk with threads that take its jobs; returns when all is done.
pub(super) fn work(run: &Run<'_>, walk: impl FnOnce(&Queue)) {
    thread::scope(|scope| {
        let (jobs, waiting) = bounded(capacity());
        let (early, wanted) = bounded::<Ref>(2 * EARLY);
        for _ in 0..run.options.threads.clamp(1, descriptors::share(16, 1, usize::MAX)) {
            let waiting = waiting.clone();
            scope.spawn(move || waiting.iter().for_each(|job| do_job(run, job)));
        }
        for _ in 0..EARLY {
            let wanted = wanted.clone();
            scope.spawn(move || wanted.iter().filter(|_| !run.halted()).for_each(|r| run.fetch.touch(run.ctx(), &r)));
        }
        drop((waiting, wanted)); // from here on only the threads hold these ends
        walk(&Queue { jobs, early });
    });
}

/// Returns the number of jobs that may wait. Each may hold a file and two descriptors of its directory open: one that the
/// walk had, and one by which the directory was opened again.
fn capacity() -> usize {
    descriptors::share(32, 2, 4096)
}

impl Queue {
    /// Restores a file.
    pub fn file(&self, run: &Run<'_>, held: Held, node: Node, replace: bool, key: Option<LinkKey>) {
        let content = node.content.clone();
        let file = Arc::new(File::new(held, node, replace, key));
        let (mut offset, mut start, mut refs) = (0, 0, Vec::new());
        let send = |file, start, refs: Vec<Ref>| {
            run.fetch.announce(&refs, &self.early);
            // The other ends live until the walk is over.
            self.jobs.send(Job::Part(file, start, refs)).expect("the threads wait for jobs");
        };
        for extent in run.trees.extents(run.ctx(), &content) {
            let extent = match extent {
                Ok(extent) => extent,
                Err(e) => {
                    file.fail(e);
                    break;
                }
            };
            if run.halted() {
                file.fail(local::ended());
                break;
            }
            let is_hole = matches!(extent, Extent::Hole(_));
            if !refs.is_empty() && (is_hole || offset - start + extent.len() > PART) {
                send(Arc::clone(&file), start, std::mem::take(&mut refs));
            }
            if let Extent::Data(r) = &extent {
                start = if refs.is_empty() { offset } else { start };
                refs.push(run.fetch.located(run.ctx(), r));
            }
            offset += extent.len();
        }
        check_size(&file.node.content, offset).unwrap_or_else(|e| file.fail(e));
        send(file, start, refs);
    }

    /// Compares a file with the existing one.
    pub fn existing(&self, held: Held, node: Node) {
        let file = Box::new(File::new(held, node, true, None));
        self.jobs.send(Job::Existing(file)).expect("the threads wait for jobs");
    }
}

fn do_job(run: &Run<'_>, job: Job) {
    match job {
        Job::Existing(file) => finish::existing(run, *file),
        Job::Part(file, offset, refs) => {
            let _announced = run.fetch.announced(&refs);
            if let Err(e) = file.write(run, offset, &refs) {
                let (kind, text) = (e.kind(), e.to_string());
                if matches!(kind, Kind::Connection | Kind::NoSpace) {
                    run.skip(&file.path(), e); // ends everything, without waiting for the other parts
                }
                file.fail(Error::new(kind, text));
            }
            finish::release(run, file);
        }
    }
}
