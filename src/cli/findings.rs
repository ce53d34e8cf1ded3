//! Prints the findings of `check` and `repair`, and the figures of their report as a JSON object.

use serde_json::{Map, Value, json};

use super::escape;
use super::human;
use super::options::ProgressArgs;
use super::output::{self, Output};
use super::progress::Reporter;
use crate::check::{Finding, Lost, Report};
use crate::error::Result;
use crate::format::record::Snapshot;
use crate::name::{Name, ObjectId, hex};

/// Findings that are named without `-v`.
const NAMED: u64 = 100;

/// Prints each finding as it arises.
pub struct Findings {
    json: bool,
    verbose: bool,
    named: u64,
    more: u64,
}

impl Findings {
    /// Names all findings with `-v`.
    pub fn new(args: ProgressArgs) -> Self {
        Findings { json: args.output.json, verbose: args.verbose > 0, named: 0, more: 0 }
    }

    /// Prints one finding, or counts it.
    pub fn take(&mut self, reporter: &Reporter, finding: &Finding<'_>) {
        if self.json {
            let mut out = Output::new(true);
            let _ = out.object("error", object(finding)).and_then(|()| out.flush());
        } else if self.verbose || self.named < NAMED {
            self.named += 1;
            reporter.print(&line(finding));
        } else {
            self.more += 1;
        }
    }

    /// Prints how many findings were not named.
    pub fn finish(&self, out: &mut Output) -> Result<()> {
        match self.more {
            0 => Ok(()),
            n => out.line(format_args!("and {n} more (-v or --json names all)")),
        }
    }
}

fn object(finding: &Finding<'_>) -> Map<String, Value> {
    match finding {
        Finding::Object { name, why } => output::object(json!({ "object": name, "message": why })),
        Finding::Path { snapshot, path, what, why } => {
            let mut fields = output::object(json!({
                "snapshot": snapshot.id.short(), "lost": name_of(*what), "message": why,
                "entries": if let Lost::Entries(n) = what { Some(*n) } else { None },
            }));
            output::put_bytes(&mut fields, "path", path);
            fields
        }
    }
}

fn line(finding: &Finding<'_>) -> String {
    match finding {
        Finding::Object { name, why } => format!("damaged: {name}: {}", escape::message(why)),
        Finding::Path { snapshot, path, what, why } => line_of_path(snapshot, path, *what, why),
    }
}

fn line_of_path(snapshot: &Snapshot, path: &[u8], what: Lost, why: &str) -> String {
    let what = match what {
        Lost::Snapshot => "all of it is lost".to_owned(),
        Lost::Directory => "this folder and all its contents are lost".to_owned(),
        Lost::Entries(1) => "1 entry of this folder is lost".to_owned(),
        Lost::Entries(n) => format!("{n} entries of this folder are lost"),
        Lost::Contents => "contents are lost".to_owned(),
        Lost::Attributes => "its extended attributes are lost".to_owned(),
    };
    let (id, time, path) = (snapshot.id.short(), human::time(snapshot.time), escape::text(path));
    format!("lost: snapshot {id} of {time}: {path}: {what} ({})", escape::message(why))
}

fn name_of(what: Lost) -> &'static str {
    match what {
        Lost::Snapshot => "snapshot",
        Lost::Directory => "directory",
        Lost::Entries(_) => "entries",
        Lost::Contents => "contents",
        Lost::Attributes => "attributes",
    }
}

/// Returns ids in hex.
pub fn hex_ids(ids: &[ObjectId]) -> Vec<String> {
    ids.iter().map(|id| hex(&id.0)).collect()
}

/// Returns the figures of a report.
pub fn fields(r: &Report) -> Map<String, Value> {
    let audit = r.audit.map(
        |a| json!({ "samples": a.samples, "bad": a.bad, "of_bytes": a.of, "confidence": 0.99, "intact": a.intact }),
    );
    output::object(json!({
        "snapshots": r.snapshots, "files": r.files, "directories": r.directories, "others": r.others,
        "pages": r.pages, "references": r.references, "index_entries": r.entries,
        "packs": r.packs.0, "bytes": r.packs.1, "unused_packs": r.unused.0, "unused_bytes": r.unused.1,
        "torsos": r.torsos, "packs_read": r.read.0, "bytes_read": r.read.1, "audit": audit,
        "deleted": r.deleted.iter().map(Name::path).collect::<Vec<_>>(),
        "overwritten": r.overwritten.iter().map(Name::path).collect::<Vec<_>>(),
        "missing_records": hex_ids(&r.missing_records), "false_records": hex_ids(&r.false_records),
         "damaged_records": hex_ids(&r.damaged_records),
        "damaged_indexes": hex_ids(&r.damaged_indexes), "torn_records": r.torn_records,
        "damaged_packs": r.damaged_packs, "hit_snapshots": r.hit, "lost_paths": r.paths, "known_losses": r.known,
        "damaged": r.is_damaged() || r.is_rolled_back(), "seconds": r.duration.as_secs_f64(),
    }))
}
