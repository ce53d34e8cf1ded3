//! Reads small local files: key files with a size limit, secrets with a check of their mode.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{escape, output};

/// Longest secret in bytes, so that a wrong file name does not fill the memory.
const LONGEST_SECRET: u64 = 64 << 10;

/// Reads a file of at most `most` bytes.
pub fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(io::Error::new(io::ErrorKind::InvalidData, "too long")) } else { Ok(bytes) }
}

/// Reads a small secret file; warns if other users may read it.
pub fn read_private(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        let name = escape::path(path);
        output::notice(format_args!("nfreezer: warning: other users of this machine may read {name}"));
        output::notice(format_args!("hint: `chmod 600 {name}` makes it private"));
    }
    read_secret(file)
}

/// Reads a secret to its end.
pub fn read_secret(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Reserved at once: a growing vector would leave copies behind that are not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST_SECRET as usize + 1));
    from.take(LONGEST_SECRET + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST_SECRET {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than 64 KiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_secret_is_refused() {
        assert!(read_secret(io::repeat(b'a')).is_err());
    }
}
