//! Finds out which argument the last word of a command line is.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser};

use crate::cli::arguments::options_behind_command;
use crate::cli::options::OpenArgs;

/// The kind of the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'w> {
    Snapshot,
    SnapshotAndPath,
    /// A path in this `SNAPSHOT:PATH`.
    PathBelow(&'w str),
    Profile,
    Host,
    Tag,
}

/// The last word of a command line, and the options before it that name a repository.
pub struct Place<'w> {
    pub wanted: Wanted<'w>,
    pub current: &'w str,
    options: Vec<String>,
}

/// The options that open a repository.
#[derive(Parser)]
struct Opening {
    #[command(flatten)]
    open: OpenArgs,
}

impl<'w> Place<'w> {
    /// Returns `None` if the last word is an option, or has values that are not in a repository.
    pub fn of(words: &'w [String], cli: &Command) -> Option<Self> {
        let (current, before) = words.split_last()?;
        let opening = Opening::command();
        let (mut command, mut values, mut options) = (commands_first(before, cli), Vec::new(), Vec::new());
        let (mut pending, mut is_plain): (Option<&Arg>, bool) = (None, false);
        for word in before {
            if let Some(option) = pending.take() {
                if opening.get_arguments().any(|arg| arg.get_id() == option.get_id()) {
                    options.push(word.clone());
                }
            } else if !is_plain && word == "--" {
                is_plain = true;
            } else if !is_plain && word.starts_with('-') {
                pending = awaits_value(command.1, word);
                if option(&opening, word).is_some() {
                    options.push(word.clone());
                }
            } else if values.is_empty() && command.0 > 0 {
                command.0 -= 1;
            } else {
                values.push(word.as_str());
            }
        }
        let wanted = match pending {
            Some(option) => of_option(option)?,
            None if !is_plain && current.starts_with('-') => return None,
            None => of_value(command.1, &values)?,
        };
        Some(Place { wanted, current, options })
    }

    /// Returns how the repository is opened.
    pub fn options(&self) -> Option<OpenArgs> {
        let words = ["nfreezer".to_owned()].into_iter().chain(self.options.iter().cloned());
        let matches = Opening::command().try_get_matches_from(words).ok()?;
        Opening::from_arg_matches(&matches).ok().map(|opening| opening.open)
    }
}

/// Returns the command that the words name, and how many words its name has.
fn commands_first<'c>(words: &[String], cli: &'c Command) -> (usize, &'c Command) {
    let words: Vec<OsString> =
        ["nfreezer"].into_iter().chain(words.iter().map(String::as_str)).map(Into::into).collect();
    let (mut command, mut count) = (cli, 0);
    for word in &options_behind_command(&words, cli)[1..] {
        match command.find_subcommand(word) {
            Some(sub) => (command, count) = (sub, count + 1),
            None => break,
        }
    }
    (count, command)
}

/// Returns the option that a word with dashes names, or ends with.
fn option<'c>(command: &'c Command, word: &str) -> Option<&'c Arg> {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    command.get_arguments().find(|arg| match name.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => arg.get_short().is_some_and(|short| name[1..].starts_with(short)),
    })
}

/// Returns the option if its value is the next word.
fn awaits_value<'c>(command: &'c Command, word: &str) -> Option<&'c Arg> {
    let is_whole = word.starts_with("--") && !word.contains('=') || word.chars().count() == 2;
    option(command, word).filter(|option| is_whole && option.get_action().takes_values())
}

fn of_option<'w>(option: &Arg) -> Option<Wanted<'w>> {
    match option.get_long()? {
        "host" => Some(Wanted::Host),
        "tag" => Some(Wanted::Tag),
        _ if value_name(option) == "SNAPSHOT" => Some(Wanted::Snapshot),
        _ => None,
    }
}

/// Returns what follows these values of a command.
fn of_value<'w>(command: &Command, values: &[&'w str]) -> Option<Wanted<'w>> {
    let repeats = |arg: &&Arg| {
        matches!(arg.get_action(), ArgAction::Append)
            || arg.get_num_args().is_some_and(|number| number.max_values() > 1)
    };
    let argument = match command.get_positionals().nth(values.len()) {
        Some(argument) => argument,
        None => command.get_positionals().last().filter(repeats)?,
    };
    match value_name(argument).as_str() {
        "SNAPSHOT" => Some(Wanted::Snapshot),
        "PROFILE" => Some(Wanted::Profile),
        "PATH" if command.get_name() == "restore" => values.first().map(|first| Wanted::PathBelow(first)),
        name if name.contains("SNAPSHOT") => Some(Wanted::SnapshotAndPath),
        _ => None,
    }
}

fn value_name(argument: &Arg) -> String {
    match argument.get_value_names() {
        Some([name, ..]) => name.to_string(),
        _ => argument.get_id().as_str().to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_recognised() {
        let mut cli = crate::cli::Cli::command();
        cli.build();
        for (line, wanted) in [
            ("restore |", Some(Wanted::SnapshotAndPath)),
            ("extract -q lat|", Some(Wanted::SnapshotAndPath)),
            ("restore latest:/a |", Some(Wanted::PathBelow("latest:/a"))),
            ("restore --target x --include a latest b |", Some(Wanted::PathBelow("latest"))),
            ("restore --target |", None),
            ("-r repo forget 12|", Some(Wanted::Snapshot)),
            ("forget 1234 --host |", Some(Wanted::Host)),
            ("ls --tag |", Some(Wanted::Tag)),
            ("tag --pin |", Some(Wanted::Snapshot)),
            ("push --parent |", Some(Wanted::Snapshot)),
            ("push |", None),
            ("diff latest |", Some(Wanted::SnapshotAndPath)),
            ("profile show |", Some(Wanted::Profile)),
            ("restore --ov|", None),
            ("nosuch |", None),
            ("|", None),
        ] {
            let words: Vec<String> = line.trim_end_matches('|').split(' ').map(String::from).collect();
            assert_eq!(Place::of(&words, &cli).map(|place| place.wanted), wanted, "{line}");
        }
    }

    #[test]
    fn options_of_the_repository_are_kept() {
        let mut cli = crate::cli::Cli::command();
        cli.build();
        let words: Vec<String> =
            "restore -v --repo=a:b -p pass --target dir -i key x".split(' ').map(String::from).collect();
        let open = Place::of(&words, &cli).unwrap().options().unwrap();
        assert_eq!(open.address.repo.unwrap(), "a:b");
        assert_eq!(open.secret.password_file.unwrap().to_str().unwrap(), "pass");
        assert_eq!(open.connection.ssh.identity.len(), 1);
    }
}
