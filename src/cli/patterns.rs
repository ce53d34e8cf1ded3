//! Patterns of options and of the lists that options name.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{escape, lists};
use crate::error::Result;
use crate::pattern::{self, Pattern};

/// Appends the patterns of an option, then the patterns of the lists beside it.
pub fn collect(
    given: &[OsString],
    files: &[PathBuf],
    option: &str,
    ignore_case: bool,
    patterns: &mut Vec<Pattern>,
) -> Result<()> {
    let pattern = |text: &OsString| Pattern { text: text.as_bytes().to_vec(), ignore_case, place: option.to_owned() };
    patterns.extend(given.iter().map(pattern));
    let list = format!("{option}-file");
    files.iter().try_for_each(|file| read(&list, file, ignore_case, patterns))
}

fn read(list: &str, file: &Path, ignore_case: bool, patterns: &mut Vec<Pattern>) -> Result<()> {
    let name = escape::text(file.as_os_str().as_bytes());
    let bytes = lists::read(list, file, "patterns")?;
    for (i, line) in pattern::lines(&bytes).enumerate() {
        let line = line.trim_ascii();
        if !line.is_empty() && !line.starts_with(b"#") {
            patterns.push(Pattern { text: line.to_vec(), ignore_case, place: format!("{name}, line {}", i + 1) });
        }
    }
    Ok(())
}
