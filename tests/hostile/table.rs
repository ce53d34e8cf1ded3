//! Checks `docs/threat-model.md`: every test that it names exists, and every case of the first release is listed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the cases of the test plan that the first release needs.
fn needed() -> BTreeSet<String> {
    let ranges = [1..=13, 20..=29, 33..=37, 43..=43, 47..=52, 57..=63, 66..=69, 72..=76];
    let letters = ["70a", "70b", "70c", "70d", "70e", "71a", "71b", "71c", "71d", "71e"].map(String::from);
    ranges.into_iter().flatten().map(|n| format!("{n:02}")).chain(letters).map(|n| format!("T{n}")).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all sources of the program and its tests.
fn sources() -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join("src"), root().join("tests")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// Returns whether the text has a test of this name that an ordinary run does not skip.
fn is_test(text: &str, name: &str) -> bool {
    let Some(at) = text.find(&format!("fn {name}(")) else { return false };
    let attributes = text[..at]
        .rfind('\n')
        .map_or("", |end| &text[..end])
        .lines()
        .rev()
        .take_while(|line| line.trim_start().starts_with("#["));
    let attributes: Vec<&str> = attributes.map(str::trim).collect();
    attributes.contains(&"#[test]") && !attributes.iter().any(|attribute| attribute.starts_with("#[ignore"))
}

/// Returns the number and the text of each case. A case is a list item that begins with its number in bold.
fn cases(text: &str) -> Vec<(String, &str)> {
    let items = text.split("\n- **T").skip(1);
    items
        .map(|item| {
            let (number, rest) = item.split_once("**").unwrap_or_else(|| panic!("a case without a number: {item}"));
            (format!("T{number}"), rest.split("\n\n").next().unwrap_or_default())
        })
        .collect()
}

/// Returns words between backticks that can be the name of a test.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|word| {
        word.matches('_').count() >= 2 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    })
}

#[test]
fn every_case_of_the_threat_model_has_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let files = sources();
    let missing: Vec<_> = named(&text).filter(|name| !files.iter().any(|(_, text)| is_test(text, name))).collect();
    let elsewhere = text.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::"));
    // The text explains the form as `file::test`.
    let elsewhere = elsewhere.filter(|(file, _)| *file != "file");
    for (file, test) in elsewhere {
        let mut texts = files.iter().filter(|(path, _)| path.file_stem().is_some_and(|stem| stem == file));
        let there = texts.any(|(_, text)| is_test(text, test));
        assert!(there, "no {file}.rs has a test {test} that is run");
    }
    assert!(missing.is_empty(), "docs/threat-model.md names tests that do not exist: {missing:#?}");
    let cases = cases(&text);
    let without: Vec<_> = cases.iter().filter(|(_, text)| !text.contains('`')).map(|(number, _)| number).collect();
    assert!(without.is_empty(), "cases without a test: {without:?}");
    let listed: BTreeSet<String> = cases.iter().map(|(number, _)| number.clone()).collect();
    assert_eq!(listed.len(), cases.len(), "a case is listed twice");
    assert_eq!(needed().difference(&listed).collect::<Vec<_>>(), [""; 0], "cases that are not listed");
}
