//! Bytes that must not be printed and do not outlive their use.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes: wiped on drop, silent when printed, never serialised.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes the bytes over.
    pub fn new(bytes: [u8; N]) -> Self {
        Secret(bytes)
    }

    /// The bytes themselves, for a cryptographic primitive.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What the user types. Wiped on drop, silent when printed, never empty.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(String);

impl Passphrase {
    /// `None` if it is empty.
    pub fn new(text: String) -> Option<Self> {
        (!text.is_empty()).then_some(Passphrase(text))
    }

    /// Its UTF-8 bytes, for the KDF.
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
    fn a_secret_is_silent_when_printed() {
        assert_eq!(format!("{:?}", Secret([7; 32])), "Secret(..)");
        assert_eq!(format!("{:?}", Passphrase::new("hunter2".into()).unwrap()), "Passphrase(..)");
    }
}
