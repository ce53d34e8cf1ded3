//! The threads that fetch, verify and write the files that the walk finds.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, bounded};

use super::Run;
use super::dir::{self, Held};
use super::file::File;
use super::{finish, local};
use crate::allowance::{Allowance, Share};
use crate::descriptors;
use crate::error::{Error, Kind};
use crate::format::node::Node;
use crate::format::reference::{Extent, Ref};
use crate::trees::{LinkKey, check_size};

/// Plaintext of one job; larger files are written by several threads.
const PART: u64 = 4 << 20;
/// Threads that fetch early: the files of an old snapshot lie in many small packs.
const EARLY: usize = 16;
/// Jobs that may wait: the chunks of that many small files are fetched at the same time. Each takes about 1 KiB.
const JOBS: usize = 8192;

enum Task {
    /// Chunks that follow each other in a file.
    Part(Arc<File>, u64, Vec<Ref>),
    /// A file that is there already with the same size.
    Existing(Box<File>),
}

/// A task, and the share of the descriptors that its directory takes.
struct Job<'q> {
    task: Task,
    _share: Arc<Share<'q>>,
}

/// Takes the files of the walk.
pub(super) struct Queue<'q> {
    jobs: Sender<Job<'q>>,
    early: Sender<Ref>,
    /// Directories of waiting jobs that may be open.
    directories: &'q Allowance,
    /// The directory of the last job. Those that follow in it take no descriptors of their own.
    last: RefCell<Option<(Arc<OwnedFd>, Arc<Share<'q>>)>>,
}

/// Runs the walk with threads that take its jobs; returns when all is done.
pub(super) fn work(run: &Run<'_>, walk: impl FnOnce(&Queue<'_>)) {
    let directories = Allowance::new(most_directories());
    let directories = &directories;
    thread::scope(|scope| {
        let (jobs, waiting) = bounded::<Job<'_>>(JOBS);
        let (early, wanted) = bounded::<Ref>(2 * EARLY);
        for _ in 0..run.options.threads.clamp(1, descriptors::share(16, 1, usize::MAX)) {
            let waiting = waiting.clone();
            scope.spawn(move || waiting.iter().for_each(|job| do_task(run, job.task)));
        }
        for _ in 0..EARLY {
            let wanted = wanted.clone();
            scope.spawn(move || wanted.iter().filter(|_| !run.halted()).for_each(|r| run.fetch.touch(run.ctx(), &r)));
        }
        drop((waiting, wanted)); // from here on only the threads hold these ends
        walk(&Queue { jobs, early, directories, last: RefCell::default() });
    });
}

/// Returns the number of directories whose files may wait. Each may hold two descriptors open: one that the walk had, and one
/// by which the directory was opened again.
fn most_directories() -> u64 {
    descriptors::share(32, 2, 4096) as u64
}

impl<'q> Queue<'q> {
    /// Restores a file.
    pub fn file(&self, run: &Run<'_>, held: Held, node: Node, replace: bool, key: Option<LinkKey>) {
        let content = node.content.clone();
        let Some((held, share)) = self.share(run, held) else { return };
        let file = Arc::new(File::new(held, node, replace, key));
        let (mut offset, mut start, mut refs) = (0, 0, Vec::new());
        let send = |file, start, refs: Vec<Ref>| {
            run.fetch.announce(&refs, &self.early);
            // The other ends live until the walk is over.
            let job = Job { task: Task::Part(file, start, refs), _share: Arc::clone(&share) };
            self.jobs.send(job).expect("the threads wait for jobs");
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

    /// Compares a file with the existing one. `key`: further names of it may wait.
    pub fn existing(&self, run: &Run<'_>, held: Held, node: Node, key: Option<LinkKey>) {
        let Some((held, _share)) = self.share(run, held) else { return };
        let task = Task::Existing(Box::new(File::new(held, node, true, key)));
        self.jobs.send(Job { task, _share }).expect("the threads wait for jobs");
    }

    /// Returns the directory with its share. Waits while too many directories have waiting jobs. If the restore ends meanwhile,
    /// the directory is released.
    fn share(&self, run: &Run<'_>, held: Held) -> Option<(Held, Arc<Share<'q>>)> {
        let mut last = self.last.borrow_mut();
        if let Some((fd, share)) = &*last
            && Arc::ptr_eq(fd, &held.fd)
        {
            let share = Arc::clone(share);
            return Some((held, share));
        }
        *last = None;
        match self.directories.take(run.ctx(), 1) {
            Ok(share) => {
                let share = Arc::new(share);
                *last = Some((Arc::clone(&held.fd), Arc::clone(&share)));
                Some((held, share))
            }
            Err(e) => {
                run.group.fail(e);
                dir::release(run, held);
                None
            }
        }
    }
}

fn do_task(run: &Run<'_>, task: Task) {
    match task {
        Task::Existing(file) => finish::existing(run, *file),
        Task::Part(file, offset, refs) => {
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
