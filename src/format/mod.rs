//! The repository format: bytes to values and back, nothing else. Normative text: `docs/format.md`.
//!
//! Every decoder takes bytes whose tags were verified and still trusts none of them: another writer of the same
//! repository may be malicious. What decodes is canonical: it encodes to the same bytes again.

pub mod ancestry;
pub mod codec;
pub mod index;
pub mod keyfile;
pub mod limits;
pub mod list;
pub mod node;
pub mod pack;
pub mod page;
pub mod record;
pub mod reference;
pub mod stored;
