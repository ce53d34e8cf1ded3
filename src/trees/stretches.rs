//! Reads many pages at the same time, and neighbours in a pack with one request.

use std::collections::HashMap;

use super::{Branch, Trees};
use crate::context::Context;
use crate::crypto::seal::BLOCK;
use crate::error::Result;
use crate::format::page::Page;
use crate::format::reference::Ref;
use crate::name::ObjectId;
use crate::repo::{Span, parallel};

/// Pages that are requested at the same time.
const THREADS: usize = 24;
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

    /// Reads pages that are in these stretches. The answers are in the order of the requests.
    pub fn read<T: Send>(&self, ctx: &Context, trees: &Trees<'_>, requests: Vec<Request<T>>) -> Vec<Answer<T>> {
        let read = |request: Request<T>| {
            let page = trees.page_within(ctx, &request.branch, self.span(&request.branch.page));
            Answer { request, page: page.map(|(_, page)| page) }
        };
        parallel(THREADS.min(self.places.len()), requests, read)
    }

    fn span(&self, page: &Ref) -> Span {
        let is_dense = self.places.get(&Place::of(page)).is_some_and(|pages| *pages >= DENSE);
        if is_dense || page.pack.len <= SMALL { Span::Blocks(STRETCH) } else { Span::Exact }
    }
}
