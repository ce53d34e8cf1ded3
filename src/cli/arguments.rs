//! Prepares the command line for the parser, and explains what the parser refuses.
//!
//! Options belong to commands. An option before the command (`nfreezer -r REPO push`) is moved behind it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::{escape, other_tools};
use crate::error::{Error, Kind};

/// Whether each option takes a value, by its name with dashes.
type Options = HashMap<String, bool>;

/// Returns the arguments with all options that stand before a command behind that command. A command that opens no
/// repository gets only its own options. Returns the arguments as they are if one of those options is unknown, or if there
/// is no command.
pub fn options_behind_command(arguments: &[OsString], cli: &Command) -> Vec<OsString> {
    reordered(arguments, cli).unwrap_or_else(|| arguments.to_vec())
}

fn reordered(arguments: &[OsString], cli: &Command) -> Option<Vec<OsString>> {
    let options = all_options(cli);
    let mut front = vec![arguments.first()?.clone()];
    let mut moved: Vec<&[OsString]> = Vec::new();
    let mut current = cli;
    let mut rest = &arguments[1..];
    while current.has_subcommands() {
        let (first, after) = rest.split_first()?;
        if first.as_bytes().starts_with(b"-") {
            let words = if takes_next(first, &options)? { 2 } else { 1 };
            moved.push(rest.get(..words)?);
            rest = &rest[words..];
        } else {
            current = current.find_subcommand(first)?;
            front.push(first.clone());
            rest = after;
        }
    }
    let own = all_options(current);
    if !own.contains_key("--repo") {
        // With this, `alias nf='nfreezer -r REPO'` works with `umount` and `version`, too.
        moved.retain(|words| takes_next(&words[0], &own).is_some());
    }
    Some([front, moved.concat(), rest.to_vec()].concat())
}

/// Reports whether the value of this option is the next word. None if an option is unknown.
fn takes_next(word: &OsString, options: &Options) -> Option<bool> {
    let word = word.to_str()?;
    if word.starts_with("--") {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        return options.get(name).map(|takes_value| *takes_value && name == word);
    }
    let mut letters = word.chars().skip(1);
    while let Some(letter) = letters.next() {
        if *options.get(&format!("-{letter}"))? {
            return Some(letters.next().is_none());
        }
    }
    Some(false)
}

fn all_options(command: &Command) -> Options {
    let mut options = Options::new();
    collect(command, &mut options);
    options
}

fn collect(command: &Command, options: &mut Options) {
    for argument in command.get_arguments() {
        let takes_value = argument.get_action().takes_values();
        options.extend(names(argument).map(|name| (name, takes_value)));
    }
    command.get_subcommands().for_each(|sub| collect(sub, options));
}

fn names(argument: &Arg) -> impl Iterator<Item = String> {
    let long = argument.get_long().map(|long| format!("--{long}"));
    long.into_iter().chain(argument.get_short().map(|short| format!("-{short}")))
}

/// Returns the command with variables that are set and empty counting as not set, as everywhere else.
pub fn without_empty_variables(command: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|v| v.is_empty()));
    let forgotten = |arg: Arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg };
    command.mut_args(forgotten).mut_subcommands(without_empty_variables)
}

/// Returns the variable from which the parser took a value that it refused, if it was one.
fn variable_of(option: &str, value: &str, cli: &Command) -> Option<String> {
    let option = option.split([' ', '=']).next().unwrap_or_default();
    let is_given = std::env::args().any(|word| word == option || word.starts_with(&format!("{option}=")));
    let mut commands: Vec<_> = cli.get_subcommands().collect();
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands());
        let arg = command.get_arguments().find(|arg| names(arg).any(|name| name == option) && arg.get_env().is_some());
        let Some(name) = arg.and_then(Arg::get_env) else { continue };
        if !is_given && std::env::var_os(name).is_some_and(|set| set == value) {
            return Some(name.to_string_lossy().into_owned());
        }
    }
    None
}

/// Returns the error for a command line that the parser refused.
pub fn explain(refused: &clap::Error, cli: &Command) -> Error {
    let context = |kind| match refused.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    match refused.kind() {
        ErrorKind::InvalidSubcommand => match other_tools::answer(context(ContextKind::InvalidSubcommand)) {
            Some((text, hint)) => Error::new(Kind::Usage, text).hint(hint),
            None => plain(refused),
        },
        ErrorKind::UnknownArgument => match owners(context(ContextKind::InvalidArg), cli) {
            Some(owners) => Error::new(Kind::Usage, first_paragraph(refused)).hint(owners),
            None => plain(refused),
        },
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            match variable_of(context(ContextKind::InvalidArg), context(ContextKind::InvalidValue), cli) {
                Some(variable) => plain(refused).hint(format!("the value comes from the variable {variable}")),
                None => plain(refused),
            }
        }
        _ => plain(refused),
    }
}

/// Returns a hint with the commands that have this option.
fn owners(option: &str, cli: &Command) -> Option<String> {
    let has = |command: &&Command| all_options(command).contains_key(option);
    let owners: Vec<_> = cli.get_subcommands().filter(has).map(|command| format!("`{}`", command.get_name())).collect();
    let last = owners.last()?;
    Some(match owners.len() {
        1 => format!("{option} is an option of {last}"),
        n => format!("{option} is an option of {} and {last}", owners[..n - 1].join(", ")),
    })
}

/// Returns the words of the parser, in our form.
fn plain(refused: &clap::Error) -> Error {
    let text = refused.render().to_string();
    // The parser proposes to write an unknown option as a value, which is no help.
    let tip =
        text.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).find(|tip| !tip.starts_with("to pass '"));
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    let hint = match (tip, usage) {
        (Some(tip), _) => tip.to_owned(),
        (None, Some(usage)) => match behind_snapshot(refused, usage) {
            Some(hint) => hint,
            None => format!("the form is `{usage}`; -h shows the options"),
        },
        (None, None) if refused.get(ContextKind::InvalidArg).is_some() => {
            "`-h` behind the command shows its options".to_owned()
        }
        (None, None) => "`nfreezer --help` lists the commands".to_owned(),
    };
    Error::new(Kind::Usage, first_paragraph(refused)).hint(hint)
}

/// Returns a hint for a path that was written as a word of its own, as `ls` and `dump` of restic take it.
fn behind_snapshot(refused: &clap::Error, usage: &str) -> Option<String> {
    let Some(ContextValue::String(word)) = refused.get(ContextKind::InvalidArg) else { return None };
    let is_path = refused.kind() == ErrorKind::UnknownArgument && word.starts_with('/') && usage.contains("SNAPSHOT");
    is_path.then(|| format!("write a path behind the snapshot: latest:{}", escape::message(word)))
}

fn first_paragraph(refused: &clap::Error) -> String {
    let text = refused.render().to_string();
    let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let text = lines.join(" ");
    escape::message(text.strip_prefix("error: ").unwrap_or(&text))
}
