//! The storage as the included sources see it from inside.
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
