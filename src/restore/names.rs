//! Notices saved names that are one name in some file systems: those that fold case (exFAT, NTFS, some ext4 folders) or
//! Unicode normal forms, or drop dots and spaces at the end.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use unicode_normalization::UnicodeNormalization;

/// The names that were restored in one directory, as hashes of their folded forms.
#[derive(Default)]
pub(super) struct Names(HashSet<u64>);

impl Names {
    /// Returns whether an earlier name may be the same one on some file system.
    pub fn has(&self, name: &[u8]) -> bool {
        self.0.contains(&hash(name))
    }

    /// Adds a name. Returns whether it may be one with an earlier name on some file system.
    pub fn note(&mut self, name: &[u8]) -> bool {
        !self.0.insert(hash(name))
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hash = DefaultHasher::new();
    fold(name).hash(&mut hash);
    hash.finish()
}

fn fold(name: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(name) else { return name.to_ascii_lowercase() };
    // By way of upper case, which makes `SS` of the German sharp s.
    let folded: String = text.to_uppercase().to_lowercase().nfd().collect();
    folded.trim_end_matches(['.', ' ']).as_bytes().to_vec()
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
