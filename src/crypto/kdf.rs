//! From a passphrase to a key: Argon2id (RFC 9106), with bounds that are checked before anything is allocated,
//! because the parameters come from a file that the server may have written.

use argon2::{Algorithm, Argon2, Params, Version};

use super::secret::{Passphrase, Secret};
use crate::error::{Error, Kind, Result};

/// Cost of one derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes, computed in parallel.
    pub lanes: u32,
}

impl KdfCost {
    /// RFC 9106, second recommended choice: 64 MiB, 3 passes, 4 lanes.
    pub const DEFAULT: KdfCost = KdfCost { memory_kib: 64 << 10, passes: 3, lanes: 4 };

    /// Fails outside of the bounds for key files: 64 MiB to 2 GiB, 1 to 16 passes and lanes, and passes x memory from
    /// 192 MiB (cheaper would help the server to test passphrases on us) to 8 GiB (dearer would only stop us).
    pub fn check(&self) -> Result<()> {
        let work = self.work();
        let fits = (64 << 10..=2 << 20).contains(&self.memory_kib)
            && (1..=16).contains(&self.passes)
            && (1..=16).contains(&self.lanes)
            && (192 << 10..=8 << 20).contains(&work);
        let KdfCost { memory_kib, passes, lanes } = self;
        fits.then_some(()).ok_or_else(|| {
            let asked = format!("{memory_kib} KiB, {passes} passes, {lanes} lanes");
            Error::new(Kind::Passphrase, format!("the key file asks for an Argon2 cost out of bounds: {asked}"))
        })
    }

    /// Returns memory in KiB times passes, the cost of one guess.
    pub fn work(&self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }

    /// `Argon2id v0x13(passphrase, salt, memory, passes, lanes) -> 32 bytes`
    pub fn derive(&self, passphrase: &Passphrase, salt: &[u8; 32]) -> Result<Secret<32>> {
        self.check()?;
        let wrong = |e: argon2::Error| match e {
            argon2::Error::OutOfMemory => out_of_memory(self.memory_kib),
            e => Error::failed(format!("cannot derive the key from the passphrase: {e}")),
        };
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(wrong)?;
        let mut key = [0; 32];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(passphrase.expose(), salt, &mut key).map_err(wrong)?;
        Ok(Secret::new(key))
    }
}

fn out_of_memory(memory_kib: u32) -> Error {
    let text =
        format!("cannot derive the key from the passphrase: {} MiB of memory are not available", memory_kib >> 10);
    Error::new(Kind::Exhausted, text).hint("free memory, or raise the limit of this process (`ulimit -v`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_out_of_bounds_are_refused_before_anything_is_allocated() {
        let bad = [
            (8, 1, 1),
            (64 << 10, 1, 1),
            ((64 << 10) - 1, 16, 4),
            (u32::MAX, 3, 4),
            (64 << 10, u32::MAX, 4),
            (64 << 10, 3, 1 << 24),
            (2 << 20, 5, 4),
            (64 << 10, 3, 0),
        ];
        for (memory_kib, passes, lanes) in bad {
            let cost = KdfCost { memory_kib, passes, lanes };
            assert_eq!(cost.check().unwrap_err().kind(), Kind::Passphrase, "{cost:?}");
            assert!(cost.derive(&Passphrase::new("x".into()).unwrap(), &[0; 32]).is_err());
        }
        KdfCost::DEFAULT.check().unwrap();
    }
}
