//! Turns the arguments into the rules for excluded files.

use std::os::unix::ffi::OsStrExt;

use super::args::Args;
use crate::cli::patterns;
use crate::error::Result;
use crate::push::Select;

/// The header of <https://bford.info/cachedir/>.
const CACHEDIR: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Returns all rules, with their patterns compiled.
pub fn select(args: &Args) -> Result<Select> {
    let mut all = Vec::new();
    for (given, files, option, ignore_case) in [
        (&args.exclude, &args.exclude_file, "--exclude", false),
        (&args.iexclude, &args.iexclude_file, "--iexclude", true),
    ] {
        patterns::collect(given, files, option, ignore_case, &mut all)?;
    }
    let mut select = Select::new(&all)?;
    if args.exclude_caches {
        select.exclude_if_present(b"CACHEDIR.TAG", CACHEDIR)?;
    }
    marks(args, &mut select)?;
    select.larger_than = args.exclude_larger_than;
    select.nodump = args.exclude_nodump;
    select.ignore_files = !args.no_ignore_files;
    select.one_file_system = args.one_file_system;
    Ok(select)
}

/// Checks the patterns of the command line. Lists are not read.
pub fn check_values(args: &Args) -> Result<()> {
    let mut all = Vec::new();
    patterns::collect(&args.exclude, &[], "--exclude", false, &mut all)?;
    patterns::collect(&args.iexclude, &[], "--iexclude", true, &mut all)?;
    marks(args, &mut Select::new(&all)?)
}

fn marks(args: &Args, select: &mut Select) -> Result<()> {
    for mark in &args.exclude_if_present {
        let mut parts = mark.as_bytes().splitn(2, |byte| *byte == b':');
        let (name, header) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        select.exclude_if_present(name, header).map_err(|e| e.while_doing("--exclude-if-present"))?;
    }
    Ok(())
}
