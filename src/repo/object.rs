//! An object that is read, a pack or a record: the facts that are known before, and the header once it is verified.

use std::ops::Range;
use std::sync::Arc;

use crate::crypto::keys::Keys;
use crate::crypto::seal::{HEADER, ObjectType, Opener};
use crate::error::Result;
use crate::name::{Name, ObjectId};

/// A verified block in plaintext.
pub(super) type Block = Arc<[u8]>;

/// An object, as known before its first byte is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub name: Name,
    pub id: ObjectId,
    pub kind: ObjectType,
    pub len: u64,
}

/// An object with a verified header.
pub(super) struct Opened {
    pub header: [u8; HEADER],
    opener: Opener,
}

impl Opened {
    /// Verifies the header, the first bytes of the object.
    pub fn new(keys: &Keys, object: &Object, header: &[u8]) -> Result<Self> {
        let opener = Opener::new(keys, object.kind, object.id, object.len, header)?;
        Ok(Opened { header: *header.first_chunk().expect("a verified header"), opener })
    }

    /// Returns the offset and the length of sealed blocks.
    pub fn place(&self, run: &Range<u32>) -> (u64, usize) {
        self.opener.place(run.start.into(), run.end.into())
    }

    /// Decrypts a run of blocks in place and returns each block that is valid. `sealed` are exactly their bytes.
    pub fn open(&self, run: Range<u32>, sealed: &mut [u8]) -> impl Iterator<Item = Result<Block>> {
        let base = self.place(&run).0;
        run.map(move |i| {
            let (start, len) = self.place(&(i..i + 1));
            let start = (start - base) as usize;
            self.opener.open(i.into(), &mut sealed[start..start + len]).map(Arc::from)
        })
    }
}
