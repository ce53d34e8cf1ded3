//! Reads repositories of the Python nFreezer 0.0.1: a folder with the index `.files` and one object for the contents of each
//! file. Read-only. In: a storage and the old passphrase. Out: directories and files in tree order, with contents that are
//! decrypted while they are read.
//!
//! [`crypt`] has the cipher, [`index`] and [`names`] the list of files, [`fetch`] and [`content`] their contents.
//!
//! The old format cannot reveal a server that cuts the index off at the end of an entry, or that shows an earlier index.

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

/// The usable contents of an old repository.
pub struct OldRepository {
    ctx: Context<'static>,
    storage: Arc<dyn Storage>,
    keys: Arc<Keys>,
    /// In tree order.
    entries: Vec<Entry>,
    sizes: HashMap<[u8; 16], u64>,
    skipped: u64,
}

/// A directory or a file of an old repository.
pub struct Item {
    /// Path below the directory that was backed up, with `/` as separator; empty for the directory itself.
    pub path: Vec<u8>,
    /// Modification time; for a directory the latest one of its files.
    pub mtime: Time,
    /// The file; `None` for a directory.
    pub file: Option<File>,
}

/// A file of an old repository.
pub struct File {
    /// Size in bytes as the server reports it; not verified.
    pub size: u64,
    /// Opens the contents. They are verified once a read returns the end of the file. A read that would wait long fails with
    /// [`std::io::ErrorKind::WouldBlock`]; other errors are an [`Error`] within an [`std::io::Error`].
    pub open: Box<dyn FnOnce() -> Result<Box<dyn Read + Send>> + Send>,
}

impl OldRepository {
    /// Reads the index. Calls `passphrase` only if there is an index. Damaged entries are reported to `ctx`, counted, and
    /// left out.
    ///
    /// # Errors
    ///
    /// [`Kind::NoRepository`] if there is no `.files`, [`Kind::Passphrase`] if no entry opens.
    pub fn open(
        ctx: &Context,
        storage: Arc<dyn Storage>,
        passphrase: impl FnOnce() -> Result<Passphrase>,
    ) -> Result<OldRepository> {
        storage.size(ctx, &Name::OldIndex).map_err(|e| no_repository(ctx, &*storage, e))?;
        let keys = Arc::new(Keys::new(&passphrase()?)?);
        let index = index::read(ctx, &*storage, &keys)?;
        let (entries, impossible) = names::to_paths(ctx, index.entries);
        if entries.is_empty() {
            return Err(Error::failed(format!("the old repository {} holds no files", storage.address())));
        }
        let objects = storage.list(ctx, Folder::Old)?.into_iter().filter_map(|entry| match entry.name {
            Name::OldObject(id) => Some((id, entry.size)),
            _ => None,
        });
        let sizes = objects.collect();
        Ok(OldRepository { ctx: ctx.detached(), storage, keys, entries, sizes, skipped: index.damaged + impossible })
    }

    /// Returns the number of entries that were left out. Each was reported.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Returns the number of files and their bytes.
    pub fn total(&self) -> (u64, u64) {
        let bytes =
            |entry: &Entry| self.sizes.get(&entry.contents).map_or(0, |size| size.saturating_sub(HEADER as u64));
        (self.entries.len() as u64, self.entries.iter().map(bytes).sum())
    }

    /// Returns the latest modification time of a file that is not after `now`.
    pub fn newest(&self, now: Time) -> Option<Time> {
        self.entries.iter().map(|entry| time(entry.mtime)).filter(|time| *time <= now).max()
    }

    /// Returns all items in tree order: the directory that was backed up, then its contents, directories before their
    /// contents. Fetches objects ahead of their readers.
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

/// Returns the directories that contain `name` and not `last`.
fn new_folders<'n>(last: &[u8], name: &'n [u8]) -> impl Iterator<Item = &'n [u8]> {
    let common = last.iter().zip(name).take_while(|(a, b)| a == b).count();
    let ends = name.iter().enumerate().filter(move |(at, byte)| **byte == b'/' && *at >= common);
    ends.map(|(at, _)| &name[..at])
}

/// Returns the latest time of the files in each directory, in tree order; the first one is for all files.
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
