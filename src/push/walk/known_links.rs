//! Remembers files with several links until the walk has met the last one, so that their contents are read once.

use std::collections::HashMap;

use rustix::fs::Stat;

use crate::push::read::attributes;
use crate::push::read::item::Link;
use crate::time::Time;

/// The files with several links that the walk has met.
#[derive(Default)]
pub struct KnownLinks(HashMap<Link, KnownLink>);

struct KnownLink {
    mtime: Time,
    ctime: i64,
    left: u32,
}

impl KnownLinks {
    /// Returns whether this is a further link to a file that came before and did not change since. If not, it is treated as
    /// the first link.
    pub fn is_further(&mut self, link: Link, stat: &Stat) -> bool {
        let (mtime, ctime) = (attributes::mtime(stat), attributes::ctime(stat));
        if let Some(known) = self.0.get_mut(&link) {
            let same = (known.mtime, known.ctime) == (mtime, ctime);
            known.left -= 1;
            if known.left == 0 {
                self.0.remove(&link);
            }
            return same;
        }
        self.0.insert(link, KnownLink { mtime, ctime, left: attributes::nlink(stat) - 1 });
        false
    }
}
