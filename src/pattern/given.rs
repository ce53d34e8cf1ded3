//! The patterns that the user gave, with their places for messages, in two groups: case matters, or it does not.

use super::Rules;
use crate::error::{Error, Kind, Result};

/// A pattern and its origin.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The pattern. A leading `!` takes back what earlier patterns of the same case matched.
    pub text: Vec<u8>,
    /// Whether upper and lower case are equal.
    pub ignore_case: bool,
    /// The option, or the file and line, for errors.
    pub place: String,
}

/// Compiled patterns for absolute paths. By default there are none, and nothing matches.
#[derive(Clone, Debug, Default)]
pub struct Patterns([Group; 2]);

/// The patterns with equal `ignore_case`, in the user's order.
#[derive(Clone, Debug, Default)]
struct Group {
    texts: Vec<Pattern>,
    rules: Rules,
}

impl Patterns {
    /// Compiles patterns.
    ///
    /// # Errors
    ///
    /// [`Kind::Usage`] with the pattern and its place, if its syntax is wrong.
    pub fn new(patterns: &[Pattern]) -> Result<Self> {
        Ok(Patterns([Group::new(patterns, false)?, Group::new(patterns, true)?]))
    }

    /// Returns whether this absolute path matches.
    pub fn matches(&self, path: &[u8], folder: bool) -> bool {
        // Without `any`, which would stop at the first match: all matches are noted.
        self.0.iter().filter(|group| group.matches(path, folder)).count() > 0
    }

    /// Returns whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|group| group.rules.is_empty())
    }

    /// Returns the first pattern that matches this absolute path.
    pub fn first(&self, path: &[u8], folder: bool) -> Option<&Pattern> {
        self.0.iter().find_map(|group| {
            let verdict = group.rules.verdict(path, folder)?;
            verdict.excluded.then(|| &group.texts[verdict.rule])
        })
    }

    /// Returns the patterns that no path has matched yet.
    pub fn unmatched(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter().flat_map(|group| group.rules.unmatched().map(|i| &group.texts[i]))
    }
}

impl Group {
    fn new(patterns: &[Pattern], ignore_case: bool) -> Result<Self> {
        let texts: Vec<Pattern> = patterns.iter().filter(|p| p.ignore_case == ignore_case).cloned().collect();
        let rules = texts.iter().map(rule).collect::<Result<Vec<_>>>()?;
        let rules = Rules::new(&rules, ignore_case)
            .map_err(|e| Error::new(Kind::Usage, format!("these patterns are too many: {e}")))?;
        Ok(Group { texts, rules })
    }

    fn matches(&self, path: &[u8], folder: bool) -> bool {
        self.rules.verdict(path, folder).is_some_and(|verdict| verdict.excluded)
    }
}

fn rule(pattern: &Pattern) -> Result<super::Rule> {
    super::rule(&pattern.text).map_err(|why| {
        let text = String::from_utf8_lossy(&pattern.text);
        Error::new(Kind::Usage, format!("{}: the pattern `{text}` is wrong: {why}", pattern.place))
    })
}
