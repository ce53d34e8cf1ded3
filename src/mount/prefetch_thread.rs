//! The names of `latest` are fetched in the background, one step at a time and only while nobody waits for the storage.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::core::Core;
use crate::repo::patience;

/// After a step that failed, and again twice as long up to [`LONGEST`]: the line is down, or something is damaged.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// How long a step may take: by then a line that moves has brought a stretch of 1 MiB.
const STEP: Duration = Duration::from_secs(30);

/// Knows when nobody waits for the storage: the time for what nobody has asked for.
#[derive(Clone, Default)]
pub struct Lull(Arc<(Mutex<Waiting>, Condvar)>);

#[derive(Default)]
struct Waiting {
    requests: usize,
    /// There is another newest snapshot.
    news: bool,
    stop: bool,
}

/// A request that waits for the storage.
pub struct Entered(Lull);

impl Drop for Entered {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.requests -= 1;
        if waiting.requests == 0 {
            self.0.0.1.notify_all();
        }
    }
}

impl Lull {
    /// A request begins to wait.
    pub fn enter(&self) -> Entered {
        self.waiting().requests += 1;
        Entered(self.clone())
    }

    /// There is another newest snapshot.
    pub fn tell(&self) {
        self.waiting().news = true;
        self.0.1.notify_all();
    }

    /// Ends the prefetching.
    pub fn stop(&self) {
        self.waiting().stop = true;
        self.0.1.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.0.lock().expect("no holder panics")
    }

    /// Waits for a lull; false: no more.
    fn quiet(&self) -> bool {
        let busy = |w: &mut Waiting| w.requests > 0 && !w.stop;
        !self.0.1.wait_while(self.waiting(), busy).expect("no holder panics").stop
    }

    /// Waits for news, but no longer than this; gives whether there are some.
    fn news(&self, most: Option<Duration>) -> bool {
        let none = |w: &mut Waiting| !w.news && !w.stop;
        let mut waiting = match most {
            None => self.0.1.wait_while(self.waiting(), none).expect("no holder panics"),
            Some(most) => self.0.1.wait_timeout_while(self.waiting(), most, none).expect("no holder panics").0,
        };
        std::mem::take(&mut waiting.news)
    }
}

/// Fetches the names of the newest snapshot, and then of each newer one, until [`Lull::stop`].
pub fn run(core: &Core) {
    loop {
        core.counters.pages_done.store(false, Relaxed);
        let mut walk = core.vfs.walk();
        let mut pause = PAUSE;
        while core.lull.quiet() {
            match patience::until(Some(Instant::now() + STEP), || core.vfs.step(&mut walk)) {
                Ok(true) => {
                    core.counters.pages.fetch_add(1, Relaxed);
                    pause = PAUSE;
                }
                Ok(false) => break,
                Err(_) => {
                    if core.lull.news(Some(pause)) {
                        walk = core.vfs.walk();
                    }
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
        if !core.lull.quiet() {
            return;
        }
        core.counters.pages_done.store(true, Relaxed);
        core.lull.news(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_those_who_wait_and_ends_when_told() {
        let lull = Lull::default();
        assert!(lull.quiet());
        let entered = lull.enter();
        let quiet = std::thread::spawn({
            let lull = lull.clone();
            move || lull.quiet()
        });
        std::thread::yield_now();
        assert!(!quiet.is_finished(), "somebody waits");
        drop(entered);
        assert!(quiet.join().unwrap());
        lull.tell();
        assert!(lull.news(None) && !lull.news(Some(Duration::ZERO)));
        let _entered = lull.enter();
        lull.stop();
        assert!(!lull.quiet() && !lull.news(None));
    }
}
