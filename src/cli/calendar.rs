//! The plan of a policy as a calendar: each snapshot with the reason for keeping it, month by month.

use serde_json::json;

use super::output::Output;
use super::snapshot::{fields, paths};
use super::{escape, human};
use crate::error::Result;
use crate::forget::{Group, Judged, Plan};
use crate::time::Time;

/// Prints the groups of a plan, in each the oldest snapshot first.
pub fn print(out: &mut Output, plan: &Plan) -> Result<()> {
    for group in &plan.groups {
        if out.is_json() {
            group.snapshots.iter().try_for_each(|judged| object(out, judged))?;
        } else {
            lines(out, group)?;
        }
    }
    Ok(())
}

fn lines(out: &mut Output, group: &Group) -> Result<()> {
    let kept = group.snapshots.iter().filter(|judged| !judged.reasons.is_empty()).count();
    out.line(format_args!("{}: {kept} kept, {} forgotten", title(group), group.snapshots.len() - kept))?;
    let mut month = String::new();
    for judged in &group.snapshots {
        let (this_month, day) = date(judged.candidate.time);
        let shown = if this_month == month { " ".repeat(this_month.len()) } else { this_month.clone() };
        month = this_month;
        let id = judged.candidate.snapshot.id.short();
        let verdict = if judged.reasons.is_empty() { "forget".into() } else { format!("keep    {}", reasons(judged)) };
        out.line(format_args!("  {shown} {day}  {id}  {verdict}"))?;
    }
    out.line("")
}

fn reasons(judged: &Judged) -> String {
    judged.reasons.join(", ")
}

fn title(group: &Group) -> String {
    let mut parts = Vec::new();
    if !group.key.host.is_empty() {
        parts.push(escape::text(group.key.host.as_bytes()));
    }
    if let Some(judged) = group.snapshots.first().filter(|_| !group.key.paths.is_empty()) {
        parts.push(paths(&judged.candidate.snapshot));
    }
    parts.extend(group.key.tags.iter().map(|tag| escape::text(tag.as_bytes())));
    if parts.is_empty() { "all snapshots".into() } else { parts.join("  ") }
}

/// Returns the month, and the day with the time of day.
fn date(time: Time) -> (String, String) {
    match time.timestamp() {
        Some(t) => {
            let zoned = t.to_zoned(jiff::tz::TimeZone::system());
            (zoned.strftime("%Y-%m").to_string(), zoned.strftime("%a %d %H:%M").to_string())
        }
        None => (human::time(time), String::new()),
    }
}

fn object(out: &mut Output, judged: &Judged) -> Result<()> {
    let mut fields = fields(&judged.candidate.snapshot);
    fields.insert("keep".into(), (!judged.reasons.is_empty()).into());
    fields.insert("reasons".into(), json!(judged.reasons));
    fields.insert("counted_time".into(), human::rfc3339(judged.candidate.time).into());
    out.object("snapshot", fields)
}
