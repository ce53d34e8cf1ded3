//! Hostile servers and writers. `docs/threat-model.md` lists the cases; a test's name begins with the number of its case.
//! [`oracle`] checks properties that hold in all cases.

#[path = "../harness/mod.rs"]
mod harness;

mod claims;
mod crafted;
mod durable;
mod files;
mod history;
mod keys;
mod liar;
mod objects;
mod oracle;
mod seals;
mod server;
mod sftp;
mod store;
mod table;
mod vectors;
mod world;
