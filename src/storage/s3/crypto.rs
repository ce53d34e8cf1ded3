//! SHA-256 and HMAC for the signatures of requests, by the crates that the rest of the program uses.

use hmac::{Hmac, KeyInit, Mac};
use object_store::client::{CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm};
use object_store::{Error, Result};
use sha2::{Digest, Sha256};

/// Provides what signatures of version 4 need.
#[derive(Debug)]
pub struct Crypto;

struct Hash(Sha256, [u8; 32]);
struct Code(Hmac<Sha256>, [u8; 32]);

fn unsupported(what: &str) -> Error {
    Error::NotSupported { source: what.to_owned().into() }
}

impl CryptoProvider for Crypto {
    fn digest(&self, algorithm: DigestAlgorithm) -> Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Hash(Sha256::new(), [0; 32]))),
            _ => Err(unsupported("a digest other than SHA-256")),
        }
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> Result<Box<dyn HmacContext>> {
        let keyed = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| unsupported("a key of this length"))?;
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Code(keyed, [0; 32]))),
            _ => Err(unsupported("a digest other than SHA-256")),
        }
    }

    fn sign(&self, _: SigningAlgorithm, _: &[u8]) -> Result<Box<dyn Signer>> {
        Err(unsupported("RSA"))
    }
}

impl DigestContext for Hash {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        self.1 = self.0.finalize_reset().into();
        Ok(&self.1)
    }
}

impl HmacContext for Code {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        self.1 = self.0.clone().finalize().into_bytes().into();
        Ok(&self.1)
    }
}
