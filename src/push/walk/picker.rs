//! Applies the rules of a [`Select`] while walking: one [`Picker`] for each walk, told of the folders on its way.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use rustix::fs::{self, AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::listing::Listing;
use super::select::{IGNORE_FILE, Mark, Select};
use crate::context::Context;
use crate::error::Error;
use crate::pattern::{self, Rules};
use crate::progress::Event;
use crate::push::read::attributes::{self, Dir};

/// An ignore file of more bytes than this is none.
const IGNORE_FILE_MOST: u64 = 1 << 20;

pub struct Picker<'w> {
    select: &'w Select,
    ctx: &'w Context<'w>,
    /// With `one_file_system`, the devices of the sources.
    home: Vec<u64>,
    /// Devices of which nothing is saved: mounted backups.
    foreign: &'w [u64],
    /// The ignore files of the folders on the way down.
    ignores: Vec<Ignores>,
}

struct Ignores {
    /// The folder, by its place on the way down, and the length of its path.
    depth: usize,
    path: usize,
    rules: Rules,
}

impl<'w> Picker<'w> {
    pub fn new(select: &'w Select, ctx: &'w Context<'w>, sources: &[PathBuf], foreign: &'w [u64]) -> Self {
        let device = |path: &PathBuf| fs::lstat(path).ok().map(|stat| attributes::id(&stat).0);
        let home = if select.one_file_system { sources.iter().filter_map(device).collect() } else { Vec::new() };
        Picker { select, ctx, home, foreign, ignores: Vec::new() }
    }

    /// Whether an entry of a folder below a source is left out. `stat` is missing where it could not be read.
    pub fn leaves_out(&self, dir: &Dir, name: &[u8], stat: Option<&Stat>) -> bool {
        if self.select.has_patterns() || !self.ignores.is_empty() {
            let path = dir.path_of(name);
            let folder = stat.is_some_and(|stat| attributes::kind(stat) == FileType::Directory);
            if self.select.leaves_out(&path, folder) || self.ignored(&path, folder) {
                self.ctx.event(Event::Excluded { path: &path });
                return true;
            }
        }
        let Some(stat) = stat else { return false };
        let large = |most| attributes::kind(stat) == FileType::RegularFile && stat.st_size as u64 > most;
        let elsewhere = attributes::kind(stat) != FileType::Directory && self.is_elsewhere(stat);
        let out = elsewhere || self.select.larger_than.is_some_and(large);
        if out {
            self.ctx.event(Event::Excluded { path: &dir.path_of(name) });
        }
        out
    }

    /// Whether it lies in a mounted backup.
    pub fn is_backup(&self, stat: &Stat) -> bool {
        self.foreign.contains(&attributes::id(stat).0)
    }

    /// Whether it is on a file system that no source is on, and that matters.
    pub fn is_elsewhere(&self, stat: &Stat) -> bool {
        self.select.one_file_system && !self.home.contains(&attributes::id(stat).0)
    }

    /// What the ignore files say, the innermost first.
    fn ignored(&self, path: &[u8], folder: bool) -> bool {
        let verdict = |ignores: &Ignores| ignores.rules.verdict(&path[ignores.path + 1..], folder);
        self.ignores.iter().rev().find_map(verdict).is_some_and(|verdict| verdict.excluded)
    }

    /// The marks that a folder holds, if anything but them is left out in it.
    pub fn marked(&self, dir: &Dir) -> Option<Listing> {
        let marks: Vec<_> = self.select.marks.iter().filter(|mark| self.is_marked(dir, mark)).collect();
        if marks.is_empty() {
            return None;
        }
        self.ctx.event(Event::Excluded { path: &dir.path_of(b"") });
        Some(Listing::of(marks.into_iter().map(|mark| &mark.name)))
    }

    fn is_marked(&self, dir: &Dir, mark: &Mark) -> bool {
        if mark.header.is_empty() {
            return fs::statat(&dir.fd, mark.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).is_ok();
        }
        match read(dir, &mark.name, mark.header.len() as u64) {
            Ok(bytes) => bytes == mark.header,
            Err(Errno::NOENT | Errno::INVAL | Errno::LOOP) => false,
            Err(errno) => {
                let path = dir.path_of(&mark.name);
                let path = String::from_utf8_lossy(&path);
                self.ctx.warn(&format!("its folder is saved as if it were not marked: cannot read {path}: {errno}"));
                false
            }
        }
    }

    /// The walk goes down into this folder.
    pub fn enter(&mut self, depth: usize, dir: &Dir, listing: &Listing) {
        if self.select.ignore_files && listing.has(IGNORE_FILE.as_bytes()) {
            match self.rules(dir) {
                Ok(rules) => self.ignores.push(Ignores { depth, path: dir.path.len(), rules }),
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    let why = match errno {
                        Errno::INVAL | Errno::LOOP => Error::failed("nothing is left out by it: it is no regular file"),
                        Errno::FBIG => Error::failed("nothing is left out by it: it is larger than 1 MiB"),
                        _ => Error::io("read what to leave out", errno.into()),
                    };
                    self.ctx.skip(&dir.path_of(IGNORE_FILE.as_bytes()), &why);
                }
            }
        }
    }

    /// The walk leaves that folder.
    pub fn leave(&mut self, depth: usize) {
        self.ignores.pop_if(|ignores| ignores.depth == depth);
    }

    fn rules(&self, dir: &Dir) -> Result<Rules, Errno> {
        let bytes = read(dir, IGNORE_FILE.as_bytes(), IGNORE_FILE_MOST + 1)?;
        if bytes.len() as u64 > IGNORE_FILE_MOST {
            return Err(Errno::FBIG);
        }
        let mut rules = Vec::new();
        for (i, line) in pattern::lines(&bytes).enumerate() {
            match pattern::ignore_rule(line) {
                Ok(rule) => rules.extend(rule),
                Err(why) => {
                    let path = dir.path_of(IGNORE_FILE.as_bytes());
                    let path = String::from_utf8_lossy(&path);
                    self.ctx.warn(&format!("line {} of {path} leaves out nothing: {why}", i + 1));
                }
            }
        }
        Rules::new(&rules, false).map_err(|_| Errno::FBIG)
    }
}

/// The beginning of a regular file; [`Errno::INVAL`] if it is none.
fn read(dir: &Dir, name: &[u8], most: u64) -> Result<Vec<u8>, Errno> {
    let stat = fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if attributes::kind(&stat) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let file = File::from(dir.open(name, OFlags::NOFOLLOW)?);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    Ok(bytes)
}
