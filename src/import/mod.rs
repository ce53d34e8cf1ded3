//! Reads repositories of the Python nFreezer 0.0.1: a folder with the index `.files` and one object for the contents of each
//! file. Nothing is written there. What comes out is a sequence of folders and files in the order of the tree, whose contents
//! are decrypted while they are read; who saves them is not known here.
//!
//! From below: [`crypt`] its cipher, [`index`] and [`names`] what files there are, [`fetch`] and [`content`] what is in them.
//!
//! What the old format cannot show: a server that cuts the index off at the end of an entry, or gives an earlier state of it.

mod content;
mod crypt;
mod fetch;
mod index;
mod names;

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use content::Content;
use crypt::{HEADER, Keys};
use fetch::Fetcher;
use index::Entry;

use crate::context::Context;
use crate::crypto::secret::Passphrase;
use crate::error::{Error, Kind, Result};
use crate::name::{Folder, Name, hex};
use crate::storage::Storage;
use crate::time::Time;

/// What an old repository holds, as far as it can be used.
pub struct Old {
    ctx: Context<'static>,
    storage: Arc<dyn Storage>,
    keys: Arc<Keys>,
    /// In the order of the tree.
    entries: Vec<Entry>,
    sizes: HashMap<[u8; 16], u64>,
    skipped: u64,
}

/// A folder or a file of an old repository.
pub struct Item {
    /// Below the folder that was backed up; empty for itself. Parts are parted by `/`.
    pub path: Vec<u8>,
    /// When the file was last modified; of a folder: the latest of the files in it.
    pub mtime: Time,
    /// The file, if it is one.
    pub file: Option<File>,
}

/// A file of an old repository.
pub struct File {
    /// Bytes, as far as the server says the truth.
    pub size: u64,
    /// Gives the contents. Who reads them to the end without an error has what was saved. A read that would wait long gives
    /// [`std::io::ErrorKind::WouldBlock`]; an error is an [`Error`] within an [`std::io::Error`].
    pub open: Box<dyn FnOnce() -> Result<Box<dyn Read + Send>> + Send>,
}

impl Old {
    /// Reads the index. `passphrase` is asked for when there is one.
    /// What is damaged is reported to `ctx`, counted, and left out.
    ///
    /// # Errors
    ///
    /// [`Kind::NoRepository`] if there is no `.files`, [`Kind::Passphrase`] if nothing of it opens.
    pub fn open(
        ctx: &Context,
        storage: Arc<dyn Storage>,
        passphrase: impl FnOnce() -> Result<Passphrase>,
    ) -> Result<Old> {
        storage.size(ctx, &Name::OldIndex).map_err(|e| no_repository(ctx, &*storage, e))?;
        let keys = Arc::new(Keys::new(&passphrase()?)?);
        let index = index::read(ctx, &*storage, &keys)?;
        let (entries, impossible) = names::settle(ctx, index.entries);
        if entries.is_empty() {
            return Err(Error::failed(format!("the old repository {} holds no files", storage.address())));
        }
        let objects = storage.list(ctx, Folder::Old)?.into_iter().filter_map(|entry| match entry.name {
            Name::OldObject(id) => Some((id, entry.size)),
            _ => None,
        });
        let sizes = objects.collect();
        Ok(Old { ctx: ctx.detached(), storage, keys, entries, sizes, skipped: index.damaged + impossible })
    }

    /// Entries that were left out; each was reported.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Files, and the bytes in them.
    pub fn total(&self) -> (u64, u64) {
        let bytes =
            |entry: &Entry| self.sizes.get(&entry.contents).map_or(0, |size| size.saturating_sub(HEADER as u64));
        (self.entries.len() as u64, self.entries.iter().map(bytes).sum())
    }

    /// The latest time of a file that is not after `now`.
    pub fn newest(&self, now: Time) -> Option<Time> {
        self.entries.iter().map(|entry| time(entry.mtime)).filter(|time| *time <= now).max()
    }

    /// Everything, in the order of the tree: the folder that was backed up, then what is in it, folders before their contents.
    /// Objects are fetched ahead of who reads them.
    pub fn items(&self) -> impl Iterator<Item = Item> + '_ {
        let fetcher = Fetcher::new(&self.ctx, Arc::clone(&self.storage));
        let mut folders = folder_times(&self.entries).into_iter();
        let mut last: &[u8] = b"";
        let root = folder(b"", folders.next().unwrap_or_default());
        let rest = self.entries.iter().flat_map(move |entry| {
            let new = new_folders(last, &entry.name);
            last = &entry.name;
            let mut items: Vec<Item> = new.map(|path| folder(path, folders.next().unwrap_or_default())).collect();
            items.push(self.file(entry, &fetcher));
            items
        });
        std::iter::once(root).chain(rest)
    }

    fn file(&self, entry: &Entry, fetcher: &Fetcher) -> Item {
        let (contents, hash, keys) = (entry.contents, entry.hash, Arc::clone(&self.keys));
        let size = self.sizes.get(&contents).copied();
        let object = size.map(|size| (fetcher.announce(Name::OldObject(contents), size), size));
        let open = move || -> Result<Box<dyn Read + Send>> {
            let missing =
                || Error::new(Kind::Missing, format!("its contents are not there (object {})", hex(&contents)));
            let (object, size) = object.ok_or_else(missing)?;
            Ok(Box::new(Content::new(keys, object, size, hash)))
        };
        let size = size.unwrap_or_default().saturating_sub(HEADER as u64);
        Item { path: entry.name.clone(), mtime: time(entry.mtime), file: Some(File { size, open: Box::new(open) }) }
    }
}

fn folder(path: &[u8], mtime: u64) -> Item {
    Item { path: path.to_vec(), mtime: time(mtime), file: None }
}

fn time(nanoseconds: u64) -> Time {
    Time::new((nanoseconds / 1_000_000_000) as i64, (nanoseconds % 1_000_000_000) as u32)
}

/// The folders that `name` is in and `last` is not.
fn new_folders<'n>(last: &[u8], name: &'n [u8]) -> impl Iterator<Item = &'n [u8]> {
    let common = last.iter().zip(name).take_while(|(a, b)| a == b).count();
    let ends = name.iter().enumerate().filter(move |(at, byte)| **byte == b'/' && *at >= common);
    ends.map(|(at, _)| &name[..at])
}

/// The latest time of a file in each folder, in the order in which the folders begin; the first one is that of all.
fn folder_times(entries: &[Entry]) -> Vec<u64> {
    let (mut times, mut open, mut last) = (vec![0], vec![0], [].as_slice());
    for entry in entries {
        let new = new_folders(last, &entry.name).count();
        let depth = entry.name.iter().filter(|byte| **byte == b'/').count();
        open.truncate(1 + depth - new);
        for _ in 0..new {
            open.push(times.len());
            times.push(0);
        }
        for folder in &open {
            times[*folder] = times[*folder].max(entry.mtime);
        }
        last = &entry.name;
    }
    times
}

fn no_repository(ctx: &Context, storage: &dyn Storage, error: Error) -> Error {
    if error.kind() != Kind::Missing {
        return error;
    }
    let text = format!("there is no repository of the Python nFreezer at {} (no file .files)", storage.address());
    let hint = match storage.size(ctx, &Name::Config) {
        Ok(_) => "this is a repository of this program: it needs no import",
        Err(_) => "name the folder that the old program was given as its destination, or a copy of it",
    };
    Error::new(Kind::NoRepository, text).hint(hint)
}
