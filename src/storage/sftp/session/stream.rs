//! The state of one byte stream within the engine, and the greeting of a server.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::storage::Extensions;
use crate::storage::sftp::packet::{Cursor, Frames, Malformed};
use crate::storage::sftp::session::{Features, SMALL, Submit};

/// Small requests are sent together up to this size, below one SSH packet.
const TOGETHER: usize = 30_000;
/// READ and WRITE size for a server that does not report its limits. Every server must accept 32 KiB (draft, section 3).
/// Some bytes less, so that a WRITE and its header fit into one SSH packet of libssh2 (32,700 bytes): proftpd's mod_sftp
/// stalls on requests that are split over two packets while other channels do the same.
const PLAIN: usize = 32_000;
const _: () = assert!(PLAIN + 25 + 256 <= 32_700, "header of a WRITE, and the longest handle");
/// The largest READ and WRITE: OpenSSH's limit.
const LARGEST: usize = 255 << 10;

/// A request that was sent.
pub struct Pending {
    pub submit: Submit,
    pub since: Instant,
}

/// One byte stream.
#[derive(Default)]
pub struct Stream {
    pub out: VecDeque<Vec<u8>>,
    pub position: usize,
    pub frames: Frames,
    pub pending: HashMap<u32, Pending>,
    pub greeted: bool,
    pub closed: bool,
}

impl Stream {
    /// Puts a packet behind those that wait.
    pub fn push(&mut self, packet: Vec<u8>) {
        let alone = self.out.len() < 2 || packet.len() > TOGETHER / 2; // the first may be half sent: it must stay as it is
        match self.out.back_mut() {
            Some(last) if !alone && last.len() + packet.len() < TOGETHER => last.extend(packet),
            _ => self.out.push_back(packet),
        }
    }
}

/// Features of a server that reports none.
pub const PLAIN_FEATURES: Features = Features {
    extensions: Extensions { fsync: false, statvfs: false, limits: false, posix_rename: false, hardlink: false },
    max_read: PLAIN,
    max_write: PLAIN,
    max_handles: 64,
    openssh: false,
};

/// Returns the extensions at the end of VERSION; the second value: whether the limits can be requested.
pub fn read_extensions(from: &mut Cursor<'_>) -> Result<(Features, bool), Malformed> {
    let mut features = PLAIN_FEATURES;
    let extensions = &mut features.extensions;
    while !from.is_empty() {
        let (name, _version) = (from.string()?, from.string()?);
        extensions.fsync |= name == b"fsync@openssh.com";
        extensions.statvfs |= name == b"statvfs@openssh.com";
        extensions.limits |= name == b"limits@openssh.com";
        extensions.posix_rename |= name == b"posix-rename@openssh.com";
        extensions.hardlink |= name == b"hardlink@openssh.com";
    }
    let limits = extensions.limits;
    if limits {
        (features.openssh, features.max_handles) = (true, 128);
    }
    Ok((features, limits))
}

/// `limits@openssh.com`: longest packet, READ and WRITE, open handles; 0 is "no limit".
pub fn read_limits(bytes: &[u8], features: &mut Features) -> Result<(), Malformed> {
    let mut from = Cursor::new(bytes);
    let mut limit =
        || from.u64().map(|value| if value == 0 { usize::MAX } else { usize::try_from(value).unwrap_or(usize::MAX) });
    let (packet, read, write, handles) = (limit()?, limit()?, limit()?, limit()?);
    let usable = |value: usize| value.min(packet.saturating_sub(SMALL)).clamp(1 << 10, LARGEST);
    features.max_read = usable(read);
    features.max_write = usable(write);
    features.max_handles = handles.clamp(8, 1024);
    Ok(())
}
