//! Storage items under the names that the included sources import.
#![allow(unused_imports)]

pub use nfreezer::storage::*;

pub mod location {
    pub use nfreezer::storage::Remote;
}

pub mod options {
    pub use nfreezer::storage::Options;
}

pub mod sftp {
    pub use crate::packet::printable;
}
