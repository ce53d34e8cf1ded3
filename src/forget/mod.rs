//! Changes which snapshots are shown: forgets and undeletes them.
//!
//! In: snapshots of a state. Out: one record of marks. No object is removed, so everything here works on an append-only
//! server and can be undone.

mod undelete;

pub use undelete::undelete;
