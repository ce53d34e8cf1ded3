//! The chunker.
