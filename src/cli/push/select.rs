//! Turns the arguments into the rules for excluded files.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::args::Args;
use crate::cli::escape;
use crate::error::{Error, Result};
use crate::pattern;
use crate::push::{Pattern, Select};

/// The header of <https://bford.info/cachedir/>.
const CACHEDIR: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// All rules, with their patterns compiled.
pub fn select(args: &Args) -> Result<Select> {
    let mut patterns = Vec::new();
    for (given, files, option, ignore_case) in [
        (&args.exclude, &args.exclude_file, "--exclude", false),
        (&args.iexclude, &args.iexclude_file, "--iexclude", true),
    ] {
        let place = || option.to_owned();
        let pattern = |text: &OsString| Pattern { text: text.as_bytes().to_vec(), ignore_case, place: place() };
        patterns.extend(given.iter().map(pattern));
        for file in files {
            read(file, ignore_case, &mut patterns)?;
        }
    }
    let mut select = Select::new(&patterns)?;
    if args.exclude_caches {
        select.exclude_if_present(b"CACHEDIR.TAG", CACHEDIR)?;
    }
    for mark in &args.exclude_if_present {
        let mut parts = mark.as_bytes().splitn(2, |byte| *byte == b':');
        let (name, header) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        select.exclude_if_present(name, header).map_err(|e| e.while_doing("--exclude-if-present"))?;
    }
    select.larger_than = args.exclude_larger_than;
    select.nodump = args.exclude_nodump;
    select.ignore_files = !args.no_ignore_files;
    select.one_file_system = args.one_file_system;
    Ok(select)
}

fn read(file: &Path, ignore_case: bool, patterns: &mut Vec<Pattern>) -> Result<()> {
    let name = escape::text(file.as_os_str().as_bytes());
    let bytes = std::fs::read(file).map_err(|e| Error::io(format!("read the patterns in {name}"), e))?;
    for (i, line) in pattern::lines(&bytes).enumerate() {
        let line = line.trim_ascii();
        if !line.is_empty() && !line.starts_with(b"#") {
            patterns.push(Pattern { text: line.to_vec(), ignore_case, place: format!("{name}, line {}", i + 1) });
        }
    }
    Ok(())
}
