//! Bytes that must not be printed and do not outlive their use.

use std::fmt;

use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// `N` secret bytes: wiped on drop, silent when printed, never serialised. On the heap, so that a move leaves no copy.
#[derive(Clone)]
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Takes ownership of the bytes, and wipes the argument.
    pub fn new(mut bytes: [u8; N]) -> Self {
        let mut secret = Secret(Box::new([0; N]));
        secret.0.copy_from_slice(&bytes);
        bytes.zeroize();
        secret
    }

    /// Returns the bytes, for a cryptographic primitive.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The passphrase of the user, never empty, with an optional local key. Wiped on drop, silent when printed.
#[derive(ZeroizeOnDrop)]
pub struct Passphrase(String, #[zeroize(skip)] Option<Secret<32>>);

impl Passphrase {
    /// Converts the text to Unicode normal form C, since keyboards and systems compose letters differently. `None` if it
    /// is empty.
    pub fn new(text: String) -> Option<Self> {
        let text = Zeroizing::new(text);
        (!text.is_empty()).then(|| Passphrase(text.nfc().collect(), None))
    }

    /// Adds a local key.
    #[must_use]
    pub fn with_local_key(mut self, key: Option<Secret<32>>) -> Self {
        self.1 = key;
        self
    }

    /// Returns the local key, if there is one.
    pub fn local_key(&self) -> Option<&Secret<32>> {
        self.1.as_ref()
    }

    /// Returns the UTF-8 bytes, for the KDF.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_the_same_however_its_letters_are_composed() {
        let bytes = |text: &str| Passphrase::new(text.into()).unwrap().expose().to_vec();
        assert_eq!(bytes("cafe\u{301}"), bytes("caf\u{e9}"));
        assert!(Passphrase::new(String::new()).is_none());
    }

    #[test]
    fn a_secret_is_silent_when_printed() {
        assert_eq!(format!("{:?}", Secret::new([7; 32])), "Secret(..)");
        assert_eq!(format!("{:?}", Passphrase::new("hunter2".into()).unwrap()), "Passphrase(..)");
    }
}
