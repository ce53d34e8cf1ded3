//! Reads the sources of the program: production code, modules, and the imports of each file.
//!
//! Relies on the format of `rustfmt`: an item ends at the first closing line with the indentation of its first line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A path of names from the crate root.
pub type Names = Vec<String>;

/// A file of `src`.
pub struct Source {
    pub path: PathBuf,
    /// The whole file.
    pub text: String,
    /// The file without items that are compiled only for tests.
    pub production: String,
    /// The production code without comments.
    pub code: String,
}

/// Returns all files of `src` except those that are compiled only for tests.
pub fn sources() -> Vec<Source> {
    let (mut paths, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { paths.push(path) }
        }
    }
    paths.sort();
    assert!(paths.len() > 20, "the sources are not there");
    let mut test_only = Vec::new();
    let mut sources: Vec<Source> = paths.into_iter().map(|path| read(path, &mut test_only)).collect();
    sources.retain(|source| !test_only.contains(&module(&source.path)));
    sources
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn read(path: PathBuf, test_only: &mut Vec<Names>) -> Source {
    let text = fs::read_to_string(&path).unwrap();
    let (production, modules) = production(&text);
    let here = module(&path);
    test_only.extend(modules.into_iter().map(|name| [here.clone(), vec![name]].concat()));
    let code = production.lines().map(|line| line.split("// ").next().unwrap());
    let code = code.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    Source { path, text, production, code }
}

/// Returns the module of a file.
pub fn module(path: &Path) -> Names {
    let below = path.strip_prefix(root()).unwrap().with_extension("");
    let mut names: Names = below.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if names.last().is_some_and(|name| ["mod", "lib"].contains(&name.as_str())) {
        names.pop();
    }
    names
}

/// Returns the text without items that are compiled only for tests, and the names of such modules in other files.
fn production(text: &str) -> (String, Vec<String>) {
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(line);
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let first = lines.by_ref().find(|line| !line.trim_start().starts_with("#[")).unwrap_or_default();
        if let Some(name) = first.trim().strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            modules.push(name.to_owned());
        }
        let ends_at_once = first.ends_with([';', ',', '}']);
        if !ends_at_once {
            let end = [format!("{indent}}}"), format!("{indent}}};"), format!("{indent});")];
            lines.by_ref().find(|line| end.iter().any(|end| line == end));
        }
    }
    (kept.join("\n"), modules)
}

/// The modules of the crate, and the names that each module imports.
pub struct Modules {
    pub files: BTreeMap<Names, PathBuf>,
    imported: BTreeMap<Names, BTreeMap<String, Names>>,
}

impl Modules {
    pub fn of(sources: &[Source]) -> Modules {
        let files = sources.iter().map(|source| (module(&source.path), source.path.clone())).collect();
        let mut modules = Modules { files, imported: BTreeMap::new() };
        for source in sources {
            let here = module(&source.path);
            let uses = uses(&source.code).into_iter();
            let named = uses.filter_map(|(path, name)| Some((name?, modules.absolute(&here, path)?))).collect();
            modules.imported.insert(here, named);
        }
        modules
    }

    /// Returns a path from the crate root, or `None` for a path of another crate.
    fn absolute(&self, here: &Names, mut path: Names) -> Option<Names> {
        let mut base = here.clone();
        match path.first()?.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => drop(base.pop()?),
            child if self.files.contains_key(&[here.as_slice(), &[child.to_owned()]].concat()) => {
                path.insert(0, "self".into())
            }
            _ => return None,
        }
        path.remove(0);
        while path.first().is_some_and(|name| name == "super") {
            base.pop()?;
            path.remove(0);
        }
        Some([base, path].concat())
    }

    /// Returns the module that defines the item at a path. Follows re-exports.
    fn home(&self, path: &Names, depth: usize) -> Names {
        let mut at = Names::new();
        for (i, name) in path.iter().enumerate() {
            let below = [at.as_slice(), std::slice::from_ref(name)].concat();
            if self.files.contains_key(&below) {
                at = below;
                continue;
            }
            let Some(other) = self.imported.get(&at).and_then(|names| names.get(name)) else { break };
            if depth > 8 || other == path {
                break;
            }
            return self.home(&[other.as_slice(), &path[i + 1..]].concat(), depth + 1);
        }
        at
    }

    /// Returns the imports of a file: each path from the crate root, and the module that defines the item.
    pub fn imports(&self, source: &Source) -> Vec<(Names, Names)> {
        let here = module(&source.path);
        let written = uses(&source.code).into_iter().map(|(path, _)| path).chain(inline(&source.code));
        let absolute = written.filter_map(|path| self.absolute(&here, path));
        absolute.map(|path| (path.clone(), self.home(&path, 0))).collect()
    }
}

/// Returns the paths of all `use` declarations, each with the imported name.
fn uses(code: &str) -> Vec<(Names, Option<String>)> {
    let mut found = Vec::new();
    for statement in code.split_inclusive(';') {
        let Some(at) = statement.rfind("use ") else { continue };
        let before = statement[..at].rsplit('\n').next().unwrap().trim();
        if before.is_empty() || before.starts_with("pub") {
            let tree: String =
                statement[at + 4..].trim_end_matches(';').split_whitespace().collect::<Vec<_>>().join(" ");
            expand(&[], &tree, &mut found);
        }
    }
    found
}

/// Adds the paths of a tree such as `a::{b, c::{d, e as f}}`.
fn expand(prefix: &[String], tree: &str, found: &mut Vec<(Names, Option<String>)>) {
    if let Some((head, rest)) = tree.split_once('{') {
        let inside = &rest[..rest.rfind('}').expect("braces are closed")];
        let prefix = [prefix, &names(head)].concat();
        split(inside).into_iter().for_each(|part| expand(&prefix, part.trim(), found));
        return;
    }
    let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut path = [prefix, &names(path)].concat();
    if path.last().is_some_and(|name| name == "self") && path.len() > 1 {
        path.pop();
    }
    if path.last().is_some_and(|name| name == "*") {
        path.pop();
        found.push((path, None));
        return;
    }
    let name = if alias.is_empty() { path.last().cloned() } else { Some(alias.trim().to_owned()) };
    if !path.is_empty() {
        found.push((path, name));
    }
}

/// Splits at commas outside of braces.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn names(path: &str) -> Names {
    path.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Returns all paths that begin with `crate`, `self` or `super`.
fn inline(code: &str) -> Vec<Names> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let path: String =
                code[at..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
            found.push(names(&path));
        }
    }
    found
}

/// Returns the name and the number of lines of each function with a body of several lines.
pub fn functions(production: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = production.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let (before, after) = code.split_once("fn ").unwrap_or_default();
        let qualifiers = before.split(' ').filter(|word| !word.is_empty());
        let known = |word: &str| word.starts_with("pub") || word.ends_with(')') || ["const", "unsafe"].contains(&word);
        if after.is_empty() || !qualifiers.into_iter().all(known) {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        // No body, or a body on the same line.
        if code.ends_with([';', '}']) {
            continue;
        }
        let end = format!("{indent}}}");
        let before_end = lines[at..].iter().take_while(|line| **line != end).count();
        let name = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        found.push((name, before_end + 1));
    }
    found
}
