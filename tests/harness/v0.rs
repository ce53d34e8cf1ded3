//! Writes the format of the Python nFreezer 0.0.1 byte by byte, valid or invalid.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::U16;
use aes_gcm::{AesGcm, KeyInit};
use hmac::{Hmac, Mac};
use nfreezer::name::Name;
use nfreezer::storage::Memory;
use sha2::{Digest, Sha256};

type Aes128Gcm16 = AesGcm<aes::Aes128, U16>;

/// One run of the old program: a salt and its key.
pub struct Run {
    salt: [u8; 16],
    key: [u8; 16],
    nonces: u128,
}

impl Run {
    pub fn new(passphrase: &[u8], salt: u8) -> Self {
        let salt = [salt; 16];
        let hmac = <Hmac<sha1::Sha1> as KeyInit>::new_from_slice(passphrase).unwrap();
        let mac = |parts: &[&[u8]]| -> [u8; 20] {
            parts.iter().fold(hmac.clone(), |hmac, part| hmac.chain_update(part)).finalize().into_bytes().into()
        };
        let mut round = mac(&[&salt, &[0, 0, 0, 1]]);
        let mut sum = round;
        for _ in 1..100_000 {
            round = mac(&[&round]);
            sum.iter_mut().zip(round).for_each(|(sum, byte)| *sum ^= byte);
        }
        Run { salt, key: sum[..16].try_into().unwrap(), nonces: u128::from(salt[0]) << 64 }
    }

    /// Returns `salt || nonce || tag || ciphertext`.
    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.nonces += 1;
        let nonce = (self.nonces ^ 0x0123_4567_89ab_cdef_0011_2233_4455_6677).to_be_bytes();
        let mut sealed = plain.to_vec();
        let cipher = Aes128Gcm16::new((&self.key).into());
        let tag = cipher.encrypt_inout_detached((&nonce).into(), b"", sealed.as_mut_slice().into()).unwrap();
        [&self.salt, &nonce, tag.as_slice(), &sealed].concat()
    }

    /// Returns a block of `.files` with any zlib stream.
    pub fn raw_block(&mut self, zlib: &[u8]) -> Vec<u8> {
        let sealed = self.seal(zlib);
        let len = u32::try_from(sealed.len()).unwrap().to_be_bytes();
        [len.into_iter().rev().collect(), sealed].concat()
    }

    /// Returns a block of `.files` with one entry.
    pub fn block(&mut self, contents: [u8; 16], mtime: u64, hash: [u8; 32], name: &[u8]) -> Vec<u8> {
        let little = |value: u64| value.to_be_bytes().into_iter().rev().collect::<Vec<u8>>();
        let entry = [&contents[..], &little(mtime), &little(7), &hash, name].concat();
        self.raw_block(&miniz_oxide::deflate::compress_to_vec_zlib(&entry, 6))
    }
}

/// An old repository under construction.
pub struct V0 {
    pub storage: Memory,
    pub index: Vec<u8>,
    pub run: Run,
    objects: u8,
}

impl V0 {
    pub fn new() -> Self {
        V0 { storage: Memory::default(), index: Vec::new(), run: Run::new(b"old", 1), objects: 0 }
    }

    /// Adds a file. Returns the id of its contents.
    pub fn file(&mut self, name: &[u8], mtime: u64, contents: &[u8]) -> [u8; 16] {
        self.objects += 1;
        let id = [self.objects; 16];
        let object = self.run.seal(contents);
        self.storage.overwrite(&Name::OldObject(id), object);
        self.entry(id, mtime, Sha256::digest(contents).into(), name);
        id
    }

    pub fn entry(&mut self, id: [u8; 16], mtime: u64, hash: [u8; 32], name: &[u8]) {
        let block = self.run.block(id, mtime, hash, name);
        self.index.extend(block);
    }

    pub fn delete(&mut self, name: &[u8]) {
        self.entry([0; 16], 0, [0; 32], name);
    }

    /// Changes the object of a file.
    pub fn change(&self, id: [u8; 16], change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.storage.get(&Name::OldObject(id)).unwrap();
        change(&mut bytes);
        self.storage.overwrite(&Name::OldObject(id), bytes);
    }

    /// Stores the index and returns the storage.
    pub fn finish(self) -> Memory {
        self.storage.overwrite(&Name::OldIndex, self.index);
        self.storage
    }
}
