//! An access key of an object store.

use sha2::{Digest, Sha256};

/// An access key.
pub struct Keys {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

impl Keys {
    /// Returns a digest of the public parts, which distinguishes two keys.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(format!("{}\n{}", self.id, self.token.as_deref().unwrap_or_default())).into()
    }
}

/// Returns whether a text can be sent in a header.
pub fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}
