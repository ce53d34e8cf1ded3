//! Generated passphrases: 125 random bits as five groups of five base 32 digits.

use zeroize::Zeroizing;

use super::base32;
use crate::crypto::secret::Passphrase;
use crate::error::{Error, Result};

const GROUPS: usize = 5;
const GROUP: usize = 5;

/// Generates a passphrase; returns it with its text.
pub fn generate() -> Result<(Passphrase, Zeroizing<String>)> {
    let random = Zeroizing::new(crate::repo::random::<16>()?);
    let digits = Zeroizing::new(base32::encode(random.as_slice()));
    let text = grouped(&digits);
    let passphrase = Passphrase::new(text.to_string()).ok_or_else(|| Error::failed("no random digits"))?;
    Ok((passphrase, text))
}

/// Returns a generated passphrase as it was printed, if `typed` is one in other letter case, with other separators, or with
/// letters that resemble its digits. None if `typed` cannot be one, or is already in that form. A passphrase that a user
/// chose may have the same shape, so this is only a second attempt.
pub fn canonical(typed: &str) -> Option<Zeroizing<String>> {
    let digits = Zeroizing::new(typed.chars().filter(|c| !c.is_whitespace() && *c != '-').collect::<String>());
    let digits = Zeroizing::new(base32::canonical(&digits));
    let is_generated = digits.len() == GROUPS * GROUP && digits.bytes().all(base32::is_digit);
    Some(grouped(&digits)).filter(|text| is_generated && text.as_str() != typed)
}

/// Splits the first 25 digits into groups, in lower case.
fn grouped(digits: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(GROUPS * (GROUP + 1)));
    for (i, digit) in digits.chars().take(GROUPS * GROUP).enumerate() {
        if i > 0 && i % GROUP == 0 {
            text.push('-');
        }
        text.push(digit.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_passphrase_has_125_random_bits_that_can_be_typed() {
        let made: std::collections::HashSet<String> = (0..100).map(|_| generate().unwrap().1.to_string()).collect();
        assert_eq!(made.len(), 100);
        for text in &made {
            assert_eq!((text.len(), text.matches('-').count()), (29, 4), "{text}");
            let fine = |c: u8| c == b'-' || c.is_ascii_digit() || c.is_ascii_lowercase() && !b"ilou".contains(&c);
            assert!(text.bytes().all(fine), "{text}");
        }
    }

    #[test]
    fn a_generated_passphrase_is_known_in_any_case_and_with_any_separators() {
        let printed = "z10dz-989s9-ywfhc-wk78d-5bdhp";
        for typed in [
            "Z10DZ-989S9-YWFHC-WK78D-5BDHP",
            "z10dz 989s9 ywfhc wk78d 5bdhp",
            "z10dz989s9ywfhcwk78d5bdhp",
            " zi0dz-989s9-ywfhc-wk78d-5bdhp ",
            "zlOdz-989s9-ywfhc-wk78d-5bdhp",
        ] {
            assert_eq!(canonical(typed).unwrap().as_str(), printed, "{typed}");
        }
        for other in
            [printed, "", "horse battery staple", "z10dz-989s9-ywfhc-wk78d-5bdh", "z10dz-989s9-ywfhc-wk78d-5bdhu"]
        {
            assert_eq!(canonical(other), None, "{other}");
        }
    }
}
