//! Decryption of the Python nFreezer: AES-128-GCM with a nonce of 16 bytes and one tag for the whole file, under a key that
//! PBKDF2 derives from the passphrase. Decrypts in pieces, since a file may be larger than the memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher};
use ctr::{Ctr32BE, CtrCore};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::secret::{Passphrase, Secret};
use crate::error::{Error, Kind, Result};

/// Rounds of PBKDF2.
const ROUNDS: u32 = 100_000;
/// Bytes of the header in front of each ciphertext: salt, nonce, tag.
pub(super) const HEADER: usize = 48;
/// Most derived keys in memory. Each run of the old program has its own.
const MANY: usize = 100_000;

/// The header of a ciphertext.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub salt: [u8; 16],
    pub nonce: [u8; 16],
    pub tag: [u8; 16],
}

impl Header {
    /// Splits the header from the ciphertext behind it.
    pub fn split(bytes: &[u8]) -> Option<(Header, &[u8])> {
        let (salt, rest) = bytes.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (tag, rest) = rest.split_first_chunk()?;
        Some((Header { salt: *salt, nonce: *nonce, tag: *tag }, rest))
    }
}

type Slot = Arc<OnceLock<Secret<16>>>;

/// The keys of an old repository by salt. Each is derived once, also if several threads need it.
pub(super) struct Keys {
    passphrase: Zeroizing<Vec<u8>>,
    known: Mutex<HashMap<[u8; 16], Slot>>,
}

impl Keys {
    /// Encodes the passphrase in Latin-1, as the old program did. Fails for other letters.
    pub fn new(passphrase: &Passphrase) -> Result<Self> {
        let text = std::str::from_utf8(passphrase.expose()).unwrap_or_default();
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        for letter in text.chars() {
            bytes.push(u8::try_from(letter).map_err(|_| {
                Error::new(Kind::Passphrase, "this cannot be the passphrase of an old repository")
                    .hint("the Python nFreezer could only take letters of Latin-1 (Western European)")
            })?);
        }
        Ok(Keys { passphrase: bytes, known: Mutex::default() })
    }

    /// Returns whether the key of `salt` was used before.
    pub fn knows(&self, salt: &[u8; 16]) -> bool {
        self.known.lock().expect("no holder panics").contains_key(salt)
    }

    /// Starts decryption. Derives the key if this is the first use of the salt, which takes a while.
    pub fn open(&self, header: &Header) -> Gcm {
        let slot = {
            let mut known = self.known.lock().expect("no holder panics");
            if known.len() > MANY {
                known.clear();
            }
            Arc::clone(known.entry(header.salt).or_default())
        };
        Gcm::new(slot.get_or_init(|| pbkdf2(&self.passphrase, &header.salt, ROUNDS)), &header.nonce)
    }
}

/// Returns the first 16 bytes of PBKDF2-HMAC-SHA1 (RFC 8018, 5.2): `U1 ^ .. ^ Un`, `U1 = HMAC(salt || be32(1))`,
/// `Ui = HMAC(U(i-1))`.
fn pbkdf2(passphrase: &[u8], salt: &[u8], rounds: u32) -> Secret<16> {
    let hmac = <Hmac<Sha1> as KeyInit>::new_from_slice(passphrase).expect("a key of any length");
    let mut round: [u8; 20] = hmac.clone().chain_update(salt).chain_update([0, 0, 0, 1]).finalize().into_bytes().into();
    let mut sum = Zeroizing::new(round);
    for _ in 1..rounds {
        round = hmac.clone().chain_update(round).finalize().into_bytes().into();
        sum.iter_mut().zip(round).for_each(|(sum, byte)| *sum ^= byte);
    }
    let mut key = [0; 16];
    key.copy_from_slice(&sum[..16]);
    Secret::new(key)
}

/// AES-GCM (NIST SP 800-38D) that decrypts piece by piece. The plaintext must not be trusted before [`Gcm::verify`].
///
/// `J0 = GHASH(nonce || 0^64 || be64(128))`, since the nonce does not have 96 bits; `plaintext = ciphertext ^ CTR32(J0 + 1)`;
/// `tag = GHASH(ciphertext || 0.. || 0^64 || be64(bits)) ^ AES(J0)`
pub(super) struct Gcm {
    keystream: Ctr32BE<Aes128>,
    hash: GHash,
    mask: [u8; 16],
    /// Bytes hashed so far.
    len: u64,
    /// A piece ended within a block, so it was the last one.
    ragged: bool,
}

impl Gcm {
    fn new(key: &Secret<16>, nonce: &[u8; 16]) -> Self {
        let aes = Aes128::new(key.expose().into());
        let mut h = [0; 16];
        aes.encrypt_block((&mut h).into());
        let hash = GHash::new((&h).into());
        let mut first = hash.clone();
        first.update(&[(*nonce).into(), lengths(16)]);
        let mut counter: [u8; 16] = first.finalize().into();
        let mut mask = counter;
        aes.encrypt_block((&mut mask).into());
        let low = u32::from_be_bytes([counter[12], counter[13], counter[14], counter[15]]).wrapping_add(1);
        counter[12..].copy_from_slice(&low.to_be_bytes());
        let keystream = Ctr32BE::from_core(CtrCore::inner_iv_init(aes, (&counter).into()));
        Gcm { keystream, hash, mask, len: 0, ragged: false }
    }

    /// Decrypts in place. All pieces but the last are multiples of 16 bytes.
    pub fn decrypt(&mut self, piece: &mut [u8]) -> Result<()> {
        if self.ragged && !piece.is_empty() {
            return Err(Error::failed("a piece in the middle of a ciphertext that is no multiple of 16 bytes"));
        }
        self.ragged = !piece.len().is_multiple_of(16);
        self.hash.update_padded(piece);
        self.len += piece.len() as u64;
        let long = |_| Error::damaged("longer than the 64 GiB that its cipher allows");
        self.keystream.try_apply_keystream(piece).map_err(long)
    }

    /// Returns whether the tag of all decrypted pieces is valid.
    pub fn verify(mut self, tag: &[u8; 16]) -> bool {
        self.hash.update(&[lengths(self.len)]);
        let mut expected: [u8; 16] = self.hash.finalize().into();
        expected.iter_mut().zip(self.mask).for_each(|(byte, mask)| *byte ^= mask);
        expected.ct_eq(tag).into()
    }
}

/// Returns the last block of a GHASH without additional data: `0^64 || be64(bits)`.
fn lengths(bytes: u64) -> ghash::Block {
    let mut block = [0; 16];
    block[8..].copy_from_slice(&(bytes * 8).to_be_bytes());
    block.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn pbkdf2_gives_the_vectors_of_rfc_6070() {
        let of = |rounds| pbkdf2(b"password", b"salt", rounds).expose().to_vec();
        assert_eq!(of(1), bytes("0c60c80f961f0e71f3a9b524af601206"));
        assert_eq!(of(2), bytes("ea6c014dc72d6f8ccd1ed92ace1d41f0"));
        assert_eq!(of(4096), bytes("4b007901b765489abead49d926f721d0"));
    }

    #[test]
    fn pieces_are_decrypted_as_aes_gcm_does_the_whole() {
        use aes_gcm::aead::AeadInOut;
        use aes_gcm::aead::consts::U16;
        type Whole = aes_gcm::AesGcm<Aes128, U16>;
        let key = Secret::new([7; 16]);
        for len in [0, 1, 15, 16, 17, 4096, 100_001] {
            let plain: Vec<u8> = (0..len).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
            let nonce = [len as u8 ^ 0xa5; 16];
            let mut sealed = plain.clone();
            let tag = <Whole as KeyInit>::new(key.expose().into())
                .encrypt_inout_detached((&nonce).into(), b"", sealed.as_mut_slice().into())
                .unwrap();
            let mut gcm = Gcm::new(&key, &nonce);
            sealed.chunks_mut(4096).for_each(|piece| gcm.decrypt(piece).unwrap());
            assert_eq!(sealed, plain);
            assert!(gcm.verify(&tag.into()));
            let mut wrong: [u8; 16] = tag.into();
            wrong[15] ^= 1;
            let mut gcm = Gcm::new(&key, &nonce);
            gcm.decrypt(&mut sealed).unwrap();
            assert!(!gcm.verify(&wrong));
        }
    }

    #[test]
    fn letters_beyond_latin_1_were_not_possible() {
        let keys = |text: &str| Keys::new(&Passphrase::new(text.into()).unwrap());
        assert_eq!(keys("K\u{e4}se").unwrap().passphrase.as_slice(), b"K\xe4se");
        assert_eq!(keys("Ka\u{308}se").unwrap().passphrase.as_slice(), b"K\xe4se");
        assert_eq!(keys("\u{20ac}").err().map(|e| e.kind()), Some(Kind::Passphrase));
    }
}
