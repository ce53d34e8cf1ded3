//! The binary. All code is in the library.

use nfreezer::cli;

/// Runs before `main`, because the runtime of Rust opens `/dev/null` in the place of a closed standard stream. From then on
/// `>&-` cannot be distinguished from `>/dev/null`. The linker takes the pointer; no unsafe operation is executed.
#[used]
#[allow(unsafe_code)]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    cli::note_closed_streams();
}

fn main() -> std::process::ExitCode {
    cli::run()
}
