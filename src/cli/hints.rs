//! Tests that every command line in messages and documents is one that the parser knows.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};

/// All files below a folder with this extension.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

/// Returns the command lines of a text: in backquotes, and in documents also the lines of code blocks.
fn command_lines(text: &str, is_document: bool) -> Vec<String> {
    // A string of Rust continues in the next line.
    let text = text.replace("\\\n", "\n");
    let mut found: Vec<String> = Vec::new();
    let parts: Vec<&str> = text.split('`').collect();
    for pair in parts.windows(2).step_by(2) {
        // A message in bold begins with the name of the program.
        let is_message = pair[0].ends_with("**");
        if !is_message && pair[1].starts_with("nfreezer ") && pair[1].len() < 200 {
            found.push(pair[1].to_owned());
        }
    }
    if is_document {
        let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
        found.extend(lines.filter(|line| line.starts_with("nfreezer ")).map(String::from));
    }
    found
}

/// Returns why the parser does not know this command line.
fn fault(line: &str, cli: &Command) -> Option<String> {
    // Quoted values of options.
    let line: String = line.split('\'').step_by(2).collect();
    let words = line.split_whitespace().skip(1).take_while(|word| !["#", "|", ">", "&&", "--"].contains(word));
    let mut command = cli;
    for word in words {
        let word = word.trim_matches(|c| "[],.;()'\"".contains(c));
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split(['=', '|', '[']).next().unwrap_or_default();
            let known = |c: &Command| {
                c.get_arguments().any(|a| a.get_long_and_visible_aliases().is_some_and(|all| all.contains(&name)))
            };
            let of_any = std::ptr::eq(command, cli) && cli.get_subcommands().any(known);
            if !["help", "version"].contains(&name) && !known(command) && !known(cli) && !of_any {
                return Some(format!("no option --{name}"));
            }
        } else if command.has_subcommands() && word.starts_with(|c: char| c.is_ascii_lowercase()) && word != "help" {
            // A value of an option before the command is no command.
            match command.find_subcommand(word) {
                Some(sub) => command = sub,
                None => return Some(format!("no command {word}")),
            }
        }
    }
    None
}

#[test]
fn every_command_line_in_messages_and_documents_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cli = super::Cli::command();
    cli.build();
    let mut found = vec![top.join("README.md")];
    files(&top.join("src"), "rs", &mut found);
    files(&top.join("docs"), "md", &mut found);
    let (mut wrong, mut count) = (Vec::new(), 0);
    for path in found.iter().filter(|path| !path.ends_with("cli/hints.rs")) {
        let text = fs::read_to_string(path).unwrap();
        for line in command_lines(&text, path.extension().is_some_and(|e| e == "md")) {
            count += 1;
            if let Some(why) = fault(&line, &cli) {
                wrong.push(format!("{}: {why}: {line}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "{count} command lines were found");
}

#[test]
fn command_lines_that_do_not_exist_are_found() {
    let cli = super::Cli::command();
    assert_eq!(fault("nfreezer push --tag a ~/x", &cli), None);
    assert_eq!(fault("nfreezer key list", &cli), None);
    assert_eq!(fault("nfreezer vacuum", &cli).unwrap(), "no command vacuum");
    assert_eq!(fault("nfreezer push --nosuch", &cli).unwrap(), "no option --nosuch");
}

/// Collects the names of the options that the help of a command and of the commands below it shows.
fn long_options(command: &Command, found: &mut BTreeSet<String>) {
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    found.extend(shown.filter_map(|argument| argument.get_long()).map(String::from));
    command.get_subcommands().for_each(|sub| long_options(sub, found));
}

#[test]
fn the_reference_lists_every_option() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let text = fs::read_to_string(path).unwrap();
    let list = text.split("\n## Options from A to Z\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let listed: BTreeSet<&str> = list.split(|c: char| c != '-' && !c.is_ascii_alphanumeric()).collect();
    let (mut cli, mut options) = (super::Cli::command(), BTreeSet::new());
    cli.build();
    long_options(&cli, &mut options);
    assert!(options.len() > 100, "{} options were found", options.len());
    let is_of_clap = |option: &String| ["help", "version"].contains(&option.as_str());
    options.retain(|option| !is_of_clap(option) && !listed.contains(format!("--{option}").as_str()));
    assert!(options.is_empty(), "add to \"Options from A to Z\" in docs/cli.md: {options:?}");
}

/// Types and files that the glossary names must exist, so that it does not drift from the code.
#[test]
fn the_places_that_the_glossary_names_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    files(&top.join("src"), "rs", &mut found);
    let code: String = found.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let glossary = fs::read_to_string(top.join("docs/glossary.md")).unwrap();
    let mut missing = Vec::new();
    for entry in glossary.split("\n- **").skip(1) {
        let Some((_, places)) = entry.split_once("Code:") else { continue };
        let places = places.split("Not:").next().unwrap_or_default().split(". ").next().unwrap_or_default();
        for place in places.split('`').skip(1).step_by(2) {
            let is_folder = top.join("src").join(place.trim_end_matches('/')).exists();
            let last = place.trim_end_matches('/').rsplit("::").next().unwrap_or(place);
            let is_module = found.iter().any(|path| {
                path.file_stem().is_some_and(|stem| stem == last) || path.parent().is_some_and(|p| p.ends_with(last))
            });
            if !is_folder && !is_module && !code.contains(last) {
                missing.push(place.to_owned());
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}
