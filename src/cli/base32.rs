//! Base 32 by Douglas Crockford, for text that people copy by hand: the letters I, L, O and U do not occur.

/// The digits.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Encodes bytes as digits of 5 bits; the last digit is padded with zeros.
pub fn encode(bytes: &[u8]) -> String {
    let bit = |i: usize| bytes.get(i / 8).map_or(0, |byte| byte >> (7 - i % 8) & 1);
    let digit = |i: usize| (0..5).fold(0, |value, j| value << 1 | bit(5 * i + j));
    (0..(bytes.len() * 8).div_ceil(5)).map(|i| DIGITS[usize::from(digit(i))] as char).collect()
}

/// Decodes digits of any case into `len` bytes; O is read as 0, I and L as 1. None for anything that [`encode`] does not
/// write.
pub fn decode(text: &str, len: usize) -> Option<Vec<u8>> {
    let value = |c: u8| {
        let c = match c.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            c => c,
        };
        DIGITS.iter().position(|digit| *digit == c)
    };
    let values: Vec<usize> = text.bytes().map(value).collect::<Option<_>>()?;
    let bit = |i: usize| values.get(i / 5).map_or(0, |value| value >> (4 - i % 5) & 1);
    let bytes: Vec<u8> = (0..len).map(|i| (0..8).fold(0, |byte, j| byte << 1 | bit(8 * i + j) as u8)).collect();
    (encode(&bytes) == canonical(text)).then_some(bytes)
}

/// Returns the digits as [`encode`] writes them: upper case, O as 0, I and L as 1.
pub fn canonical(text: &str) -> String {
    text.to_ascii_uppercase().replace('O', "0").replace(['I', 'L'], "1")
}

/// Reports whether `c` is a digit in its canonical form.
pub fn is_digit(c: u8) -> bool {
    DIGITS.contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_32_is_exact() {
        for len in 0..40 {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 37 + 11) as u8).collect();
            assert_eq!(decode(&encode(&bytes), bytes.len()), Some(bytes));
        }
        assert_eq!(encode(b"foobar"), "CSQPYRK1E8");
        assert_eq!(decode("CSQPYRK1EU", 6), None);
        assert_eq!(decode("CSQPYRK1E9", 6), None, "bits behind the end");
    }
}
