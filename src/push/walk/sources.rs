//! The paths to save, merged into one plan that begins at the root directory.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// A directory on the way to sources, or a source.
#[derive(Debug, Default)]
pub struct Plan {
    /// Everything at and below this path is saved; then `below` is empty.
    pub whole: bool,
    /// The entries that are saved, by name.
    pub below: BTreeMap<Vec<u8>, Plan>,
}

/// Returns the sources as clean absolute paths, ascending.
pub fn paths(sources: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = sources.iter().map(|path| clean(path)).collect::<Result<_>>()?;
    paths.sort();
    paths.dedup();
    if paths.is_empty() {
        return Err(Error::new(Kind::Usage, "nothing to push: no source is given"));
    }
    Ok(paths)
}

/// Merges clean paths into a plan. All of them must exist.
pub fn plan(paths: &[PathBuf]) -> Result<Plan> {
    let missing: Vec<String> = paths.iter().filter_map(|path| missing(path)).collect();
    if !missing.is_empty() {
        return Err(Error::failed(missing.join("; ")).hint("nothing was saved; name sources that exist"));
    }
    let mut plan = Plan::default();
    for path in paths {
        if !plan.add(path) {
            // The path is inside another source. If a symbolic link leads there, the link is saved as a link, so the real
            // path is added too.
            if let Some(real) = real(path) {
                plan.add(&real);
            }
        }
    }
    Ok(plan)
}

impl Plan {
    /// Adds a path. Returns whether it was not in the plan before.
    fn add(&mut self, path: &Path) -> bool {
        let mut plan = self;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            if plan.whole {
                return false;
            }
            plan = plan.below.entry(name.as_bytes().to_vec()).or_default();
        }
        let new = !plan.whole;
        *plan = Plan { whole: true, below: BTreeMap::new() };
        new
    }
}

fn clean(path: &Path) -> Result<PathBuf> {
    let odd = |part| !matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || path.components().any(odd) {
        let text = format!("cannot push {}: not an absolute path without `..`", path.display());
        return Err(Error::new(Kind::Usage, text));
    }
    Ok(path.components().collect())
}

fn missing(path: &Path) -> Option<String> {
    let error = std::fs::symlink_metadata(path).err()?;
    Some(format!("cannot push {}: {error}", path.display()))
}

fn real(path: &Path) -> Option<PathBuf> {
    let real = path.parent()?.canonicalize().ok()?.join(path.file_name()?);
    (real != path).then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_inside_another_one_is_saved_once() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("a/b/c")).unwrap();
        std::fs::create_dir(base.join("d")).unwrap();
        let paths = paths(&[base.join("a/b/c"), base.join("a/"), base.join("d")]).unwrap();
        let plan = plan(&paths).unwrap();
        assert_eq!(paths.len(), 3);
        let mut here = &plan;
        for part in base.components() {
            if let Component::Normal(name) = part {
                assert!(!here.whole);
                here = &here.below[name.as_bytes()];
            }
        }
        assert!(here.below.keys().eq([b"a", b"d"]));
        assert!(here.below.values().all(|plan| plan.whole && plan.below.is_empty()));
    }

    #[test]
    fn each_missing_source_is_named_and_relative_ones_are_refused() {
        let error = plan(&["/".into(), "/no/such".into(), "/nor/this".into()]).unwrap_err().to_string();
        assert!(error.contains("/no/such") && error.contains("/nor/this"), "{error}");
        for bad in ["a", "/a/../b"] {
            assert_eq!(paths(&[bad.into()]).unwrap_err().kind(), Kind::Usage);
        }
        assert_eq!(paths(&[]).unwrap_err().kind(), Kind::Usage);
    }
}
