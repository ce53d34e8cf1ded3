//! Worker threads for requests that wait for the storage, and for read-ahead while no request waits.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

type BoxedJob = Box<dyn FnOnce() + Send>;

/// Idle jobs that may be queued; a further one replaces the oldest.
const IDLE_JOBS: usize = 64;

/// A fixed number of threads with two queues: jobs of requests run first, idle jobs run on threads that are not reserved
/// and only while no request waits.
pub struct WorkerPool {
    shared: Arc<PoolShared>,
    idle_threads: usize,
}

struct PoolShared {
    jobs: Mutex<PoolJobs>,
    wake: Condvar,
}

#[derive(Default)]
struct PoolJobs {
    urgent: VecDeque<BoxedJob>,
    idle: VecDeque<BoxedJob>,
    /// Idle jobs that run at the moment.
    running_idle: usize,
    stop: bool,
}

impl WorkerPool {
    /// Starts the threads; `reserved` of them never run idle jobs.
    pub fn new(name: &str, threads: usize, reserved: usize) -> std::io::Result<Self> {
        let shared = Arc::new(PoolShared { jobs: Mutex::default(), wake: Condvar::new() });
        let idle_threads = threads.saturating_sub(reserved);
        for i in 0..threads {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("{name}-{i}")).spawn(move || shared.work(idle_threads))?;
        }
        Ok(WorkerPool { shared, idle_threads })
    }

    /// Runs a job as soon as a thread is free.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.lock().urgent.push_back(Box::new(job));
        self.shared.wake.notify_one();
    }

    /// Runs a job when no request waits; drops the oldest such job if there are too many.
    pub fn run_when_idle(&self, job: impl FnOnce() + Send + 'static) {
        let mut jobs = self.shared.lock();
        if jobs.idle.len() >= IDLE_JOBS {
            jobs.idle.pop_front();
        }
        jobs.idle.push_back(Box::new(job));
        if jobs.running_idle < self.idle_threads {
            self.shared.wake.notify_one();
        }
    }

    /// Returns the number of requests that wait for a thread.
    pub fn queued(&self) -> usize {
        self.shared.lock().urgent.len()
    }
}

impl Drop for WorkerPool {
    /// Ends each thread after its present job. The threads are not joined, since a job may hang in the storage.
    fn drop(&mut self) {
        let mut jobs = self.shared.lock();
        jobs.stop = true;
        jobs.urgent.clear();
        jobs.idle.clear();
        drop(jobs);
        self.shared.wake.notify_all();
    }
}

impl PoolShared {
    fn lock(&self) -> MutexGuard<'_, PoolJobs> {
        self.jobs.lock().expect("no holder panics")
    }

    fn work(&self, idle_threads: usize) {
        let mut jobs = self.lock();
        while !jobs.stop {
            if let Some(job) = jobs.urgent.pop_front() {
                drop(jobs);
                run_caught(job);
                jobs = self.lock();
            } else if jobs.running_idle < idle_threads
                && let Some(job) = jobs.idle.pop_front()
            {
                jobs.running_idle += 1;
                drop(jobs);
                run_caught(job);
                jobs = self.lock();
                jobs.running_idle -= 1;
            } else {
                jobs = self.wake.wait(jobs).expect("no holder panics");
            }
        }
    }
}

fn run_caught(job: BoxedJob) {
    drop(catch_unwind(AssertUnwindSafe(job)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_job_that_panics_takes_no_thread_with_it_and_requests_come_before_idle_jobs() {
        let pool = WorkerPool::new("test", 1, 0).unwrap();
        let (send, done) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        pool.run(move || wait.recv().unwrap());
        let jobs = [send.clone(), send.clone(), send];
        for (i, send) in jobs.into_iter().enumerate() {
            match i {
                0 => pool.run_when_idle(move || send.send("idle").unwrap()),
                1 => pool.run(move || {
                    let _dropped = send;
                    std::panic::panic_any("deliberate")
                }),
                _ => pool.run(move || send.send("request").unwrap()),
            }
        }
        go.send(()).unwrap();
        assert_eq!(done.iter().collect::<Vec<_>>(), ["request", "idle"]);
    }
}
