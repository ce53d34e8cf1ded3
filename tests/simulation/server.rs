//! The server: in-memory objects, and all server faults except removal.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::name::{Folder, Name, ObjectId};
use crate::storage::Entry;

use super::dice::Dice;
use super::plan::{Dates, Plan, Seconds};

/// Number of newest objects. Listings leave out records among them more often than other ones.
const NEWEST: u64 = 8;

/// Objects, and puts that have not arrived yet.
#[derive(Clone, Default)]
pub struct Server {
    pub objects: BTreeMap<Name, Object>,
    late: Vec<(Seconds, Name, Object)>,
    /// Entries that the previous listing of a folder left out, for each client.
    skipped: BTreeMap<(usize, String), BTreeSet<Name>>,
    stored: u64,
    /// Packs that clients deleted.
    pub graveyard: Vec<Deleted>,
    is_damaging: bool,
}

/// One object.
#[derive(Clone)]
pub struct Object {
    pub bytes: Arc<Vec<u8>>,
    pub mtime: Seconds,
    /// Time from which listings show the object to all clients.
    visible: Seconds,
    /// Clients to which listings show the object before that time, as a bit mask.
    shown_to: i64,
    /// Position in the order of storing.
    number: u64,
    /// Time during which the object is missing.
    outage: Range<Seconds>,
    /// Time from which the server returns damaged bytes.
    damaged: Option<Seconds>,
}

/// A pack that a client deleted.
#[derive(Clone)]
pub struct Deleted {
    pack: ObjectId,
    object: Object,
    at: Seconds,
}

/// A put of a client.
#[derive(Clone, Copy)]
pub struct Upload<'u> {
    pub client: usize,
    pub name: &'u Name,
    pub bytes: &'u [u8],
    pub arrival: Arrival,
}

/// The fate of a put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Now,
    /// The put arrives at this time, and the client gets an error.
    Late(Seconds),
}

impl Server {
    /// Stores the puts that have arrived by now.
    pub fn arrive(&mut self, now: Seconds) {
        for (_, name, object) in self.late.extract_if(.., |(at, ..)| *at <= now) {
            self.objects.entry(name).or_insert(object);
        }
    }

    /// Lists a folder as `client` sees it.
    pub fn list(&mut self, client: usize, folder: Folder, now: Seconds, plan: &Plan, dice: &mut Dice) -> Vec<Entry> {
        let before = self.skipped.remove(&(client, folder.path())).unwrap_or_default();
        let mut skipped = BTreeSet::new();
        let mut shown: Vec<(u64, Entry)> = Vec::new();
        let newest = self.stored.saturating_sub(NEWEST);
        for (name, object) in self.objects.iter().filter(|(name, _)| name.folder() == folder) {
            let is_newest = folder == Folder::Log && object.number > newest;
            let rate = plan.skipped + if is_newest { plan.newest } else { 0 };
            // A listing is not atomic, but the next one shows an entry that this one left out.
            let is_hidden = object.visible > now && object.shown_to >> client & 1 == 0;
            if is_hidden || object.outage.contains(&now) || (!before.contains(name) && dice.chance(rate)) {
                skipped.insert(*name);
                continue;
            }
            let entry = Entry { name: *name, size: object.bytes.len() as u64, mtime: object.mtime };
            shown.push((object.number, entry));
        }
        if !skipped.is_empty() {
            self.skipped.insert((client, folder.path()), skipped);
        }
        // The order must not depend on names, so that a trace is readable.
        shown.sort_by_key(|(number, _)| *number);
        let mut entries: Vec<Entry> = shown.into_iter().map(|(_, entry)| entry).collect();
        for i in (1..entries.len()).rev() {
            entries.swap(i, dice.roll(i as i64 + 1) as usize);
        }
        entries
    }

    /// Reads a part of an object.
    pub fn read(&self, name: &Name, offset: u64, len: usize, now: Seconds) -> Result<Vec<u8>> {
        let object = self.get(name, now)?;
        let part = usize::try_from(offset).ok().and_then(|from| object.bytes.get(from..from.checked_add(len)?));
        let mut part = part.ok_or_else(|| Error::damaged(format!("object {name} ends too early")))?.to_vec();
        if object.is_damaged(now) {
            part.iter_mut().for_each(|byte| *byte ^= 1);
        }
        Ok(part)
    }

    /// Deletes an object.
    pub fn remove(&mut self, name: &Name, now: Seconds) {
        if let (Some(object), Name::Pack(id)) = (self.objects.remove(name), name) {
            self.graveyard.push(Deleted { pack: *id, object, at: now });
        }
    }

    /// Returns when a client deleted this pack, if it was not damaged then.
    pub fn deleted_undamaged(&self, pack: &ObjectId) -> Option<Seconds> {
        let deleted = self.graveyard.iter().find(|deleted| deleted.pack == *pack)?;
        (!deleted.object.is_damaged(deleted.at)).then_some(deleted.at)
    }

    /// Returns the packs that the server damaged after this time.
    pub fn damaged_after(&self, time: Seconds) -> Vec<(ObjectId, Arc<Vec<u8>>)> {
        let present = self.objects.iter().filter_map(|(name, object)| match name {
            Name::Pack(id) => Some((*id, object)),
            _ => None,
        });
        let deleted = self.graveyard.iter().filter(|deleted| deleted.object.is_damaged(deleted.at));
        let all = present.chain(deleted.map(|deleted| (deleted.pack, &deleted.object)));
        let later = all.filter(|(_, object)| object.damaged.is_some_and(|at| at > time));
        later.map(|(id, object)| (id, Arc::clone(&object.bytes))).collect()
    }

    /// Returns whether the server has damaged an object.
    pub fn has_damage(&self) -> bool {
        self.is_damaging
    }

    /// Returns an object.
    pub fn get(&self, name: &Name, now: Seconds) -> Result<&Object> {
        let object = self.objects.get(name).filter(|object| !object.outage.contains(&now));
        object.ok_or_else(|| Error::new(Kind::Missing, format!("no object {name}")))
    }

    /// Stores an object.
    pub fn put(&mut self, upload: Upload<'_>, now: Seconds, plan: &Plan, dice: &mut Dice) -> Result<()> {
        let Upload { client, name, bytes, arrival } = upload;
        if self.objects.contains_key(name) {
            return Err(Error::new(Kind::Exists, format!("object {name} exists already")));
        }
        let at = if let Arrival::Late(at) = arrival { at } else { now };
        let hidden = if dice.chance(plan.hidden) { dice.roll(plan.hidden_for) } else { 0 };
        // A replicated server shows an object to some clients earlier.
        let (hidden, shown_to) = match plan.has_sites {
            true => (plan.hidden_for, plan.neighbours(client)),
            false => (hidden, dice.roll(1 << 8)),
        };
        let mtime = match plan.dates {
            Dates::True => at,
            Dates::OldPacks if !matches!(name, Name::Pack(_)) => at,
            Dates::Epoch | Dates::OldPacks => 0,
            Dates::Random => dice.roll(now + 365 * super::plan::DAY),
        };
        let is_damaged = matches!(name, Name::Pack(_)) && dice.chance(plan.damaged);
        let damaged = is_damaged.then(|| at + dice.roll(3 * plan.grace));
        self.is_damaging |= is_damaged;
        let is_away = matches!(name, Name::Pack(_)) && dice.chance(plan.outages);
        let from = at + dice.roll(4 * plan.grace);
        let outage = if is_away { from..from + dice.roll(plan.grace) } else { 0..0 };
        self.stored += 1;
        let object = Object {
            bytes: Arc::new(bytes.to_vec()),
            mtime,
            visible: at + hidden,
            shown_to,
            number: self.stored,
            outage,
            damaged,
        };
        match arrival {
            Arrival::Now => drop(self.objects.insert(*name, object)),
            Arrival::Late(at) => self.late.push((at, *name, object)),
        }
        if arrival == Arrival::Now { Ok(()) } else { Err(Error::new(Kind::Connection, "the connection broke")) }
    }

    /// Ends all faults: all stored objects exist and are listed.
    pub fn calm(&mut self) {
        self.arrive(Seconds::MAX);
        self.objects.values_mut().for_each(|object| (object.visible, object.outage) = (0, 0..0));
        self.skipped.clear();
    }
}

impl Object {
    fn is_damaged(&self, now: Seconds) -> bool {
        self.damaged.is_some_and(|at| at <= now)
    }
}
