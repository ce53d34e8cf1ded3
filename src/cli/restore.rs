//! `nfreezer restore`: writes what a snapshot holds into a folder.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

use super::common::{Common, looks_remote, open_repository, read_state, snapshot_and_path};
use super::progress::Reporter;
use super::show::{self, Output};
use super::{DAMAGED, OK, signals};
use crate::error::{Error, Kind, Result};
use crate::restore;

/// Arguments of `restore`.
#[derive(clap::Args)]
pub struct Args {
    /// The snapshot (an id, `latest`, `latest~N`) and a path in it, whose contents are restored
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    what: OsString,
    /// The folder to write into; it is made if it does not exist
    #[arg(short, long, value_name = "DIR", required_unless_present = "old")]
    target: Option<PathBuf>,
    /// What to do with files that are there already with other contents
    #[arg(long, value_enum, default_value_t)]
    overwrite: Overwrite,
    /// Owners by number, not by name
    #[arg(long)]
    numeric_ids: bool,
    #[arg(hide = true)]
    old: Option<OsString>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Overwrite {
    /// leave them and report them
    #[default]
    Never,
    /// replace them; equal contents only get their attributes
    IfChanged,
    /// replace all without comparing
    Always,
}

/// Exit code 4 if damage kept something from being restored, 1 if anything else did.
pub fn run(common: &Common, args: &Args) -> Result<u8> {
    refuse_old_form(args)?;
    let Some(target) = &args.target else { return Err(Error::new(Kind::Usage, "--target is missing")) };
    let (snapshot, path) = snapshot_and_path(&args.what)?;
    let repo = open_repository(common)?;
    let mut out = Output::new(common.json);
    let snapshot = read_state(&repo, &mut out)?.select(&snapshot)?;
    let mut reporter = Reporter::new(common, "restored");
    let ctx = reporter.attach(signals::catch()?);
    let options = restore::Options {
        overwrite: match args.overwrite {
            Overwrite::Never => restore::Overwrite::Never,
            Overwrite::IfChanged => restore::Overwrite::IfChanged,
            Overwrite::Always => restore::Overwrite::Always,
        },
        numeric_ids: args.numeric_ids,
        ..restore::Options::default()
    };
    let result = restore::restore(&ctx, &repo, &snapshot, &path, target, &options);
    reporter.finish();
    let summary = result?;
    if !common.quiet {
        say(&mut out, &summary)?;
        let place = show::text(target.as_os_str().as_encoded_bytes());
        out.line(format_args!("snapshot {} restored to {place}", snapshot.id.short()))?;
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

fn say(out: &mut Output, s: &restore::Summary) -> Result<()> {
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
        show::count(s.files, "file"),
        show::size(s.bytes),
        made.collect::<String>()
    ))?;
    let notes = [
        (s.existing, "was there already with these contents", "were there already with these contents"),
        (s.damaged, "DAMAGED: not restored", "DAMAGED: not restored"),
        (s.failed, "could not be restored", "could not be restored"),
        (s.unreadable, "was not readable when it was saved", "were not readable when they were saved"),
        (s.left_out, "device is left out: not permitted", "devices are left out: not permitted"),
        (s.attributes, "owner or attribute could not be set", "owners or attributes could not be set"),
    ];
    let said = notes.iter().filter(|(n, ..)| *n > 0);
    said.map(|(n, one, more)| format!("{n} {}", if *n == 1 { one } else { more })).try_for_each(|line| out.line(line))
}

fn fields(s: &restore::Summary) -> serde_json::Map<String, serde_json::Value> {
    show::object(json!({
        "files": s.files, "bytes": s.bytes, "directories": s.directories, "links": s.links, "others": s.others,
        "existing": s.existing, "damaged": s.damaged, "failed": s.failed, "unreadable": s.unreadable,
        "left_out": s.left_out, "attributes": s.attributes, "received": s.received,
        "seconds": s.duration.as_secs_f64(),
    }))
}

/// `nfreezer restore user@host:/path DEST` is how the Python tool was called.
fn refuse_old_form(args: &Args) -> Result<()> {
    let Some(target) = &args.old else { return Ok(()) };
    let [place, target] = [&args.what, target].map(|s| show::text(s.as_encoded_bytes()));
    Err(if looks_remote(&args.what) {
        let hint = format!("write: nfreezer restore -r {place} latest --target {target}");
        Error::new(Kind::Usage, "this is how the old nfreezer was called").hint(hint)
    } else {
        let hint = format!("write: nfreezer restore {place} --target {target}");
        Error::new(Kind::Usage, format!("unexpected argument {target}")).hint(hint)
    })
}
