//! Patterns over paths, in two syntaxes: restic's for options and lists, gitignore's for ignore files.
//!
//! Patterns and paths are compared by Unicode characters: `?` is one character, classes and ranges hold characters, and
//! case is folded for all of Unicode. A byte that is not part of valid UTF-8 counts as one character that equals only
//! itself. `*`, `?` and classes never match a slash; `**` as a whole part of a path stands for any number of folders.

mod given;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regex::bytes::{RegexSet, RegexSetBuilder};

pub use given::{Pattern, Patterns};

/// A bound of the compiled patterns in bytes. 10,000 patterns need about a tenth of it.
const COMPILED: usize = 256 << 20;
/// Memory of the matcher's cache in bytes, for each thread that matches.
const CACHE: usize = 16 << 20;

/// Rules in the user's order; of those that match a path, the last one decides.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    set: RegexSet,
    effects: Vec<Effect>,
    /// For each rule, whether it has matched a path yet. Shared by clones.
    matched: Arc<[AtomicBool]>,
}

#[derive(Clone, Copy, Debug)]
struct Effect {
    /// The place of its rule among the rules that were given.
    rule: usize,
    negated: bool,
    folders_only: bool,
}

/// One rule, parsed.
#[derive(Clone, Debug)]
pub struct Rule {
    regex: String,
    negated: bool,
    folders_only: bool,
    /// Whether it also matches everything below a path that it matches.
    below: bool,
}

/// The effect of the last rule that matches a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the path is left out; otherwise the rule takes back what earlier rules left out.
    pub excluded: bool,
    /// The place of the rule among those that were given.
    pub rule: usize,
}

impl Rules {
    /// Compiles rules. `ignore_case`: upper and lower case are the same.
    ///
    /// # Errors
    ///
    /// A text for people, if the rules together need too much memory.
    pub fn new(rules: &[Rule], ignore_case: bool) -> Result<Self, String> {
        let mut effects = Vec::new();
        let mut regexes = Vec::new();
        for (i, rule) in rules.iter().enumerate() {
            let effect = Effect { rule: i, negated: rule.negated, folders_only: rule.folders_only };
            regexes.push(format!("^{}$", rule.regex));
            effects.push(effect);
            if rule.below {
                regexes.push(format!("^{}/", rule.regex));
                effects.push(Effect { folders_only: false, ..effect });
            }
        }
        let set = RegexSetBuilder::new(regexes)
            .case_insensitive(ignore_case)
            .dot_matches_new_line(true)
            .size_limit(COMPILED)
            .dfa_size_limit(CACHE)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Rules { set, effects, matched: rules.iter().map(|_| AtomicBool::new(false)).collect() })
    }

    /// Returns whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// Returns the verdict on a path, or `None` if no rule matches it.
    pub fn verdict(&self, path: &[u8], folder: bool) -> Option<Verdict> {
        let mut verdict = None;
        for i in self.set.matches(characters(path).as_bytes()).iter() {
            let effect = self.effects[i];
            if folder || !effect.folders_only {
                self.matched[effect.rule].store(true, Ordering::Relaxed);
                verdict = Some(Verdict { excluded: !effect.negated, rule: effect.rule });
            }
        }
        verdict
    }

    /// Returns the places of the rules that have not matched any path yet.
    pub fn unmatched(&self) -> impl Iterator<Item = usize> {
        self.matched.iter().enumerate().filter(|(_, matched)| !matched.load(Ordering::Relaxed)).map(|(i, _)| i)
    }
}

/// Parses a pattern of restic's syntax, for absolute paths. Without a slash it matches a name anywhere, with slashes the
/// end of a path, with one in front the whole path. A `!` in front takes back what earlier patterns left out, with all
/// that lies below. Unlike restic's, a slash at the end means folders only.
///
/// # Errors
///
/// A text for people, if it is not a pattern.
pub fn rule(text: &[u8]) -> Result<Rule, String> {
    let text = characters(text);
    let (negated, text) = text.strip_prefix('!').map_or((false, &*text), |rest| (true, rest));
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
    let start = if text.starts_with('/') { "/" } else { "(?-u:.*/)" };
    Ok(Rule { regex: join(start, &parts)?, negated, folders_only: text.ends_with('/'), below: negated })
}

/// Parses a line of an ignore file in the syntax of gitignore(5), for paths relative to the folder of the file. Returns
/// `None` for an empty line or a comment.
///
/// # Errors
///
/// A text for people, if it is not a pattern.
pub fn ignore_rule(line: &[u8]) -> Result<Option<Rule>, String> {
    let line = characters(line);
    let line = without_blanks(&line);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (negated, text) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
    let (folders_only, text) = text.strip_suffix('/').map_or((false, text), |rest| (true, rest));
    let anchored = text.contains('/');
    let text = text.strip_prefix('/').unwrap_or(text);
    let mut parts: Vec<&str> = text.split('/').collect();
    let inside = parts.len() > 1 && parts.last() == Some(&"**");
    if inside {
        parts.pop();
    }
    let mut regex = join(if anchored { "" } else { "(?-u:.*/)?" }, &parts)?;
    if inside {
        regex.push_str("/(?-u:.+)");
    }
    Ok(Some(Rule { regex, negated, folders_only, below: false }))
}

/// A pattern for a single name.
#[derive(Clone, Debug)]
pub struct NamePattern(RegexSet);

impl NamePattern {
    /// Compiles the pattern.
    ///
    /// # Errors
    ///
    /// A text for people, if it is not a pattern.
    pub fn new(text: &[u8]) -> Result<Self, String> {
        let mut regex = String::new();
        part(&characters(text), &mut regex)?;
        RegexSet::new([format!("^{regex}$")]).map(NamePattern).map_err(|e| e.to_string())
    }

    /// Returns whether the name matches.
    pub fn matches(&self, name: &[u8]) -> bool {
        self.0.is_match(characters(name).as_bytes())
    }
}

/// Returns the lines of a list: without a byte order mark, and without the line ends of Unix or Windows.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Returns the name of an encoding of Windows with units of more than one byte, if a byte order mark shows that a list has it.
/// Its line ends have a zero byte, which no line of a list in UTF-8 has.
pub fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        _ if bytes.len() > 2 && !bytes.contains(&0) => None,
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        _ => None,
    }
}

/// Returns bytes as characters. A byte that is not part of valid UTF-8 becomes a character of the last private plane.
fn characters(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(0x10_ff00 + u32::from(*byte))));
    }
    text.into()
}

fn join(start: &str, parts: &[&str]) -> Result<String, String> {
    let mut regex = start.to_owned();
    for (i, text) in parts.iter().enumerate() {
        let last = i + 1 == parts.len();
        if *text == "**" {
            regex.push_str(if last { "(?-u:.+)" } else { "(?-u:.*/)?" });
            continue;
        }
        part(text, &mut regex)?;
        if !last {
            regex.push('/');
        }
    }
    Ok(regex)
}

/// Appends the regular expression of one part of a path.
fn part(text: &str, regex: &mut String) -> Result<(), String> {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // By bytes, which is the same here and much smaller when compiled.
            '*' => {
                while chars.next_if_eq(&'*').is_some() {}
                regex.push_str("(?-u:[^/]*)");
            }
            '?' => regex.push_str("[^/]"),
            '[' => class(&mut chars, regex)?,
            '\\' => literal(chars.next().ok_or("it ends with a backslash")?, regex),
            c => literal(c, regex),
        }
    }
    Ok(())
}

fn literal(c: char, regex: &mut String) {
    // Writing to a string does not fail.
    let _ = write!(regex, "\\x{{{:x}}}", u32::from(c));
}

/// Appends a class. `!` or `^` in front negates it; a `]` in front, and any character after a backslash, stands for itself.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, regex: &mut String) -> Result<(), String> {
    const OPEN: &str = "a `[` is not closed";
    regex.push('[');
    if chars.next_if(|c| "!^".contains(*c)).is_some() {
        regex.push_str("^/");
    }
    let mut first = true;
    loop {
        let low = match chars.next().ok_or(OPEN)? {
            ']' if !first => break,
            '\\' => chars.next().ok_or(OPEN)?,
            c => c,
        };
        first = false;
        literal(low, regex);
        let mut ahead = chars.clone();
        if ahead.next() != Some('-') || ahead.peek().is_none_or(|c| *c == ']') {
            continue;
        }
        chars.next();
        let high = match chars.next().ok_or(OPEN)? {
            '\\' => chars.next().ok_or(OPEN)?,
            c => c,
        };
        if low > high {
            return Err(format!("the range {low}-{high} is empty"));
        }
        regex.push('-');
        literal(high, regex);
    }
    regex.push(']');
    Ok(())
}

/// Returns a line without blanks at its end; a backslash keeps the one behind it.
fn without_blanks(line: &str) -> &str {
    let kept = line.trim_end_matches([' ', '\t']);
    let escaped = kept.len() < line.len() && (kept.len() - kept.trim_end_matches('\\').len()) % 2 == 1;
    if escaped { &line[..kept.len() + 1] } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ignored(lines: &[&str], out: &[&str], kept: &[&str]) {
        let rules: Vec<_> = lines.iter().filter_map(|line| ignore_rule(line.as_bytes()).unwrap()).collect();
        let rules = Rules::new(&rules, false).unwrap();
        for (paths, expected) in [(out, true), (kept, false)] {
            for path in paths {
                let (path, folder) = path.strip_suffix('/').map_or((*path, false), |path| (path, true));
                let excluded = rules.verdict(path.as_bytes(), folder).is_some_and(|verdict| verdict.excluded);
                assert_eq!(excluded, expected, "{lines:?} on {path}");
            }
        }
    }

    #[test]
    fn ignore_files_follow_gitignore() {
        ignored(&["*.o", "!keep.o", "# a", ""], &["a.o", "x/a.o"], &["keep.o", "x/keep.o", "# a"]);
        ignored(&["/top", "sub/x", "**/deep/y"], &["top", "sub/x", "deep/y", "a/b/deep/y"], &["a/top", "a/sub/x"]);
        ignored(&["build/"], &["build/", "a/build/"], &["build", "a/build"]);
        ignored(&["a/**"], &["a/b", "a/b/c"], &["a/", "a", "x/a/b"]);
        ignored(&["a/**/b", "**"], &["a/b", "a/x/y/b", "z"], &[]);
        ignored(&["blank  ", "kept\\ ", "\\#x", "\\!y"], &["blank", "kept ", "#x", "!y"], &["kept", "blank  "]);
        ignored(&["a**b", "*", "!c/d"], &["a/", "axb", "c/"], &["c/d"]);
    }

    #[test]
    fn characters_count_and_not_bytes() {
        ignored(&["?.txt"], &["é.txt", "ü.txt", "u.txt", "語.txt"], &["éé.txt", ".txt"]);
        ignored(&["[éè].txt", "[α-ω]", "[!a]x"], &["é.txt", "è.txt", "λ", "éx"], &["e.txt", "Λ", "ax", "/x"]);
        ignored(&["[]a]", "[^]b]c", "[a-]", "[\\]]q"], &["]", "a", "xc", "-", "]q"], &["]c", "bc", "b"]);
    }

    #[test]
    fn case_is_folded_for_all_of_unicode() {
        let rules = Rules::new(&[rule("ä[a-c].jpg".as_bytes()).unwrap()], true).unwrap();
        assert!(rules.verdict("/x/ÄB.JPG".as_bytes(), false).is_some());
        assert!(rules.verdict("/x/AB.JPG".as_bytes(), false).is_none());
    }

    #[test]
    fn bytes_that_are_not_utf_8_match_as_themselves() {
        let rules = Rules::new(&[rule(b"?\xff[\xfe]").unwrap()], false).unwrap();
        assert!(rules.verdict(b"/\xfd\xff\xfe", false).is_some());
        assert!(rules.verdict("/é\u{fffd}".as_bytes(), false).is_none());
        let any = NamePattern::new(b"??").unwrap();
        assert!(any.matches(b"\xc3\xff") && any.matches("éa".as_bytes()) && !any.matches("é".as_bytes()));
    }

    #[test]
    fn lists_may_come_from_windows() {
        assert_eq!(lines(b"\xef\xbb\xbfa\r\nb\n\r\n").collect::<Vec<_>>(), [&b"a"[..], b"b", b"", b""]);
    }

    #[test]
    fn thousands_of_patterns_compile_and_match() {
        let all: Vec<_> = (0..10_000).map(|i| rule(format!("/a/*/{i}/?x[a-é]*").as_bytes()).unwrap()).collect();
        let rules = Rules::new(&all, true).unwrap();
        assert_eq!(rules.verdict(b"/a/b/9999/yxb", false), Some(Verdict { excluded: true, rule: 9999 }));
    }
}
