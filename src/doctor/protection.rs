//! Which changes the server allows, judged by the state of an object afterwards, not by the server's answers.

use super::own::Own;
use super::{Finding, Level};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::name::Name;
use crate::storage::{Attack, Storage};

/// The changes that worked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    pub overwrite: bool,
    pub rename: bool,
    pub link: bool,
    pub delete: bool,
}

/// Tries all changes on an object of this run.
pub fn allowed(ctx: &Context, storage: &dyn Storage, own: &Own<'_>, name: &Name) -> Result<Allowed> {
    let (linked, moved) = (own.name()?, own.name()?);
    let before = contents(ctx, storage, name)?;
    storage.attack(ctx, name, Attack::Overwrite)?;
    let overwrite = contents(ctx, storage, name)? != before;
    storage.attack(ctx, name, Attack::Link(linked))?;
    let link = is_there(ctx, storage, &linked)?;
    storage.attack(ctx, name, Attack::Rename(moved))?;
    let rename = is_there(ctx, storage, &moved)?;
    let last = if rename { moved } else { *name };
    let removed = storage.remove(ctx, &last);
    if let Err(e) = removed
        && e.kind() == Kind::Connection
    {
        return Err(e);
    }
    let delete = !is_there(ctx, storage, &last)?;
    Ok(Allowed { overwrite, rename, link, delete })
}

/// Joins words: `a, b or c`.
fn listed(words: &[&str]) -> String {
    match words {
        [before @ .., last] if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        _ => words.concat(),
    }
}

/// Judges the changes that a server, or else a folder, allows.
pub fn judge(allowed: Allowed, is_server: bool) -> Finding {
    let Allowed { overwrite, rename, link, delete } = allowed;
    let changes = [(overwrite, "overwritten"), (rename, "renamed"), (link, "linked"), (delete, "deleted")];
    let named: Vec<&str> = changes.iter().filter(|(works, _)| *works).map(|(_, word)| *word).collect();
    let text = format!("with this access an object can be {}", listed(&named));
    let finding = match (delete, overwrite || rename) {
        (false, false) => {
            Finding::ok("protection", "with this access objects can be added, and not changed or deleted")
        }
        (false, true) => Finding::failure(
            "protection",
            format!("deletion is refused, but {text}"),
            "the protection has a hole: set the server up again with `nfreezer server-setup --append-only`",
        ),
        (true, _) if is_server => Finding::warning(
            "protection",
            text,
            "an attacker on this machine can delete the backup: see `nfreezer server-setup --append-only`",
        ),
        (true, _) => Finding::warning(
            "protection",
            text,
            "an attacker on this machine can delete the backup: keep a second one on another machine",
        ),
    };
    debug_assert!(finding.level != Level::Ok || !delete);
    finding.with(changes.map(|(works, word)| (word, i64::from(works))))
}

/// Returns the contents; `None` if they cannot be read, as after a change.
fn contents(ctx: &Context, storage: &dyn Storage, name: &Name) -> Result<Option<Vec<u8>>> {
    let len = match storage.size(ctx, name) {
        Err(e) if is_final(&e) => return Ok(None),
        size => usize::try_from(size?).unwrap_or(0).min(1 << 20),
    };
    match storage.read(ctx, name, 0, len) {
        Err(e) if is_final(&e) => Ok(None),
        bytes => bytes.map(Some),
    }
}

fn is_there(ctx: &Context, storage: &dyn Storage, name: &Name) -> Result<bool> {
    match storage.size(ctx, name) {
        Err(e) if e.kind() == Kind::Missing => Ok(false),
        other => other.map(|_| true),
    }
}

fn is_final(e: &Error) -> bool {
    matches!(e.kind(), Kind::Missing | Kind::Damaged | Kind::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protection_with_a_hole_is_a_failure() {
        let level = |overwrite, rename, delete| judge(Allowed { overwrite, rename, link: false, delete }, true).level;
        assert_eq!(level(false, false, false), Level::Ok);
        assert_eq!(level(true, false, false), Level::Failure);
        assert_eq!(level(false, true, false), Level::Failure);
        assert_eq!(level(false, false, true), Level::Warning);
        assert_eq!(level(true, true, true), Level::Warning);
        let folder = judge(Allowed { delete: true, ..Allowed::default() }, false);
        assert!(!folder.advice.unwrap().contains("server-setup"));
    }
}
