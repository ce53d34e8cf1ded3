//! Reads many pages at the same time, and neighbours in a pack with one request.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::OnceLock;

use super::{Branch, Trees};
use crate::context::Context;
use crate::crypto::seal::{self, BLOCK};
use crate::error::Result;
use crate::format::page::Page;
use crate::format::reference::{PackRef, Ref};
use crate::name::ObjectId;
use crate::repo::{Bounds, Span, in_order, parallel};

/// Runs of blocks that are requested at the same time.
const THREADS: usize = 48;
/// Blocks that are fetched before the pages in them are decoded: a third of the cache.
const TOGETHER: usize = 512;
/// Bytes of pages that are decoded and wait for their turn. A decoded page takes about five times as much memory.
const DECODED: u64 = 8 << 20;
/// Pages that one thread decodes at a time.
const GROUP: usize = 32;
/// Blocks of a stretch of a pack. A stretch is read as a whole if [`DENSE`] of its pages are wanted.
const STRETCH: u32 = 16;
const DENSE: usize = 4;
/// Packs of at most this many bytes are read as a whole. A small push makes one, and most of its pages are in use; a second
/// request would cost more than the further blocks.
const SMALL: u32 = 4 * BLOCK as u32;

/// A page to be read, and the part of the caller that receives it.
pub struct Request<T> {
    /// The receiver.
    pub owner: T,
    /// The page.
    pub branch: Branch,
}

/// A page that was read.
pub struct Answer<T> {
    /// Its request.
    pub request: Request<T>,
    /// The page, or why it cannot be read.
    pub page: Result<Page>,
}

/// The stretches of packs in which some pages lie, and how much of each is read.
pub struct Stretches {
    places: HashMap<Place, usize>,
    blocks: usize,
}

/// A pack and the number of a stretch in it.
#[derive(PartialEq, Eq, Hash)]
struct Place(ObjectId, u32);

impl Place {
    fn of(page: &Ref) -> Self {
        Place(page.pack.id, page.offset / (STRETCH * BLOCK as u32))
    }
}

impl Stretches {
    /// Finds the stretches of these pages.
    pub fn of<'r>(pages: impl Iterator<Item = &'r Ref>) -> Self {
        let (mut places, mut small) = (HashMap::new(), HashMap::new());
        for page in pages {
            *places.entry(Place::of(page)).or_default() += 1;
            if page.pack.len <= SMALL {
                small.insert(page.pack.id, page.pack.len.div_ceil(BLOCK as u32) as usize);
            }
        }
        let large = |place: &Place, pages: usize| match pages {
            _ if small.contains_key(&place.0) => 0,
            DENSE.. => STRETCH as usize,
            few => few,
        };
        let blocks = places.iter().map(|(place, pages)| large(place, *pages)).sum::<usize>();
        let blocks = blocks + small.values().sum::<usize>();
        Stretches { places, blocks }
    }

    /// Returns the number of blocks that are read at most.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Reads pages that are in these stretches, and passes them to `take`, in the order of the requests. Many threads fetch
    /// the blocks that are not in the cache; then a few threads decode, since each decoder needs its own memory.
    ///
    /// # Errors
    ///
    /// The first error of `take`; errors of the storage.
    pub fn read<T: Send>(
        &self,
        ctx: &Context,
        trees: &Trees<'_>,
        requests: Vec<Request<T>>,
        mut take: impl FnMut(Answer<T>) -> Result<()>,
    ) -> Result<()> {
        let read = |request: Request<T>| {
            let page = trees.page_within(ctx, &request.branch, self.span(&request.branch.page));
            Answer { request, page: page.map(|(_, page)| page) }
        };
        let read = |group: Vec<Request<T>>| group.into_iter().map(read).collect::<Vec<_>>();
        let bytes = |group: &Vec<Request<T>>| group.iter().map(|request| u64::from(request.branch.page.len)).sum();
        for part in self.parts(trees, requests) {
            let fetched = parallel(THREADS, part.missing(trees), |wanted| wanted.fetch(ctx, trees));
            fetched.into_iter().collect::<Result<()>>()?;
            let bounds = Bounds { threads: cores().min(self.places.len()), bytes: DECODED };
            in_order(ctx, bounds, groups(part.requests), bytes, read, |group| {
                group.into_iter().try_for_each(&mut take)
            })?;
        }
        Ok(())
    }

    /// Divides requests into parts of which all blocks are in the cache at the same time.
    fn parts<T>(&self, trees: &Trees<'_>, requests: Vec<Request<T>>) -> Vec<Part<T>> {
        let (mut parts, mut known) = (vec![Part::default()], HashSet::new());
        for request in requests {
            let page = trees.lookup().relocated(&request.branch.page).unwrap_or(request.branch.page);
            let wanted = Blocks::of(&page, self.span(&page));
            let (key, count) = ((page.pack.id, wanted.run.clone()), wanted.run.len());
            if !known.contains(&key) && parts.last().is_some_and(|part| part.count > 0 && part.count + count > TOGETHER)
            {
                known.clear();
                parts.push(Part::default());
            }
            let Some(part) = parts.last_mut() else { continue };
            part.requests.push(request);
            if known.insert(key) {
                part.count += count;
                part.blocks.push(wanted);
            }
        }
        parts
    }

    fn span(&self, page: &Ref) -> Span {
        let is_dense = self.places.get(&Place::of(page)).is_some_and(|pages| *pages >= DENSE);
        if is_dense || page.pack.len <= SMALL { Span::Blocks(STRETCH) } else { Span::Exact }
    }
}

/// Requests, and the blocks that they need.
struct Part<T> {
    requests: Vec<Request<T>>,
    blocks: Vec<Blocks>,
    /// The number of the blocks.
    count: usize,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Part { requests: Vec::new(), blocks: Vec::new(), count: 0 }
    }
}

impl<T> Part<T> {
    /// Takes the blocks out that are not in the cache.
    fn missing(&self, trees: &Trees<'_>) -> Vec<Blocks> {
        self.blocks.iter().filter(|wanted| trees.repo().lacks_pages(&wanted.pack, &wanted.run)).cloned().collect()
    }
}

/// Blocks of a pack that are fetched together.
#[derive(Clone)]
struct Blocks {
    pack: PackRef,
    run: Range<u32>,
}

impl Blocks {
    /// Returns the blocks that are read for a page.
    fn of(page: &Ref, span: Span) -> Self {
        let end = page.offset.saturating_add(page.stored.max(1) - 1);
        let (first, last) = (page.offset / BLOCK as u32, end / BLOCK as u32);
        let run = match span {
            Span::Exact => first..last + 1,
            Span::Blocks(n) => first / n * n..(first / n * n + n).max(last + 1),
        };
        let blocks = seal::blocks(page.pack.len.into()) as u32;
        Blocks { pack: page.pack, run: run.start..run.end.min(blocks) }
    }

    /// Fetches the blocks. Damage is reported when a page in them is read, which may have another place.
    fn fetch(self, ctx: &Context, trees: &Trees<'_>) -> Result<()> {
        match trees.repo().fetch_pages(ctx, &self.pack, self.run) {
            Err(e) if e.kind().is_damage() => Ok(()),
            other => other,
        }
    }
}

/// Divides requests into groups of neighbours: threads exchange a group at a time.
fn groups<T>(requests: Vec<Request<T>>) -> Vec<Vec<Request<T>>> {
    let mut requests = requests.into_iter();
    std::iter::from_fn(|| Some(requests.by_ref().take(GROUP).collect::<Vec<_>>()).filter(|group| !group.is_empty()))
        .collect()
}

/// Returns the number of threads that can compute at the same time.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(2, usize::from))
}
