//! Reports panics. One of them is no fault of this program: libraries panic if the system starts no thread.

use std::panic::PanicHookInfo;
use std::sync::OnceLock;

use super::{escape, exit, output};
use crate::error::{Error, Kind};

/// The first panic of this process.
static FIRST: OnceLock<Error> = OnceLock::new();

/// Beginnings of the messages of `std::thread::Scope::spawn`, and of rayon, which the key derivation uses.
const NO_THREAD: [&str; 2] = ["failed to spawn thread", "The global thread pool has not been initialized"];

/// Prints a panic on standard error. The ones that follow from a thread that did not start are left out.
pub fn print(info: &PanicHookInfo<'_>) {
    let error = error(info);
    if FIRST.get().is_none_or(|first| first.kind() != Kind::Exhausted) {
        output::error(false, &error, 1);
    }
    let _ = FIRST.set(error);
}

/// Returns the panic as an error of one line.
pub fn error(info: &PanicHookInfo<'_>) -> Error {
    let payload = info.payload();
    let why = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    let why = why.unwrap_or("unknown");
    if NO_THREAD.iter().any(|text| why.starts_with(text)) {
        return Error::no_thread("the limit of processes or of memory is reached");
    }
    let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
    Error::failed(format!("internal error{place}: {}", escape::message(why)))
}

/// Returns the exit code of a command that has panicked. With `json`, the panic becomes the last object of the output.
pub fn code(json: bool) -> u8 {
    let code = exit::exit_code(Kind::Failed);
    if let (true, Some(error)) = (json, FIRST.get()) {
        output::error_object(error, code);
    }
    code
}
