//! The repository format: decodes bytes to values and encodes values to bytes. Normative text: `docs/format.md`.
//!
//! Decoders take bytes with verified tags and do not trust them, since another writer of the same repository may be
//! malicious. They accept canonical encodings only: each decoded value encodes to the same bytes again.

pub mod ancestry;
pub mod codec;
pub mod index;
pub mod keyfile;
pub mod limits;
pub mod list;
pub mod node;
pub mod own;
pub mod pack;
pub mod page;
pub mod record;
pub mod reference;
pub mod sections;
pub mod stored;
