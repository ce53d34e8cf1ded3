//! `nfreezer restore`: writes the contents of a snapshot into a folder.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::json;

use super::exit::{DAMAGED, OK};
use super::figures::Work;
use super::filter::FilterArgs;
use super::open::{read_state_verbosely, to_read};
use super::options::{ProgressArgs, ReadArgs};
use super::output::{self, Output};
use super::progress::Reporter;
use super::values::{looks_remote, snapshot_and_path};
use super::{escape, human, signals};
use crate::error::{Error, Kind, Result};
use crate::format::node::Content;
use crate::format::record::Snapshot;
use crate::repo::{Repository, State};
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
    /// The folder to write into, created if missing
    #[arg(short, long, value_name = "DIR", required_unless_present = "extra")]
    target: Option<PathBuf>,
    /// Files that exist with other contents
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    overwrite: OverwriteArg,
    /// Restore owners by number, not by name
    #[arg(long)]
    numeric_ids: bool,
    #[arg(hide = true)]
    extra: Option<OsString>,
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
    /// replace all without comparing
    Always,
}

/// Restores; the exit code is 4 if damage prevented a part of it, 1 if anything else did.
pub fn run(args: &Args) -> Result<u8> {
    refuse_extra_argument(args)?;
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
    let mut reporter = Reporter::new(args.progress, Work::Files("restored"));
    let ctx = reporter.attach(signals::catch());
    let place = place(&repo, &snapshot, &path, target);
    let result = restore::restore(&ctx, &repo, &snapshot, &path, target, &options(args, state));
    reporter.finish();
    let summary = result?;
    if !output.quiet {
        print(&mut out, &summary)?;
        out.line(format_args!("snapshot {} restored to {}", snapshot.id.short(), escape::path(&place)))?;
    }
    let mut fields = fields(&summary);
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

fn options(args: &Args, state: State) -> restore::Options {
    restore::Options {
        overwrite: match args.overwrite {
            OverwriteArg::Never => restore::Overwrite::Never,
            OverwriteArg::IfChanged => restore::Overwrite::IfChanged,
            OverwriteArg::Always => restore::Overwrite::Always,
        },
        numeric_ids: args.numeric_ids,
        state: Some(state),
        ..restore::Options::default()
    }
}

fn print(out: &mut Output, s: &restore::Summary) -> Result<()> {
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
    out.line(format_args!(
        "restored {}, {}{} in {seconds:.1} s",
        human::count(s.files, "file"),
        human::size(s.bytes),
        made.collect::<String>()
    ))?;
    if s.reused > 0 {
        let (reused, received) = (human::size(s.reused), human::size(s.received));
        out.line(format_args!("{reused} of it were in the target already; {received} received"))?;
    }
    let notes = [
        (s.existing, "was there already with these contents", "were there already with these contents"),
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
        "existing": s.existing, "damaged": s.damaged, "failed": s.failed, "unreadable": s.unreadable,
        "left_out": s.left_out, "attributes": s.attributes, "flags": s.flags, "reused": s.reused,
        "received": s.received,
        "seconds": s.duration.as_secs_f64(),
    }))
}

/// Refuses a second argument. It is the target in the form of the Python nFreezer, and a path in other tools.
fn refuse_extra_argument(args: &Args) -> Result<()> {
    let Some(extra) = &args.extra else { return Ok(()) };
    let [what, extra_text] = [&args.what, extra].map(|s| escape::text(s.as_encoded_bytes()));
    if looks_remote(&args.what) {
        let hint = format!("write `nfreezer restore -r {what} latest --target {extra_text}`");
        return Err(Error::new(Kind::Usage, "this is the form of the old nfreezer").hint(hint));
    }
    let hint = match &args.target {
        Some(target) => {
            let path = std::path::absolute(extra).unwrap_or_else(|_| Path::new(extra).to_owned());
            let (path, target) = (escape::path(&path), escape::path(target));
            format!("the path follows the snapshot: `nfreezer restore {what}:{path} --target {target}`")
        }
        None => format!("write `nfreezer restore {what} --target {extra_text}`"),
    };
    Err(Error::new(Kind::Usage, format!("unexpected argument {extra_text}")).hint(hint))
}
