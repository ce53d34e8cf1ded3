//! Sealed objects: the envelope of every file on the server except `config` and key files.
//!
//! ```text
//! object_id  = HMAC-SHA256(K_object-id, type || 32 random bytes || SHA-256(plaintext))
//!           or HMAC-SHA256(K_object-id, type || 32 random bytes || SHA-256(the rest of a pack) || be64(L))
//! key(32) || base_nonce(12) || commitment(32)
//!            = HKDF-Expand(K_object, "nfreezer/v1/object" || 0 || type || object_id || be64(L), 76)
//! file       = "NFRZOBJ1" || object_id || commitment || block_0 || block_1 || ...
//! block_i    = AES-256-GCM(key, base_nonce XOR (000000 || final_i || be64(i)), 64 KiB of plaintext), no AAD
//! ```
//!
//! `key` and `base_nonce` belong to one object id, type and plaintext length `L`; an id is never reused, so no
//! (key, nonce) pair repeats. The id depends on the plaintext, so even a random generator that repeats itself (a cloned
//! virtual machine) yields equal ids for equal plaintexts only. The commitment binds id, type and length, so a cut, an
//! extension, an object under another name or of another type fails before a single block is decrypted.
//!
//! # Why a pack need not be hashed twice
//!
//! The writer of a new pack has just computed the keyed id of each chunk from its plaintext. So the *rest* of the pack
//! ([`crate::format::pack::rest`]: compressed chunks, then the table) replaces the plaintext in the id
//! ([`Hedge::Rest`]). The rest and L determine every byte:
//!
//! - The last four bytes are the number of rows, so they separate the table from the compressed chunks. The rows have the
//!   place and both lengths of each chunk, so they separate the compressed chunks from each other.
//! - A raw chunk (stored length = length) is its plaintext. Its row has its kind and its id, an HMAC of 128 bits of kind
//!   and plaintext. Two plaintexts have one id with probability 2^-128, and without the key such plaintexts cannot be
//!   searched for. Deduplication relies on the same ids: with two plaintexts under one id it would lose data.
//! - A compressed chunk is not determined by its row: another version or level of zstd may make other bytes of the same
//!   length from the same chunk. So its bytes are in the rest.
//! - All other bytes are zeros, because a writer leaves no gaps and pads with zeros, and L is in the id.
//!
//! `be64(L)` also keeps the two kinds of messages apart: they have 65 and 73 bytes. A pack whose bytes were not just hashed
//! for the ids in its table (a copy by `prune`) is hashed as a whole, and so are metadata packs and records, which are
//! small. Readers do not know the random bytes, so they cannot check an id, and the format is the same.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::keys::{Keys, hmac};
use crate::error::{Error, Result};
use crate::name::ObjectId;

/// Plaintext bytes in every block but the last.
pub const BLOCK: usize = 64 << 10;
/// Bytes of a GCM tag.
pub const TAG: usize = 16;
/// Magic, object id, commitment.
pub const HEADER: usize = 72;
const MAGIC: &[u8; 8] = b"NFRZOBJ1";

/// The type of an object. It is part of the key and the id, so an object never passes as one of another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ObjectType {
    /// A record of the log.
    Record = 1,
    /// A pack of file contents.
    Data = 2,
    /// A pack of directory pages, reference lists and extended attributes.
    Meta = 3,
}

/// The part of the plaintext that enters the object id, which keeps ids apart if the random bytes repeat.
#[derive(Clone, Copy)]
pub enum Hedge {
    /// SHA-256 of the whole plaintext.
    Plaintext,
    /// SHA-256 of the rest of a pack whose writer has computed the ids in its table from the same bytes, see the module.
    Rest([u8; 32]),
}

/// Returns the number of blocks of an object of `plain` bytes: at least one.
pub fn blocks(plain: u64) -> u64 {
    plain.div_ceil(BLOCK as u64).max(1)
}

/// Returns the file size of an object of `plain` bytes: `72 + L + 16 n`.
pub fn sealed_len(plain: u64) -> u64 {
    HEADER as u64 + plain + TAG as u64 * blocks(plain)
}

/// Inverts [`sealed_len`]; `None` for a size that no object has.
pub fn plain_len(sealed: u64) -> Option<u64> {
    let body = sealed.checked_sub(HEADER as u64)?;
    let plain = body.checked_sub(TAG as u64 * body.div_ceil((BLOCK + TAG) as u64).max(1))?;
    (sealed_len(plain) == sealed).then_some(plain)
}

/// Seals `plaintext` under a fresh id. Returns the id and the whole file. `random` must be fresh for each call.
pub fn seal(keys: &Keys, kind: ObjectType, random: &[u8; 32], plaintext: &[u8]) -> (ObjectId, Vec<u8>) {
    let mut file = Vec::with_capacity(sealed_len(plaintext.len() as u64) as usize);
    file.extend_from_slice(plaintext);
    (seal_in_place(keys, kind, random, Hedge::Plaintext, &mut file), file)
}

/// Replaces the plaintext in `file` by the sealed file, in place, without a second copy.
pub fn seal_in_place(keys: &Keys, kind: ObjectType, random: &[u8; 32], hedge: Hedge, file: &mut Vec<u8>) -> ObjectId {
    let length = file.len() as u64;
    let id = ObjectId(match hedge {
        Hedge::Plaintext => hmac(&keys.object_id, &[&[kind as u8], random, &Sha256::digest(&file)]),
        Hedge::Rest(rest) => hmac(&keys.object_id, &[&[kind as u8], random, &rest, &length.to_be_bytes()]),
    });
    let (cipher, commitment) = Cipher::new(keys, kind, &id, length);
    file.resize(sealed_len(length) as usize, 0);
    // From the last block to the first: each moves towards the end, into space that earlier moves have freed.
    for i in (0..blocks(length)).rev() {
        let plain = i as usize * BLOCK..(length as usize).min((i as usize + 1) * BLOCK);
        let (start, len) = block_place(length, i, i + 1);
        let start = start as usize;
        file.copy_within(plain, start);
        let (block, tag) = file[start..start + len].split_at_mut(len - TAG);
        let sealed = cipher.aead.encrypt_inout_detached(&Nonce::from(cipher.nonce(i)), b"", block.into());
        tag.copy_from_slice(&sealed.expect("64 KiB are far below the limit of GCM"));
    }
    let header = [MAGIC.as_slice(), &id.0, &commitment].concat();
    file[..HEADER].copy_from_slice(&header);
    id
}

struct Cipher {
    aead: Aes256Gcm,
    base_nonce: [u8; 12],
    blocks: u64,
}

impl Cipher {
    fn new(keys: &Keys, kind: ObjectType, id: &ObjectId, length: u64) -> (Self, [u8; 32]) {
        let info = [b"nfreezer/v1/object\0".as_slice(), &[kind as u8], &id.0, &length.to_be_bytes()].concat();
        let mut okm = Zeroizing::new([0; 76]);
        let prk = Hkdf::<Sha256>::from_prk(keys.object.expose()).expect("32 bytes are a key");
        prk.expand(&info, okm.as_mut()).expect("76 bytes are below the limit");
        let aead = Aes256Gcm::new_from_slice(&okm[..32]).expect("32 bytes are a key");
        let base_nonce = okm[32..44].try_into().expect("12 bytes");
        (Cipher { aead, base_nonce, blocks: blocks(length) }, okm[44..].try_into().expect("32 bytes"))
    }

    /// `base_nonce XOR (00 00 00 || final || be64(i))`
    fn nonce(&self, i: u64) -> [u8; 12] {
        let mut nonce = self.base_nonce;
        nonce[3] ^= u8::from(i + 1 == self.blocks);
        nonce[4..].iter_mut().zip(i.to_be_bytes()).for_each(|(n, b)| *n ^= b);
        nonce
    }
}

/// An object with a verified header, which is required to decrypt blocks. Small: worth keeping.
pub struct Opener {
    id: ObjectId,
    cipher: Cipher,
    length: u64,
}

impl Opener {
    /// Verifies the first [`HEADER`] bytes of the object `id` of type `kind`, with `length` bytes of plaintext (from
    /// the file's size by [`plain_len`], or from a reference).
    pub fn new(keys: &Keys, kind: ObjectType, id: ObjectId, length: u64, header: &[u8]) -> Result<Self> {
        let damaged = |what: &str| Err(Error::damaged(format!("object {id} is damaged: {what}")));
        let Some(header) = header.first_chunk::<HEADER>() else {
            return damaged("it ends within its header");
        };
        if header[..7] == MAGIC[..7] && header[7] != MAGIC[7] {
            return damaged("it is of a newer format; a newer nfreezer may read it");
        }
        if &header[..8] != MAGIC || header[8..40] != id.0 {
            return damaged("its header is not the one of this object");
        }
        let (cipher, commitment) = Cipher::new(keys, kind, &id, length);
        if !bool::from(commitment.ct_eq(&header[40..])) {
            return damaged("its commitment is wrong (cut off, altered, or of another type or repository)");
        }
        Ok(Opener { id, cipher, length })
    }

    /// Returns the offset and length of blocks `from..to` in the file.
    pub fn place(&self, from: u64, to: u64) -> (u64, usize) {
        block_place(self.length, from, to)
    }

    /// Decrypts block `i` in place and returns its plaintext. `sealed` must be exactly the sealed bytes of the block.
    pub fn open<'a>(&self, i: u64, sealed: &'a mut [u8]) -> Result<&'a [u8]> {
        let damaged = || Error::damaged(format!("object {} is damaged in block {i}", self.id));
        if i >= self.cipher.blocks || sealed.len() != self.place(i, i + 1).1 {
            return Err(damaged());
        }
        let (plain, tag) = sealed.split_at_mut(sealed.len() - TAG);
        let (nonce, tag) = (Nonce::from(self.cipher.nonce(i)), Tag::try_from(&*tag).expect("16 bytes"));
        let opened = self.cipher.aead.decrypt_inout_detached(&nonce, b"", (&mut *plain).into(), &tag);
        opened.map_err(|_| damaged()).map(|()| &*plain)
    }
}

/// Returns the offset and length of blocks `from..to` in the file of an object of `plain` bytes.
/// `from < to <= blocks`.
pub fn block_place(plain: u64, from: u64, to: u64) -> (u64, usize) {
    let start = HEADER as u64 + from * (BLOCK + TAG) as u64;
    let end = (HEADER as u64 + to * (BLOCK + TAG) as u64).min(sealed_len(plain));
    (start, end.saturating_sub(start) as usize)
}

/// Verifies and decrypts a whole file. Fails unless every block is valid.
pub fn open(keys: &Keys, kind: ObjectType, id: ObjectId, mut file: Vec<u8>) -> Result<Vec<u8>> {
    let damaged = || Error::damaged(format!("object {id} is damaged: no object has its size"));
    let length = plain_len(file.len() as u64).ok_or_else(damaged)?;
    let opener = Opener::new(keys, kind, id, length, &file)?;
    let mut plain = Vec::with_capacity(length as usize);
    for i in 0..blocks(length) {
        let (start, len) = opener.place(i, i + 1);
        plain.extend_from_slice(opener.open(i, &mut file[start as usize..start as usize + len])?);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::RepoId;
    use crate::crypto::secret::Secret;

    fn keys() -> Keys {
        Keys::derive(&Secret::new([1; 32]), &RepoId([2; 32]))
    }

    fn sealed(len: usize) -> (ObjectId, Vec<u8>, Vec<u8>) {
        let plain: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        let (id, file) = seal(&keys(), ObjectType::Data, &[3; 32], &plain);
        (id, file, plain)
    }

    #[test]
    fn sizes_can_be_inverted_and_nothing_else_is_a_size() {
        for plain in [0, 1, 65535, 65536, 65537, 131072, 131073, 16 << 20] {
            assert_eq!(plain_len(sealed_len(plain)), Some(plain));
        }
        let lengths: std::collections::HashSet<u64> = (0..200_000).map(sealed_len).collect();
        for size in 0..200_000 {
            assert_eq!(plain_len(size).is_some(), lengths.contains(&size), "{size}");
        }
    }

    #[test]
    fn what_is_sealed_opens() {
        for len in [0, 1, 65535, 65536, 65537, 200_000] {
            let (id, file, plain) = sealed(len);
            assert_eq!(file.len() as u64, sealed_len(len as u64));
            assert_eq!(open(&keys(), ObjectType::Data, id, file).unwrap(), plain);
        }
    }

    #[test]
    fn t01_every_flipped_bit_of_a_small_object_is_refused() {
        let (id, file, _) = sealed(100);
        for i in 0..file.len() * 8 {
            let mut bad = file.clone();
            bad[i / 8] ^= 1 << (i % 8);
            assert!(open(&keys(), ObjectType::Data, id, bad).is_err(), "bit {i}");
        }
    }

    #[test]
    fn t02_t03_t07_every_cut_and_extension_is_refused() {
        let (id, file, _) = sealed(200_000);
        let cuts = (0..200).chain(
            (1..4).flat_map(|b| [-1, 0, 1].map(|d| (HEADER + b * (BLOCK + TAG)) as i64 + d)).map(|n| n as usize),
        );
        for len in cuts {
            assert!(open(&keys(), ObjectType::Data, id, file[..len].to_vec()).is_err(), "cut to {len}");
        }
        for extra in [1, 15, 16, 17, BLOCK + TAG] {
            let mut long = file.clone();
            long.extend(vec![0; extra]);
            assert!(open(&keys(), ObjectType::Data, id, long).is_err(), "{extra} more");
        }
        let mut doubled = file.clone();
        doubled.extend_from_slice(&file[HEADER..HEADER + BLOCK + TAG]);
        assert!(open(&keys(), ObjectType::Data, id, doubled).is_err(), "a valid block of the same object appended");
    }

    #[test]
    fn t04_t05_t06_blocks_stay_where_they_are() {
        let (id, file, _) = sealed(3 * BLOCK);
        let (_, other) = seal(&keys(), ObjectType::Data, &[4; 32], &vec![9; 3 * BLOCK]);
        let block = |f: &[u8], i: usize| f[HEADER + i * (BLOCK + TAG)..HEADER + (i + 1) * (BLOCK + TAG)].to_vec();
        for (to, from, source) in [(0, 1, &file), (1, 0, &file), (2, 1, &file), (1, 2, &file), (1, 1, &other)] {
            let mut bad = file.clone();
            bad[HEADER + to * (BLOCK + TAG)..HEADER + (to + 1) * (BLOCK + TAG)].copy_from_slice(&block(source, from));
            assert!(open(&keys(), ObjectType::Data, id, bad).is_err(), "block {from} at {to}");
        }
    }

    #[test]
    fn t09_t12_t13_an_object_under_another_name_type_or_repository_is_refused() {
        let (id, file, _) = sealed(10);
        let (other_id, other) = seal(&keys(), ObjectType::Data, &[4; 32], &[1; 10]);
        assert!(open(&keys(), ObjectType::Data, id, other.clone()).is_err());
        assert!(open(&keys(), ObjectType::Data, other_id, file.clone()).is_err());
        assert!(open(&keys(), ObjectType::Meta, id, file.clone()).is_err());
        assert!(open(&keys(), ObjectType::Record, id, file.clone()).is_err());
        let foreign = Keys::derive(&Secret::new([1; 32]), &RepoId([3; 32]));
        assert!(open(&foreign, ObjectType::Data, id, file.clone()).is_err());
        let mut newer = file;
        newer[7] = b'2';
        assert!(open(&keys(), ObjectType::Data, id, newer).unwrap_err().to_string().contains("newer format"));
    }

    #[test]
    fn one_block_opens_alone_and_damage_elsewhere_does_not_matter() {
        let (id, mut file, plain) = sealed(3 * BLOCK + 5);
        file[HEADER + 2 * (BLOCK + TAG) + 17] ^= 1;
        let opener = Opener::new(&keys(), ObjectType::Data, id, plain.len() as u64, &file[..HEADER]).unwrap();
        for i in 0..4 {
            let (start, len) = opener.place(i, i + 1);
            let mut block = file[start as usize..start as usize + len].to_vec();
            let opened = opener.open(i, &mut block);
            match i {
                2 => assert!(opened.unwrap_err().to_string().contains(&id.to_string())),
                _ => assert_eq!(opened.unwrap(), &plain[i as usize * BLOCK..plain.len().min((i as usize + 1) * BLOCK)]),
            }
        }
    }

    #[test]
    fn t73_a_random_generator_that_repeats_itself_gives_other_ids_for_other_contents() {
        let (a, file_a) = seal(&keys(), ObjectType::Data, &[0; 32], b"one");
        let (b, file_b) = seal(&keys(), ObjectType::Data, &[0; 32], b"two");
        let (c, file_c) = seal(&keys(), ObjectType::Data, &[0; 32], b"one");
        assert_ne!(a, b);
        assert_ne!(file_a[40..], file_b[40..]);
        assert_eq!((a, file_a), (c, file_c));
    }

    /// Every (key, nonce) that sealing uses, as [`seal`] derives them.
    fn pairs(random: &[u8; 32], kind: ObjectType, plain: &[u8]) -> (ObjectId, Vec<[u8; 44]>) {
        let (id, file) = seal(&keys(), kind, random, plain);
        let length = plain.len() as u64;
        let (cipher, commitment) = Cipher::new(&keys(), kind, &id, length);
        assert_eq!(commitment, file[40..72], "these are the pairs of this object");
        let info = [b"nfreezer/v1/object\0".as_slice(), &[kind as u8], &id.0, &length.to_be_bytes()].concat();
        let mut key = [0; 32];
        Hkdf::<Sha256>::from_prk(keys().object.expose()).unwrap().expand(&info, &mut key).unwrap();
        let pair = |i| [key.as_slice(), &cipher.nonce(i)].concat().try_into().unwrap();
        (id, (0..blocks(length)).map(pair).collect())
    }

    #[test]
    fn t72_no_key_and_nonce_are_used_for_two_plaintexts_whatever_the_random_generator_does() {
        let mut seen = std::collections::HashMap::new();
        let kinds = [ObjectType::Record, ObjectType::Data, ObjectType::Meta];
        for i in 0..20_000_u32 {
            // A generator that repeats itself after four objects; contents of all lengths, some equal.
            let random = [(i % 4) as u8; 32];
            let mut plain = vec![(i % 7) as u8; (i % 1013) as usize];
            if i % 500 == 0 {
                plain.resize(3 * BLOCK + i as usize, 1);
            }
            let kind = kinds[i as usize % 3];
            let (id, pairs) = pairs(&random, kind, &plain);
            for (block, pair) in pairs.into_iter().enumerate() {
                let new = (kind, id, plain.clone(), block);
                let old = seen.entry(pair).or_insert_with(|| new.clone());
                assert_eq!(*old, new, "one key and nonce for two plaintexts");
            }
        }
        assert!(seen.len() > 10_000);
    }

    #[test]
    fn t72_the_nonces_of_one_object_are_all_different_and_the_last_block_has_its_own() {
        let (cipher, _) = Cipher::new(&keys(), ObjectType::Data, &ObjectId([1; 32]), 300 * BLOCK as u64);
        let nonces: std::collections::HashSet<_> = (0..300).map(|i| cipher.nonce(i)).collect();
        assert_eq!(nonces.len(), 300);
        let (longer, _) = Cipher::new(&keys(), ObjectType::Data, &ObjectId([1; 32]), 301 * BLOCK as u64);
        let relative = |c: &Cipher, i| c.nonce(i).iter().zip(c.base_nonce).map(|(a, b)| a ^ b).collect::<Vec<_>>();
        assert_eq!(relative(&cipher, 299)[3], 1);
        assert_eq!(relative(&longer, 299)[3], 0);
        assert_eq!(relative(&longer, 299)[4..], 299_u64.to_be_bytes());
    }

    #[test]
    fn t08_a_zeroed_or_foreign_commitment_is_refused_before_any_block_is_looked_at() {
        let (id, file, plain) = sealed(100);
        let (_, other) = seal(&keys(), ObjectType::Data, &[4; 32], &plain);
        // Only a header is there: nothing could be decrypted.
        let header = |commitment: &[u8]| [&file[..40], commitment].concat();
        let open = |header: &[u8], len| Opener::new(&keys(), ObjectType::Data, id, len, header).map(drop);
        open(&header(&file[40..72]), 100).unwrap();
        for bad in [header(&[0; 32]), header(&other[40..72]), other[..72].to_vec(), file[..71].to_vec(), Vec::new()] {
            assert_eq!(open(&bad, 100).unwrap_err().kind(), crate::error::Kind::Damaged);
        }
        for length in [0, 99, 101, 65636, u64::MAX] {
            assert!(open(&file[..72], length).is_err(), "as an object of {length} bytes");
        }
    }

    #[test]
    fn t76_nothing_is_released_of_an_object_with_one_bad_block() {
        let (id, file, _) = sealed(3 * BLOCK + 5);
        for at in [HEADER, HEADER + BLOCK + TAG - 1, file.len() - 1] {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert!(open(&keys(), ObjectType::Data, id, bad).is_err());
        }
        let opener = Opener::new(&keys(), ObjectType::Data, id, 3 * BLOCK as u64 + 5, &file).unwrap();
        let mut block = file[HEADER..HEADER + BLOCK + TAG].to_vec();
        block[0] ^= 1;
        let before = block.clone();
        assert!(opener.open(0, &mut block).is_err());
        assert_eq!(block, before, "a block with a wrong tag is not even decrypted");
        assert!(opener.open(4, &mut block).is_err() && opener.open(u64::MAX, &mut block).is_err());
        assert!(opener.open(3, &mut block).is_err(), "the last block is shorter");
        assert!(opener.open(1, &mut []).is_err());
    }
}
