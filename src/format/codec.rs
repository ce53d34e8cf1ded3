//! The encoding below all variable structures: postcard 1 (<https://postcard.jamesmunns.com/wire-format>), made
//! canonical, and the size classes that objects are padded to.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Encodes a value.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("writing to memory cannot fail")
}

/// Decodes a value. Fails unless [`encode`] makes exactly these bytes of it: longer varints and trailing bytes are
/// refused.
pub fn decode<'a, T: Deserialize<'a> + Serialize>(what: &str, bytes: &'a [u8]) -> Result<T> {
    let value: T = postcard::from_bytes(bytes).map_err(|e| malformed(what, &e.to_string()))?;
    if encode(&value) != bytes {
        return Err(malformed(what, "not in canonical form"));
    }
    Ok(value)
}

/// Returns the error of every decoder in this layer.
pub fn malformed(what: &str, why: &str) -> Error {
    Error::damaged(format!("{what} is malformed: {why}"))
}

/// Returns the smallest size of at least `floor` and `len` that is 4, 5, 6 or 7 times a power of two: at most 25 %
/// more. The size of an object reveals two bits to the server beside its magnitude.
pub fn padded(len: usize, floor: usize) -> usize {
    let unit = (len.max(floor).max(4).next_power_of_two() / 8).max(1);
    let exact = len.max(floor).div_ceil(unit);
    exact.max(4) * unit
}

/// Returns the size of the record whose contents have `len` bytes: the next power of two of at least `floor`. The size of
/// a record reveals the number of new chunks to a factor of two.
pub fn padded_record(len: usize, floor: usize) -> usize {
    len.max(floor).next_power_of_two()
}

/// A cursor over big-endian fields that cannot run over.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Reads `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    /// Reads four bytes as a number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fall_into_few_classes() {
        let classes: std::collections::BTreeSet<_> = (1..=16 << 10).map(|n| padded(n * 1024, 64 << 10)).collect();
        assert_eq!(classes.len(), 33, "64 KiB to 16 MiB in quarter octaves");
        for len in [1, 4096, 4097, 5120, 5121, 65536, 65537, 1 << 24] {
            let class = padded(len, 4096);
            assert!(class >= len && class <= (len.max(4096) * 5).div_ceil(4), "{len} -> {class}");
        }
        assert_eq!([padded(0, 4096), padded(4097, 4096), padded(16 << 20, 65536)], [4096, 5120, 16 << 20]);
    }

    #[test]
    fn records_have_powers_of_two_as_sizes() {
        let sizes = [0, 1, 4096, 4097, 9000, 65536, 65537, 128 << 20].map(|len| padded_record(len, 4096));
        assert_eq!(sizes, [4096, 4096, 4096, 8192, 16384, 65536, 131_072, 128 << 20]);
    }

    #[test]
    fn t58_t59_longer_varints_and_trailing_bytes_are_refused() {
        assert_eq!(decode::<u32>("number", &[5]).unwrap(), 5);
        assert!(decode::<u32>("number", &[0x85, 0x00]).is_err());
        assert!(decode::<u32>("number", &[5, 0]).is_err());
        assert!(decode::<u32>("number", &[]).is_err());
    }
}
