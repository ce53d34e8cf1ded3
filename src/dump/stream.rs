//! The entries and contents of a dump, in order. One thread walks, several fetch and verify ahead, the caller writes.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Known;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::allowance::{Allowance, Share};
use crate::context::{Context, Group};
use crate::error::{Error, Kind, Result};
use crate::format::node::{Content, Node};
use crate::format::reference::{Extent, Ref};
use crate::printable;
use crate::trees::{Announced, Below, Fetch, LinkKey, Trees, check_size};

/// Threads that fetch and verify; most of them wait for the server.
const THREADS: usize = 12;
/// Threads that fetch stretches early; a storage has four channels.
const EARLY: usize = 4;
/// Bytes of contents that may be fetched and not written yet.
const MOST: u64 = 64 << 20;
/// Entries and parts of files that wait to be written.
const WAITING: usize = 4096;
/// Extents that show whether a file is compressible.
const SAMPLE: usize = 16;
/// Zeros that stand for a hole, written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The file or directory to dump.
pub enum Source {
    /// One regular file.
    File(Node),
    /// The entries of a directory and all below them.
    Directory {
        /// The top page.
        top: Option<Ref>,
        /// A further name of a file is an entry without contents.
        finds_links: bool,
    },
}

/// An entry of the dump.
pub struct Entry {
    /// The path, without a slash in front.
    pub path: Vec<u8>,
    /// The node.
    pub node: Node,
    /// The path of the entry that is the same file.
    pub link: Option<Vec<u8>>,
    /// The parts of a file with holes that are no holes: offset and length.
    pub data: Option<Vec<(u64, u64)>>,
}

impl Entry {
    /// Returns whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.node.content.is_file()
    }
}

/// The form in which the holes of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// As zeros.
    AsZeros,
    /// Not at all.
    LeftOut,
}

/// The next thing to write.
enum Item<'f> {
    Entry(Box<Entry>),
    Part(Part<'f>),
    Hole(u64),
    End,
}

/// A chunk that is being fetched.
struct Part<'f> {
    chunk: Receiver<Result<Vec<u8>>>,
    len: u64,
    _share: Share<'f>,
    _announced: Announced<'f, [Ref; 1]>,
}

/// A chunk to fetch, and where it goes.
type Job = (Ref, Sender<Result<Vec<u8>>>);

/// Passes the entries of `source` to `write`, while their contents are fetched.
///
/// # Errors
///
/// The first error of the walk or of `write`.
pub fn run<R>(
    ctx: &Context,
    trees: &Trees<'_>,
    source: Source,
    write: impl FnOnce(&mut Entries<'_>) -> Result<R>,
) -> Result<R> {
    let group = Group::new(ctx);
    let (fetch, allowance) = (Fetch::new(trees), Allowance::new(MOST));
    let result = thread::scope(|scope| {
        let (jobs, wanted) = bounded::<Job>(WAITING);
        let (early, stretches) = bounded::<Ref>(2 * EARLY);
        let (items, waiting) = bounded(WAITING);
        let (ctx, fetch, allowance, group) = (group.context(), &fetch, &allowance, &group);
        for _ in 0..THREADS {
            let wanted = wanted.clone();
            // A receiver that is gone no longer wants the chunk.
            scope.spawn(move || wanted.iter().for_each(|(r, to)| drop(to.send(fetch.chunk(ctx, &r)))));
        }
        for _ in 0..EARLY {
            let stretches = stretches.clone();
            scope.spawn(move || stretches.iter().for_each(|r| fetch.touch(ctx, &r)));
        }
        drop((wanted, stretches)); // from here on only the threads hold these ends
        scope.spawn(move || {
            let walk = Walk { ctx, trees, fetch, allowance, jobs, early, items };
            group.run(|| walk.run(source))
        });
        let mut entries = Entries { ctx, trees, waiting };
        group.run(|| write(&mut entries))
    });
    group.result()?;
    result.ok_or_else(|| Error::new(Kind::Cancelled, "the dump ended early"))
}

struct Walk<'w, 'f> {
    ctx: &'w Context<'w>,
    trees: &'w Trees<'w>,
    fetch: &'f Fetch<'f>,
    allowance: &'f Allowance,
    jobs: Sender<Job>,
    early: Sender<Ref>,
    items: Sender<Item<'f>>,
}

impl Walk<'_, '_> {
    fn run(&self, source: Source) -> Result<()> {
        match source {
            Source::File(node) => self.entry(node.name.clone(), node, None)?,
            Source::Directory { top, finds_links } => self.directory(top, finds_links)?,
        }
        self.ctx.send(&self.items, Item::End)
    }

    fn directory(&self, top: Option<Ref>, finds_links: bool) -> Result<()> {
        let mut known: HashMap<LinkKey, Vec<u8>> = HashMap::new();
        for found in Below::new(self.ctx, self.trees, top) {
            let found = found?;
            let node = found.node.map_err(|e| damaged(&found.path, &e))?;
            let key = LinkKey::of(&node).filter(|_| finds_links);
            let link = match key.map(|key| known.entry(key)) {
                Some(Known::Occupied(first)) => Some(first.get().clone()),
                Some(Known::Vacant(new)) => {
                    new.insert(found.path.clone());
                    None
                }
                None => None,
            };
            self.entry(found.path, node, link)?;
        }
        Ok(())
    }

    fn entry(&self, path: Vec<u8>, node: Node, link: Option<Vec<u8>>) -> Result<()> {
        let content = node.content.clone();
        let has_contents = content.is_file() && link.is_none();
        let data = if has_contents { self.data(&content).map_err(|e| damaged(&path, &e))? } else { None };
        self.ctx.send(&self.items, Item::Entry(Box::new(Entry { path: path.clone(), node, link, data })))?;
        if !has_contents {
            return Ok(());
        }
        let mut covered = 0;
        for extent in self.trees.extents(self.ctx, &content) {
            let extent = extent.map_err(|e| damaged(&path, &e))?;
            covered += extent.len();
            match extent {
                Extent::Hole(len) => self.ctx.send(&self.items, Item::Hole(len))?,
                Extent::Data(r) => self.part(r)?,
            }
        }
        check_size(&content, covered).map_err(|e| damaged(&path, &e))
    }

    /// Returns the parts of a file that are no holes, joined; `None` for a file without holes.
    fn data(&self, content: &Content) -> Result<Option<Vec<(u64, u64)>>> {
        let (mut parts, mut at, mut has_holes): (Vec<(u64, u64)>, u64, bool) = (Vec::new(), 0, false);
        for extent in self.trees.extents(self.ctx, content) {
            let extent = extent?;
            match (&extent, parts.last_mut()) {
                (Extent::Hole(_), _) => has_holes = true,
                (Extent::Data(_), Some(last)) if last.0 + last.1 == at => last.1 += extent.len(),
                (Extent::Data(_), _) => parts.push((at, extent.len())),
            }
            at += extent.len();
        }
        Ok(has_holes.then_some(parts))
    }

    fn part(&self, r: Ref) -> Result<()> {
        let share = self.allowance.take(self.ctx, r.len.into())?;
        self.fetch.announce(&[r], &self.early);
        let announced = self.fetch.announced([r]);
        let (to, chunk) = bounded(1);
        self.ctx.send(&self.jobs, (r, to))?;
        let part = Part { chunk, len: r.len.into(), _share: share, _announced: announced };
        self.ctx.send(&self.items, Item::Part(part))
    }
}

/// Names the path whose contents cannot be read.
fn damaged(path: &[u8], e: &Error) -> Error {
    if e.kind().is_damage() {
        Error::new(e.kind(), format!("cannot read {}: {e}", printable::name(path)))
            .hint("`nfreezer restore` writes everything that is intact")
    } else {
        Error::new(e.kind(), e.to_string())
    }
}

/// The entries, in order, with their contents.
pub struct Entries<'f> {
    ctx: &'f Context<'f>,
    trees: &'f Trees<'f>,
    waiting: Receiver<Item<'f>>,
}

impl Entries<'_> {
    /// Returns the next entry, after the contents of the last one were copied or skipped.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            match self.ctx.receive(&self.waiting)? {
                Some(Item::Entry(entry)) => return Ok(Some(*entry)),
                Some(Item::End) => return Ok(None),
                Some(Item::Part(_) | Item::Hole(_)) => {}
                None => return Err(Error::new(Kind::Cancelled, "the walk ended early")),
            }
        }
    }

    /// Returns whether the repository stores the first chunks of a file in clearly fewer bytes than they have, or has holes
    /// there. An error is reported by the copy of the contents.
    pub fn is_compressible(&self, entry: &Entry) -> bool {
        let (mut bytes, mut stored) = (0u64, 0u64);
        for extent in self.trees.extents(self.ctx, &entry.node.content).take(SAMPLE).map_while(Result::ok) {
            bytes = bytes.saturating_add(extent.len());
            if let Extent::Data(r) = extent {
                stored += u64::from(r.stored);
            }
        }
        stored < bytes / 20 * 19
    }

    /// Returns the extended attributes of an entry.
    pub fn xattrs(&self, entry: &Entry) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.trees.xattrs_of_file(self.ctx, &entry.node).map_err(|e| damaged(&entry.path, &e))
    }

    /// Passes the contents of an entry to `take`, in order.
    pub fn copy(&mut self, entry: &Entry, holes: Holes, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut left = if entry.is_file() && entry.link.is_none() { entry.node.content.size() } else { 0 };
        while left > 0 {
            let len = match self.ctx.receive(&self.waiting)? {
                Some(Item::Part(part)) => {
                    let chunk = self.ctx.receive(&part.chunk)?;
                    let ended = || Error::new(Kind::Cancelled, "the fetching threads ended early");
                    let bytes = chunk.ok_or_else(ended)?.map_err(|e| damaged(&entry.path, &e))?;
                    take(&bytes)?;
                    part.len
                }
                Some(Item::Hole(len)) => {
                    if holes == Holes::AsZeros {
                        zeros(len, take)?;
                    }
                    len
                }
                _ => return Err(Error::damaged(format!("the parts of {} end early", printable::name(&entry.path)))),
            };
            left = left.saturating_sub(len);
        }
        Ok(())
    }
}

fn zeros(mut len: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    while len > 0 {
        let piece = len.min(ZEROS.len() as u64);
        take(&ZEROS[..piece as usize])?;
        len -= piece;
    }
    Ok(())
}
