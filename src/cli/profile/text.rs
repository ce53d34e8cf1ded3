//! A profile as text. Each error names the file, the line and the key.

use std::fmt::Display;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Kind, Result};

/// The text of a profile and the name of its file, escaped.
pub struct Text<'t> {
    pub file: &'t str,
    pub text: &'t str,
}

/// A key of a table with its value.
#[derive(Clone, Copy)]
pub struct Entry<'t> {
    pub key: &'t str,
    pub value: &'t Spanned<DeValue<'t>>,
    /// The offset of the key in the text.
    pub at: usize,
}

/// A table of a profile, or the keys above all tables.
pub struct Table<'t> {
    pub entries: Vec<Entry<'t>>,
    /// The offset of the table in the text.
    pub at: usize,
}

impl<'t> Text<'t> {
    /// Parses the text as TOML.
    pub fn parse(&self) -> Result<Spanned<DeTable<'t>>> {
        DeTable::parse(self.text).map_err(|e| self.error(e.span().map_or(0, |span| span.start), e.message().trim()))
    }

    /// Returns an error about the line at this offset.
    pub fn error(&self, at: usize, why: impl Display) -> Error {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Error::new(Kind::Usage, format!("{}, line {line}: {why}", self.file))
    }

    /// Returns an error about a key.
    pub fn key_error(&self, entry: &Entry<'_>, why: impl Display) -> Error {
        self.error(entry.at, format_args!("{}: {why}", entry.key))
    }

    /// Returns the table of a key.
    pub fn table(&self, entry: &Entry<'t>) -> Result<Table<'t>> {
        let wrong = || self.key_error(entry, format_args!("it is a table: write [{}]", entry.key));
        entry.value.get_ref().as_table().map(|table| Table::of(table, entry.at)).ok_or_else(wrong)
    }

    /// Returns the tables of a key that may occur several times, as `[[KEY]]`.
    pub fn tables(&self, entry: &Entry<'t>) -> Result<Vec<Table<'t>>> {
        let Some(array) = entry.value.get_ref().as_array() else { return self.table(entry).map(|table| vec![table]) };
        let wrong = || self.key_error(entry, format_args!("write [{0}], or [[{0}]] for each of several", entry.key));
        let of = |value: &'t Spanned<DeValue<'t>>| {
            value.get_ref().as_table().map(|table| Table::of(table, value.span().start)).ok_or_else(wrong)
        };
        array.iter().map(of).collect()
    }

    /// Returns one string or a list of strings as a list.
    pub fn strings(&self, entry: &Entry<'t>) -> Result<Vec<String>> {
        let wrong = || self.key_error(entry, "write a string, or a list of strings: [\"a\", \"b\"]");
        let of = |value: &Spanned<DeValue<'t>>| value.get_ref().as_str().map(str::to_owned).ok_or_else(wrong);
        match entry.value.get_ref() {
            DeValue::Array(array) => array.iter().map(of).collect(),
            _ => of(entry.value).map(|one| vec![one]),
        }
    }
}

impl<'t> Table<'t> {
    /// Lists the entries of a table in the order of the text.
    pub fn of(table: &'t DeTable<'t>, at: usize) -> Self {
        let entry = |(key, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
            let name: &std::borrow::Cow<'t, str> = key.get_ref();
            Entry { key: name, value, at: key.span().start }
        };
        let mut entries: Vec<_> = table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.at);
        Table { entries, at }
    }

    /// Returns the entry of a key.
    pub fn get(&self, key: &str) -> Option<&Entry<'t>> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_file_line_and_key() {
        let text = Text { file: "home.toml", text: "a = 1\n\n[push]\nsources = 5\n" };
        let parsed = text.parse().unwrap();
        let top = Table::of(parsed.get_ref(), 0);
        let push = text.table(top.get("push").unwrap()).unwrap();
        let error = text.strings(push.get("sources").unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("home.toml, line 4: sources: write a string"), "{error}");
        assert_eq!(error.kind(), Kind::Usage);
        for (wrong, line) in [("a = 1\na = 2\n", 2), ("a = 1\n[b\n", 2), ("x = \"\n", 1)] {
            let error = Text { file: "f", text: wrong }.parse().map(drop).unwrap_err().to_string();
            assert!(error.starts_with(&format!("f, line {line}: ")), "{error}");
        }
    }
}
