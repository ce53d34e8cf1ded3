//! A server that lies. The cases are those of the test plan that `docs/threat-model.md` lists; a test's name begins with
//! the number of its case. Whatever a case is about, [`oracle`] holds what must be so in all of them.

#[path = "../harness/mod.rs"]
mod harness;

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
mod table;
mod vectors;
mod world;
