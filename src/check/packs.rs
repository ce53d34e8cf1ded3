//! The packs that records and trees name, their sizes in the listing, and the faults that were found in them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Finding, Meter, Report};
use crate::context::Context;
use crate::crypto::keys::{ChunkId, ChunkKind};
use crate::crypto::seal::{BLOCK, ObjectType, plain_len, sealed_len};
use crate::error::Result;
use crate::format::limits;
use crate::format::reference::{PackRef, Ref};
use crate::name::{Name, ObjectId};
use crate::repo::{self, Repository};

/// The faults inside a pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Harm {
    /// Nothing of it can be used.
    pub whole: Option<String>,
    /// Blocks whose tags are wrong.
    pub blocks: BTreeSet<u32>,
    /// Chunks whose contents do not match their ids.
    pub chunks: HashSet<ChunkId>,
    /// Its table cannot be read. Reading chunks does not need the table.
    pub table: Option<String>,
}

impl Harm {
    pub fn is_none(&self) -> bool {
        *self == Harm::default()
    }

    fn text(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.whole.clone());
        let listed = |blocks: &BTreeSet<u32>| blocks.iter().take(8).map(u32::to_string).collect::<Vec<_>>().join(", ");
        match self.blocks.len() {
            0 => {}
            1 => parts.push(format!("block {} is damaged", listed(&self.blocks))),
            n if n <= 8 => parts.push(format!("blocks {} are damaged", listed(&self.blocks))),
            n => parts.push(format!("{n} blocks are damaged: {}, ..", listed(&self.blocks))),
        }
        if !self.chunks.is_empty() {
            parts.push(format!("{} chunk(s) do not have the contents of their ids", self.chunks.len()));
        }
        parts.extend(self.table.as_ref().map(|why| format!("its table cannot be used ({why})")));
        parts.join("; ")
    }
}

/// The state of one pack.
struct Pack {
    len: u32,
    kind: ObjectType,
    /// A tree names it.
    used: bool,
    /// The size that the listing shows, until it is known to be right.
    there: There,
    harm: Option<Box<Harm>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Missing,
    Size(u64),
    Right,
}

pub(super) struct Packs {
    known: Mutex<HashMap<ObjectId, Pack>>,
    condemned: HashSet<ObjectId>,
    /// Trees or tables do not agree about a pack.
    disputed: AtomicBool,
}

/// Returns the type of the packs that hold chunks of this kind.
pub(super) fn object_type(kind: ChunkKind) -> ObjectType {
    if kind == ChunkKind::Data { ObjectType::Data } else { ObjectType::Meta }
}

impl Packs {
    /// Creates an empty set. `condemned` includes dropped packs.
    pub fn new(condemned: HashSet<ObjectId>) -> Self {
        Packs { known: Mutex::default(), condemned, disputed: AtomicBool::new(false) }
    }

    /// Notes that a record or, if `used`, a tree names a pack.
    pub fn note(&self, kind: ObjectType, pack: &PackRef, used: bool) {
        let mut known = self.known.lock().expect("no holder panics");
        let new = Pack { len: pack.len, kind, used, there: There::Missing, harm: None };
        let entry = known.entry(pack.id).or_insert(new);
        entry.used |= used;
        if (entry.len, entry.kind) != (pack.len, kind) {
            self.disputed.store(true, Ordering::Relaxed);
        }
    }

    /// Lists all packs. Of a name that a listing shows twice, the right size counts; reading verifies the contents.
    pub fn list(&mut self, repo: &Repository, meter: Meter<'_>, report: &mut Report) -> Result<()> {
        let unused = Mutex::new((0, 0u64, 0));
        repo.list_packs(meter.ctx, (0..16).collect(), |id, size| {
            let mut known = self.known.lock().expect("no holder panics");
            match known.get_mut(&id) {
                Some(pack) if size == sealed_len(pack.len.into()) => pack.there = There::Right,
                Some(pack) if pack.there == There::Right => {}
                Some(pack) => pack.there = There::Size(size),
                None if self.condemned.contains(&id) => {}
                None => {
                    let whole = plain_len(size).is_some_and(|len| len <= limits::PACK_READ as u64);
                    let mut unused = unused.lock().expect("no holder panics");
                    *unused = (unused.0 + 1, unused.1.saturating_add(size), unused.2 + u64::from(!whole));
                }
            }
        })?;
        let (packs, bytes, torsos) = unused.into_inner().expect("no holder panics");
        (report.unused, report.torsos) = ((packs, bytes), torsos);
        self.ask(meter.ctx, repo)
    }

    /// Asks for packs that the listing does not show, one by one.
    fn ask(&mut self, ctx: &Context, repo: &Repository) -> Result<()> {
        let known = self.known.get_mut().expect("no holder panics");
        let hidden = known.iter().filter(|(id, pack)| pack.there == There::Missing && !self.condemned.contains(id));
        let hidden: Vec<ObjectId> = hidden.map(|(id, _)| *id).collect();
        for (id, size) in repo.pack_sizes(ctx, hidden.into_iter())? {
            if let Some(pack) = known.get_mut(&id) {
                let right = size == sealed_len(pack.len.into());
                pack.there = if right { There::Right } else { There::Size(size) };
            }
        }
        Ok(())
    }

    /// Returns the packs that trees or the index need, by id, and whether the listing shows them. Condemned packs that are
    /// missing are left out.
    pub fn needed(&self) -> Vec<(PackRef, ObjectType, bool)> {
        let known = self.known.lock().expect("no holder panics");
        let right = |pack: &Pack| pack.there == There::Right;
        let needed =
            known.iter().filter(|(id, pack)| if self.condemned.contains(id) { pack.used && right(pack) } else { true });
        let mut needed: Vec<_> =
            needed.map(|(id, pack)| (PackRef { id: *id, len: pack.len }, pack.kind, right(pack))).collect();
        needed.sort_unstable_by_key(|(pack, ..)| pack.id);
        needed
    }

    /// Returns the needed packs that the listing shows.
    pub fn wanted(&self) -> Vec<(PackRef, ObjectType)> {
        self.needed().into_iter().filter(|(.., there)| *there).map(|(pack, kind, _)| (pack, kind)).collect()
    }

    /// Enters faults of a pack.
    pub fn harmed(&self, id: &ObjectId, harm: Harm) {
        let mut known = self.known.lock().expect("no holder panics");
        if let Some(pack) = known.get_mut(id).filter(|_| !harm.is_none()) {
            let all = pack.harm.get_or_insert_default();
            all.whole = all.whole.take().or(harm.whole);
            all.table = all.table.take().or(harm.table);
            all.blocks.extend(harm.blocks);
            all.chunks.extend(harm.chunks);
        }
    }

    /// Returns whether chunks that trees name may be lost.
    pub fn is_suspect(&self) -> bool {
        let known = self.known.lock().expect("no holder panics");
        self.disputed.load(Ordering::Relaxed) || known.values().any(|pack| pack.used && !pack.is_whole())
    }

    /// Reports the packs with faults that are not condemned already, by id. Returns their number.
    pub fn report(&self, found: &mut (dyn FnMut(Finding<'_>) + Send)) -> u64 {
        let bad = self.bad();
        for id in &bad {
            let known = self.known.lock().expect("no holder panics");
            let why = known.get(id).map_or_else(String::new, Pack::why);
            drop(known);
            found(Finding::Object { name: Name::Pack(*id).path(), why });
        }
        bad.len() as u64
    }

    /// Returns the packs with faults that are not condemned already.
    pub fn bad(&self) -> BTreeSet<ObjectId> {
        let known = self.known.lock().expect("no holder panics");
        let bad = known.iter().filter(|(id, pack)| !pack.is_whole() && !self.condemned.contains(id));
        bad.map(|(id, _)| *id).collect()
    }

    /// Returns whether more than half of them are not there, and more than a few: perhaps the folder itself is not
    /// there.
    pub fn are_mostly_missing(&self) -> bool {
        let known = self.known.lock().expect("no holder panics");
        let needed = known.iter().filter(|(id, _)| !self.condemned.contains(id));
        let (missing, all) = needed
            .fold((0, 0), |(missing, all), (_, pack)| (missing + usize::from(pack.there == There::Missing), all + 1));
        repo::is_most(missing, all)
    }

    /// Returns the known reason why a chunk cannot be read from its place; `None` if there is none.
    pub fn trouble(&self, ctx: &Context, repo: &Repository, kind: ChunkKind, r: &Ref) -> Option<String> {
        let object = object_type(kind);
        let known = self.known.lock().expect("no holder panics");
        let said = |why: String| Some(format!("pack {}: {why}", r.pack.id));
        let (first, last) = (r.offset / BLOCK as u32, (r.offset + r.stored - 1) / BLOCK as u32);
        let Some(pack) = known.get(&r.pack.id).filter(|pack| (pack.len, pack.kind) == (r.pack.len, object)) else {
            // The reference has a wrong length or type, or the index was not read: the blocks decide.
            drop(known);
            return match repo.pack_blocks(ctx, object, &r.pack, first..last + 1) {
                Ok(blocks) => blocks.iter().any(Option::is_none).then(|| format!("pack {} is damaged", r.pack.id)),
                Err(e) => Some(e.to_string()),
            };
        };
        if pack.there != There::Right {
            return said(pack.why());
        }
        let harm = pack.harm.as_deref()?;
        if let Some(why) = &harm.whole {
            return said(why.clone());
        }
        let block = harm.blocks.range(first..=last).next();
        block.map(|block| format!("pack {}: block {block} is damaged", r.pack.id)).or_else(|| {
            let wrong = harm.chunks.contains(&r.id);
            wrong.then(|| format!("a chunk in pack {} does not have the contents of its id", r.pack.id))
        })
    }
}

impl Pack {
    fn is_whole(&self) -> bool {
        self.there == There::Right && self.harm.is_none()
    }

    fn why(&self) -> String {
        match (self.there, &self.harm) {
            (There::Missing, _) => "missing".into(),
            (There::Size(size), _) => format!("it has {size} bytes instead of {}", sealed_len(self.len.into())),
            (There::Right, Some(harm)) => harm.text(),
            (There::Right, None) => "nothing is wrong".into(),
        }
    }
}
