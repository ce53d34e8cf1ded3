//! Saved names that are one name in the target: file systems that fold case (exFAT, NTFS, some ext4 folders), Unicode normal
//! forms, or dots and spaces at the end. Without this check the second entry would replace or merge with the first.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use rustix::fs::{Mode, OFlags};
use unicode_normalization::UnicodeNormalization;

use super::dir::{self, Held};
use crate::error::{Error, Result};
use crate::format::limits;

/// The names that were restored in one directory, as hashes of what is left when all differences are folded away.
#[derive(Default)]
pub(super) struct Names(HashSet<u64>);

impl Names {
    /// Adds a name. Returns whether it may be one with an earlier name on some file system.
    pub fn note(&mut self, name: &[u8]) -> bool {
        let mut hash = DefaultHasher::new();
        fold(name).hash(&mut hash);
        !self.0.insert(hash.finish())
    }
}

fn fold(name: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(name) else { return name.to_ascii_lowercase() };
    // By way of upper case, which makes `SS` of the German sharp s.
    let folded: String = text.to_uppercase().to_lowercase().nfd().collect();
    folded.trim_end_matches(['.', ' ']).as_bytes().to_vec()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_case_normal_form_or_final_dots_are_noted() {
        for (first, second) in
            [("README", "readme"), ("\u{e9}", "e\u{301}"), ("\u{c9}", "e\u{301}"), ("a", "a. ."), ("ss", "\u{df}")]
        {
            let mut names = Names::default();
            assert!(!names.note(first.as_bytes()));
            assert!(names.note(second.as_bytes()), "{first} {second}");
            assert!(!names.note(b"other"));
        }
        let mut names = Names::default();
        assert!(!names.note(b"\xffA") && names.note(b"\xffa"));
    }
}
