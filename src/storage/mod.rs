//! Where sealed objects live: a folder on this machine, on an SFTP server, behind rclone, or in an object store. Sees names and
//! sealed bytes only.
//!
//! # The contract, held by one suite over every implementation (`tests/storage/main.rs`)
//!
//! - All calls may come from many threads at once and block until they are done or have failed.
//! - An object is written once. [`Storage::put`] creates exclusively ([`Kind::Exists`] if the name is taken, unless the
//!   server ignores that, see [`Capabilities`]), writes, syncs where the server can, closes, and checks the size; only then
//!   it returns `Ok`. A put that the storage refuses tries to remove the torso that it has made. That may fail too, and after
//!   a lost connection nothing is tried. A torso is never repaired: the caller takes a new id. New objects have mode 0400,
//!   folders 0700.
//! - Every call but `put` is idempotent, so an implementation repeats it by itself after a lost connection, for as long
//!   as its options allow. A `put` whose connection was lost is repeated too: if the name is then taken by exactly as
//!   many bytes, those are the bytes that were sent before; if by fewer, the answer is [`Kind::Exists`].
//! - [`Storage::read`] returns exactly the requested bytes, or [`Kind::Missing`] (no such object), or [`Kind::Damaged`]
//!   (the object ends before the range does). Whatever a server sends beyond the range is dropped unseen.
//! - Each call ends soon after [`Context::check`] fails, with that error, whatever the server does. An object that a `put`
//!   was writing then is a torso.
//! - No answer of a server is trusted: sizes and listings are claims, contents are verified by the caller.
//! - Errors are of kind `Connection` (not reached, refused, timed out, gave up retrying), `NoSpace`, `Missing`, `Exists`,
//!   `Damaged`, `NoRepository` (the root folder itself is not there) or `Failed`.
//!
//! [`Kind::Exists`]: crate::error::Kind::Exists
//! [`Kind::Missing`]: crate::error::Kind::Missing
//! [`Kind::Damaged`]: crate::error::Kind::Damaged

use std::path::Path;
use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::{Folder, Name};
use net::retry::Reconnecting;
use sftp::Sftp;

mod bucket;
mod cache;
mod dry;
mod local;
mod location;
mod memory;
mod net;
mod options;
mod rclone;
#[cfg(feature = "s3")]
mod s3;
mod sftp;
pub mod test_clock;

pub use bucket::{Bucket, Endpoint, S3Options};
pub use cache::{CacheFolder, CachedObject, DiskCache, LEAST_DISK_CACHE, Part, Sort};
pub use dry::Dry;
pub use local::Local;
pub use location::{Location, Remote};
pub use memory::Memory;
pub use net::Notice;
pub use net::limit::Limit;
pub use options::Options;
pub use rclone::Rclone;
pub use sftp::ssh::{Bulk, NoPrompt, Prompt, SshOptions, Transport, command_words, on_server};

/// What to do about a full disk of the repository.
const FULL_DISK: &str = "free space there, then run the same command again; while no other client writes, \
    `nfreezer prune --exclusive` frees a full disk";

/// Objects of one [`Storage::remove_all`] where each of them costs a request.
const REMOVED_AT_ONCE: usize = 8;

/// A listing with more names than this is refused.
const MAX_ENTRIES: usize = 10_000_000;

/// Opens the storage at `location`. A server is connected to; whether there is a repository is not looked at. A first
/// connection that fails is reported at once, unless [`Options::retry_first`] is set.
pub fn open(ctx: &Context, location: &Location, options: Options) -> Result<Box<dyn Storage>> {
    match location {
        Location::Local(path) => {
            // A mount in the background leaves the folder it was started in.
            let path = std::path::absolute(path).map_err(|e| Error::io("find the repository's folder", e))?;
            Ok(Box::new(Local::new(path)))
        }
        Location::Sftp(remote) => Ok(Box::new(sftp(ctx, remote, options, remote.to_string())?)),
        Location::Rclone(rclone) => {
            let mut options = options;
            options.ssh.command = Some(rclone.command());
            // rclone serves its remote as the root of an SFTP server.
            let served = Remote { user: None, host: "rclone".into(), port: None, path: "/".into() };
            Ok(Box::new(sftp(ctx, &served, options, rclone.to_string())?))
        }
        Location::S3(bucket) => object_store(ctx, bucket, options),
    }
}

#[cfg(feature = "s3")]
fn object_store(ctx: &Context, bucket: &Bucket, options: Options) -> Result<Box<dyn Storage>> {
    Ok(Box::new(s3::S3::open(ctx, bucket, options)?))
}

#[cfg(not(feature = "s3"))]
fn object_store(_: &Context, bucket: &Bucket, _: Options) -> Result<Box<dyn Storage>> {
    Err(Error::new(Kind::Usage, format!("this build has no S3, so {bucket} cannot be opened"))
        .hint("build nfreezer with its default features, or let rclone serve the bucket: rclone:REMOTE:PATH"))
}

fn sftp(ctx: &Context, remote: &Remote, options: Options, address: String) -> Result<Sftp> {
    let (upload, download) = options.paces();
    let traffic = Arc::new(sftp::Traffic { upload, download, ..sftp::Traffic::default() });
    let dialer = sftp::ssh::Dialer::new(
        remote,
        options.ssh.clone(),
        Arc::clone(&traffic),
        Arc::clone(&options.notice),
        ctx.detached(),
    )?;
    let connections = Reconnecting::new(ctx, Box::new(dialer), options.retry())?;
    Ok(Sftp::new(ctx, connections, traffic, address)?.limited(options.limit_upload))
}

/// Returns the error for a put of an object that is there.
fn taken(name: &Name) -> Error {
    Error::new(Kind::Exists, format!("object {name} exists already"))
}

/// Returns the error for a storage that keeps no versions.
fn no_versions(name: &Name) -> Error {
    Error::failed(format!("this kind of storage keeps no versions of {name}"))
}

/// Removes objects one by one, see [`Storage::remove_all`].
fn remove_singly<S: Storage + ?Sized>(storage: &S, ctx: &Context, names: &[Name]) -> Result<Vec<(Name, Error)>> {
    let mut refused = Vec::new();
    for name in names {
        match storage.remove(ctx, name) {
            Ok(()) => {}
            Err(e) if e.kind() == Kind::Failed => refused.push((*name, e)),
            Err(e) => return Err(e),
        }
    }
    Ok(refused)
}

/// Returns whether `name` within `folder` is one of the folders that `init` makes.
fn is_own_folder(folder: Folder, name: &str) -> bool {
    let path = if folder == Folder::Root { name.into() } else { format!("{}/{name}", folder.path()) };
    Folder::all().any(|own| own.path() == path)
}

/// One object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name; entries that are not ours never get here.
    pub name: Name,
    /// Its size in bytes, as the server claims.
    pub size: u64,
    /// Its modification time in seconds since the epoch, as the server claims.
    pub mtime: i64,
}

/// An object that was deleted or overwritten and of which the server keeps earlier versions, as the server claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub name: Name,
    /// Whether it was deleted. Otherwise its last version is the visible one, and differs from the first one.
    pub is_hidden: bool,
    /// Its versions, the oldest first; the oldest and the newest ones if there are many.
    pub versions: Vec<Version>,
    /// The ids of the marks that hide it.
    pub markers: Vec<String>,
}

impl Kept {
    /// Returns whether its versions differ.
    pub fn is_overwritten(&self) -> bool {
        matches!((self.versions.first(), self.versions.last()), (Some(oldest), Some(newest)) if !oldest.is_same(newest))
    }
}

/// A version of an object, as the server claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its id.
    pub id: String,
    /// Its size in bytes.
    pub size: u64,
    /// A text that is the same for the same bytes.
    pub tag: Option<String>,
}

impl Version {
    /// Returns whether both have the same bytes, by their tags.
    pub fn is_same(&self, other: &Version) -> bool {
        self.id == other.id || self.size == other.size && self.tag.is_some() && self.tag == other.tag
    }
}

/// The size of the file system that holds a repository, as the server claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that this account may still write, quotas aside.
    pub free: u64,
}

/// Extensions of the SFTP protocol that a server announces (`PROTOCOL` of OpenSSH).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// `fsync@openssh.com`
    pub fsync: bool,
    /// `statvfs@openssh.com`
    pub statvfs: bool,
    /// `limits@openssh.com`
    pub limits: bool,
    /// `posix-rename@openssh.com`
    pub posix_rename: bool,
    /// `hardlink@openssh.com`
    pub hardlink: bool,
}

/// A change that the contract never makes, see [`Storage::attack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Make it writable, write into it and cut it off.
    Overwrite,
    /// Move it to another name.
    Rename(Name),
    /// Add a second name.
    Link(Name),
}

/// Abilities of a backend beyond the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// An object is on the disk when [`Storage::put`] returns: a local folder, `fsync@openssh.com`, a durable object store.
    pub durable_put: bool,
    /// [`Storage::put`] fails with [`Kind::Exists`](crate::error::Kind::Exists) if the name is taken, even by another client
    /// at the same moment. SFTP cannot promise it: a server may ignore the flag (rclone does), and nothing shows that. Without
    /// it a put may replace an object. Names hold random ids, so only `config` can be hit: by two clients that make a
    /// repository at the same place.
    pub exclusive_create: bool,
}

/// A place for sealed objects. See the module for the contract.
pub trait Storage: Send + Sync {
    /// Makes the root folder and every folder of [`Folder::all`] with mode 0700; those that exist are left as they are.
    fn create_folders(&self, ctx: &Context) -> Result<()>;

    /// Returns the objects in a folder, in no order. Names that are not ours are left out; at most 10 million are read.
    fn list(&self, ctx: &Context, folder: Folder) -> Result<Vec<Entry>>;

    /// Hints that this folder is listed soon. The next [`Storage::list`] of it, within seconds, may show the folder as it was from now
    /// on; who needs a newer listing makes a second one.
    fn expect(&self, _: &Context, _: Folder) {}

    /// Returns how many names a folder holds that are no object and no folder of ours (`init` refuses such a root).
    fn foreign(&self, ctx: &Context, folder: Folder) -> Result<usize>;

    /// Returns the size of an object in bytes, or [`crate::error::Kind::Missing`].
    fn size(&self, ctx: &Context, name: &Name) -> Result<u64>;

    /// Returns exactly `len` bytes from `offset` on.
    fn read(&self, ctx: &Context, name: &Name, offset: u64, len: usize) -> Result<Vec<u8>>;

    /// Writes a new object.
    fn put(&self, ctx: &Context, name: &Name, bytes: &[u8]) -> Result<()>;

    /// Removes an object; one that is not there is removed already.
    fn remove(&self, ctx: &Context, name: &Name) -> Result<()>;

    /// Returns the most objects for which one [`Storage::remove_all`] is worth its while. Several may run at once.
    fn removed_at_once(&self) -> usize {
        REMOVED_AT_ONCE
    }

    /// Removes objects, by fewer requests where the backend can. Returns the objects that the server refuses to remove, each
    /// with its error. Fails where nothing more can be removed: a lost connection, the user's stop.
    fn remove_all(&self, ctx: &Context, names: &[Name]) -> Result<Vec<(Name, Error)>> {
        remove_singly(self, ctx, names)
    }

    /// Returns the objects of a folder that were deleted or overwritten and of which the server keeps versions. None where it
    /// keeps no versions, or does not show them.
    fn kept(&self, _: &Context, _: Folder) -> Result<Vec<Kept>> {
        Ok(Vec::new())
    }

    /// Returns whether the listings of [`Storage::kept`] so far showed that the server keeps versions.
    fn keeps_versions(&self) -> bool {
        false
    }

    /// Reads a version of an object.
    fn version(&self, _: &Context, name: &Name, _: &Version) -> Result<Vec<u8>> {
        Err(no_versions(name))
    }

    /// Removes the marks that hide a deleted object. Returns whether its newest version is visible then.
    fn unhide(&self, _: &Context, kept: &Kept) -> Result<bool> {
        Err(no_versions(&kept.name))
    }

    /// Puts these bytes in place of an object that was deleted or overwritten.
    fn put_back(&self, _: &Context, kept: &Kept, _: &[u8]) -> Result<()> {
        Err(no_versions(&kept.name))
    }

    /// Returns the space on the file system of the root folder; `None` if the backend cannot tell: a server without
    /// `statvfs@openssh.com`, or one that refuses or answers nonsense. Only a lost connection and a missing root folder are
    /// errors. A claim of the server: for messages, never for decisions about data.
    fn space(&self, _: &Context) -> Result<Option<Space>> {
        Ok(None)
    }

    /// Returns the extensions of an SFTP server; `None` where no SFTP is spoken.
    fn extensions(&self, _: &Context) -> Result<Option<Extensions>> {
        Ok(None)
    }

    /// Tries to change an object as a thief of this access could, in all ways that SFTP has. Only `doctor` does so, and only
    /// to objects of its own making. A refusal is no error: the caller looks at the object. The default refuses.
    fn attack(&self, _: &Context, _: &Name, _: Attack) -> Result<()> {
        Ok(())
    }

    /// Returns the abilities of this backend beyond the contract.
    fn capabilities(&self) -> Capabilities;

    /// Returns the folder of a storage on this machine.
    fn local_path(&self) -> Option<&Path> {
        None
    }

    /// Bytes sent and received so far: over SFTP what went through its streams (packets with their headers, without
    /// what SSH and TCP add), else bytes of objects.
    fn traffic(&self) -> (u64, u64);

    /// Returns how many connections were made so far; more than one if some were lost.
    fn connections(&self) -> u64 {
        0
    }

    /// Returns the address, for people; never a secret.
    fn address(&self) -> String;
}
