//! `nfreezer restore`: writes the contents of a snapshot into a folder.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::json;

use super::exit::{DAMAGED, OK};
use super::figures::Work;
use super::filter::{self, FilterArgs};
use super::open::{read_state_verbosely, to_read};
use super::options::{ProgressArgs, ReadArgs};
use super::output::{self, Output};
use super::progress::Reporter;
use super::values::{looks_remote, snapshot_and_path};
use super::{escape, human, patterns, signals};
use crate::error::{Error, Kind, Result};
use crate::format::node::Content;
use crate::format::record::Snapshot;
use crate::pattern::Patterns;
use crate::repo::Repository;
use crate::restore;
use crate::trees::Trees;

/// Arguments of `restore`.
#[derive(clap::Args)]
pub struct Args {
    /// The snapshot (an id, `latest`, `latest~N`) and a path in it
    ///
    /// The contents of that folder, or that file, are restored.
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    what: OsString,
    /// Restore only these files and folders of that folder
    ///
    /// They keep their paths below DIR, relative to the folder behind the colon.
    #[arg(value_name = "PATH", hide_short_help = true)]
    only: Vec<OsString>,
    /// The folder to write into, created if missing
    #[arg(short, long, value_name = "DIR", required_unless_present = "only")]
    target: Option<PathBuf>,
    /// never, if-changed, if-newer, always
    ///
    /// Whether a file that exists with other contents is replaced.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, hide_possible_values = true)]
    overwrite: OverwriteArg,
    /// Restore only matching entries: `*.tex`, `thesis/`
    ///
    /// The patterns are the same as for `push --exclude`, for paths in the snapshot: `docs/` matches a folder of this name
    /// anywhere, `/home/me/docs/` only that one. A matching folder is restored with all that is in it.
    #[arg(long, value_name = "PATTERN")]
    include: Vec<OsString>,
    /// Like --include, but ignores the case of letters
    #[arg(long, value_name = "PATTERN", hide_short_help = true)]
    iinclude: Vec<OsString>,
    /// Read patterns for --include from FILE, one per line
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    include_file: Vec<PathBuf>,
    /// Read patterns for --iinclude from FILE
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    iinclude_file: Vec<PathBuf>,
    /// Leave out matching entries, also of those that --include restores
    #[arg(short, long, value_name = "PATTERN", hide_short_help = true)]
    exclude: Vec<OsString>,
    /// Like --exclude, but ignores the case of letters
    #[arg(long, value_name = "PATTERN", hide_short_help = true)]
    iexclude: Vec<OsString>,
    /// Read patterns for --exclude from FILE, one per line
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    exclude_file: Vec<PathBuf>,
    /// Read patterns for --iexclude from FILE
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    iexclude_file: Vec<PathBuf>,
    /// Delete entries of the restored folders that the snapshot lacks
    ///
    /// Entries that --include and --exclude leave out stay, and so do mount points and folders above the sources of the
    /// snapshot. --dry-run shows what would be deleted.
    #[arg(long, hide_short_help = true)]
    delete: bool,
    /// Print what would be done, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Read each file back from the disk before it gets its name
    #[arg(long, hide_short_help = true)]
    verify: bool,
    /// Restore owners by number, not by name
    #[arg(long, hide_short_help = true)]
    numeric_ids: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum OverwriteArg {
    /// leave them and report them
    #[default]
    Never,
    /// replace them; equal contents only get their attributes
    IfChanged,
    /// replace them if the saved one was modified later
    IfNewer,
    /// replace all without comparing
    Always,
}

/// Restores; the exit code is 4 if damage prevented a part of it, 1 if anything else did.
pub fn run(args: &Args) -> Result<u8> {
    refuse_old_form(args)?;
    let Some(target) = &args.target else {
        return Err(Error::new(Kind::Usage, "no target is given").hint("add --target DIR"));
    };
    if target.as_os_str() == "-" {
        return Err(Error::new(Kind::Usage, "restore writes into a folder, not to standard output").hint(format!(
            "use `nfreezer dump {}`, or --target ./- for a folder of that name",
            escape::text(args.what.as_encoded_bytes())
        )));
    }
    let output = args.progress.output;
    let (snapshot, path) = snapshot_and_path(&args.what)?;
    let repo = to_read(&args.repository, output)?;
    let mut out = Output::new(output.json);
    let state = read_state_verbosely(&repo, &mut out, args.progress)?;
    let (snapshot, path) = args.filter.locate(&repo, &state, &snapshot, path)?;
    let mut options = restore::Options { state: Some(state), ..options(args, &path)? };
    let paths = std::mem::take(&mut options.selection.paths).into_iter();
    options.selection.paths = paths.map(|path| filter::as_printed(&repo, &snapshot, path)).collect();
    let work = if args.dry_run { "compared" } else { "restored" };
    let mut reporter = Reporter::new(args.progress, Work::Files(work));
    let ctx = reporter.attach(signals::catch());
    let place = place(&repo, &snapshot, &path, target);
    let result = restore::restore(&ctx, &repo, &snapshot, &path, target, &options);
    reporter.finish();
    let summary = result?;
    if !output.quiet {
        print(&mut out, &summary, args.dry_run)?;
        match args.dry_run {
            true => out.line("dry run: nothing was written")?,
            false => out.line(format_args!("snapshot {} restored to {}", snapshot.id.short(), escape::path(&place)))?,
        }
    }
    let mut fields = fields(&summary);
    fields.insert("dry_run".into(), args.dry_run.into());
    fields.insert("snapshot".into(), snapshot.id.to_string().into());
    fields.insert("short_id".into(), snapshot.id.short().into());
    out.object("summary", fields)?;
    out.flush()?;
    Ok(match (summary.damaged, summary.failed) {
        (0, 0) => OK,
        (0, _) => 1,
        _ => DAMAGED,
    })
}

/// Returns the path of the restored folder or file: a single file keeps its name in the target.
fn place(repo: &Repository, snapshot: &Snapshot, path: &[u8], target: &Path) -> PathBuf {
    match Trees::new(repo).find(signals::context(), snapshot, path) {
        Ok(Some(node)) if !matches!(node.content, Content::Directory(_)) => target.join(OsStr::from_bytes(&node.name)),
        _ => target.to_owned(),
    }
}

fn options(args: &Args, base: &[u8]) -> Result<restore::Options> {
    let (mut include, mut exclude) = (Vec::new(), Vec::new());
    for (given, files, option, ignore_case) in [
        (&args.include, &args.include_file, "--include", false),
        (&args.iinclude, &args.iinclude_file, "--iinclude", true),
    ] {
        patterns::collect(given, files, option, ignore_case, &mut include)?;
    }
    for (given, files, option, ignore_case) in [
        (&args.exclude, &args.exclude_file, "--exclude", false),
        (&args.iexclude, &args.iexclude_file, "--iexclude", true),
    ] {
        patterns::collect(given, files, option, ignore_case, &mut exclude)?;
    }
    Ok(restore::Options {
        overwrite: match args.overwrite {
            OverwriteArg::Never => restore::Overwrite::Never,
            OverwriteArg::IfChanged => restore::Overwrite::IfChanged,
            OverwriteArg::IfNewer => restore::Overwrite::IfNewer,
            OverwriteArg::Always => restore::Overwrite::Always,
        },
        selection: restore::Selection {
            paths: args.only.iter().map(|path| below(base, path)).collect::<Result<_>>()?,
            include: Patterns::new(&include)?,
            exclude: Patterns::new(&exclude)?,
        },
        delete: args.delete,
        dry_run: args.dry_run,
        verify: args.verify,
        numeric_ids: args.numeric_ids,
        ..restore::Options::default()
    })
}

/// Returns the path in the snapshot of a further argument: relative to the folder behind the colon, or absolute and below it.
fn below(base: &[u8], path: &OsStr) -> Result<Vec<u8>> {
    let text = path.as_encoded_bytes();
    let base = base.strip_suffix(b"/").unwrap_or(base);
    if !text.starts_with(b"/") {
        return Ok([base, b"/", text].concat());
    }
    if text.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")) {
        return Ok(text.to_vec());
    }
    let what = format!("{} is not below {}", escape::text(text), escape::text(base));
    Err(Error::new(Kind::Usage, what).hint("further paths are relative to the folder after the colon"))
}

fn print(out: &mut Output, s: &restore::Summary, dry_run: bool) -> Result<()> {
    let made = [
        (s.directories, "directory", "directories"),
        (s.links, "hard link", "hard links"),
        (s.others, "other", "others"),
    ];
    let made = made
        .iter()
        .filter(|(n, ..)| *n > 0)
        .map(|(n, one, more)| format!(", {n} {}", if *n == 1 { one } else { more }));
    let seconds = s.duration.as_secs_f64();
    let verb = if dry_run { "would restore" } else { "restored" };
    out.line(format_args!(
        "{verb} {}, {}{} in {seconds:.1} s",
        human::count(s.files, "file"),
        human::size(s.bytes),
        made.collect::<String>()
    ))?;
    if dry_run {
        out.line(format_args!("would fetch at most {}", human::size(s.to_fetch)))?;
    }
    if s.reused > 0 {
        let (reused, received) = (human::size(s.reused), human::size(s.received));
        out.line(format_args!("{reused} of it are in the target already; {received} received"))?;
    }
    let deleted = if dry_run { "would be deleted" } else { "deleted" };
    let notes = [
        (s.existing, "was there already with these contents", "were there already with these contents"),
        (s.kept, "is not older than the saved one and stays", "are not older than the saved ones and stay"),
        (s.deleted, deleted, deleted),
        (s.verified, "file verified on the disk", "files verified on the disk"),
        (s.damaged, "DAMAGED: not restored", "DAMAGED: not restored"),
        (s.failed, "could not be restored", "could not be restored"),
        (s.unreadable, "was not readable when it was saved", "were not readable when they were saved"),
        (s.left_out, "device is left out: not permitted", "devices are left out: not permitted"),
        (
            s.flags,
            "entry has flags (chattr) that could not be set",
            "entries have flags (chattr) that could not be set",
        ),
        (s.attributes, "owner or attribute could not be set", "owners or attributes could not be set"),
    ];
    let said = notes.iter().filter(|(n, ..)| *n > 0);
    said.map(|(n, one, more)| format!("{n} {}", if *n == 1 { one } else { more })).try_for_each(|line| out.line(line))
}

fn fields(s: &restore::Summary) -> serde_json::Map<String, serde_json::Value> {
    output::object(json!({
        "files": s.files, "bytes": s.bytes, "directories": s.directories, "links": s.links, "others": s.others,
        "existing": s.existing, "kept": s.kept, "deleted": s.deleted, "verified": s.verified,
        "damaged": s.damaged, "failed": s.failed, "unreadable": s.unreadable, "left_out": s.left_out,
        "attributes": s.attributes, "flags": s.flags, "reused": s.reused, "to_fetch": s.to_fetch,
        "received": s.received,
        "seconds": s.duration.as_secs_f64(),
    }))
}

/// Refuses the form of the Python nFreezer, whose second argument is the target, and a target without its option.
fn refuse_old_form(args: &Args) -> Result<()> {
    let Some(extra) = args.only.first() else { return Ok(()) };
    let [what, extra_text] = [&args.what, extra].map(|s| escape::text(s.as_encoded_bytes()));
    if looks_remote(&args.what) {
        let hint = format!("write `nfreezer restore -r {what} latest --target {extra_text}`");
        return Err(Error::new(Kind::Usage, "this is the form of the old nfreezer").hint(hint));
    }
    if args.target.is_some() {
        return Ok(());
    }
    let hint = format!("write `nfreezer restore {what} --target {extra_text}`");
    Err(Error::new(Kind::Usage, format!("unexpected argument {extra_text}")).hint(hint))
}
