//! Refuses saved names that are one name in the target. Without this check the second entry would replace or merge with the
//! first.

use rustix::fs::{Mode, OFlags};
use unicode_normalization::UnicodeNormalization;

use super::Run;
use super::dir::{self, Held};
use crate::error::{Error, Kind, Result};
use crate::format::limits;

/// Notes that an entry of this name is restored in a directory.
///
/// # Errors
///
/// `Exists` if this file system treats the name and the name of another entry of this restore as one.
pub(super) fn note(run: &Run<'_>, held: &Held, name: &[u8]) -> Result<()> {
    if run.options.dry_run {
        return Ok(()); // it makes no file to try names with
    }
    if held.dir.names.lock().expect("no holder panics").note(name) && has_variant(held, name)? {
        return Err(Error::new(
            Kind::Exists,
            "the target's file system treats its name and the name of another entry as one",
        )
        .hint("restore it alone into another folder"));
    }
    Ok(())
}

/// Asks the file system of a directory whether it takes another spelling of `name` for the same name: makes a temporary
/// file whose name ends in `name` and looks for it under each other spelling.
pub(super) fn has_variant(held: &Held, name: &[u8]) -> Result<bool> {
    let prefix = dir::temporary()?;
    let variants: Vec<Vec<u8>> = variants(name).into_iter().filter(|variant| variant != name).collect();
    let longest = variants.iter().map(Vec::len).max().unwrap_or(0).max(name.len());
    if prefix.len() + longest > limits::NAME {
        return Ok(true); // it cannot be tried, and names of that length hardly differ in case only
    }
    let probe = [&prefix, name].concat();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(
        rustix::fs::openat(&held.fd, &probe, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Error::io("try how the file system compares names", e.into()))?,
    );
    let found = variants.iter().any(|variant| matches!(held.stat(&[&prefix, &variant[..]].concat()), Ok(Some(_))));
    held.unlink(&probe);
    Ok(found)
}

fn variants(name: &[u8]) -> Vec<Vec<u8>> {
    let Ok(text) = std::str::from_utf8(name) else {
        return vec![name.to_ascii_lowercase(), name.to_ascii_uppercase()];
    };
    let spellings =
        [text.to_lowercase(), text.to_uppercase(), text.nfc().collect(), text.nfd().collect(), format!("{text}.")];
    spellings.into_iter().map(String::into_bytes).collect()
}
