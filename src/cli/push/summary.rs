//! The summary of a push, as text and as JSON.

use serde_json::json;

use crate::cli::output::{self, Output};
use crate::cli::{escape, human};
use crate::error::Result;
use crate::name::{ObjectId, hex};
use crate::push;

/// Folders that grew most, for people; programs get all of them.
const SHOWN: usize = 5;

/// Prints the summary for people.
pub fn print(out: &mut Output, s: &push::Summary, dry: bool) -> Result<()> {
    out.line(format_args!(
        "files: {} new, {} changed, {} renamed, {} unchanged{}{}{}",
        s.new,
        s.changed,
        s.renamed,
        s.unchanged,
        some(s.skipped, "could not be read"),
        some(s.changed_while_read, "changed while read"),
        some(s.excluded, "left out")
    ))?;
    out.line(format_args!(
        "read {}; new contents and folder listings: {}, stored as {} with padding",
        human::size(s.read),
        human::size(s.added),
        human::size(s.stored)
    ))?;
    s.grew.iter().take(SHOWN).try_for_each(|(path, bytes)| {
        out.line(format_args!("new contents: {} in {}", human::size(*bytes), escape::text(path)))
    })?;
    let seconds = s.duration.as_secs_f64();
    let sent = if dry { "would send" } else { "sent" };
    out.line(format_args!("{sent} {}, received {}, in {seconds:.1} s", human::size(s.sent), human::size(s.received)))?;
    match (s.record.is_some(), dry) {
        (true, false) => {
            out.line(format_args!("snapshot {} saved", s.snapshot.id.short()))?;
            let receipt =
                |(id, n): (ObjectId, u32)| out.line(format_args!("receipt: head {} sequence {n}", hex(&id.0[..8])));
            s.record.zip(s.sequence).map_or(Ok(()), receipt)
        }
        (true, true) => out.line("dry run: nothing was written"),
        (false, _) => out.line("nothing has changed since the last snapshot: there is no new one"),
    }
}

fn some(count: u64, what: &str) -> String {
    if count > 0 { format!(", {count} {what}") } else { String::new() }
}

/// Returns the fields for `--json`.
pub fn fields(s: &push::Summary, dry: bool) -> serde_json::Map<String, serde_json::Value> {
    let grew = s.grew.iter().map(|(path, bytes)| {
        let mut folder = output::object(json!({ "bytes": bytes }));
        output::put_bytes(&mut folder, "path", path);
        folder
    });
    let grew: Vec<_> = grew.collect();
    output::object(json!({
        "snapshot": (s.record.is_some() && !dry).then(|| s.snapshot.id.to_string()),
        "short_id": (s.record.is_some() && !dry).then(|| s.snapshot.id.short()), "dry_run": dry,
        "head": s.record.filter(|_| !dry).map(|id| hex(&id.0)), "sequence": s.sequence.filter(|_| !dry),
        "new": s.new, "changed": s.changed, "unchanged": s.unchanged,
        "renamed": s.renamed, "read": s.read, "added": s.added, "stored": s.stored, "sent": s.sent,
        "received": s.received, "skipped": s.skipped, "changed_while_read": s.changed_while_read,
        "excluded": s.excluded, "grew": grew, "packs": s.packs, "seconds": s.duration.as_secs_f64(),
    }))
}
