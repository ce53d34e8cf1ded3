//! The commands, run through the binary.

#[path = "../harness/mod.rs"]
mod harness;

mod account;
mod cli;
mod copy;
mod disk_cache;
mod doctor;
mod durable;
mod everyday;
mod exhaustion;
mod front_page;
mod generate;
mod moments;
mod monitor;
mod oddities;
mod profiles;
mod runs;
mod schedules;
mod secrets;
mod server_setup;
mod several;
mod unmounted;
mod whole;
