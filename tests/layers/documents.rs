//! Checks the documents: link targets exist, and prose is wrapped.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Most columns of a line of prose. Tables and code are exempt.
const COLUMNS: usize = 100;

/// Returns every document with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    paths.extend(fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// Returns the lines outside of fenced and indented code, without text in backquotes.
fn prose(text: &str) -> Vec<String> {
    let (mut lines, mut fenced, mut indented, mut blank) = (Vec::new(), false, false, true);
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.trim().is_empty() {
            indented = line.starts_with("    ") && (indented || blank);
            if !indented {
                lines.push(line.split('`').step_by(2).collect::<Vec<_>>().join("`"));
            }
        }
        blank = line.trim().is_empty();
    }
    lines
}

/// Returns the anchor of a heading.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    letters.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Returns the anchors of a document.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Returns whether a link of the document at `from` leads to an existing file and heading.
fn leads_somewhere(link: &str, from: &Path) -> bool {
    if link.starts_with("http") {
        return true;
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { from.to_owned() } else { from.parent().unwrap().join(file) };
    if heading.is_empty() {
        return target.exists();
    }
    fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(heading))
}

/// Returns whether a line is exempt from wrapping: tables, headings, images and indented code.
fn is_exempt(line: &str) -> bool {
    line.starts_with("    ") || line.starts_with(['|', '#', '!'])
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut dead = Vec::new();
    for (path, text) in documents() {
        for line in prose(&text) {
            let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            dead.extend(
                links.filter(|link| !leads_somewhere(link, &path)).map(|link| format!("{}: {link}", path.display())),
            );
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere: {dead:#?}");
}

#[test]
fn prose_is_wrapped() {
    let mut long = Vec::new();
    for (path, text) in documents() {
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            fenced ^= line.starts_with("```");
            // A command in backquotes is not broken.
            let columns: usize = line.split('`').step_by(2).map(|words| words.chars().count()).sum();
            if !fenced && !is_exempt(line) && columns > COLUMNS {
                long.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(long.is_empty(), "lines of more than {COLUMNS} columns: {long:#?}");
}
