//! What is left out of the sources: patterns, marked folders, size, ignore files, other file systems. Only the rules; the
//! walk applies them by [`super::picker`].
//!
//! Patterns mean what they mean to restic: without a slash they match a name anywhere, with slashes the end of a path, with
//! one in front the whole path from `/` on. `*`, `?` and `[..]` stay within a name, `**` stands for any number of folders.
//! Of several patterns that match, the last one decides. Unlike there, a slash at the end means folders only.

use std::path::Path;

use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Kind, Result};

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
    set: GlobSet,
    /// For each glob of the set.
    effects: Vec<Effect>,
}

#[derive(Clone, Copy, Debug)]
struct Effect {
    negated: bool,
    folders_only: bool,
}

impl Select {
    /// Leaves out what these patterns say.
    ///
    /// # Errors
    ///
    /// [`Kind::Usage`] with the pattern and its place, if it is none.
    pub fn new(patterns: &[Pattern]) -> Result<Self> {
        let case = |ignore| Patterns::new(patterns.iter().filter(|pattern| pattern.ignore_case == ignore));
        Ok(Select { patterns: [case(false)?, case(true)?], ..Select::default() })
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
    pub(super) fn leaves_out(&self, path: &Path, folder: bool) -> bool {
        let candidate = Candidate::new(path);
        self.patterns.iter().any(|patterns| patterns.leave_out(&candidate, folder))
    }

    pub(super) fn has_patterns(&self) -> bool {
        self.patterns.iter().any(|patterns| !patterns.set.is_empty())
    }
}

impl Patterns {
    fn new<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Result<Self> {
        let (mut set, mut effects) = (GlobSetBuilder::new(), Vec::new());
        for pattern in patterns {
            let wrong = |why: String| {
                let text = String::from_utf8_lossy(&pattern.text);
                Error::new(Kind::Usage, format!("{}: the pattern `{text}` is wrong: {why}", pattern.place))
            };
            let parsed = parse(&pattern.text).map_err(wrong)?;
            let glob = |text: &str| {
                let mut glob = GlobBuilder::new(text);
                glob.literal_separator(true).backslash_escape(true).case_insensitive(pattern.ignore_case).build()
            };
            let mut add = |glob: Result<Glob, globset::Error>, effect| {
                set.add(glob.map_err(|e| wrong(e.kind().to_string()))?);
                effects.push(effect);
                Ok(())
            };
            let Parsed { glob: text, effect } = parsed;
            add(glob(&text), effect)?;
            if effect.negated {
                // What is below is taken back with it. (Below what is left out nobody looks.)
                add(glob(&format!("{text}/**")), Effect { folders_only: false, ..effect })?;
            }
        }
        let set = set.build().map_err(|e| Error::new(Kind::Usage, format!("these patterns are too many: {e}")))?;
        Ok(Patterns { set, effects })
    }

    fn leave_out(&self, path: &Candidate<'_>, folder: bool) -> bool {
        let mut matches = Vec::new();
        self.set.matches_candidate_into(path, &mut matches);
        let mut effects = matches.iter().map(|i| self.effects[*i]);
        effects.rfind(|effect| folder || !effect.folders_only).is_some_and(|effect| !effect.negated)
    }
}

struct Parsed {
    glob: String,
    effect: Effect,
}

fn parse(text: &[u8]) -> Result<Parsed, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8")?;
    let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let (absolute, folders_only) = (text.starts_with('/'), text.ends_with('/'));
    let mut parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("`..` matches nothing".into());
    }
    // `a/**` is `a` with all that is in it.
    while parts.len() > 1 && parts.last() == Some(&"**") {
        parts.pop();
    }
    if parts.is_empty() {
        return Err("it names nothing".into());
    }
    let parts: Vec<String> = parts.into_iter().map(literal_braces).collect();
    let glob = format!("{}{}", if absolute { "/" } else { "**/" }, parts.join("/"));
    Ok(Parsed { glob, effect: Effect { negated, folders_only } })
}

/// Braces mean nothing in these patterns; they do in globset's.
fn literal_braces(part: &str) -> String {
    let (mut out, mut chars, mut class) = (String::new(), part.chars(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' if !class => {
                out.push(c);
                out.extend(chars.next());
                continue;
            }
            '{' | '}' if !class => out.push('\\'),
            '[' => class = true,
            ']' => class = false,
            _ => {}
        }
        out.push(c);
    }
    out
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
                assert_eq!(select.leaves_out(Path::new(path), folder), expected, "{patterns:?} on {path}");
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
        assert!(Select::new(&[bytes]).unwrap_err().to_string().starts_with("list:7: the pattern"));
        Select::default().exclude_if_present(b"a/b", b"").unwrap_err();
    }
}
