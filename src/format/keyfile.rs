//! The two kinds of files that are not sealed objects: `config`, which is public, and key files, which hold the master
//! key under one passphrase.
//!
//! ```text
//! config   = "NFRZREPO" || be32(1) || repo_id (32)                                                      (44 bytes)
//!
//! key file =   0  "NFRZKEY1"
//!              8  repo_id (32)
//!             40  1 (Argon2id v0x13), flags (bit 0: a local key is needed), 0, 0
//!             44  be32(memory in KiB) be32(passes) be32(lanes)
//!             56  salt (32)
//!             88  commitment (32)
//!            120  AES-256-GCM(DEK (32) || be64(created) || label length (1) || label (63) || zeros (24)), tag (16)
//!            264  end
//! ikm      = Argon2id(passphrase, salt, memory, passes, lanes), or HMAC-SHA256(local key, that) if a local key is needed
//! key (32) || nonce (12) || commitment (32) = HKDF-Expand(ikm, "nfreezer/v1/keywrap" || 0 || file[0..88], 76)
//! AAD      = file[0..120]
//! ```
//!
//! A key file is named by its SHA-256. The commitment is compared before anything is decrypted, and covers the KDF's
//! parameters: a server that forges a key file learns nothing from the client's reaction.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::codec::{Reader, malformed};
use crate::crypto::kdf::KdfCost;
use crate::crypto::keys::{LocalKey, MasterKey, RepoId, hmac};
use crate::crypto::secret::{Passphrase, Secret};
use crate::error::{Error, Kind, Result};
use crate::name::ObjectId;

/// Size of `config`.
pub const CONFIG: usize = 44;
/// Size of every key file.
pub const KEY_FILE: usize = 264;
const PAYLOAD: usize = 128;
const CIPHERTEXT: usize = 120;
/// Longest label, in bytes.
pub const LABEL: usize = 63;

/// Encodes `config`.
pub fn encode_config(repo_id: &RepoId) -> Vec<u8> {
    [b"NFRZREPO".as_slice(), &1u32.to_be_bytes(), &repo_id.0].concat()
}

/// Reads the repository id of a `config`. Refuses other formats and versions.
pub fn decode_config(bytes: &[u8]) -> Result<RepoId> {
    let mut reader = Reader(bytes);
    let wrong = || Error::new(Kind::NoRepository, "this is not a repository: `config` is not one of nfreezer's");
    if reader.bytes(8) != Some(b"NFRZREPO") {
        return Err(wrong());
    }
    let version = reader.u32().ok_or_else(wrong)?;
    if version != 1 {
        let text = format!("the repository has format version {version}, this nfreezer knows version 1");
        return Err(Error::failed(text).hint("use a newer nfreezer"));
    }
    let id = reader.array().ok_or_else(wrong)?;
    if reader.0.is_empty() { Ok(RepoId(id)) } else { Err(wrong()) }
}

/// The fields of a key file beside the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Creation time, in seconds since the epoch.
    pub created: u64,
    /// The label that the user chose; at most [`LABEL`] bytes.
    pub label: String,
}

/// Wraps the master key under a passphrase (and a local key). Returns the file's name and bytes. `salt` must be fresh.
pub fn wrap(
    master: &MasterKey,
    repo_id: &RepoId,
    passphrase: &Passphrase,
    cost: KdfCost,
    salt: &[u8; 32],
    info: &KeyInfo,
) -> Result<(ObjectId, Vec<u8>)> {
    if info.label.len() > LABEL {
        return Err(Error::new(Kind::Usage, format!("the label of a key is at most {LABEL} bytes")));
    }
    let numbers = [cost.memory_kib, cost.passes, cost.lanes].map(u32::to_be_bytes).concat();
    let mut file =
        [b"NFRZKEY1".as_slice(), &repo_id.0, &[1, u8::from(passphrase.local_key().is_some()), 0, 0], &numbers, salt]
            .concat();
    let (aead, nonce, commitment) = wrap_key(passphrase, passphrase.local_key(), cost, salt, &file)?;
    file.extend_from_slice(&commitment);
    let mut payload = Zeroizing::new([0; PAYLOAD]);
    payload[..32].copy_from_slice(master.expose());
    payload[32..40].copy_from_slice(&info.created.to_be_bytes());
    payload[40] = info.label.len() as u8;
    payload[41..41 + info.label.len()].copy_from_slice(info.label.as_bytes());
    let tag = aead.encrypt_inout_detached(&nonce, &file, payload.as_mut_slice().into()).expect("128 bytes");
    file.extend_from_slice(payload.as_slice());
    file.extend_from_slice(&tag);
    Ok((name(&file), file))
}

/// Returns the name of a key file, the SHA-256 of its bytes.
pub fn name(file: &[u8]) -> ObjectId {
    ObjectId(Sha256::digest(file).into())
}

/// Reads the id of the repository that a key file claims to belong to.
pub fn repository(file: &[u8]) -> Result<RepoId> {
    let id = file.get(8..40).and_then(|id| id.try_into().ok());
    id.map(RepoId).ok_or_else(|| malformed("a key file", "its size"))
}

/// A key file whose unencrypted part was checked. The order of the checks is given in `docs/format.md` 4.2.
pub struct KeyFile<'a> {
    bytes: &'a [u8; KEY_FILE],
    cost: KdfCost,
}

impl<'a> KeyFile<'a> {
    /// Checks name, layout, repository and the bounds of the KDF, without running it.
    pub fn parse(id: &ObjectId, repo_id: &RepoId, bytes: &'a [u8]) -> Result<Self> {
        let wrong = |why| malformed(&format!("key file {}", id.short()), why);
        let bytes: &[u8; KEY_FILE] = bytes.try_into().map_err(|_| wrong("its size"))?;
        if name(bytes) != *id {
            return Err(wrong("its contents do not match its name"));
        }
        if &bytes[..8] != b"NFRZKEY1" || bytes[40] != 1 || bytes[41] > 1 || bytes[42..44] != [0, 0] {
            return Err(wrong("it is of another format"));
        }
        if bytes[8..40] != repo_id.0 {
            return Err(wrong("it belongs to another repository"));
        }
        let mut numbers = Reader(&bytes[44..56]);
        let [memory_kib, passes, lanes] = [(); 3].map(|()| numbers.u32().expect("12 bytes"));
        let cost = KdfCost { memory_kib, passes, lanes };
        cost.check()?;
        Ok(KeyFile { bytes, cost })
    }

    /// Returns the cost of opening the file. Files are tried in ascending order of cost.
    pub fn cost(&self) -> KdfCost {
        self.cost
    }

    /// Returns whether the file opens only with a local key.
    pub fn needs_local_key(&self) -> bool {
        self.bytes[41] == 1
    }

    /// Unwraps the master key. Fails with [`Kind::Passphrase`] if the passphrase or the local key is wrong, or if the
    /// file was altered.
    pub fn open(&self, passphrase: &Passphrase) -> Result<(MasterKey, KeyInfo)> {
        let wrong = || Error::new(Kind::Passphrase, "the passphrase is not one of this repository");
        let salt = self.bytes[56..88].try_into().expect("32 bytes");
        let local = passphrase.local_key().filter(|_| self.needs_local_key());
        let (aead, nonce, commitment) = wrap_key(passphrase, local, self.cost, salt, &self.bytes[..88])?;
        if !bool::from(commitment.ct_eq(&self.bytes[88..CIPHERTEXT])) {
            return Err(wrong());
        }
        let (sealed, tag) = self.bytes[CIPHERTEXT..].split_at(PAYLOAD);
        let mut payload = Zeroizing::new(<[u8; PAYLOAD]>::try_from(sealed).expect("128 bytes"));
        let tag = Tag::try_from(tag).expect("16 bytes");
        let buffer = payload.as_mut_slice().into();
        aead.decrypt_inout_detached(&nonce, &self.bytes[..CIPHERTEXT], buffer, &tag).map_err(|_| wrong())?;
        let label = payload[41..].get(..usize::from(payload[40]).min(LABEL + 1)).expect("below 87 bytes");
        let padding = payload[41 + label.len()..].iter().all(|b| *b == 0);
        let label = std::str::from_utf8(label).ok().filter(|label| padding && label.len() <= LABEL);
        let label = label.ok_or_else(|| malformed("the payload of the key file", "its label"))?.to_owned();
        let created = u64::from_be_bytes(payload[32..40].try_into().expect("8 bytes"));
        Ok((Secret::new(payload[..32].try_into().expect("32 bytes")), KeyInfo { created, label }))
    }
}

type WrapKey = (Aes256Gcm, Nonce<aes_gcm::aead::consts::U12>, [u8; 32]);

fn wrap_key(
    passphrase: &Passphrase,
    local: Option<&LocalKey>,
    cost: KdfCost,
    salt: &[u8; 32],
    header: &[u8],
) -> Result<WrapKey> {
    let mut ikm = cost.derive(passphrase, salt)?;
    if let Some(local) = local {
        ikm = Secret::new(hmac(local, &[ikm.expose()]));
    }
    let mut okm = Zeroizing::new([0; 76]);
    let info = [b"nfreezer/v1/keywrap\0".as_slice(), header].concat();
    let prk = Hkdf::<Sha256>::from_prk(ikm.expose()).expect("32 bytes are a key");
    prk.expand(&info, okm.as_mut()).expect("76 bytes are below the limit");
    let nonce: [u8; 12] = okm[32..44].try_into().expect("12 bytes");
    let aead = Aes256Gcm::new_from_slice(&okm[..32]).expect("32 bytes");
    Ok((aead, nonce.into(), okm[44..].try_into().expect("32 bytes")))
}
