//! The master key and the keys derived from it.
//!
//! ```text
//! PRK       = HKDF-Extract-SHA256(salt = "nfreezer/v1" || repo_id, ikm = DEK)
//! K_purpose = HKDF-Expand(PRK, "nfreezer/v1/key/" || purpose, n)
//! ```

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::chunker::ChunkerKey;
use super::secret::Secret;

/// The public id of a repository: 32 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepoId(pub [u8; 32]);

/// The data encryption key: 32 random bytes made by `init`, wrapped in every key file, never changed.
pub type MasterKey = Secret<32>;

/// The second factor: 32 random bytes that never leave the user's machines. No passphrase alone opens a key file that
/// requires them.
pub type LocalKey = Secret<32>;

/// The type of a chunk. It is part of the chunk's id, so a file whose bytes look like a directory never passes as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// Bytes of a file, in a data pack.
    Data = 1,
    /// A page of a directory, in a metadata pack.
    Page = 2,
    /// A page of a reference list, in a metadata pack.
    List = 3,
    /// The extended attributes of one node, in a metadata pack.
    Xattrs = 4,
}

impl ChunkKind {
    /// Converts the number in a pack's table.
    pub fn from_number(number: u8) -> Option<Self> {
        [ChunkKind::Data, ChunkKind::Page, ChunkKind::List, ChunkKind::Xattrs].into_iter().find(|k| *k as u8 == number)
    }
}

/// The id of a chunk, 16 bytes derived from its contents, see [`Keys::chunk_id`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ChunkId(pub [u8; 16]);

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({})", crate::name::hex(&self.0))
    }
}

/// All sub-keys of one repository.
pub struct Keys {
    pub(super) object: Secret<32>,
    pub(super) object_id: Secret<32>,
    chunk_id: Secret<32>,
    name_hash: Secret<32>,
    chunker: ChunkerKey,
    fingerprint: [u8; 16],
}

impl Keys {
    /// Derives every sub-key, see the module. Costs about 10 µs.
    pub fn derive(master: &MasterKey, repo_id: &RepoId) -> Self {
        let salt = [b"nfreezer/v1".as_slice(), &repo_id.0].concat();
        let prk = Hkdf::<Sha256>::new(Some(&salt), master.expose());
        let table: Zeroizing<[u8; 4096]> = Zeroizing::new(expand(&prk, "chunker-table"));
        let prf: Zeroizing<[u8; 32]> = Zeroizing::new(expand(&prk, "chunker-prf"));
        Keys {
            object: Secret::new(expand(&prk, "object")),
            object_id: Secret::new(expand(&prk, "object-id")),
            chunk_id: Secret::new(expand(&prk, "chunk-id")),
            name_hash: Secret::new(expand(&prk, "name-hash")),
            chunker: ChunkerKey::new(&table, &prf),
            fingerprint: expand(&prk, "fingerprint"),
        }
    }

    /// `chunk_id = HMAC-SHA256(K_chunk-id, kind || plaintext)[0..16]`
    pub fn chunk_id(&self, kind: ChunkKind, plaintext: &[u8]) -> ChunkId {
        ChunkId(hmac(&self.chunk_id, &[&[kind as u8], plaintext])[..16].try_into().expect("32 bytes"))
    }

    /// `HMAC-SHA256(K_name-hash, domain || bytes)[0..8]` as a big-endian number: where directories are cut into pages
    /// (domain 1, the name), which paths belong together (domain 2), inode numbers of the mount (domain 3).
    pub fn name_hash(&self, domain: u8, bytes: &[u8]) -> u64 {
        u64::from_be_bytes(hmac(&self.name_hash, &[&[domain], bytes])[..8].try_into().expect("32 bytes"))
    }

    /// Returns a value by which a client recognises the master key. It reveals nothing about the key.
    pub fn fingerprint(&self) -> [u8; 16] {
        self.fingerprint
    }

    /// Derives the key of the content-defined chunker.
    pub fn chunker(&self) -> &ChunkerKey {
        &self.chunker
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

fn expand<const N: usize>(prk: &Hkdf<Sha256>, purpose: &str) -> [u8; N] {
    let mut out = [0; N];
    let label = ["nfreezer/v1/key/", purpose].concat();
    prk.expand(label.as_bytes(), &mut out).expect("at most 255 x 32 bytes are asked for");
    out
}

pub(crate) fn hmac(key: &Secret<32>, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_chunk_is_part_of_its_id() {
        let keys = Keys::derive(&Secret::new([1; 32]), &RepoId([2; 32]));
        let kinds = [ChunkKind::Data, ChunkKind::Page, ChunkKind::List, ChunkKind::Xattrs];
        let ids: std::collections::HashSet<_> = kinds.iter().map(|k| keys.chunk_id(*k, b"same")).collect();
        assert_eq!(ids.len(), kinds.len());
        kinds.iter().for_each(|k| assert_eq!(ChunkKind::from_number(*k as u8), Some(*k)));
        assert_eq!(ChunkKind::from_number(0), None);
    }

    #[test]
    fn another_repository_or_master_key_gives_other_keys() {
        let id = |master, repo| {
            Keys::derive(&Secret::new([master; 32]), &RepoId([repo; 32])).chunk_id(ChunkKind::Data, b"x")
        };
        assert_ne!(id(1, 1), id(1, 2));
        assert_ne!(id(1, 1), id(2, 1));
        assert_eq!(id(1, 1), id(1, 1));
    }
}
