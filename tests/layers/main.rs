//! Checks the architecture: the imports between layers, names that only one layer may use, and the lengths of files and
//! functions.

mod cycles;
mod documents;
mod messages;
mod report;
mod source;

use std::collections::BTreeSet;
use std::fs;

use source::{Modules, Source, functions, module, sources};

/// Each layer and its permitted imports beside itself and [`EVERYWHERE`].
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("descriptors", &[]),
    ("holes", &[]),
    ("mounts", &[]),
    ("xattr", &[]),
    ("name", &[]),
    ("accounts", &["descriptors"]),
    ("acl", &["format"]),
    ("inode_flags", &["format"]),
    ("pattern", &[]),
    ("printable", &[]),
    ("moment", &[]),
    ("progress", &[]),
    ("context", &["progress"]),
    ("allowance", &["context"]),
    ("time", &[]),
    ("crypto", &[]),
    ("format", &["crypto"]),
    ("window", &["crypto"]),
    ("storage", &["context", "progress"]),
    ("seen", &[]),
    ("repo", &["allowance", "context", "crypto", "format", "storage", "seen", "moment"]),
    ("trees", &["allowance", "context", "crypto", "format", "progress", "repo"]),
    (
        "push",
        &[
            "accounts",
            "acl",
            "context",
            "crypto",
            "descriptors",
            "format",
            "holes",
            "inode_flags",
            "mounts",
            "pattern",
            "repo",
            "xattr",
            "trees",
            "progress",
            "window",
        ],
    ),
    (
        "restore",
        &[
            "accounts",
            "allowance",
            "context",
            "acl",
            "crypto",
            "descriptors",
            "format",
            "holes",
            "inode_flags",
            "mounts",
            "pattern",
            "repo",
            "trees",
            "progress",
            "window",
            "xattr",
        ],
    ),
    ("check", &["allowance", "context", "crypto", "format", "repo", "trees", "progress"]),
    ("diff", &["context", "format", "trees", "xattr"]),
    ("doctor", &["context", "repo", "storage"]),
    ("dump", &["allowance", "context", "format", "trees"]),
    ("find", &["context", "crypto", "format", "trees"]),
    ("stats", &["context", "crypto", "format", "trees"]),
    ("rewrite", &["context", "crypto", "format", "repo", "trees"]),
    ("forget", &["context", "format", "repo", "trees"]),
    ("prune", &["context", "crypto", "format", "progress", "repo", "seen", "storage", "trees"]),
    ("import", &["context", "crypto", "storage", "progress"]),
    ("vfs", &["acl", "context", "crypto", "format", "repo", "trees", "moment"]),
    ("mount", &["context", "format", "mounts", "repo", "vfs"]),
    (
        "cli",
        &[
            "accounts", "context", "crypto", "format", "moment", "mounts", "pattern", "storage", "seen", "repo",
            "trees", "progress", "push", "restore", "check", "diff", "doctor", "dump", "find", "stats", "forget",
            "rewrite", "prune", "import", "vfs", "mount",
        ],
    ),
];

/// Layers that every other one may import.
const EVERYWHERE: [&str; 4] = ["name", "error", "time", "printable"];

fn layer(source: &Source) -> String {
    module(&source.path).first().cloned().unwrap_or_else(|| "lib".into())
}

fn is_root(layer: &str) -> bool {
    ["main", "lib"].contains(&layer)
}

#[test]
fn each_layer_imports_only_what_lies_below_it() {
    let sources = sources();
    let modules = Modules::of(&sources);
    let mut wrong = BTreeSet::new();
    for source in sources.iter().filter(|source| !is_root(&layer(source))) {
        let layer = layer(source);
        let allowed = LAYERS.iter().find(|(name, _)| *name == layer);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{layer} is not in the table of layers"));
        for (path, home) in modules.imports(source) {
            // Checks the layer in the path and the layer that defines the item, since a layer may re-export items.
            for import in [path.first(), home.first()].into_iter().flatten() {
                let import = import.as_str();
                if import != layer && !EVERYWHERE.contains(&import) && !allowed.contains(&import) {
                    wrong.insert(format!("{} imports {import} by {}", source.path.display(), path.join("::")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_one_layer_names_fuser_ssh2_zstd_and_aes() {
    let sources = sources();
    for (needle, homes) in [
        ("fuser::", vec!["mount"]),
        ("ssh2::", vec!["storage"]),
        ("zstd::", vec!["format"]),
        ("aes_gcm::", vec!["crypto", "format"]),
        ("argon2::", vec!["crypto"]),
        ("println!", vec!["cli"]),
        ("std::process::exit", vec!["cli", "main", "mount"]),
    ] {
        for source in &sources {
            let here = layer(source);
            assert!(
                homes.contains(&here.as_str()) || !source.code.contains(needle),
                "{needle} in {}",
                source.path.display()
            );
        }
    }
}

#[test]
fn the_core_is_pure() {
    for source in sources().iter().filter(|source| ["crypto", "format"].contains(&layer(source).as_str())) {
        for needle in ["std::fs", "std::io", "std::net", "std::thread", "std::time", "getrandom", "rustix"] {
            assert!(!source.code.contains(needle), "{needle} in {}", source.path.display());
        }
    }
}

#[test]
fn no_file_is_longer_than_400_lines_and_each_says_why_it_exists() {
    let sources = sources();
    let long = sources.iter().map(|source| (source.production.lines().count(), source.path.display()));
    let long: Vec<String> = long.filter(|(lines, _)| *lines > 400).map(|(n, path)| format!("{path}: {n}")).collect();
    assert!(long.is_empty(), "files of more than 400 lines: {long:#?}");
    for source in &sources {
        assert!(source.text.starts_with("//!"), "{} does not say why it exists", source.path.display());
    }
}

/// Functions that exceed the limit and should be split.
const LONG_FUNCTIONS: [&str; 1] = ["open"];

#[test]
fn no_function_is_longer_than_60_lines() {
    let (mut long, mut count) = (Vec::new(), 0);
    for source in sources() {
        for (name, lines) in functions(&source.production) {
            count += 1;
            if lines > 60 && !LONG_FUNCTIONS.contains(&name.as_str()) {
                long.push(format!("{}: {name} has {lines}", source.path.display()));
            }
        }
    }
    assert!(count > 1000, "only {count} functions were found");
    assert!(long.is_empty(), "functions of more than 60 lines: {long:#?}");
}

#[test]
fn unsafe_code_is_forbidden() {
    let lib = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    assert!(lib.contains("#![forbid(unsafe_code)]"));
    let main = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/main.rs")).unwrap();
    assert!(main.contains("#![forbid(unsafe_code)]"));
}
