//! `nfreezer diff`: compares two snapshots, or a snapshot with a folder on the disk.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::exit::{DAMAGED, OK, exit_code};
use super::filter::FilterArgs;
use super::open::{read_state, to_read};
use super::options::{OutputArgs, ReadArgs};
use super::output::{self, Output};
use super::snapshot::paths;
use super::table::{self, Columns};
use super::values::{rules, snapshot_and_path};
use super::{escape, human, signals};
use crate::diff::{self, Counts, Disk, Entry, Folders, Kind, Modifier, Report, Side, Summary};
use crate::error::{self, Error, Result};
use crate::format::node::Content;
use crate::format::record::Snapshot;
use crate::format::reference::Ref;
use crate::repo::State;
use crate::trees::Trees;

/// Arguments of `diff`.
#[derive(clap::Args)]
pub struct Args {
    /// The old snapshot and a path in it
    ///
    /// By default the last one of the same host and sources before `latest`; with --with, `latest`.
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    old: Option<OsString>,
    /// The new snapshot [default: latest]
    ///
    /// Without a path, the path of the old one holds.
    #[arg(value_name = "SNAPSHOT[:PATH]", conflicts_with = "with")]
    new: Option<OsString>,
    /// Compare with this folder on the disk
    #[arg(long, value_name = "DIR")]
    with: Option<PathBuf>,
    /// Compare contents of files, not their times
    ///
    /// Files of the same size are read.
    #[arg(long, requires = "with")]
    content: bool,
    /// Print changed attributes too
    ///
    /// Mode, owner, time and extended attributes.
    #[arg(long)]
    metadata: bool,
    /// Print sums for each folder, the largest growth first
    #[arg(long)]
    stat: bool,
    /// Levels of folders that --stat prints
    #[arg(long, value_name = "N", default_value_t = 1, requires = "stat", hide_short_help = true)]
    depth: usize,
    /// Leave out paths of DIR that match PATTERN, as in `push`
    #[arg(short, long, value_name = "PATTERN", requires = "with", hide_short_help = true)]
    exclude: Vec<OsString>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

const COLUMNS: Columns<5> =
    Columns { head: ["Folder", "Added", "Removed", "Changed", "Growth"], left: 1, shortened: &[0], optional: &[] };

/// Prints one line for each path that differs, then the sums.
pub fn run(args: &Args) -> Result<u8> {
    let excluded = rules("--exclude", &args.exclude, false)?;
    let repo = to_read(&args.repository, args.output)?;
    let mut out = Output::new(args.output.json);
    let state = read_state(&repo, &mut out)?;
    let trees = Trees::new(&repo);
    let select = |what: &OsString, path: Option<&[u8]>| -> Result<Top> {
        let (name, own) = snapshot_and_path(what)?;
        let path = path.filter(|_| own.is_empty()).map_or(own, <[u8]>::to_vec);
        let (snapshot, path) = args.filter.locate(&repo, &state, &name, path)?;
        Top::of(&trees, snapshot, &path)
    };
    let ctx = signals::catch();
    let (printer, old, new) = match &args.with {
        Some(dir) => {
            let dir = std::path::absolute(dir).map_err(|e| Error::io(format!("find {}", escape::path(dir)), e))?;
            let old = args.old.clone().unwrap_or_else(|| "latest".into());
            let old = select(&old, Some(dir.as_os_str().as_bytes()))?;
            let excludes = |path: &[u8], folder: bool| excluded.verdict(path, folder).is_some_and(|v| v.excluded);
            let disk = Disk { dir: &dir, contents: args.content, attributes: args.metadata, excludes: &excludes };
            let mut printer = Printer::new(args, out, &old.path, dir.as_os_str().as_bytes());
            printer.compare(|report| diff::with_disk(ctx, &trees, old.page.as_ref(), &disk, report))?;
            (printer, old, None)
        }
        None => {
            let old = match &args.old {
                Some(old) => select(old, None)?,
                None => select(&previous(&state, &args.filter)?.into(), None)?,
            };
            let new = select(args.new.as_ref().unwrap_or(&"latest".into()), Some(&old.path))?;
            warn_of_sources(&mut out, &old.snapshot, &new.snapshot)?;
            let mut printer = Printer::new(args, out, &old.path, &new.path);
            let (from, to) = (old.page.as_ref(), new.page.as_ref());
            printer.compare(|report| diff::snapshots(ctx, &trees, from, to, report))?;
            (printer, old, Some(new))
        }
    };
    printer.finish(&old, new.as_ref())
}

/// Returns the id of the last snapshot before `latest` of the same host and sources; `latest~1` if there is none.
fn previous(state: &State, filter: &FilterArgs) -> Result<String> {
    let latest = filter.select(state, "latest")?;
    let snapshots = state.snapshots();
    let is_earlier = |s: &&Snapshot| !s.partial && s.group == latest.group && s.id != latest.id && filter.passes(s);
    let earlier = snapshots.iter().rev().filter(is_earlier).find(|s| s.time <= latest.time);
    Ok(earlier.map_or_else(|| "latest~1".to_owned(), |snapshot| snapshot.id.to_string()))
}

/// Warns if two snapshots have different sources, since then most differences are no changes.
fn warn_of_sources(out: &mut Output, old: &Snapshot, new: &Snapshot) -> Result<()> {
    if old.group == new.group {
        return Ok(());
    }
    let named = |s: &Snapshot| format!("{} of {}: {}", s.id.short(), escape::text(s.host.as_bytes()), paths(s));
    output::warning(out, &format!("the snapshots have different sources: {}; {}", named(old), named(new)))
}

/// A directory of a snapshot.
struct Top {
    snapshot: Snapshot,
    path: Vec<u8>,
    page: Option<Ref>,
}

impl Top {
    fn of(trees: &Trees<'_>, snapshot: Snapshot, path: &[u8]) -> Result<Self> {
        let page = match trees.at(signals::context(), &snapshot, path)?.content {
            Content::Directory(page) => page,
            _ => {
                let text = format!("{} is not a folder in snapshot {}", escape::text(path), snapshot.id.short());
                return Err(Error::failed(text).hint("give the folder that holds it"));
            }
        };
        Ok(Top { snapshot, path: path.to_vec(), page })
    }
}

struct Printer<'a> {
    args: &'a Args,
    out: Output,
    /// The paths of both sides, without a slash at the end.
    bases: [Vec<u8>; 2],
    summary: Summary,
    folders: Folders,
    damaged: u64,
}

impl<'a> Printer<'a> {
    fn new(args: &'a Args, out: Output, old: &[u8], new: &[u8]) -> Self {
        let bases = [old, new].map(base);
        Printer { args, out, bases, summary: Summary::default(), folders: Folders::default(), damaged: 0 }
    }

    fn compare(&mut self, compare: impl FnOnce(Report<'_>) -> Result<()>) -> Result<()> {
        let (json, base) = (self.args.output.json, self.bases[0].clone());
        let mut damaged = 0;
        let unreadable = &mut |path: &[u8], why: &Error| {
            damaged += u64::from(why.kind().is_damage());
            let path = escape::text(&[&base, path].concat());
            let why = Error::new(why.kind(), format!("cannot compare {path}: {why}"));
            output::error(json, &why, exit_code(why.kind()));
        };
        let compared = compare(Report { entry: &mut |entry| self.entry(&entry), unreadable });
        self.damaged = damaged;
        if self.out.is_closed() { Ok(()) } else { compared }
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.summary.add(entry);
        if self.args.stat {
            self.folders.add(entry);
            return Ok(());
        }
        if self.out.is_closed() {
            return Err(Error::new(error::Kind::Cancelled, "standard output is closed"));
        }
        if entry.modifier == Modifier::Attributes && !self.args.metadata {
            return Ok(());
        }
        let base = &self.bases[usize::from(entry.modifier != Modifier::Removed)];
        let path = [base, entry.path.as_slice()].concat();
        let from = entry.from.as_ref().map(|from| [&self.bases[0], from.as_slice()].concat());
        if self.out.is_json() {
            self.out.object("change", fields(entry, &path, from.as_deref()))
        } else {
            let slash = if is_directory(entry) { "/" } else { "" };
            let from = from.map(|from| format!("{}{slash} -> ", escape::text(&from))).unwrap_or_default();
            self.out.line(format_args!("{:<4} {from}{}{slash}", letter(entry.modifier), escape::text(&path)))
        }
    }

    /// Prints the sums. Returns the exit code.
    fn finish(mut self, old: &Top, new: Option<&Top>) -> Result<u8> {
        if self.args.stat {
            self.print_folders()?;
        }
        if !self.args.output.quiet {
            self.print_names(old, new)?;
            self.print_sums()?;
        }
        let s = self.summary;
        let mut fields = output::object(json!({
            "source_snapshot": old.snapshot.id.to_string(),
            "target_snapshot": new.map(|new| new.snapshot.id.to_string()),
            "changed_files": s.changed, "types": s.types, "attributes": s.attributes, "renamed": s.renamed,
            "added": counts(&s.added), "removed": counts(&s.removed), "damaged": self.damaged,
        }));
        if new.is_none() {
            output::put_bytes(&mut fields, "directory", &self.bases[1]);
        }
        self.out.object("summary", fields)?;
        self.out.flush()?;
        Ok(if self.damaged > 0 { DAMAGED } else { OK })
    }

    fn print_folders(&mut self) -> Result<()> {
        let base = self.bases[1].clone();
        let rows = self.folders.grown(self.args.depth);
        if self.out.is_json() {
            return rows.iter().try_for_each(|(path, sum)| {
                let mut fields = output::object(json!({
                    "added": sum.added, "removed": sum.removed, "changed": sum.changed, "growth": sum.growth,
                }));
                output::put_bytes(&mut fields, "path", &shown(&base, path));
                self.out.object("folder", fields)
            });
        }
        let rows: Vec<_> = rows
            .iter()
            .map(|(path, sum)| {
                let numbers = [sum.added, sum.removed, sum.changed].map(|n| n.to_string());
                let [added, removed, changed] = numbers;
                [escape::text(&shown(&base, path)), added, removed, changed, human::growth(sum.growth)]
            })
            .collect();
        table::print(&mut self.out, &COLUMNS, &rows)
    }

    fn print_names(&mut self, old: &Top, new: Option<&Top>) -> Result<()> {
        let named = |top: &Top| format!("{} of {}", top.snapshot.id.short(), human::time(top.snapshot.time));
        let new = new.map_or_else(|| escape::text(&shown(&self.bases[1], b"")), named);
        self.out.line(format_args!("Compared: {} with {new}", named(old)))
    }

    fn print_sums(&mut self) -> Result<()> {
        let Summary { changed, types, attributes, renamed, added, removed } = self.summary;
        let row = |name, new, old| format!("{name:<9} {new:>6} new, {old:>6} removed");
        let files = row("Files:", added.files, removed.files);
        self.out.line(format_args!("{files}, {changed:>6} changed"))?;
        self.out.line(row("Folders:", added.dirs, removed.dirs))?;
        self.out.line(row("Others:", added.others, removed.others))?;
        for (n, how) in [(types, "with another type"), (renamed, "renamed, with all below")] {
            if n > 0 {
                self.out.line(format_args!("{} {how}", human::count(n, "entry")))?;
            }
        }
        if attributes > 0 && !self.args.metadata {
            let entries = human::count(attributes, "entry");
            self.out.line(format_args!("{entries} with other attributes only (--metadata prints them)"))?;
        }
        self.out.line(format_args!("Added:    {}", human::size(added.bytes)))?;
        self.out.line(format_args!("Removed:  {}", human::size(removed.bytes)))
    }
}

/// Returns a path with a slash in front and none at the end; the empty path is the root.
fn base(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    parts.iter().flat_map(|part| [b"/", *part].concat()).collect()
}

/// Returns the path of a folder, given relative to `base`.
fn shown(base: &[u8], path: &[u8]) -> Vec<u8> {
    let path = [base, path].concat();
    if path.is_empty() { b"/".to_vec() } else { path }
}

fn letter(modifier: Modifier) -> &'static str {
    match modifier {
        Modifier::Added => "+",
        Modifier::Removed => "-",
        Modifier::Content => "M",
        Modifier::Attributes => "U",
        Modifier::Type => "T",
        Modifier::Renamed => "R",
    }
}

fn is_directory(entry: &Entry) -> bool {
    entry.new.or(entry.old).is_some_and(|side| side.kind == Kind::Directory)
}

fn fields(entry: &Entry, path: &[u8], from: Option<&[u8]>) -> Map<String, Value> {
    let size = |side: Option<Side>| side.map(|side| side.size);
    let mut fields = output::object(json!({
        "modifier": letter(entry.modifier), "directory": is_directory(entry),
        "old_size": size(entry.old), "new_size": size(entry.new),
    }));
    output::put_bytes(&mut fields, "path", path);
    if let Some(from) = from {
        output::put_bytes(&mut fields, "from", from);
    }
    fields
}

fn counts(counts: &Counts) -> Value {
    json!({ "files": counts.files, "dirs": counts.dirs, "others": counts.others, "bytes": counts.bytes })
}
