//! Copies live chunks out of packs with much unused data, and out of small packs, into new packs. The record that names the
//! new packs condemns the old ones. Trees are not changed: readers find the chunks through the index (format.md 11.4).

use std::collections::{BTreeSet, HashSet};
use std::ops::Add;
use std::sync::Arc;

use super::plan::is_worth;
use super::run::Run;
use super::survey::Survey;
use crate::context::Context;
use crate::crypto::keys::ChunkKind;
use crate::crypto::seal::{BLOCK, ObjectType, sealed_len};
use crate::error::{Error, Kind, Result};
use crate::format::index;
use crate::format::pack::{Builder, Entry, file_bytes};
use crate::format::record::{Head, NewSection};
use crate::format::reference::{PackRef, Ref};
use crate::format::sections::index_sections;
use crate::name::ObjectId;
use crate::repo::{Bounds, Repository, Span, first_of_each_group, in_order, parallel};
use crate::trees::{Lookup, Reachable, Reached, Scope, Trees};

/// Packs that are read ahead, and the bytes of their files: 2 full packs, or many small ones.
pub(super) const READ: Bounds = Bounds { threads: 32, bytes: 33 << 20 };
/// Packs that one record condemns, and the bytes of their files: a run that is interrupted has done the work of the records
/// before.
const BATCH: (usize, u64) = (4096, 1 << 30);
/// Bytes of packs from which on the chunks of the newest snapshots are kept together.
const SORTED: u64 = 1 << 20;
/// Chunks are read in stretches of 4 MiB, two of a pack at the same time.
const SPAN: Span = Span::Blocks(64);
const STRETCH: u32 = 4 << 20;
const STRETCHES: usize = 2;

/// The part of a pack that trees need.
pub(super) struct Live {
    pub place: PackRef,
    pub kind: ObjectType,
    pub entries: Vec<Entry>,
}

/// Chunks of a pack, in their stored form.
pub(super) type Chunks = Vec<(Entry, Vec<u8>)>;

impl Run<'_> {
    /// Repacks. Returns the packs that are condemned; `None`: another client has written.
    pub fn repack(&mut self, survey: &mut Survey, chosen: &[ObjectId]) -> Result<Option<BTreeSet<ObjectId>>> {
        let (mut condemned, newest) = (BTreeSet::new(), self.newest(survey, chosen)?);
        for batch in batches(survey, chosen) {
            if self.is_time_over() {
                self.report.is_stopped_early = true;
                break;
            }
            let Some(done) = self.repack_batch(survey, batch, newest.as_ref())? else { return Ok(None) };
            condemned.extend(done);
        }
        Ok(Some(condemned))
    }

    /// Returns the chunks of these packs that the newest snapshot of each host and paths needs. `None` if little is repacked,
    /// or if there are too many.
    fn newest(&self, survey: &Survey, chosen: &[ObjectId]) -> Result<Option<Reachable>> {
        if chosen.iter().map(|id| survey.packs[id].size()).sum::<u64>() < SORTED {
            return Ok(None);
        }
        let snapshots = survey.state.snapshots();
        let newest = first_of_each_group(snapshots.iter().rev().filter(|snapshot| !snapshot.partial));
        let roots: Vec<Ref> = newest.filter_map(|snapshot| snapshot.root).collect();
        let (chosen, condemned): (HashSet<_>, _) = (chosen.iter().collect(), survey.state.condemned_packs());
        let trees = Trees::with(self.repo, Arc::new(Lookup::fixed(survey.state.clone())));
        let memory = self.options.memory / 4;
        let scope = Scope { is_wanted: &|id| chosen.contains(id), condemned: &condemned, memory };
        match Reachable::of(self.ctx, &trees, &roots, &scope) {
            Err(e) if e.kind() == Kind::Failed || e.kind().is_damage() => Ok(None),
            other => other.map(Some),
        }
    }

    fn repack_batch(
        &mut self,
        survey: &mut Survey,
        batch: &[ObjectId],
        newest: Option<&Reachable>,
    ) -> Result<Option<BTreeSet<ObjectId>>> {
        let (mut copier, mut done) = (Copier::new(self.ctx, self.repo), BTreeSet::new());
        let mut warnings = Vec::new();
        let size = |id: &ObjectId| survey.packs[id].size();
        let read = |id: ObjectId| (id, self.live_chunks(survey, &id));
        in_order(self.ctx, READ, batch.to_vec(), size, read, |(id, chunks)| {
            match chunks {
                Ok(chunks) => {
                    let mut chunks = chunks.iter();
                    chunks.try_for_each(|(entry, stored)| copier.add(entry, stored, lane(newest, entry, &id)))?;
                    self.ctx.done(1, survey.packs[&id].size());
                    done.insert(id);
                }
                Err(e) if e.kind().is_damage() => {
                    warnings.push(format!("pack {} was not repacked: {e}", id.short()));
                }
                Err(e) => return Err(e),
            }
            Ok(())
        })?;
        self.report.warnings.append(&mut warnings);
        if done.is_empty() {
            return Ok(Some(done));
        }
        let sections = copier.finish()?;
        let now = self.repo.now().seconds;
        let head = Head { condemned: done.iter().map(|id| (*id, now)).collect(), ..Head::default() };
        if self.commit(survey, head, &sections)?.is_none() {
            return Ok(None);
        }
        self.report.copied += copier.bytes;
        done.iter().for_each(|id| self.report.repacked.add(survey.packs[id].size()));
        Ok(Some(done))
    }

    /// Returns the place of a pack and its entries that trees need.
    ///
    /// # Errors
    ///
    /// Fails with damage if no record names the pack, or its table lacks a chunk that trees name in it.
    pub fn live_entries(&self, survey: &Survey, id: &ObjectId) -> Result<Live> {
        let pack = &survey.packs[id];
        let Some((place, kind)) = pack.known else { return Err(Error::damaged("no record names it")) };
        let table = self.repo.pack_table(self.ctx, kind, &place)?;
        let entries: Vec<Entry> = table.into_iter().filter(|entry| survey.reachable.contains(&entry.id, id)).collect();
        let named: BTreeSet<_> = entries.iter().filter(|e| survey.reachable.names(&e.id, id)).map(|e| e.id).collect();
        if (named.len() as u64) < pack.named.chunks {
            return Err(Error::damaged("its table lacks chunks that trees name in it"));
        }
        Ok(Live { place, kind, entries })
    }

    /// Reads chunks of a data pack.
    pub fn read_chunks(&self, place: &PackRef, entries: Vec<Entry>) -> Result<Chunks> {
        let (repo, ctx, mut chunks) = (self.repo, self.ctx, Vec::with_capacity(entries.len()));
        let read = |entry: Entry| {
            let stored = repo.stored_chunk(ctx, entry.kind, &entry.in_pack(*place), SPAN)?;
            Ok((entry, stored.stored))
        };
        let read_stretch = |entries: Vec<Entry>| entries.into_iter().map(read).collect::<Result<Chunks>>();
        for stretch in parallel(STRETCHES, stretches(&entries), read_stretch) {
            chunks.append(&mut stretch?);
        }
        Ok(chunks)
    }

    fn live_chunks(&self, survey: &Survey, id: &ObjectId) -> Result<Chunks> {
        let live = self.live_entries(survey, id)?;
        self.read_chunks(&live.place, live.entries)
    }
}

/// Divides the entries of a pack, which are in the order of their places, by the stretches in which they begin.
fn stretches(entries: &[Entry]) -> Vec<Vec<Entry>> {
    entries.chunk_by(|a, b| a.offset / STRETCH == b.offset / STRETCH).map(<[Entry]>::to_vec).collect()
}

fn lane(newest: Option<&Reachable>, entry: &Entry, pack: &ObjectId) -> Lane {
    match newest {
        Some(newest) if !newest.contains(&entry.id, pack) => Lane::Old,
        _ => Lane::Newest,
    }
}

/// Splits a list of packs into the batches of [`BATCH`], each with at least one pack.
fn batches<'i>(survey: &Survey, ids: &'i [ObjectId]) -> Vec<&'i [ObjectId]> {
    let (mut batches, mut start, mut bytes) = (Vec::new(), 0, 0u64);
    for (end, id) in ids.iter().enumerate() {
        let size = survey.packs[id].size();
        if end > start && (end - start == BATCH.0 || bytes + size > BATCH.1) {
            batches.push(&ids[start..end]);
            (start, bytes) = (end, 0);
        }
        bytes += size;
    }
    batches.extend((start < ids.len()).then(|| &ids[start..]));
    batches
}

/// Returns the number of chunks in an open pack, and the bytes of their stored forms.
fn size(open: &Builder) -> Reached {
    open.chunks().fold(Reached::default(), |sum, (_, stored)| sum + Reached { chunks: 1, bytes: stored.len() as u64 })
}

/// The new packs that a chunk goes to. The chunks of the newest snapshots stay together, so that a reader of one fetches
/// nothing else.
#[derive(Clone, Copy)]
pub(super) enum Lane {
    Newest,
    Old,
}

/// Writes copies of chunks into new packs.
pub(super) struct Copier<'r> {
    ctx: &'r Context<'r>,
    repo: &'r Repository,
    /// The open pack of each lane.
    open: [Option<Builder>; 2],
    packs: Vec<(PackRef, ObjectType)>,
    entries: Vec<(u32, Entry)>,
    copied: BTreeSet<[u8; 16]>,
    /// Bytes of the files of the new packs.
    pub bytes: u64,
}

impl<'r> Copier<'r> {
    pub fn new(ctx: &'r Context<'r>, repo: &'r Repository) -> Self {
        let (open, packs, entries, copied) = Default::default();
        Copier { ctx, repo, open, packs, entries, copied, bytes: 0 }
    }

    /// Adds a chunk of a data pack in its stored form, once.
    pub fn add(&mut self, entry: &Entry, stored: &[u8], lane: Lane) -> Result<()> {
        if entry.kind != ChunkKind::Data || !self.copied.insert(entry.id.0) {
            return Ok(());
        }
        self.put(entry, stored, lane)
    }

    fn put(&mut self, entry: &Entry, stored: &[u8], lane: Lane) -> Result<()> {
        if self.open[lane as usize].as_ref().is_some_and(|open| open.room() < stored.len()) {
            self.close(lane, true)?;
        }
        let open = self.open[lane as usize].get_or_insert_with(Builder::default);
        open.add(entry.id, entry.kind, stored, entry.len as usize);
        Ok(())
    }

    /// Stores a copy of a whole metadata pack. Its pages name each other by their offsets, so these stay the same.
    pub fn copy_pack(&mut self, pack: &PackRef) -> Result<()> {
        let blocks = pack.len.div_ceil(BLOCK as u32).max(1);
        let table = self.repo.pack_table(self.ctx, ObjectType::Meta, pack)?;
        let read = self.repo.pack_blocks(self.ctx, ObjectType::Meta, pack, 0..blocks)?;
        let mut plain = Vec::with_capacity(sealed_len(pack.len.into()) as usize);
        for block in read {
            let block =
                block.ok_or_else(|| Error::damaged(format!("a block of pack {} is damaged", pack.id.short())))?;
            plain.extend_from_slice(&block);
        }
        let new = self.repo.put_pack(self.ctx, ObjectType::Meta, &mut plain)?;
        self.stored(new, ObjectType::Meta, table)
    }

    /// Appends the last chunks of the old lane to the newest lane, if the next run would repack two packs because of their
    /// padding.
    fn join_lanes(&mut self) -> Result<()> {
        let lanes: Vec<Reached> = self.open.iter().flatten().map(size).collect();
        let separate = lanes.iter().map(|lane| file_bytes(lane.chunks, lane.bytes)).sum();
        if !is_worth(separate, lanes.into_iter().fold(Reached::default(), Reached::add)) {
            return Ok(());
        }
        let Some(old) = self.open[Lane::Old as usize].take() else { return Ok(()) };
        for (entry, stored) in old.chunks() {
            self.put(entry, stored, Lane::Newest)?;
        }
        Ok(())
    }

    fn close(&mut self, lane: Lane, is_full: bool) -> Result<()> {
        let Some(open) = self.open[lane as usize].take() else { return Ok(()) };
        let (mut plain, entries) = open.finish(is_full);
        let pack = self.repo.put_pack(self.ctx, ObjectType::Data, &mut plain)?;
        self.stored(pack, ObjectType::Data, entries)
    }

    /// Reads a new pack back.
    fn stored(&mut self, pack: PackRef, kind: ObjectType, entries: Vec<Entry>) -> Result<()> {
        let (repo, ctx) = (self.repo, self.ctx);
        let read = |entry: &Entry| repo.chunk(ctx, entry.kind, &entry.in_pack(pack), SPAN).map(drop);
        let read_stretch = |entries: Vec<Entry>| entries.iter().try_for_each(read);
        parallel(STRETCHES, stretches(&entries), read_stretch).into_iter().collect::<Result<()>>()?;
        self.bytes += pack.file_len();
        let number = self.packs.len() as u32;
        self.packs.push((pack, kind));
        self.entries.extend(entries.into_iter().map(|entry| (number, entry)));
        Ok(())
    }

    /// Stores the last pack, or two, and returns the sections that make all of them known.
    pub fn finish(&mut self) -> Result<Vec<NewSection>> {
        self.join_lanes()?;
        self.close(Lane::Newest, false)?;
        self.close(Lane::Old, false)?;
        Ok(index_sections(&self.packs, index::rows(&self.entries), 0))
    }
}
