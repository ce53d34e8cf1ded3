//! Executes one step: a process of this program with `--json`, which shares its standard error with the run.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

use super::report::Ended;
use super::{cannot_start, code_of, stop};
use crate::cli::output::{self, SCHEMA};
use crate::cli::profile::Step;
use crate::error::{Error, Result};

/// The program itself, also if its file was replaced by an update meanwhile.
const SELF: &str = "/proc/self/exe";

/// Executes a step with further arguments. With `json`, its objects are passed on.
pub fn execute(step: &Step, added: &[String], json: bool) -> Result<Ended> {
    let failed = |e| cannot_start(step.command, e);
    let mut command = Command::new(SELF);
    command.arg(step.command).arg("--json").args(added).args(&step.arguments);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let _passing = stop::pass_to(&child);
    let mut ended = Ended { skipped: None, ..Ended::skipped(step.command, String::new()) };
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|e| Error::io(format!("read the output of {}", step.command), e))?;
            take(&mut ended, step.command, &line, json)?;
        }
    }
    ended.code = code_of(child.wait().map_err(failed)?);
    if json {
        output::relay(&output::json_line("step", output::object(ended_fields(&ended))))?;
    }
    Ok(ended)
}

fn ended_fields(ended: &Ended) -> Value {
    serde_json::json!({ "step": ended.name, "code": ended.code, "error": ended.error, "summary": ended.summary })
}

/// Takes one object of the step.
fn take(ended: &mut Ended, step: &str, line: &str, json: bool) -> Result<()> {
    let Ok(Value::Object(mut object)) = serde_json::from_str(line) else { return Ok(()) };
    let kind = object.remove("type").and_then(|kind| Some(kind.as_str()?.to_owned())).unwrap_or_default();
    object.remove("schema");
    match kind.as_str() {
        "summary" => ended.summary = object,
        "error" if object.contains_key("code") => ended.error = text(&object, "message"),
        _ if json => {
            object.insert("step".into(), step.into());
            output::relay(&output::json_line(&kind, object))?;
        }
        _ => {}
    }
    Ok(())
}

fn text(object: &Map<String, Value>, key: &str) -> Option<String> {
    object.get(key).and_then(Value::as_str).map(str::to_owned)
}

const _: () = assert!(SCHEMA == 1, "a new schema of the objects needs a look at `take`");
