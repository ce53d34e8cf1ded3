//! Figures of a mount: the requests since it began, and a text of them for SIGUSR1 and tests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::vfs::Vfs;

/// Requests of each kind since the mount began, and their outcomes.
#[derive(Default)]
pub struct Counters {
    /// Look-ups by name.
    pub lookups: AtomicU64,
    /// Requests for attributes.
    pub attributes: AtomicU64,
    /// Requests for a part of a listing.
    pub listings: AtomicU64,
    /// Requests for extended attributes.
    pub xattrs: AtomicU64,
    /// Reads.
    pub reads: AtomicU64,
    /// Bytes sent to the kernel by reads.
    pub bytes: AtomicU64,
    /// Requests that waited for the storage.
    pub waited: AtomicU64,
    /// Requests that were refused because content could not be fetched or verified.
    pub failed: AtomicU64,
    /// Ranges of packs that were queued for read-ahead.
    pub ahead: AtomicU64,
    /// Pages of `latest` that the prefetch has visited.
    pub pages: AtomicU64,
    /// Whether the prefetch has visited all pages.
    pub pages_done: AtomicBool,
}

impl Counters {
    /// Returns the number of requests from the kernel.
    pub fn requests(&self) -> u64 {
        let all = [&self.lookups, &self.attributes, &self.listings, &self.xattrs, &self.reads];
        all.into_iter().map(count).sum()
    }

    /// Returns the figures as several lines of text; `queued`: requests that wait for a thread.
    pub fn text(&self, vfs: &Vfs, queued: usize) -> String {
        let (cache, figures) = (vfs.repository().cache_stats(), vfs.figures());
        [
            self.requests_line(queued),
            format!(
                "blocks: {} from memory, {} from the disk cache, {} fetched in {} reads of {} bytes, {} stretches ahead",
                cache.hits,
                cache.from_disk,
                cache.misses.saturating_sub(cache.from_disk),
                cache.reads,
                cache.bytes,
                count(&self.ahead)
            ),
            format!(
                "memory: {} nodes, {} directories, {} bytes of pages",
                figures.nodes, figures.directories, figures.pages
            ),
            format!(
                "fetched: {} bytes of contents, {} of folders, {} of the log",
                cache.contents, cache.metadata, cache.records
            ),
            self.prefetch_line(),
            network_line(vfs),
        ]
        .join("\n")
    }

    fn requests_line(&self, queued: usize) -> String {
        format!(
            "requests: {} lookups, {} attributes, {} listings, {} xattrs, {} reads ({} bytes); {} waited, {} failed, \
             {queued} now in the queue",
            count(&self.lookups),
            count(&self.attributes),
            count(&self.listings),
            count(&self.xattrs),
            count(&self.reads),
            count(&self.bytes),
            count(&self.waited),
            count(&self.failed),
        )
    }

    fn prefetch_line(&self) -> String {
        let all = if self.pages_done.load(Relaxed) { "all, " } else { "" };
        format!("names: {all}{} pages looked through in the background", count(&self.pages))
    }
}

fn network_line(vfs: &Vfs) -> String {
    let storage = vfs.repository().storage();
    let (sent, received) = storage.traffic();
    format!("network: {sent} bytes sent, {received} received, {} connections made", storage.connections())
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}
