//! crypto
pub mod chunker;
