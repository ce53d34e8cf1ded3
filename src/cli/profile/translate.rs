//! Translates a profile into command lines. A key of a table has the meaning of the option with its name, because the
//! parser of the command line parses it.

use std::ffi::OsString;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::DeValue;

use super::find::{in_home, is_absolute};
use super::text::{Entry, Table, Text};
use super::{Hooks, Profile, Step};
use crate::cli::environment::{host, variable};
use crate::cli::{self, arguments, values};
use crate::error::{Error, Result};
use crate::storage::Location;

/// The tables that are commands, in the order of a run.
const COMMANDS: [&str; 5] = ["push", "copy", "forget", "prune", "check"];
/// The tables that may occur several times.
const REPEATED: [&str; 2] = ["push", "copy"];
/// Options that a profile does not set: `run` sets them, or they need a terminal, or another key stands for them.
const NOT_IN_PROFILES: [&str; 10] =
    ["help", "json", "quiet", "verbose", "dry-run", "stdin", "stdin-from-command", "repo", "time", "prune"];

/// Parses the text of a profile.
pub fn translate<'t>(text: &'t Text<'t>, cli: &Command) -> Result<Profile> {
    let parsed = text.parse()?;
    let top = Table::of(parsed.get_ref(), 0);
    let translator = Translator { text, cli, top: &top };
    translator.profile()
}

struct Translator<'t, 'a> {
    text: &'t Text<'t>,
    cli: &'a Command,
    top: &'a Table<'t>,
}

impl<'t> Translator<'t, '_> {
    fn profile(&self) -> Result<Profile> {
        let mut profile = Profile::default();
        for entry in &self.top.entries {
            match entry.key {
                "hooks" => profile.hooks = self.hooks(&self.text.table(entry)?)?,
                "repository" => profile.repository = Some(self.repository(entry)?),
                key if COMMANDS.contains(&key) => {}
                _ => self.check_common(entry)?,
            }
        }
        for name in COMMANDS {
            let Some(entry) = self.top.get(name) else { continue };
            for table in if REPEATED.contains(&name) { self.text.tables(entry)? } else { vec![self.text.table(entry)?] }
            {
                profile.steps.push(self.step(name, &table)?);
            }
        }
        if profile.steps.is_empty() {
            return Err(self.text.error(0, "the profile does nothing").hint("add a table [push] with `sources`"));
        }
        Ok(profile)
    }

    fn repository(&self, entry: &Entry<'t>) -> Result<String> {
        let given = entry.value.get_ref().as_str();
        let address = in_home(given.ok_or_else(|| self.text.key_error(entry, "write an address in quotes"))?);
        let location = Location::parse(&address).map_err(|e| self.at_key(entry, &e))?;
        if location.local_path().is_some_and(|path| !path.is_absolute()) {
            return Err(self.relative(entry, &address));
        }
        Ok(address)
    }

    /// Checks that an option above the tables is one of all commands.
    fn check_common(&self, entry: &Entry<'t>) -> Result<()> {
        if COMMANDS.into_iter().all(|name| self.option(name, entry.key).is_some()) {
            return Ok(());
        }
        if entry.value.get_ref().is_table() {
            return Err(self.unknown(entry, "the tables are [push], [copy], [forget], [prune], [check] and [hooks]"));
        }
        let hint = match entry.key {
            "password" | "passphrase" => {
                "a profile never holds the passphrase: use password-file or password-command".to_owned()
            }
            key => match COMMANDS.into_iter().find(|name| self.takes(name, key)) {
                Some(name) => format!("it is an option of `{name}`: write it below [{name}]"),
                None => "above the tables stand `repository` and options of all commands, such as password-file".into(),
            },
        };
        Err(self.unknown(entry, &hint))
    }

    fn unknown(&self, entry: &Entry<'t>, hint: &str) -> Error {
        self.text.key_error(entry, "unknown key").hint(hint)
    }

    /// Returns the option of a command that a key stands for.
    fn option(&self, command: &str, key: &str) -> Option<&Arg> {
        let is_named = |option: &&Arg| option.get_long() == Some(key);
        let option = self.cli.find_subcommand(command)?.get_arguments().find(is_named);
        option.filter(|_| !NOT_IN_PROFILES.contains(&key))
    }

    fn takes(&self, command: &str, key: &str) -> bool {
        self.option(command, key).is_some() || (command == "push" && ["sources", "stdin-from-command"].contains(&key))
    }

    fn hooks(&self, table: &Table<'t>) -> Result<Hooks> {
        let mut hooks = Hooks::default();
        for entry in &table.entries {
            let list = match entry.key {
                "before" => &mut hooks.before,
                "after" => &mut hooks.after,
                "failed" => &mut hooks.failed,
                "finally" => &mut hooks.finally,
                _ => return Err(self.unknown(entry, "the hooks are before, after, failed and finally")),
            };
            *list = self.text.strings(entry)?;
        }
        Ok(hooks)
    }

    /// Translates one table, and parses the result.
    fn step(&self, name: &'static str, table: &Table<'t>) -> Result<Step> {
        let mut step = Step { command: name, every: None, arguments: Vec::new() };
        let inherited = self.top.entries.iter().filter(|entry| table.get(entry.key).is_none());
        for entry in inherited {
            match (entry.key, self.option(name, entry.key)) {
                ("repository", _) => step.arguments.push(format!("--repo={}", self.repository(entry)?)),
                (_, Some(option)) => step.arguments.extend(self.values(entry, option)?),
                (_, None) => {}
            }
        }
        let mut behind = Vec::new();
        for entry in &table.entries {
            match (entry.key, self.option(name, entry.key)) {
                ("every", _) if ["prune", "check"].contains(&name) => step.every = Some(self.every(entry)?),
                ("to", Some(_)) => step.arguments.push(format!("--to={}", self.repository(entry)?)),
                ("sources", _) if name == "push" => behind = self.sources(entry)?,
                ("stdin-from-command", _) if name == "push" => {
                    step.arguments.push("--stdin-from-command".into());
                    behind = self.command(entry)?;
                }
                ("repository" | "repository-file", _) => {
                    return Err(self
                        .text
                        .key_error(entry, "all commands of a profile use one repository")
                        .hint("write it above the tables, or make another profile"));
                }
                (_, Some(option)) => step.arguments.extend(self.values(entry, option)?),
                (_, None) => return Err(self.unknown_option(name, entry)),
            }
        }
        if name == "forget" {
            if !step.arguments.iter().any(|word| word.starts_with("--keep-")) {
                let error = self.text.error(table.at, "forget: no policy is given");
                return Err(error.hint("add for example `keep-daily = 30`"));
            }
            step.arguments.extend(self.own_host(table)?);
        }
        if !behind.is_empty() {
            step.arguments.push("--".into());
            step.arguments.extend(behind);
        }
        self.check(table, &step)?;
        self.check_passphrase(table, &step)?;
        if name == "push" {
            self.check_sources(table, &step)?;
        }
        Ok(step)
    }

    /// Refuses a push that could never save anything.
    fn check_sources(&self, table: &Table<'t>, step: &Step) -> Result<()> {
        let (sources, command) = (table.get("sources"), table.get("stdin-from-command"));
        if let (Some(_), Some(command)) = (sources, command) {
            return Err(self
                .text
                .key_error(command, "`sources` is given too")
                .hint("write two tables [[push]]: one saves files, the other the output of a command"));
        }
        if step.arguments.iter().any(|word| word == "--" || word.starts_with("--files-from")) {
            return Ok(());
        }
        let hint = "add for example `sources = [\"/home\"]`";
        Err(match sources.or(command) {
            Some(empty) => self.text.key_error(empty, "the list is empty").hint(hint),
            None => self.text.error(table.at, "push: sources: no source is given").hint(hint),
        })
    }

    fn check_passphrase(&self, table: &Table<'t>, step: &Step) -> Result<()> {
        let is_given = |option: &str| step.arguments.iter().any(|word| word.starts_with(option));
        if !is_given("--password-file=") || !is_given("--password-command=") {
            return Ok(());
        }
        let both = ["password-command", "password-file"];
        match both.iter().find_map(|key| table.get(key)).or_else(|| self.top.get(both[0])) {
            Some(entry) => Err(self
                .text
                .key_error(entry, "the passphrase has another source too")
                .hint("give either password-file or password-command")),
            None => Ok(()),
        }
    }

    /// Restricts `forget` to snapshots of the host that `push` would record, unless the profile names a host, path or tag.
    fn own_host(&self, table: &Table<'t>) -> Result<Option<String>> {
        let filters = ["host", "path", "tag"];
        let Some(push) = self.top.get("push").filter(|_| filters.iter().all(|key| table.get(key).is_none())) else {
            return Ok(None);
        };
        let named = self
            .text
            .tables(push)?
            .iter()
            .find_map(|table| Some(table.get("host")?.value.get_ref().as_str()?.to_owned()));
        let of_environment = || variable("NFREEZER_HOST").and_then(|name| name.into_string().ok());
        Ok(Some(format!("--host={}", named.or_else(of_environment).unwrap_or_else(host))))
    }

    fn unknown_option(&self, name: &str, entry: &Entry<'t>) -> Error {
        let other = entry.key.replace('_', "-");
        let near = [other.clone(), format!("{other}s"), other.trim_end_matches('s').to_owned()];
        let hint = match near.iter().find(|key| self.takes(name, key)) {
            Some(key) => format!("write {key}"),
            None => format!("the keys are the long options of `nfreezer {name}`, without the dashes"),
        };
        self.unknown(entry, &hint)
    }

    fn every(&self, entry: &Entry<'t>) -> Result<Duration> {
        let given = entry.value.get_ref().as_str().ok_or_else(|| "write a time such as \"7d\"".to_owned());
        given.and_then(values::duration).map_err(|why| self.text.key_error(entry, why))
    }

    fn sources(&self, entry: &Entry<'t>) -> Result<Vec<String>> {
        let sources: Vec<String> = self.text.strings(entry)?.iter().map(|source| in_home(source)).collect();
        match sources.iter().find(|source| !is_absolute(source)) {
            Some(source) => Err(self.relative(entry, source)),
            None => Ok(sources),
        }
    }

    /// Returns a program with its arguments. A single string is a command for the shell.
    fn command(&self, entry: &Entry<'t>) -> Result<Vec<String>> {
        let words = self.text.strings(entry)?;
        Ok(match entry.value.get_ref() {
            DeValue::String(line) => vec!["/bin/sh".into(), "-c".into(), line.to_string()],
            _ => words,
        })
    }

    fn relative(&self, entry: &Entry<'t>, path: &str) -> Error {
        let text = format!("{path} is a relative path, and a timer starts in another folder than a shell");
        self.text.key_error(entry, text).hint("write an absolute path, or one that begins with ~/")
    }

    /// Returns the words of the command line for an option.
    fn values(&self, entry: &Entry<'t>, option: &Arg) -> Result<Vec<String>> {
        let value = entry.value.get_ref();
        if !option.get_action().takes_values() {
            return match value {
                DeValue::Boolean(true) => Ok(vec![format!("--{}", entry.key)]),
                DeValue::Boolean(false) => Ok(Vec::new()),
                _ => Err(self.text.key_error(entry, "write true or false")),
            };
        }
        match value {
            DeValue::Array(list) if matches!(option.get_action(), ArgAction::Append) => {
                list.iter().map(|one| self.value(entry, option, one)).collect()
            }
            DeValue::Array(_) => Err(self.text.key_error(entry, "write one value, not a list")),
            _ => self.value(entry, option, entry.value).map(|word| vec![word]),
        }
    }

    fn value(&self, entry: &Entry<'t>, option: &Arg, value: &Spanned<DeValue<'t>>) -> Result<String> {
        let word = match value.get_ref() {
            DeValue::String(text) if entry.key.ends_with("-command") => text.to_string(),
            DeValue::String(text) => in_home(text),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            _ => return Err(self.text.key_error(entry, "write a string or a number")),
        };
        let names = option.get_value_names().unwrap_or_default();
        if names.iter().any(|name| ["FILE", "DIR"].contains(&name.as_str())) && !is_absolute(&word) {
            return Err(self.relative(entry, &word));
        }
        Ok(format!("--{}={word}", entry.key))
    }

    /// Lets the parser of the command line judge the values.
    fn check(&self, table: &Table<'t>, step: &Step) -> Result<()> {
        let line = ["nfreezer".to_owned(), step.command.to_owned()].into_iter().chain(step.arguments.iter().cloned());
        let refused = match self.cli.clone().try_get_matches_from(line.map(OsString::from)) {
            Ok(matches) => {
                return cli::check_values(&matches).map_err(|e| self.placed(table, step, &named_option(&e), &e));
            }
            Err(refused) => refused,
        };
        let named = match refused.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(option)) => Some(option.clone()),
            Some(ContextValue::Strings(options)) => options.first().cloned(),
            _ => None,
        };
        Err(self.placed(table, step, &named.unwrap_or_default(), &arguments::explain(&refused, self.cli)))
    }

    /// Places an error at the key of an option, or at the table.
    fn placed(&self, table: &Table<'t>, step: &Step, option: &str, error: &Error) -> Error {
        let key = option.trim_start_matches('-').split([' ', '=', '[']).next().unwrap_or_default();
        match table.get(key).or_else(|| self.top.get(key)) {
            Some(entry) => self.at_key(entry, error),
            None => self.text.error(table.at, format_args!("{}: {error}", step.command)),
        }
    }

    fn at_key(&self, entry: &Entry<'t>, error: &Error) -> Error {
        let placed = self.text.key_error(entry, error);
        match error.hint_text().filter(|hint| !hint.contains("-h shows")) {
            Some(hint) => placed.hint(hint),
            None => placed,
        }
    }
}

/// Returns the option that an error names first.
fn named_option(error: &Error) -> String {
    let text = format!("{error} {}", error.hint_text().unwrap_or_default());
    let word = text.split_whitespace().find(|word| word.starts_with("--")).unwrap_or_default();
    word.trim_end_matches([':', ',', '.']).to_owned()
}
