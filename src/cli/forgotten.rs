//! The table of forgotten snapshots (`nfreezer snapshots --forgotten`).

use serde_json::json;

use super::output::{self, Output};
use super::snapshot::{fields, id, paths};
use super::table::Columns;
use super::{escape, human, table};
use crate::error::Result;
use crate::repo::{Forgotten, KEEP_FORGOTTEN, Repository};
use crate::time::Time;

/// Prints forgotten snapshots, the ones that were forgotten last at the end. Leaves out partial snapshots, which pushes
/// forget when they continue, except with `--json`.
pub fn print(out: &mut Output, repo: &Repository, mut list: Vec<Forgotten>, last: Option<usize>) -> Result<()> {
    let all = list.len();
    if !out.is_json() {
        list.retain(|forgotten| !forgotten.snapshot.partial);
    }
    let partial = all - list.len();
    let times = repo.forgotten_at(&list)?;
    let mut rows: Vec<Row> = list.into_iter().zip(times).map(Row::of).collect();
    rows.sort_by_key(|row| (row.at, row.forgotten.snapshot.time, row.forgotten.snapshot.id));
    if let Some(last) = last {
        rows.drain(..rows.len().saturating_sub(last));
    }
    if out.is_json() {
        rows.iter().try_for_each(|row| row.object(out))?;
        return out.object("summary", output::object(json!({ "snapshots": rows.len() })));
    }
    table::print(out, &COLUMNS, &rows.iter().map(Row::cells).collect::<Vec<_>>())?;
    let mut footer = format!("{} forgotten", human::count(rows.len() as u64, "snapshot"));
    if partial > 0 {
        footer += &format!(" (and {partial} partial, which later pushes replaced)");
    }
    if !rows.is_empty() {
        footer += "; `nfreezer undelete ID` shows one again";
    }
    out.line(footer)
}

const COLUMNS: Columns<6> = Columns {
    head: ["ID", "Date", "Host", "Paths", "Forgotten", "Undelete until"],
    left: 6,
    shortened: &[3, 2],
    optional: &[],
};

struct Row {
    forgotten: Forgotten,
    /// When it was forgotten, and how long it can be undeleted at least.
    at: i64,
    until: i64,
}

impl Row {
    fn of((forgotten, at): (Forgotten, i64)) -> Self {
        Row { forgotten, at, until: at.saturating_add(KEEP_FORGOTTEN) }
    }

    fn cells(&self) -> [String; 6] {
        let s = &self.forgotten.snapshot;
        let [at, until] = [self.at, self.until].map(|time| human::time(Time::from_seconds(time)));
        [id(s), human::time(s.time), escape::text(s.host.as_bytes()), paths(s), at, until]
    }

    fn object(&self, out: &mut Output) -> Result<()> {
        let mut fields = fields(&self.forgotten.snapshot);
        let [at, until] = [self.at, self.until].map(|time| human::rfc3339(Time::from_seconds(time)));
        fields.insert("forgotten".into(), at.into());
        fields.insert("undelete_until".into(), until.into());
        out.object("snapshot", fields)
    }
}
