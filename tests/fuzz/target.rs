//! The program of every fuzz target. The name of the program selects the target in `targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nfreezer_fuzz::targets::run(env!("CARGO_BIN_NAME"), data));
