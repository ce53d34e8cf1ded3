//! Secrets, key derivation, sealed objects, chunk ids, the chunker. Pure: no I/O, no clock, no threads of its own;
//! randomness is handed in by the caller. With [`crate::format`] this is all that an auditor must read.
//!
//! In: a passphrase, plaintext, random bytes, or sealed bytes. Out: keys, ids, cut points, sealed bytes, or verified plaintext.

pub mod chunker;
pub mod kdf;
pub mod keys;
pub mod seal;
pub mod secret;
