//! Applies a [`Select`] during the walk. The walk reports each directory that it enters and leaves.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, OFlags, Stat, StatxAttributes};
use rustix::io::Errno;

use super::listing::Listing;
use super::select::{IGNORE_FILE, Mark, Select};
use crate::context::Context;
use crate::error::{Error, Result, exhausts};
use crate::inode_flags;
use crate::pattern::{self, Rules};
use crate::progress::Event;
use crate::push::options::Options;
use crate::push::read::attributes::{self, error};
use crate::push::read::dir::Dir;

/// An ignore file of more bytes than this is none.
const IGNORE_FILE_MOST: u64 = 1 << 20;

/// The selection, as it applies to the current directory of the walk.
pub struct Picker<'w> {
    select: &'w Select,
    ctx: &'w Context<'w>,
    /// With `one_file_system`, the devices of the sources.
    home: Vec<u64>,
    /// Devices that are excluded: mounted backups.
    foreign: &'w [u64],
    /// The directories with the state and the cache of this program, which are excluded.
    own: &'w [(u64, u64)],
    /// The ignore files of the directories from the root to the current one.
    ignores: Vec<IgnoreFile>,
}

struct IgnoreFile {
    /// The level of its directory below the root.
    depth: usize,
    /// Length of the directory's path.
    path_len: usize,
    rules: Rules,
}

impl<'w> Picker<'w> {
    /// `sources`: the paths that are saved.
    pub fn new(options: &'w Options, ctx: &'w Context<'w>, sources: &[PathBuf]) -> Self {
        let select = &*options.select;
        let home = if select.one_file_system { devices(sources) } else { Vec::new() };
        let (foreign, own) = (&options.exclude_devices, &options.own_dev_ino);
        Picker { select, ctx, home, foreign, own, ignores: Vec::new() }
    }

    /// Returns whether a pattern excludes an entry below a source, and reports it.
    pub fn excludes_name(&self, dir: &Dir, name: &[u8], is_directory: bool) -> bool {
        if self.select.patterns().is_empty() && self.ignores.is_empty() {
            return false;
        }
        let path = dir.path_of(name);
        let excluded = self.select.patterns().matches(&path, is_directory) || self.ignored(&path, is_directory);
        if excluded {
            self.ctx.event(Event::Excluded { path: &path });
        }
        excluded
    }

    /// Returns whether an entry below a source is excluded by its status, and reports it.
    pub fn excludes(&self, dir: &Arc<Dir>, name: &[u8], stat: &Stat) -> bool {
        // A file on another device than its directory is no mount: overlayfs shows the devices of its layers.
        let excluded = match attributes::kind(stat) {
            FileType::Directory => self.own.contains(&attributes::id(stat)),
            FileType::RegularFile => self.select.larger_than.is_some_and(|most| stat.st_size as u64 > most),
            _ => false,
        };
        let excluded = excluded || self.select.nodump && is_nodump(dir, name);
        if excluded {
            self.ctx.event(Event::Excluded { path: &dir.path_of(name) });
        }
        excluded
    }

    /// Returns whether this device is a mounted backup.
    pub fn is_backup(&self, device: u64) -> bool {
        self.foreign.contains(&device)
    }

    /// Returns whether this device holds no source, if the walk must stay on the file systems of the sources.
    pub fn is_elsewhere(&self, device: u64) -> bool {
        self.select.one_file_system && !self.home.contains(&device)
    }

    /// Applies the ignore files. The innermost one with a matching pattern decides.
    fn ignored(&self, path: &[u8], is_directory: bool) -> bool {
        let mut verdicts =
            self.ignores.iter().rev().map(|file| file.rules.verdict(&path[file.path_len + 1..], is_directory));
        verdicts.find_map(|verdict| verdict).is_some_and(|verdict| verdict.excluded)
    }

    /// Returns the marks of a directory, if it has any: nothing else in it is saved.
    pub fn marked(&self, dir: &Arc<Dir>) -> Result<Option<Listing>> {
        let mut marks = Vec::new();
        for mark in &self.select.marks {
            if self.is_marked(dir, mark)? {
                marks.push(&mark.name);
            }
        }
        if marks.is_empty() {
            return Ok(None);
        }
        self.ctx.event(Event::Excluded { path: &dir.path_of(b"") });
        Ok(Some(Listing::of(marks.into_iter())))
    }

    fn is_marked(&self, dir: &Arc<Dir>, mark: &Mark) -> Result<bool> {
        let found = if mark.header.is_empty() {
            dir.stat(&mark.name, AtFlags::SYMLINK_NOFOLLOW).map(|_| true)
        } else {
            read(dir, &mark.name, mark.header.len() as u64).map(|bytes| bytes == mark.header)
        };
        match found {
            Ok(is_marked) => Ok(is_marked),
            Err(Errno::NOENT | Errno::INVAL | Errno::LOOP) => Ok(false),
            Err(errno) if exhausts(errno) => Err(error("look for marks of a folder", errno)),
            Err(errno) => {
                let path = dir.path_of(&mark.name);
                let path = String::from_utf8_lossy(&path);
                self.ctx.warn(&format!("its folder is saved as if it were not marked: cannot read {path}: {errno}"));
                Ok(false)
            }
        }
    }

    /// Reads the ignore file of a directory that the walk enters.
    pub fn enter(&mut self, depth: usize, dir: &Arc<Dir>, listing: &Listing) -> Result<()> {
        if !self.select.ignore_files || !listing.has(IGNORE_FILE.as_bytes()) {
            return Ok(());
        }
        let why = match self.rules(dir) {
            Ok(rules) => {
                self.ignores.push(IgnoreFile { depth, path_len: dir.path.len(), rules });
                return Ok(());
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::INVAL | Errno::LOOP) => Error::failed("nothing is left out by it: it is no regular file"),
            Err(Errno::ILSEQ) => Error::failed(
                "nothing is left out by it: it is encoded in UTF-16 or UTF-32, not in UTF-8; `iconv -t UTF-8` converts it",
            ),
            Err(Errno::FBIG) => Error::failed("nothing is left out by it: it is larger than 1 MiB"),
            Err(errno) => error("read what to leave out", errno),
        };
        attributes::skip(self.ctx, &dir.path_of(IGNORE_FILE.as_bytes()), why)
    }

    /// Drops the ignore file of the directory that the walk leaves.
    pub fn leave(&mut self, depth: usize) {
        self.ignores.pop_if(|ignores| ignores.depth == depth);
    }

    fn rules(&self, dir: &Arc<Dir>) -> Result<Rules, Errno> {
        let bytes = read(dir, IGNORE_FILE.as_bytes(), IGNORE_FILE_MOST + 1)?;
        if bytes.len() as u64 > IGNORE_FILE_MOST {
            return Err(Errno::FBIG);
        }
        if pattern::wide_encoding(&bytes).is_some() {
            return Err(Errno::ILSEQ);
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

/// Returns whether an entry has the flag `nodump`, as far as its file system shows that without opening it.
fn is_nodump(dir: &Arc<Dir>, name: &[u8]) -> bool {
    let shown = dir.on_entry(name, |dir, name| Ok(inode_flags::shown(&dir.fd, name)));
    shown.is_ok_and(|shown| shown.contains(StatxAttributes::NODUMP))
}

/// Returns the devices of these paths.
fn devices(paths: &[PathBuf]) -> Vec<u64> {
    paths.iter().filter_map(|path| Some(attributes::id(&fs::lstat(path).ok()?).0)).collect()
}

/// Reads the first bytes of a regular file. Fails with [`Errno::INVAL`] if it is another kind of file.
fn read(dir: &Arc<Dir>, name: &[u8], most: u64) -> Result<Vec<u8>, Errno> {
    let stat = dir.stat(name, AtFlags::SYMLINK_NOFOLLOW)?;
    if attributes::kind(&stat) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let file = File::from(dir.open(name, OFlags::NOFOLLOW)?);
    dir.call(move |_| {
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        Ok(bytes)
    })
}
