//! What several test files share.
#![allow(dead_code, missing_docs)]

pub mod faults;
pub mod tree;
