//! The contents of one file of an old repository, decrypted while they are read. The last piece is returned only if tag and
//! SHA-256 are valid, so a reader that reaches the end has verified contents.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use sha2::{Digest, Sha256};

use super::crypt::{Gcm, HEADER, Header, Keys};
use super::fetch::{Fetched, Pieces};
use crate::error::{Error, Result};

/// Longest wait of one read. The caller checks for cancellation in between.
const POLL: Duration = Duration::from_millis(50);

/// A reader of decrypted contents.
pub(super) struct Content {
    keys: Arc<Keys>,
    pieces: Pieces,
    /// Returns its part of the budget on drop.
    _share: Box<dyn Send>,
    opened: Option<(Gcm, [u8; 16])>,
    /// Encrypted bytes not yet received, including the header.
    left: u64,
    hash: Sha256,
    expected: [u8; 32],
    plain: Vec<u8>,
    at: usize,
    verified: bool,
}

impl Content {
    /// Creates the reader of an object of `size` bytes whose contents have this SHA-256; zeros if it is unknown.
    pub fn new(keys: Arc<Keys>, object: Fetched, size: u64, expected: [u8; 32]) -> Self {
        let (pieces, share) = object.pieces();
        let (plain, at, verified) = Default::default();
        let (hash, opened, _share) = (Sha256::new(), None, Box::new(share));
        Content { keys, pieces, _share, opened, left: size, hash, expected, plain, at, verified }
    }

    /// Receives and decrypts the next piece. `WouldBlock` if it has not arrived yet.
    fn next(&mut self) -> io::Result<()> {
        let mut piece = match self.pieces.recv_timeout(POLL) {
            Ok(piece) => piece.map_err(io::Error::other)?,
            Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(RecvTimeoutError::Disconnected) => return Err(to_io(Error::failed("its contents were not fetched"))),
        };
        self.left = self.left.saturating_sub(piece.len() as u64);
        let (mut gcm, tag) = match self.opened.take() {
            Some(opened) => opened,
            None => {
                let short = || to_io(Error::damaged("its contents are too short to have a tag"));
                let (header, _) = Header::split(&piece).ok_or_else(short)?;
                piece.drain(..HEADER);
                (self.keys.open(&header), header.tag)
            }
        };
        gcm.decrypt(&mut piece).map_err(to_io)?;
        self.hash.update(&piece);
        if self.left == 0 {
            self.verify(gcm, &tag).map_err(to_io)?;
        } else {
            self.opened = Some((gcm, tag));
        }
        (self.plain, self.at) = (piece, 0);
        Ok(())
    }

    fn verify(&mut self, gcm: Gcm, tag: &[u8; 16]) -> Result<()> {
        if !gcm.verify(tag) {
            return Err(Error::damaged("its contents are damaged (their tag is wrong)"));
        }
        if self.expected != [0; 32] && self.hash.finalize_reset().as_slice() != self.expected {
            return Err(Error::damaged(
                "its contents are not those that the old index names (their SHA-256 is another)",
            )
            .hint("it changed while the old program saved it, or the server has exchanged contents"));
        }
        self.verified = true;
        Ok(())
    }
}

impl Read for Content {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() && !self.verified {
            self.next()?;
        }
        let count = (self.plain.len() - self.at).min(to.len());
        to[..count].copy_from_slice(&self.plain[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn to_io(error: Error) -> io::Error {
    io::Error::other(error)
}
