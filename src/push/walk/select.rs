//! The selection: rules that exclude files from the sources by pattern, marked directory, size, ignore file and file
//! system. The walk applies them in [`super::picker`].
//!
//! [`crate::pattern`] defines what patterns mean.

use crate::error::{Error, Kind, Result};
use crate::pattern::{Pattern, Patterns};

/// The name of ignore files. Their patterns have the syntax of gitignore and apply to the directory of the file.
pub const IGNORE_FILE: &str = ".nfreezerignore";

/// The rules that exclude files below the sources. By default nothing is excluded. The sources themselves never are.
#[derive(Clone, Debug, Default)]
pub struct Select {
    patterns: Patterns,
    pub(super) marks: Vec<Mark>,
    /// Excludes regular files of more bytes than this.
    pub larger_than: Option<u64>,
    /// Excludes files and directories that have the flag `nodump`.
    pub nodump: bool,
    /// Whether files named [`IGNORE_FILE`] are applied.
    pub ignore_files: bool,
    /// Whether to stay on the file systems of the sources. Mount points are saved as empty directories.
    pub one_file_system: bool,
}

/// A file that marks its directory: nothing else in that directory is saved.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub name: Vec<u8>,
    /// The required first bytes of the file; empty if any entry of that name counts.
    pub header: Vec<u8>,
}

impl Select {
    /// Makes a selection of patterns.
    ///
    /// # Errors
    ///
    /// [`Kind::Usage`] with the pattern and its place, if its syntax is wrong.
    pub fn new(patterns: &[Pattern]) -> Result<Self> {
        Ok(Select { patterns: Patterns::new(patterns)?, ..Select::default() })
    }

    /// Excludes all entries beside a file of this name that begins with `header`, which may be empty.
    ///
    /// # Errors
    ///
    /// [`Kind::Usage`] if `name` is not a valid file name.
    pub fn exclude_if_present(&mut self, name: &[u8], header: &[u8]) -> Result<()> {
        if !crate::format::node::valid_name(name) {
            let text = format!("not the name of a file: `{}`", String::from_utf8_lossy(name));
            return Err(Error::new(Kind::Usage, text));
        }
        self.marks.push(Mark { name: name.to_vec(), header: header.to_vec() });
        Ok(())
    }

    /// Returns the patterns.
    pub(in crate::push) fn patterns(&self) -> &Patterns {
        &self.patterns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(patterns: &[&str]) -> Result<Select> {
        let pattern = |text: &&str| {
            let (ignore_case, text) = text.strip_prefix("(?i)").map_or((false, *text), |text| (true, text));
            Pattern { text: text.into(), ignore_case, place: "--exclude".into() }
        };
        Select::new(&patterns.iter().map(pattern).collect::<Vec<_>>())
    }

    #[track_caller]
    fn check(patterns: &[&str], out: &[&str], kept: &[&str]) {
        let select = select(patterns).unwrap();
        for (paths, expected) in [(out, true), (kept, false)] {
            for path in paths {
                let (path, folder) = path.strip_suffix('/').map_or((*path, false), |path| (path, true));
                assert_eq!(select.patterns.matches(path.as_bytes(), folder), expected, "{patterns:?} on {path}");
            }
        }
    }

    #[test]
    fn a_name_matches_anywhere_and_a_path_its_end() {
        check(&["*.tmp"], &["/a/b.tmp", "/b.tmp", "/a/.tmp"], &["/a/tmp", "/a/b.tmp2", "/x.tmp.d/y"]);
        check(&["b/c"], &["/a/b/c", "/b/c"], &["/a/b/x/c", "/ab/c", "/a/b/cc"]);
        check(&["/a/*"], &["/a/b"], &["/x/a/b", "/a", "/a/b/c"]);
        check(&["a/**/z"], &["/a/z", "/x/a/b/c/z"], &["/a/zz", "/z"]);
        check(&["a/**", "./x//y"], &["/a", "/q/a", "/x/y"], &["/ab"]);
        check(&["**"], &["/a", "/a/b"], &[]);
        check(&["[a-c]?", "\\*", "{x,y}"], &["/b1", "/*", "/{x,y}"], &["/d1", "/bb/c", "/z", "/x", "/b"]);
        check(&["*"], &["/.hidden", "/a/b"], &[]);
    }

    #[test]
    fn a_slash_at_the_end_means_folders() {
        check(&["build/", "/top/"], &["/a/build/", "/top/"], &["/a/build", "/top", "/a/top/"]);
    }

    #[test]
    fn the_last_match_decides_and_what_is_below_comes_back_too() {
        check(&["*.o", "!keep.o"], &["/a.o"], &["/keep.o", "/x/keep.o"]);
        check(&["*", "!/a", "*.tmp"], &["/b", "/a/x.tmp"], &["/a", "/a/x", "/a/x/y"]);
        check(&["!a", "a"], &["/a"], &[]);
        check(&["a*", "!ab/"], &["/ab"], &["/ab/", "/ab/a1"]);
        check(&["\\!a"], &["/!a"], &["/a"]);
    }

    #[test]
    fn case_is_a_matter_of_the_pattern() {
        check(&["(?i)*.JPG", "*.png"], &["/a.jpg", "/a.JpG", "/a.png"], &["/a.PNG"]);
        check(&["(?i)*.x", "!keep.x"], &["/keep.x"], &[]);
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_place() {
        for bad in ["", "!", "/", "//", "a/../b", "[a", "a\\"] {
            let error = select(&["fine", bad]).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{bad}");
            assert!(error.to_string().starts_with(&format!("--exclude: the pattern `{bad}` is wrong: ")), "{error}");
        }
        let bytes = Pattern { text: b"\xff".into(), ignore_case: false, place: "list:7".into() };
        assert!(Select::new(&[bytes]).unwrap().patterns.matches(b"/a/\xff", false));
        Select::default().exclude_if_present(b"a/b", b"").unwrap_err();
    }
}
