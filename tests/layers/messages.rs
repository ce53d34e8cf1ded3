//! Checks docs/troubleshooting.md: each message that it explains exists in the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Texts of clap and of the kernel, which are not in the sources.
const OF_OTHERS: [&str; 6] = [
    "unrecognized subcommand",
    "the following required arguments were not provided",
    "invalid value",
    "No such file or directory",
    "Input/output error",
    "Read-only file system",
];

fn read(folder: &str) -> String {
    let (mut text, mut open) = (String::new(), vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| -> PathBuf { entry.unwrap().path() }));
        } else {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

/// Joins string literals that continue on the next line, and removes quotes.
fn plain(text: &str) -> String {
    let joined: String = text.split("\\\n").map(|part| [part.trim_start(), ""].concat()).collect();
    let words: Vec<&str> = joined.split_whitespace().collect();
    words.join(" ").replace(['`', '"', '\\'], "")
}

/// Returns the parts of a message between its placeholders, which are upper-case words and numbers.
fn fixed_parts(message: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), Vec::new());
    for word in message.split_whitespace() {
        let letters: String = word.chars().filter(|c| c.is_alphanumeric()).collect();
        let placeholder = !letters.chars().any(|c| c.is_lowercase()) || word.contains(['*', '/']);
        if placeholder || word.starts_with('(') {
            parts.push(part.join(" "));
            part.clear();
        }
        if placeholder {
            continue;
        }
        let word = word.trim_start_matches('(');
        let end = if word.contains('(') { word } else { word.trim_end_matches(')') };
        part.push(end.trim_matches([',', ':', '\'']));
        if word.ends_with([':', ',', ')']) {
            parts.push(part.join(" "));
            part.clear();
        }
    }
    parts.push(part.join(" "));
    parts.retain(|part| part.len() > 3);
    parts
}

#[test]
fn the_messages_in_troubleshooting_exist() {
    let sources = plain(&(read("src") + &read("scripts")));
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/troubleshooting.md")).unwrap();
    let messages = document.split("**`").skip(1).filter_map(|rest| rest.split("`**").next());
    let (mut missing, mut count) = (Vec::new(), 0);
    for message in messages {
        count += 1;
        for part in fixed_parts(&plain(message)) {
            // Code adds `cannot` and a verb to an error, and joins two errors by `and` or `but`.
            let object = part.strip_prefix("cannot ").and_then(|rest| Some(rest.split_once(' ')?.1)).unwrap_or(&part);
            let joined = ["and ", "but "].iter().find_map(|word| part.strip_prefix(word)).unwrap_or(&part);
            let known = [part.as_str(), object, joined].iter().any(|part| sources.contains(part));
            if !known && !OF_OTHERS.contains(&part.as_str()) {
                missing.push(format!("{part:?} of {message:?}"));
            }
        }
    }
    assert!(count > 200, "only {count} messages were found");
    assert!(missing.is_empty(), "messages that no source contains: {missing:#?}");
}
