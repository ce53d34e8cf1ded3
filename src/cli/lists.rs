//! Reads the lists of patterns and of sources that options name. `-` is standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{escape, standard};
use crate::error::{Error, Kind, Result};
use crate::pattern;

/// Reads the list of an option as bytes. `what` names its entries in messages.
pub fn read_bytes(option: &str, file: &Path, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if standard::is_input(file) {
        standard::claim_input(&standard::named(option, file))?;
        io::stdin().lock().read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.map(|_| bytes).map_err(|e| Error::io(format!("read the {what} in {}", escape::path(file)), e))
}

/// Reads the list of an option, one entry per line. Refuses encodings in which no line would match.
pub fn read(option: &str, file: &Path, what: &str) -> Result<Vec<u8>> {
    let bytes = read_bytes(option, file, what)?;
    refuse_wide(&bytes, file).map_err(|e| e.while_doing(option)).map(|()| bytes)
}

/// Refuses text in an encoding of Windows that is not UTF-8.
pub fn refuse_wide(bytes: &[u8], file: &Path) -> Result<()> {
    let Some(encoding) = pattern::wide_encoding(bytes) else { return Ok(()) };
    let name = escape::path(file);
    let text = format!("{name} is encoded in {encoding}, and nfreezer reads UTF-8");
    Err(Error::new(Kind::Usage, text).hint(format!("convert it: iconv -f {encoding} -t UTF-8 {name} > NEW_FILE")))
}
