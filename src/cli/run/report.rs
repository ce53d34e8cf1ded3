//! The result of a run: for people, for scripts, and for hooks.

use serde_json::{Map, Value, json};

use crate::cli::exit::{DAMAGED, INCOMPLETE, OK, TAMPERING};
use crate::cli::{human, output};
use crate::time::Time;

/// The end of a step or hook.
pub struct Ended {
    /// The command, or the name of the hook.
    pub name: &'static str,
    /// Its exit code; 0 if it was skipped.
    pub code: u8,
    /// The reason why it was not executed.
    pub skipped: Option<String>,
    /// Its error message.
    pub error: Option<String>,
    /// The fields of its summary.
    pub summary: Map<String, Value>,
}

impl Ended {
    /// Describes a step that was not executed.
    pub fn skipped(name: &'static str, why: String) -> Self {
        Ended { name, code: OK, skipped: Some(why), error: None, summary: Map::new() }
    }

    fn fields(&self) -> Value {
        json!({
            "command": self.name, "code": self.code, "skipped": self.skipped, "error": self.error,
            "summary": self.summary,
        })
    }

    fn number(&self, key: &str) -> u64 {
        self.summary.get(key).and_then(Value::as_u64).unwrap_or_default()
    }

    /// Returns one line for people.
    fn line(&self) -> String {
        if let Some(why) = &self.skipped {
            return format!("{}: skipped, {why}", self.name);
        }
        if is_failure(self.code) {
            return format!("{}: failed with exit code {}", self.name, self.code);
        }
        match self.name {
            "push" => format!("push: {}", self.push()),
            "copy" => format!("copy: {} copied", human::count(self.length("copied"), "snapshot")),
            "forget" => format!("forget: {} forgotten", human::count(self.length("forgotten"), "snapshot")),
            "prune" => format!("prune: condemned {}, deleted {}", self.amount("condemned"), self.amount("deleted")),
            "check" => format!("check: {}, no damage", human::count(self.number("snapshots"), "snapshot")),
            name => format!("{name}: done"),
        }
    }

    fn push(&self) -> String {
        let files = format!(
            "{} new, {} changed, {} renamed, {} unchanged",
            self.number("new"),
            self.number("changed"),
            self.number("renamed"),
            self.number("unchanged")
        );
        let skipped = self.number("skipped") + self.number("changed_while_read");
        let incomplete = if skipped > 0 { format!(", {skipped} not saved completely") } else { String::new() };
        let snapshot = match self.summary.get("short_id").and_then(Value::as_str) {
            Some(id) => format!("snapshot {id} saved"),
            None => "no snapshot saved".to_owned(),
        };
        format!("{snapshot}; files: {files}{incomplete}; sent {}", human::size(self.number("sent")))
    }

    fn length(&self, key: &str) -> u64 {
        self.summary.get(key).and_then(Value::as_array).map_or(0, |list| list.len() as u64)
    }

    fn amount(&self, key: &str) -> String {
        let amount = self.summary.get(key);
        let number = |field| amount.and_then(|amount| amount.get(field)).and_then(Value::as_u64).unwrap_or_default();
        format!("{} ({})", human::count(number("objects"), "object"), human::size(number("bytes")))
    }
}

/// The result of a run so far.
pub struct Report {
    pub profile: String,
    pub started: Time,
    pub seconds: f64,
    pub is_dry_run: bool,
    pub steps: Vec<Ended>,
    pub hooks: Vec<Ended>,
    /// 128 + the signal that ended the run.
    pub signal: Option<u8>,
}

/// Returns whether this is the exit code of a failure. An incomplete snapshot is none.
pub fn is_failure(code: u8) -> bool {
    ![OK, INCOMPLETE].contains(&code)
}

impl Report {
    /// Returns an empty report.
    pub fn new(profile: &str, started: Time, is_dry_run: bool) -> Self {
        Report {
            profile: profile.to_owned(),
            started,
            seconds: 0.0,
            is_dry_run,
            steps: Vec::new(),
            hooks: Vec::new(),
            signal: None,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Ended> {
        self.steps.iter().chain(&self.hooks)
    }

    /// Returns the worst exit code: tampering, damage, a signal, the first other failure, an incomplete snapshot.
    pub fn code(&self) -> u8 {
        let codes: Vec<u8> = self.all().map(|ended| ended.code).collect();
        let first_failure = codes.iter().copied().find(|code| is_failure(*code));
        let worst = [TAMPERING, DAMAGED].into_iter().find(|code| codes.contains(code));
        let incomplete = codes.contains(&INCOMPLETE).then_some(INCOMPLETE);
        worst.or(self.signal).or(first_failure).or(incomplete).unwrap_or(OK)
    }

    /// Returns the first failure for people.
    pub fn failure(&self) -> Option<String> {
        let ended = self.all().find(|ended| is_failure(ended.code))?;
        let why = ended.error.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        Some(format!("{} failed with exit code {}{why}", ended.name, ended.code))
    }

    /// Returns the ids of the new snapshots.
    pub fn snapshots(&self) -> Vec<&str> {
        self.steps.iter().filter_map(|step| step.summary.get("snapshot")?.as_str()).collect()
    }

    /// Returns the lines for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.steps.iter().map(Ended::line).collect();
        let done = match self.code() {
            OK if self.is_dry_run => "dry run: nothing was written".to_owned(),
            OK => "done".to_owned(),
            code => format!("exit code {code}"),
        };
        lines.push(format!("run of profile {}: {done}, in {:.1} s", self.profile, self.seconds));
        lines
    }

    /// Returns the fields for scripts and hooks.
    pub fn fields(&self) -> Map<String, Value> {
        let list = |ended: &[Ended]| ended.iter().map(Ended::fields).collect::<Vec<_>>();
        output::object(json!({
            "profile": self.profile, "started": human::rfc3339(self.started), "seconds": self.seconds,
            "dry_run": self.is_dry_run, "code": self.code(), "error": self.failure(),
            "steps": list(&self.steps), "hooks": list(&self.hooks),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_exit_code_counts() {
        let code = |codes: &[u8], signal| {
            let ended = |code: &u8| Ended { code: *code, ..Ended::skipped("push", String::new()) };
            let mut report = Report::new("home", Time::default(), false);
            (report.steps, report.signal) = (codes.iter().map(ended).collect(), signal);
            report.code()
        };
        for (codes, worst) in
            [(&[][..], 0), (&[0, 0], 0), (&[0, 3, 0], 3), (&[3, 13, 1], 13), (&[1, 4], 4), (&[4, 1, 15], 15)]
        {
            assert_eq!(code(codes, None), worst, "{codes:?}");
        }
        assert_eq!((code(&[1], Some(143)), code(&[4], Some(143))), (143, 4));
    }
}
