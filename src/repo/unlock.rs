//! Finds the key file that a passphrase opens.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::parallel;
use super::rollback::RollbackGuard;
use crate::context::Context;
use crate::crypto::kdf::KdfCost;
use crate::crypto::keys::{LocalKey, MasterKey, RepoId};
use crate::crypto::secret::Passphrase;
use crate::error::{Error, Kind, Result};
use crate::format::keyfile::{self, KEY_FILE, KeyFile, KeyInfo};
use crate::format::limits;
use crate::name::{Folder, Name, ObjectId};
use crate::seen::SeenKey;
use crate::storage::{Entry, Storage};

/// The key files of a repository, those that were read and those that wait. Everyone who may write to `keys/` can add
/// files, so all of them are tried, and no one can put theirs in front: after the file that opened the repository before and
/// the oldest ones come the others in an order that differs each time.
pub(super) struct KeyFiles {
    read: Read,
    rest: Vec<Entry>,
    count: usize,
}

/// Most damaged key files that an error names.
const NAMED: usize = 3;
/// The hint for a wrong passphrase.
const SOURCES: &str =
    "it comes from --password-file, --password-command, a variable NFREEZER_PASSWORD..., or the prompt";
/// Key files that are tried between two warnings.
const BETWEEN_WARNINGS: usize = 64;
/// Key files that are read at the same time.
const READERS: usize = 8;
/// Contents of possible key files; `None` where the size is wrong.
type Read = Vec<(ObjectId, Option<Vec<u8>>)>;
/// Key files that are read at a time.
const BATCH: usize = 16;
/// Oldest key files, as the server dates them, that are tried first: someone who may only add files cannot be older.
const OLDEST: usize = 4;
/// A key file that costs more than this many times the default is tried after all others.
const COSTLY: u64 = 8;

impl KeyFiles {
    /// Takes the user's file instead of the key files of the repository.
    pub fn of_user(file: &[u8]) -> Self {
        KeyFiles { read: vec![(keyfile::name(file), Some(file.to_vec()))], rest: Vec::new(), count: 1 }
    }

    /// Lists the key files and reads the first ones.
    pub fn list(ctx: &Context, storage: &dyn Storage, opened_before: Option<ObjectId>) -> Result<Self> {
        let mut rest = storage.list(ctx, Folder::Keys)?;
        rest.retain(|entry| matches!(entry.name, Name::Key(_)));
        let count = rest.len();
        let opened_before = opened_before.map(Name::Key);
        rest.sort_by_key(|entry| (Some(entry.name) != opened_before, entry.size != KEY_FILE as u64, entry.mtime));
        let order = RandomState::new();
        let start = count.min(OLDEST + usize::from(opened_before.is_some()));
        rest[start..].sort_by_cached_key(|entry| (entry.size != KEY_FILE as u64, order.hash_one(entry.name)));
        rest.reverse(); // the next one is at the end
        let mut files = KeyFiles { read: Vec::new(), rest, count };
        files.fill(ctx, storage)?;
        Ok(files)
    }

    /// Reads the next files. Returns `false` if there are none.
    fn fill(&mut self, ctx: &Context, storage: &dyn Storage) -> Result<bool> {
        let batch = self.rest.split_off(self.rest.len().saturating_sub(BATCH));
        let read = parallel(READERS, batch, |entry| {
            let Name::Key(id) = entry.name else { return None };
            let right = entry.size == KEY_FILE as u64;
            Some(right.then(|| storage.read(ctx, &entry.name, 0, KEY_FILE)).transpose().map(|bytes| (id, bytes)))
        });
        self.read = read.into_iter().flatten().collect::<Result<_>>()?;
        self.read.reverse();
        Ok(!self.read.is_empty())
    }
}

/// The search for a key file that opens.
pub(super) struct Unlocking<'u> {
    ctx: &'u Context<'u>,
    storage: &'u dyn Storage,
    guard: &'u RollbackGuard,
    id: &'u RepoId,
    local: Option<&'u LocalKey>,
    opened_before: Option<ObjectId>,
    tried: usize,
    /// Files that need a local key, which is not given; or, if it is given, files that do not need it.
    unfit: usize,
    damaged: Vec<String>,
    costly: Vec<(ObjectId, Vec<u8>)>,
    /// A file that was not tried because it needs more memory than there is. Another file may open.
    exhausted: Option<Error>,
}

/// The master key, the key file that holds it, and its label.
pub(super) type Unlocked = (MasterKey, SeenKey, KeyInfo);

impl<'u> Unlocking<'u> {
    pub fn new(
        ctx: &'u Context<'u>,
        storage: &'u dyn Storage,
        guard: &'u RollbackGuard,
        id: &'u RepoId,
        local: Option<&'u LocalKey>,
        opened_before: Option<ObjectId>,
    ) -> Self {
        let (damaged, costly, exhausted) = (Vec::new(), Vec::new(), None);
        Unlocking { ctx, storage, guard, id, local, opened_before, tried: 0, unfit: 0, damaged, costly, exhausted }
    }

    /// Returns the master key of the first key file that opens. `passphrase` is called once, when a file is there to try.
    pub fn run(mut self, mut files: KeyFiles, passphrase: impl FnOnce() -> Result<Passphrase>) -> Result<Unlocked> {
        let mut passphrase = Lazy { ask: Some(passphrase), answer: None, local: self.local.cloned() };
        let most = KdfCost::DEFAULT.work() * COSTLY;
        let mut warned = 0;
        loop {
            let batch = self.complete(std::mem::take(&mut files.read));
            if let Some(found) = self.try_all(&batch, most, &mut || passphrase.get())? {
                return Ok(found);
            }
            if !files.fill(self.ctx, self.storage)? {
                break;
            }
            if self.tried >= warned {
                let address = &self.guard.address;
                self.ctx.warn(&format!(
                    "keys/ of {address} holds {} files; {} of them do not open, trying the others",
                    files.count, self.tried
                ));
                warned = self.tried + BETWEEN_WARNINGS;
            }
        }
        let costly = std::mem::take(&mut self.costly);
        let found = self.try_all(&costly, u64::MAX, &mut || passphrase.get())?;
        found.ok_or_else(|| self.exhausted.take().unwrap_or_else(|| self.failure(files.count)))
    }

    /// Returns the files of the right size. Notes files that were removed from here and are there again.
    fn complete(&mut self, read: Read) -> Vec<(ObjectId, Vec<u8>)> {
        self.guard.warn_of_returned_keys(self.id, read.iter().map(|(key, _)| key));
        let mut complete = Vec::new();
        for (key, bytes) in read {
            match bytes {
                Some(bytes) => complete.push((key, bytes)),
                None => self.damaged.push(format!("key file {} has the wrong size", key.short())),
            }
        }
        complete
    }

    /// Tries files, the cheapest first but for the opened_before. Asks for the passphrase when it is needed first.
    fn try_all(
        &mut self,
        files: &[(ObjectId, Vec<u8>)],
        most: u64,
        passphrase: &mut dyn FnMut() -> Result<Arc<Passphrase>>,
    ) -> Result<Option<Unlocked>> {
        let mut open = Vec::new();
        for (key, bytes) in files {
            match KeyFile::parse(key, self.id, bytes) {
                // A file without the second factor proves nothing to someone who has one: anyone may have made it.
                Ok(file) if file.needs_local_key() != self.local.is_some() => self.unfit += 1,
                Ok(file) if file.cost().work() > most => self.costly.push((*key, bytes.clone())),
                Ok(file) => open.push((key, file)),
                Err(e) => self.damaged.push(e.to_string()),
            }
        }
        open.sort_by_key(|(key, file)| (Some(**key) != self.opened_before, file.cost().work()));
        for (key, file) in open {
            let passphrase = passphrase()?;
            self.ctx.check()?;
            self.tried += 1;
            match file.open(&passphrase) {
                Ok((master, info)) => {
                    let (work, local) = (file.cost().work(), file.needs_local_key());
                    return Ok(Some((master, SeenKey { id: *key, work, local, created: info.created }, info)));
                }
                Err(e) if e.kind() == Kind::Passphrase => {}
                Err(e) if e.kind() == Kind::Exhausted => self.exhausted = Some(e),
                Err(e) => self.damaged.push(e.to_string()),
            }
        }
        Ok(None)
    }

    fn failure(&self, count: usize) -> Error {
        let address = &self.guard.address;
        if count == 0 {
            let text = format!("{address} has lost its key files: keys/ holds none");
            return Error::new(Kind::Missing, text).hint(
                "`nfreezer key import FILE` puts back a page of `nfreezer key export`; --key-file FILE only uses it",
            );
        }
        if self.tried == 0 && self.unfit > 0 && self.local.is_none() {
            let text = "the key files of this repository need a local key beside the passphrase";
            return Error::new(Kind::Passphrase, text).hint("give --local-key FILE");
        }
        if self.tried == 0 && self.unfit > 0 {
            let text =
                format!("no key file of {address} needs a local key, and with --local-key no other ones are tried");
            return Error::new(Kind::Passphrase, text)
                .hint("leave --local-key out only if you know that this repository never had one");
        }
        let or = if self.local.is_some() { " or local key" } else { "" };
        let tried = self.tried;
        let text = match self.damaged.as_slice() {
            [] => format!("wrong passphrase{or}: no key file of {address} opens with it ({tried} tried)"),
            why => {
                let more = why.len().saturating_sub(NAMED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let why = why[..why.len().min(NAMED)].join("; ");
                format!("no key file of {address} opens with this passphrase{or}, and: {why}{more}")
            }
        };
        let error = Error::new(Kind::Passphrase, text);
        if count > limits::KEY_FILES {
            let hint = format!(
                "keys/ holds {count} files: someone has filled it. Give the copy that `nfreezer key export` made with --key-file"
            );
            return error.hint(hint);
        }
        match self.unfit {
            0 if self.damaged.is_empty() => error.hint(SOURCES),
            n if n > 0 && self.local.is_none() => {
                error.hint(format!("{n} more key file(s) need a local key: --local-key FILE"))
            }
            _ => error,
        }
    }
}

/// Asks for the passphrase once.
struct Lazy<F> {
    ask: Option<F>,
    answer: Option<Arc<Passphrase>>,
    local: Option<LocalKey>,
}

impl<F: FnOnce() -> Result<Passphrase>> Lazy<F> {
    fn get(&mut self) -> Result<Arc<Passphrase>> {
        if let Some(ask) = self.ask.take() {
            self.answer = Some(Arc::new(ask()?.with_local_key(self.local.take())));
        }
        self.answer.clone().ok_or_else(|| Error::failed("the passphrase was not given"))
    }
}
