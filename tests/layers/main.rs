//! Holds the architecture: which layer may use which, what only one layer may name, and how long a file may grow.

mod documents;

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer and what it may import beside itself, `name`, `error`, `time` and `printable`.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("name", &[]),
    ("acl", &[]),
    ("pattern", &[]),
    ("printable", &[]),
    ("progress", &[]),
    ("context", &["progress"]),
    ("time", &[]),
    ("crypto", &[]),
    ("format", &["crypto"]),
    ("storage", &["context"]),
    ("seen", &[]),
    ("repo", &["context", "crypto", "format", "storage", "seen"]),
    ("push", &["context", "crypto", "format", "pattern", "repo", "progress"]),
    ("restore", &["context", "acl", "crypto", "format", "repo", "progress"]),
    ("check", &["context", "crypto", "format", "repo", "progress"]),
    ("import", &["context", "crypto", "storage", "progress"]),
    ("vfs", &["context", "crypto", "format", "repo"]),
    ("mount", &["context", "format", "repo", "vfs"]),
    (
        "cli",
        &[
            "context", "crypto", "format", "pattern", "storage", "seen", "repo", "progress", "push", "restore",
            "check", "import", "vfs", "mount",
        ],
    ),
];

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push((path.clone(), fs::read_to_string(&path).unwrap())),
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn layer(path: &Path) -> String {
    let below = path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
    below.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The text before the unit tests, without comments.
fn production(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn imports(text: &str) -> Vec<String> {
    let names = text.split("crate::").skip(1);
    let first = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    names.map(first).filter(|name| !name.is_empty()).collect()
}

#[test]
fn each_layer_imports_only_what_lies_below_it() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let layer = layer(&path);
        if ["main", "lib"].contains(&layer.as_str()) {
            continue;
        }
        let allowed = LAYERS.iter().find(|(name, _)| *name == layer);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{layer} is not in the table of layers"));
        for import in imports(&production(&text)) {
            let fine = import == layer
                || ["name", "error", "time", "printable"].contains(&import.as_str())
                || allowed.contains(&import.as_str());
            if !fine {
                wrong.push(format!("{} imports {import}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_one_layer_names_fuser_ssh2_zstd_and_aes() {
    for (needle, homes) in [
        ("fuser::", vec!["mount"]),
        ("ssh2::", vec!["storage"]),
        ("zstd::", vec!["format"]),
        ("aes_gcm::", vec!["crypto", "format"]),
        ("argon2::", vec!["crypto"]),
        ("println!", vec!["cli"]),
        ("std::process::exit", vec!["cli", "main", "mount"]),
    ] {
        for (path, text) in sources() {
            let here = layer(&path);
            assert!(
                homes.contains(&here.as_str()) || !production(&text).contains(needle),
                "{needle} in {}",
                path.display()
            );
        }
    }
}

#[test]
fn the_core_is_pure() {
    for (path, text) in sources() {
        if ["crypto", "format"].contains(&layer(&path).as_str()) {
            for needle in ["std::fs", "std::io", "std::net", "std::thread", "std::time", "getrandom", "rustix"] {
                assert!(!production(&text).contains(needle), "{needle} in {}", path.display());
            }
        }
    }
}

#[test]
fn no_file_is_longer_than_400_lines_and_each_says_why_it_exists() {
    for (path, text) in sources() {
        let lines = production(&text).lines().count();
        assert!(lines <= 400, "{} has {lines} lines", path.display());
        assert!(text.starts_with("//!"), "{} does not say why it exists", path.display());
    }
}

#[test]
fn unsafe_code_is_forbidden() {
    let lib = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    assert!(lib.contains("#![forbid(unsafe_code)]"));
}
