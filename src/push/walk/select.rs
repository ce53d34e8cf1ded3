//! What is left out of the sources: patterns, marked folders, size, ignore files, other file systems. Only the rules; the
//! walk applies them by [`super::picker`].
//!
//! [`crate::pattern`] defines what patterns mean.

use crate::error::{Error, Kind, Result};
use crate::pattern::{self, Rules};

/// The file whose patterns, in the syntax of gitignore, hold for the folder that it is in.
pub const IGNORE_FILE: &str = ".nfreezerignore";

/// A pattern and where the user wrote it.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The pattern. A `!` in front takes back what earlier patterns of the same case left out.
    pub text: Vec<u8>,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// For errors: an option, or a file and a line.
    pub place: String,
}

/// What is left out. Nothing by default. It applies to what is below the sources, never to them.
#[derive(Clone, Debug, Default)]
pub struct Select {
    patterns: [Patterns; 2],
    pub(super) marks: Vec<Mark>,
    /// Regular files of more bytes than this.
    pub larger_than: Option<u64>,
    /// Whether [`IGNORE_FILE`] counts.
    pub ignore_files: bool,
    /// Whether to stay on the file systems that the sources are on. Mount points are kept, empty.
    pub one_file_system: bool,
}

/// A file that marks its folder: nothing else in that folder is saved.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub name: Vec<u8>,
    /// What the file must begin with; empty if anything of that name will do.
    pub header: Vec<u8>,
}

/// Patterns of one case, in the user's order.
#[derive(Clone, Debug, Default)]
struct Patterns {
    texts: Vec<Pattern>,
    rules: Rules,
}

impl Select {
    /// Leaves out what these patterns say.
    ///
    /// # Errors
    ///
    /// [`Kind::Usage`] with the pattern and its place, if it is none.
    pub fn new(patterns: &[Pattern]) -> Result<Self> {
        let patterns = [Patterns::new(patterns, false)?, Patterns::new(patterns, true)?];
        Ok(Select { patterns, ..Select::default() })
    }

    /// Leaves out what lies beside a file of this name that begins with `header`, which may be empty.
    ///
    /// # Errors
    ///
    /// [`Kind::Usage`] if `name` cannot be the name of a file.
    pub fn exclude_if_present(&mut self, name: &[u8], header: &[u8]) -> Result<()> {
        if !crate::format::node::valid_name(name) {
            let text = format!("not the name of a file: `{}`", String::from_utf8_lossy(name));
            return Err(Error::new(Kind::Usage, text));
        }
        self.marks.push(Mark { name: name.to_vec(), header: header.to_vec() });
        Ok(())
    }

    /// Whether patterns leave out this absolute path.
    pub(in crate::push) fn leaves_out(&self, path: &[u8], folder: bool) -> bool {
        // Without `any`, which would stop at the first match: all matches are noted.
        self.patterns.iter().filter(|patterns| patterns.excludes(path, folder)).count() > 0
    }

    /// Whether there are any patterns.
    pub(in crate::push) fn has_patterns(&self) -> bool {
        self.patterns.iter().any(|patterns| !patterns.rules.is_empty())
    }

    /// Returns the first pattern that matches this absolute path as one to be left out.
    pub(in crate::push) fn pattern_of(&self, path: &[u8], folder: bool) -> Option<&Pattern> {
        self.patterns.iter().find_map(|patterns| {
            let verdict = patterns.rules.verdict(path, folder)?;
            verdict.excluded.then(|| &patterns.texts[verdict.rule])
        })
    }

    /// Returns the patterns that no path of this push has matched.
    pub(in crate::push) fn unmatched(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter().flat_map(|patterns| patterns.rules.unmatched().map(|i| &patterns.texts[i]))
    }
}

impl Patterns {
    fn new(patterns: &[Pattern], ignore_case: bool) -> Result<Self> {
        let texts: Vec<Pattern> = patterns.iter().filter(|p| p.ignore_case == ignore_case).cloned().collect();
        let rules = texts.iter().map(Patterns::rule).collect::<Result<Vec<_>>>()?;
        let rules = Rules::new(&rules, ignore_case)
            .map_err(|e| Error::new(Kind::Usage, format!("these patterns are too many: {e}")))?;
        Ok(Patterns { texts, rules })
    }

    fn rule(pattern: &Pattern) -> Result<pattern::Rule> {
        pattern::rule(&pattern.text).map_err(|why| {
            let text = String::from_utf8_lossy(&pattern.text);
            Error::new(Kind::Usage, format!("{}: the pattern `{text}` is wrong: {why}", pattern.place))
        })
    }

    fn excludes(&self, path: &[u8], folder: bool) -> bool {
        self.rules.verdict(path, folder).is_some_and(|verdict| verdict.excluded)
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
                assert_eq!(select.leaves_out(path.as_bytes(), folder), expected, "{patterns:?} on {path}");
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
        assert!(Select::new(&[bytes]).unwrap().leaves_out(b"/a/\xff", false));
        Select::default().exclude_if_present(b"a/b", b"").unwrap_err();
    }
}
