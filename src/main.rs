//! The binary. All code is in the library.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    nfreezer::cli::run()
}
