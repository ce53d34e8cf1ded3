//! Sums up warnings that differ only in names and numbers, so that many of one kind do not hide the others.

use std::collections::BTreeMap;

/// Warnings of one kind that are printed; with `-v`, and as JSON objects, more.
const PRINTED: u64 = 10;
const PRINTED_VERBOSE: u64 = 1000;
/// Most kinds that are counted apart.
const KINDS: usize = 100;

/// Counts warnings by their kind.
#[derive(Default)]
pub struct Repeated {
    verbose: bool,
    /// By kind.
    counts: BTreeMap<String, u64>,
}

impl Repeated {
    pub fn new(verbose: bool) -> Self {
        Repeated { verbose, ..Repeated::default() }
    }

    /// Counts a warning. Returns whether to print it.
    pub fn admits(&mut self, text: &str) -> bool {
        let kind = kind(text);
        let key = if self.counts.len() < KINDS || self.counts.contains_key(&kind) { kind } else { "other".into() };
        let count = self.counts.entry(key).or_default();
        *count += 1;
        *count <= self.limit()
    }

    /// Returns one line for each kind of which warnings were not printed.
    pub fn summaries(&mut self) -> Vec<String> {
        let limit = self.limit();
        let hint = if self.verbose { "" } else { " (-v prints more of them)" };
        let counts = std::mem::take(&mut self.counts).into_iter().filter(|(_, count)| *count > limit);
        counts.map(|(kind, count)| format!("{} more warnings like this: {kind}{hint}", count - limit)).collect()
    }

    fn limit(&self) -> u64 {
        if self.verbose { PRINTED_VERBOSE } else { PRINTED }
    }
}

/// Returns the words of a warning without those that name an object: words with a digit, a slash or a backslash.
fn kind(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let names = |c: char| c.is_ascii_digit() || c == '/' || c == '\\';
        if word.contains(names) { ".." } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_one_kind_are_summed_up_and_others_are_not() {
        let mut repeated = Repeated::new(false);
        let admitted = (0..20_000).filter(|i| repeated.admits(&format!("pack {i:08x} of /a/{i} is missing"))).count();
        assert_eq!(admitted, 10);
        assert!(repeated.admits("the disk is nearly full"));
        let expected = "19990 more warnings like this: pack .. of .. is missing (-v prints more of them)";
        assert_eq!(repeated.summaries(), [expected]);
        let mut verbose = Repeated::new(true);
        assert_eq!((0..20_000).filter(|i| verbose.admits(&format!("record {i}"))).count(), 1000);
    }
}
