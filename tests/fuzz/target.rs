//! Every fuzz target: which one is said by the name of the program (`targets.rs` has them all).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nfreezer_fuzz::targets::run(env!("CARGO_BIN_NAME"), data));
