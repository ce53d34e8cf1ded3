//! The server: objects in memory, and everything that a server can do about them without removing any.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::name::{Folder, Name};
use crate::storage::Entry;

use super::dice::Dice;
use super::plan::{Dates, Plan, Seconds};

/// Objects, and puts that are still on their way.
#[derive(Clone, Default)]
pub struct Server {
    pub objects: BTreeMap<Name, Object>,
    late: Vec<(Seconds, Name, Object)>,
    /// Entries that the previous listing of a folder left out, for each client.
    skipped: BTreeMap<(usize, String), BTreeSet<Name>>,
    stored: u64,
}

/// One object.
#[derive(Clone)]
pub struct Object {
    pub bytes: Arc<Vec<u8>>,
    pub mtime: Seconds,
    /// Listings show it from this time on.
    visible: Seconds,
    /// Numbers the objects as they were stored.
    number: u64,
}

/// What happens to a put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Now,
    /// At this time; the client gets an error.
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
        for (name, object) in self.objects.iter().filter(|(name, _)| name.folder() == folder) {
            // A listing is not atomic, but the next one shows an entry that this one left out.
            if object.visible > now || (!before.contains(name) && dice.chance(plan.skipped)) {
                skipped.insert(*name);
                continue;
            }
            let entry = Entry { name: *name, size: object.bytes.len() as u64, mtime: object.mtime };
            shown.push((object.number, entry));
        }
        if !skipped.is_empty() {
            self.skipped.insert((client, folder.path()), skipped);
        }
        // The order must not depend on names, which the reader of a trace cannot follow.
        shown.sort_by_key(|(number, _)| *number);
        let mut entries: Vec<Entry> = shown.into_iter().map(|(_, entry)| entry).collect();
        for i in (1..entries.len()).rev() {
            entries.swap(i, dice.roll(i as i64 + 1) as usize);
        }
        entries
    }

    /// Returns an object.
    pub fn get(&self, name: &Name) -> Result<&Object> {
        self.objects.get(name).ok_or_else(|| Error::new(Kind::Missing, format!("no object {name}")))
    }

    /// Stores an object.
    pub fn put(
        &mut self,
        name: &Name,
        bytes: &[u8],
        arrival: Arrival,
        now: Seconds,
        plan: &Plan,
        dice: &mut Dice,
    ) -> Result<()> {
        if self.objects.contains_key(name) {
            return Err(Error::new(Kind::Exists, format!("object {name} exists already")));
        }
        let at = if let Arrival::Late(at) = arrival { at } else { now };
        let hidden = if dice.chance(plan.hidden) { dice.roll(plan.hidden_for) } else { 0 };
        let mtime = match plan.dates {
            Dates::True => at,
            Dates::Epoch => 0,
            Dates::Random => dice.roll(now + 365 * super::plan::DAY),
        };
        self.stored += 1;
        let object = Object { bytes: Arc::new(bytes.to_vec()), mtime, visible: at + hidden, number: self.stored };
        match arrival {
            Arrival::Now => drop(self.objects.insert(*name, object)),
            Arrival::Late(at) => self.late.push((at, *name, object)),
        }
        if arrival == Arrival::Now { Ok(()) } else { Err(Error::new(Kind::Connection, "the connection broke")) }
    }

    /// Ends all faults: everything that was stored is there and is shown.
    pub fn calm(&mut self) {
        self.arrive(Seconds::MAX);
        self.objects.values_mut().for_each(|object| object.visible = 0);
        self.skipped.clear();
    }
}
