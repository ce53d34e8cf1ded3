//! `nfreezer check`: whether everything that the snapshots need is there and right, and what is hit where it is not.

use std::time::Duration;

use serde_json::json;

use super::common::{Common, duration, open_repository, read_state, size};
use super::progress::Reporter;
use super::show::{self, Output};
use super::{DAMAGED, OK, TAMPERING, signals};
use crate::check::{self, Finding, Lost, Part, Report};
use crate::error::Result;
use crate::format::record::Snapshot;
use crate::name::hex;

/// Paths that are named without `-v`.
const NAMED: u64 = 100;

/// Arguments of `check`.
#[derive(clap::Args)]
pub struct Args {
    /// Only these snapshots (ids, `latest`, `latest~N`), and not the index; all, if none is given
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Read and verify every byte of all packs
    #[arg(long, group = "data")]
    read_data: bool,
    /// Read a part of the packs: 5%, 2G, 10m (at random), or n/m (part n of m)
    #[arg(long, value_name = "PART", value_parser = part, group = "data")]
    read_data_subset: Option<Part>,
    /// Verify random blocks of 64 KiB, so many bytes together, and say what that proves
    #[arg(long, value_name = "SIZE", value_parser = size, group = "data")]
    audit: Option<u64>,
    /// Memory for what was visited
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256M")]
    memory: u64,
}

/// Exit code 4 if anything is damaged, 15 if records are missing.
pub fn run(common: &Common, args: &Args) -> Result<u8> {
    let repo = open_repository(common)?;
    let mut out = Output::new(common.json);
    let state = read_state(&repo, &mut out)?;
    let snapshots = args.snapshots.iter().map(|text| state.select(text)).collect::<Result<_>>()?;
    let options = check::Options {
        snapshots,
        read: if args.read_data { Some(Part::All) } else { args.read_data_subset },
        audit: args.audit,
        memory: args.memory,
    };
    let mut reporter = Reporter::new(common, "checked");
    let ctx = reporter.attach(signals::catch()?);
    let mut findings = Findings::new(common);
    let result = check::check(&ctx, &repo, &state, &options, &mut |finding| findings.take(&reporter, &finding));
    reporter.finish();
    findings.finish(&mut out)?;
    let report = result?;
    if !common.quiet {
        say(&mut out, &report, args.snapshots.is_empty())?;
    }
    out.object("summary", fields(&report))?;
    out.flush()?;
    Ok(match () {
        () if report.is_rolled_back() => TAMPERING,
        () if report.is_damaged() => DAMAGED,
        () => OK,
    })
}

/// Prints what is wrong, as it turns up.
pub struct Findings {
    json: bool,
    verbose: bool,
    named: u64,
    more: u64,
}

impl Findings {
    /// `-v` names everything.
    pub fn new(common: &Common) -> Self {
        Findings { json: common.json, verbose: common.verbose > 0, named: 0, more: 0 }
    }

    /// One more.
    pub fn take(&mut self, reporter: &Reporter, finding: &Finding<'_>) {
        let (line, fields) = match finding {
            Finding::Object { name, why } => {
                (format!("damaged: {name}: {}", show::message(why)), json!({ "object": name, "message": why }))
            }
            Finding::Path { snapshot, path, what, why } => (
                hit(snapshot, path, *what, why),
                json!({
                    "snapshot": snapshot.id.short(), "lost": what_name(*what), "message": why,
                    "entries": if let Lost::Entries(n) = what { Some(*n) } else { None },
                }),
            ),
        };
        if self.json {
            let mut fields = show::object(fields);
            if let Finding::Path { path, .. } = finding {
                show::put_bytes(&mut fields, "path", path);
            }
            let mut out = Output::new(true);
            let _ = out.object("error", fields).and_then(|()| out.flush());
        } else if self.verbose || self.named < NAMED {
            self.named += 1;
            reporter.print(&line);
        } else {
            self.more += 1;
        }
    }

    /// Says how many were not named.
    pub fn finish(&self, out: &mut Output) -> Result<()> {
        match self.more {
            0 => Ok(()),
            n => out.line(format_args!("and {n} more (-v or --json names them all)")),
        }
    }
}

fn hit(snapshot: &Snapshot, path: &[u8], what: Lost, why: &str) -> String {
    let path = show::text(path);
    let what = match what {
        Lost::Snapshot => "all of it is lost".to_owned(),
        Lost::Directory => "this folder with all in it is lost".to_owned(),
        Lost::Entries(n) => format!(
            "{} of this folder {} lost",
            show::count(n, "entry").replace("entrys", "entries"),
            if n == 1 { "is" } else { "are" }
        ),
        Lost::Contents => "contents are lost".to_owned(),
        Lost::Attributes => "its extended attributes are lost".to_owned(),
    };
    let time = show::time(snapshot.time);
    format!("lost: snapshot {} of {time}: {path}: {what} ({})", snapshot.id.short(), show::message(why))
}

fn what_name(what: Lost) -> &'static str {
    match what {
        Lost::Snapshot => "snapshot",
        Lost::Directory => "directory",
        Lost::Entries(_) => "entries",
        Lost::Contents => "contents",
        Lost::Attributes => "attributes",
    }
}

fn say(out: &mut Output, r: &Report, whole: bool) -> Result<()> {
    let seconds = r.duration.as_secs_f64();
    out.line(format_args!(
        "checked {}: {} and {} in {} different pages, {} with {} references into {} ({}), in {seconds:.1} s",
        show::count(r.snapshots, "snapshot"),
        show::count(r.files, "file"),
        if r.directories == 1 { "1 folder".into() } else { format!("{} folders", r.directories) },
        r.pages,
        if whole { format!("{} index entries", r.entries) } else { "no index".into() },
        r.references,
        show::count(r.packs.0, "pack"),
        show::size(r.packs.1),
    ))?;
    if r.read.0 > 0 {
        let share = if r.packs.1 == 0 { 100.0 } else { r.read.1 as f64 * 100.0 / r.packs.1 as f64 };
        let (packs, bytes) = (show::count(r.read.0, "pack"), show::size(r.read.1));
        out.line(format_args!("read and verified {packs}, {bytes}: {share:.1} % of the data"))?;
    }
    if let Some(audit) = &r.audit {
        let drawn = show::count(audit.samples, "random block");
        match audit.intact {
            Some(share) => out.line(format_args!(
                "{drawn} of 64 KiB verified: 99 % sure that at least {} % of the data is intact",
                percent(share)
            ))?,
            None if audit.samples == 0 => out.line("there is no data to draw blocks from")?,
            None => out.line(format_args!("{} of {drawn} are damaged or missing", audit.bad))?,
        }
    }
    for (n, one, more) in [
        (
            r.unused.0,
            "pack is not used (of an interrupted push, or of one that goes on)",
            "packs are not used (of interrupted pushes, or of one that goes on)",
        ),
        (
            r.torn_records,
            "record was cut off when it was committed: nothing is lost with it",
            "records were cut off when they were committed: nothing is lost with them",
        ),
        (r.known, "loss was known: `repair` has marked it", "losses were known: `repair` has marked them"),
    ] {
        match n {
            0 => {}
            1 => out.line(format_args!("1 {one}"))?,
            n => out.line(format_args!("{n} {more}"))?,
        }
    }
    match () {
        () if r.is_rolled_back() => {
            let missing = show::count(r.missing_records.len() as u64, "record");
            out.line(format_args!("{missing} MISSING: the server has lost snapshots or hides them"))?;
            out.line("once that is certain, `nfreezer repair --yes` goes on without them")
        }
        () if r.is_damaged() => {
            let (packs, paths) = (show::count(r.damaged_packs, "pack"), show::count(r.paths, "path"));
            let records = show::count((r.damaged_records.len() + r.damaged_indexes.len()) as u64, "record");
            out.line(format_args!(
                "DAMAGE: {packs} and {records} damaged or missing, {paths} in {} hit",
                show::count(r.hit, "snapshot")
            ))?;
            out.line(
                "`nfreezer repair` marks what is lost, and the next push sends it again as far as it is still there",
            )
        }
        () => out.line("no damage was found"),
    }
}

/// Rounded down, so that it stays true.
fn percent(share: f64) -> f64 {
    (share * 10_000.0).floor() / 100.0
}

/// The figures of a report.
pub fn fields(r: &Report) -> serde_json::Map<String, serde_json::Value> {
    let ids = |ids: &[crate::name::ObjectId]| ids.iter().map(|id| hex(&id.0)).collect::<Vec<_>>();
    let audit = r.audit.map(
        |a| json!({ "samples": a.samples, "bad": a.bad, "of_bytes": a.of, "confidence": 0.99, "intact": a.intact }),
    );
    show::object(json!({
        "snapshots": r.snapshots, "files": r.files, "directories": r.directories, "others": r.others,
        "pages": r.pages, "references": r.references, "index_entries": r.entries,
        "packs": r.packs.0, "bytes": r.packs.1, "unused_packs": r.unused.0, "unused_bytes": r.unused.1,
        "torsos": r.torsos, "packs_read": r.read.0, "bytes_read": r.read.1, "audit": audit,
        "missing_records": ids(&r.missing_records), "damaged_records": ids(&r.damaged_records),
        "damaged_indexes": ids(&r.damaged_indexes), "torn_records": r.torn_records,
        "damaged_packs": r.damaged_packs, "hit_snapshots": r.hit, "lost_paths": r.paths, "known_losses": r.known,
        "damaged": r.is_damaged() || r.is_rolled_back(), "seconds": r.duration.as_secs_f64(),
    }))
}

/// `5%`, `2.5%`, `2G`, `10m`, `10min`, `1/7`.
pub fn part(text: &str) -> Result<Part, String> {
    let wrong = || "write 5%, 2G, 10min, or 3/10 for part 3 of 10".to_owned();
    if let Some(number) = text.strip_suffix('%') {
        let share = number.parse::<f64>().ok().filter(|share| *share > 0.0 && *share <= 100.0);
        return share.map(|share| Part::Share(share / 100.0)).ok_or_else(wrong);
    }
    if let Some((n, m)) = text.split_once('/') {
        let (n, m) = (n.parse::<u64>().map_err(|_| wrong())?, m.parse::<u64>().map_err(|_| wrong())?);
        return if (1..=m).contains(&n) { Ok(Part::Slice(n, m)) } else { Err(wrong()) };
    }
    for (long, short) in [("min", "m"), ("sec", "s"), ("hours", "h"), ("hour", "h"), ("h", "h"), ("s", "s"), ("m", "m")]
    {
        if let Some(number) = text.strip_suffix(long) {
            return timed(duration(&format!("{number}{short}")).map_err(|_| wrong())?).ok_or_else(wrong);
        }
    }
    let bytes = size(text).map_err(|_| wrong())?;
    (bytes > 0 && !text.bytes().all(|b| b.is_ascii_digit())).then_some(Part::Bytes(bytes)).ok_or_else(wrong)
}

fn timed(time: Duration) -> Option<Part> {
    (!time.is_zero()).then_some(Part::Time(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_data() {
        let minutes = |n: u64| Part::Time(Duration::from_secs(60 * n));
        for (text, wanted) in [
            ("5%", Part::Share(0.05)),
            ("2.5%", Part::Share(0.025)),
            ("2G", Part::Bytes(2 << 30)),
            ("2GiB", Part::Bytes(2 << 30)),
            ("512MiB", Part::Bytes(512 << 20)),
            ("10min", minutes(10)),
            ("10m", minutes(10)),
            ("1h", minutes(60)),
            ("3/10", Part::Slice(3, 10)),
        ] {
            assert_eq!(part(text), Ok(wanted), "{text}");
        }
        for bad in ["", "0%", "101%", "0/3", "4/3", "1/0", "x", "0G", "0min", "7", "-5%", "NaN%"] {
            part(bad).unwrap_err();
        }
    }
}
