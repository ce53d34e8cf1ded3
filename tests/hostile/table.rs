//! Holds `docs/threat-model.md`: every test that it names is there, and every case that the first release needs has a row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What `security.md`, part 4, calls the priority for the first release.
fn needed() -> BTreeSet<String> {
    let ranges = [1..=13, 20..=29, 33..=37, 43..=43, 47..=52, 57..=63, 66..=69, 72..=76];
    let letters = ["70a", "70b", "70c", "70d", "70e", "71a", "71b", "71c", "71d", "71e"].map(String::from);
    ranges.into_iter().flatten().map(|n| format!("{n:02}")).chain(letters).map(|n| format!("T{n}")).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Names of all functions, with the number of files that have one.
fn functions() -> BTreeMap<String, usize> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root().join("src"), root().join("tests")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let names = text
                    .split("fn ")
                    .skip(1)
                    .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>());
                names.collect::<BTreeSet<_>>().into_iter().for_each(|name| *found.entry(name).or_default() += 1);
            }
        }
    }
    found
}

/// The rows of the table: number, case, outcome, tests.
fn rows(text: &str) -> Vec<[&str; 4]> {
    let rows = text.lines().filter(|line| line.starts_with("| T"));
    rows.map(|line| {
        line.trim_matches('|')
            .splitn(4, " | ")
            .map(str::trim)
            .collect::<Vec<_>>()
            .try_into()
            .unwrap_or_else(|_| panic!("{line}"))
    })
    .collect()
}

/// Words between backticks that can be the name of a function with a telling name.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|word| {
        word.matches('_').count() >= 2 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    })
}

#[test]
fn every_case_of_the_threat_model_has_tests_that_exist() {
    let (text, functions) = (fs::read_to_string(root().join("docs/threat-model.md")).unwrap(), functions());
    let missing: Vec<_> = named(&text).filter(|name| !functions.contains_key(*name)).collect();
    assert!(missing.is_empty(), "docs/threat-model.md names tests that do not exist: {missing:#?}");
    let rows = rows(&text);
    let without: Vec<_> = rows.iter().filter(|row| named(row[3]).next().is_none()).map(|row| row[0]).collect();
    assert!(without.is_empty(), "cases without a test: {without:?}");
    let listed: BTreeSet<String> = rows.iter().map(|row| row[0].to_owned()).collect();
    assert_eq!(listed.len(), rows.len(), "a case is listed twice");
    assert_eq!(needed().difference(&listed).collect::<Vec<_>>(), [""; 0], "cases without a row");
}
