//! `nfreezer profile`: lists, shows and checks profiles.
//!
//! In: a TOML file. Out: a [`Profile`], the command lines of one run and its hooks. [`find`] knows where the files are,
//! `text` parses TOML, `translate` makes command lines.

mod find;
mod text;
mod translate;

use std::path::PathBuf;
use std::time::Duration;

use clap::Command;
use serde_json::{Value, json};

use super::environment::variable;
use super::exit::{OK, exit_code};
use super::options::JsonArgs;
use super::output::{self, Output};
use super::table::{self, Columns};
use super::{escape, human};
use crate::error::{Kind, Result};
use find::Found;
use text::Text;

/// A profile: the command lines of one run, and its hooks.
#[derive(Default)]
pub struct Profile {
    /// The address, if the profile names one.
    pub repository: Option<String>,
    /// In the order of a run.
    pub steps: Vec<Step>,
    pub hooks: Hooks,
}

/// One command of a run.
pub struct Step {
    /// `push`, `copy`, `forget`, `prune` or `check`.
    pub command: &'static str,
    /// The least time between two runs of it.
    pub every: Option<Duration>,
    /// The arguments behind the command.
    pub arguments: Vec<String>,
}

/// Commands for the shell around a run.
#[derive(Default)]
pub struct Hooks {
    pub before: Vec<String>,
    pub after: Vec<String>,
    pub failed: Vec<String>,
    pub finally: Vec<String>,
}

/// A profile with its name and file.
pub struct Loaded {
    pub name: String,
    /// Absolute.
    pub path: PathBuf,
    pub profile: Profile,
}

/// Arguments of `profile`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// List the profiles
    List(JsonArgs),
    /// Show the commands that a run executes
    Show(ShowArgs),
    /// Check profiles for errors
    Check(CheckArgs),
}

#[derive(clap::Args)]
struct ShowArgs {
    /// The name of a profile, or the path of its file
    profile: String,
    #[command(flatten)]
    output: JsonArgs,
}

#[derive(clap::Args)]
struct CheckArgs {
    /// Names of profiles, or paths of their files; without any, all are checked
    #[arg(value_name = "PROFILE")]
    profiles: Vec<String>,
    #[command(flatten)]
    output: JsonArgs,
}

impl Args {
    /// Reports whether the output is JSON.
    pub fn is_json(&self) -> bool {
        match &self.action {
            Action::List(output) => output.json,
            Action::Show(args) => args.output.json,
            Action::Check(args) => args.output.json,
        }
    }
}

impl Hooks {
    /// Returns all hooks with their names.
    pub fn all(&self) -> [(&'static str, &[String]); 4] {
        [("before", &self.before), ("after", &self.after), ("failed", &self.failed), ("finally", &self.finally)]
    }
}

/// Returns the name of a profile that need not exist any more, from its name or its path.
pub fn name_of(profile: &str) -> Result<String> {
    find::name_of(profile)
}

/// Returns the names of all profiles with the paths of their files.
pub fn names() -> Result<Vec<(String, PathBuf)>> {
    Ok(find::all()?.into_iter().map(|found| (found.name, found.path)).collect())
}

/// Finds, reads and parses a profile. `cli` is the parser of the command line.
pub fn load(profile: &str, cli: &Command) -> Result<Loaded> {
    parse(find::find(profile)?, cli)
}

fn parse(found: Found, cli: &Command) -> Result<Loaded> {
    let (file, text) = (escape::path(&found.path), found.read()?);
    let profile = translate::translate(&Text { file: &file, text: &text }, cli)?;
    Ok(Loaded { name: found.name, path: found.path, profile })
}

/// Runs a subcommand. `cli` is the parser of the command line.
pub fn run(args: &Args, cli: &Command) -> Result<u8> {
    match &args.action {
        Action::List(output) => list(*output, cli),
        Action::Show(args) => show(args, cli),
        Action::Check(args) => check(args, cli),
    }
}

fn list(output: JsonArgs, cli: &Command) -> Result<u8> {
    let mut out = Output::new(output.json);
    let mut rows: Vec<[String; 3]> = Vec::new();
    for found in find::all()? {
        let (name, path) = (found.name.clone(), escape::path(&found.path));
        let (repository, problem) = match parse(found, cli) {
            Ok(loaded) => (loaded.profile.repository, None),
            Err(e) => (None, Some(e.to_string())),
        };
        out.object(
            "profile",
            output::object(json!({
                "name": name, "file": path, "repository": repository, "problem": problem,
            })),
        )?;
        let cell = match problem {
            Some(_) => format!("has errors: `nfreezer profile check {name}`"),
            None => repository.unwrap_or_else(|| "of the environment".into()),
        };
        rows.push([name, escape::text(cell.as_bytes()), path]);
    }
    if rows.is_empty() {
        out.line("no profiles; docs/profiles.md has examples")?;
    } else {
        let head = ["Name", "Repository", "File"];
        table::print(&mut out, &Columns { head, left: 3, shortened: &[1], optional: &[] }, &rows)?;
    }
    out.object("summary", output::object(json!({ "profiles": rows.len() })))?;
    out.flush().map(|()| OK)
}

fn show(args: &ShowArgs, cli: &Command) -> Result<u8> {
    let loaded = load(&args.profile, cli)?;
    let mut out = Output::new(args.output.json);
    let hooks = loaded.profile.hooks.all();
    out.line(format_args!("profile {}: {}", loaded.name, escape::path(&loaded.path)))?;
    hooks[0].1.iter().try_for_each(|hook| line(&mut out, "before", &escape::text(hook.as_bytes()), None))?;
    for step in &loaded.profile.steps {
        line(&mut out, step.command, &step.shown(), step.every)?;
        let fields = json!({
            "command": step.command, "arguments": step.arguments, "every": step.every.map(|every| every.as_secs()),
        });
        out.object("step", output::object(fields))?;
    }
    for (name, hook) in hooks[1..].iter().flat_map(|(name, hooks)| hooks.iter().map(move |hook| (name, hook))) {
        line(&mut out, name, &escape::text(hook.as_bytes()), None)?;
    }
    let hooks: serde_json::Map<String, Value> =
        hooks.iter().map(|(name, list)| ((*name).into(), json!(list))).collect();
    let fields = json!({ "name": loaded.name, "file": escape::path(&loaded.path), "hooks": hooks });
    out.object("summary", output::object(fields))?;
    out.flush().map(|()| OK)
}

fn line(out: &mut Output, name: &str, what: &str, every: Option<Duration>) -> Result<()> {
    let due =
        every.map(|every| format!("   # if the last one is {} old", human::span(every.as_secs()))).unwrap_or_default();
    out.line(format_args!("{name:<8} {what}{due}"))
}

impl Step {
    /// Returns the command line as a shell takes it.
    fn shown(&self) -> String {
        let words = self.arguments.iter().map(|word| quoted(word));
        ["nfreezer".to_owned(), self.command.to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// Quotes a word for the shell where needed, escaped for the terminal.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@,+%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    escape::message(&format!("'{}'", word.replace('\'', r"'\''")))
}

fn check(args: &CheckArgs, cli: &Command) -> Result<u8> {
    let mut out = Output::new(args.output.json);
    let found: Vec<Found> = match args.profiles.as_slice() {
        [] => find::all()?,
        names => names.iter().map(|name| find::find(name)).collect::<Result<_>>()?,
    };
    let count = found.len();
    let mut wrong = 0;
    for found in found {
        let name = found.name.clone();
        match parse(found, cli) {
            Ok(loaded) => {
                warnings(&loaded.profile)
                    .iter()
                    .try_for_each(|text| output::warning(&mut out, &format!("profile {name}: {text}")))?;
                out.line(format_args!("profile {name}: no errors"))?;
            }
            Err(e) => {
                wrong += 1;
                out.flush()?;
                output::error(args.output.json, &e, exit_code(e.kind()));
            }
        }
    }
    out.object("summary", output::object(json!({ "profiles": count, "wrong": wrong })))?;
    out.flush().map(|()| if wrong > 0 { exit_code(Kind::Usage) } else { OK })
}

/// Returns what a run would stumble over, although the profile has no errors.
fn warnings(profile: &Profile) -> Vec<String> {
    let mut found = Vec::new();
    let given = |step: &Step| step.arguments.iter().any(|word| word.starts_with("--password-"));
    let variables = ["NFREEZER_PASSWORD", "NFREEZER_PASSWORD_FILE", "NFREEZER_PASSWORD_COMMAND"];
    if !profile.steps.iter().all(given) && variables.iter().all(|name| variable(name).is_none()) {
        found.push("no passphrase: a run by a timer fails; add password-file or password-command".to_owned());
    }
    let addresses = ["NFREEZER_REPOSITORY", "NFREEZER_REPOSITORY_FILE"];
    let has_file = |step: &Step| step.arguments.iter().any(|word| word.starts_with("--repository-file="));
    if profile.repository.is_none()
        && !profile.steps.iter().all(has_file)
        && addresses.iter().all(|name| variable(name).is_none())
    {
        found.push("no repository: add `repository`".to_owned());
    }
    let streams =
        |step: &&Step| step.command == "push" && !step.arguments.iter().any(|word| word == "--stdin-from-command");
    for step in profile.steps.iter().filter(streams) {
        let sources = step.arguments.iter().skip_while(|word| *word != "--").skip(1);
        let missing = sources.filter(|source| std::fs::symlink_metadata(source).is_err());
        found.extend(missing.map(|source| format!("the source {source} does not exist now")));
    }
    found
}
