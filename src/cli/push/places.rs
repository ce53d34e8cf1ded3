//! The repositories that a push writes to: `--repo`, and each `--to`.

use super::args::Args;
use crate::cli::init;
use crate::cli::open::to_push;
use crate::cli::options::{OpenArgs, Role, SecretArgs};
use crate::cli::passphrase::Given;
use crate::error::{Error, Kind, Result};
use crate::push;
use crate::repo::{Repository, parallel};

/// A repository that the push writes to.
pub struct Place {
    /// As the user wrote it.
    pub address: String,
    open: OpenArgs,
}

/// Returns the repositories of a push: `--repo` or its variable, unless only `--to` is given, and each `--to`.
pub fn places(args: &Args) -> Result<Vec<Place>> {
    let is_only_to = !args.to.is_empty() && args.repository.address.is_absent();
    let main = (!is_only_to).then(|| args.repository.clone());
    let mut targets = args.target.open(&args.to, &args.repository)?;
    if is_only_to {
        targets.iter_mut().try_for_each(|target| use_main_passphrase(target, &args.repository.secret))?;
    }
    let place = |open: OpenArgs| Ok(Place { address: open.address.get()?, open });
    let all: Vec<Place> = main.into_iter().chain(targets).map(place).collect::<Result<_>>()?;
    push::check_memory(args.memory, all.len())?;
    for (i, place) in all.iter().enumerate().skip(1) {
        if let Some(same) = all[..i].iter().find(|other| other.address == place.address) {
            return Err(same_repository(same, place));
        }
    }
    if all.len() > 1 {
        all.iter().try_for_each(|place| Given::of(&place.open.secret).check())?;
    }
    Ok(all)
}

/// Uses the passphrase of `--repo`, which names no repository, for one of `--to` that has none of its own.
fn use_main_passphrase(target: &mut OpenArgs, main: &SecretArgs) -> Result<()> {
    if Given::of(&target.secret).is_typed()? {
        let local_key = target.secret.local_key_path().or_else(|| main.local_key.clone());
        target.secret = SecretArgs { role: Role::Alone, local_key, ..main.clone() };
    }
    Ok(())
}

fn same_repository(a: &Place, b: &Place) -> Error {
    let text = format!("{} and {} are the same repository", a.address, b.address);
    Error::new(Kind::Usage, text).hint("name each repository once, by -r or by --to")
}

/// Opens the repositories, all at the same time. One of several that cannot be opened does not keep the others from being
/// written. Those whose passphrases are typed, and those that are made, are opened one after the other.
pub fn open(args: &Args, places: &[Place]) -> Result<Vec<Result<Repository>>> {
    let mut repos: Vec<Result<Repository>> = Vec::new();
    let mut asks = args.init;
    for place in places {
        asks |= Given::of(&place.open.secret).is_typed()?;
    }
    let opened: Box<dyn Iterator<Item = Result<Repository>>> = if asks {
        Box::new(places.iter().map(|place| open_one(args, place)))
    } else {
        Box::new(parallel(places.len(), places.iter().collect(), |place| open_one(args, place)).into_iter())
    };
    for repo in opened {
        match repo {
            Err(e) if places.len() == 1 || matches!(e.kind(), Kind::Usage | Kind::Interrupted(_)) => return Err(e),
            repo => repos.push(repo),
        }
    }
    for (i, repo) in repos.iter().enumerate() {
        let Ok(repo) = repo else { continue };
        let is_same = |other: &Result<Repository>| other.as_ref().is_ok_and(|other| other.id() == repo.id());
        if let Some(at) = repos[..i].iter().position(is_same) {
            return Err(same_repository(&places[at], &places[i]));
        }
    }
    Ok(repos)
}

fn open_one(args: &Args, place: &Place) -> Result<Repository> {
    if args.init && !args.dry_run {
        return init::open_or_make(&place.open, args.progress.output);
    }
    to_push(&place.open, args.progress.output, args.dry_run)
}

/// Returns the repositories that were opened. One of several is named in warnings by its address.
pub fn destinations<'r>(places: &'r [Place], repos: &'r [Result<Repository>]) -> Vec<push::Destination<'r>> {
    let all = places.iter().zip(repos).filter_map(|(place, repo)| Some((place, repo.as_ref().ok()?)));
    let name = |place: &'r Place| if places.len() > 1 { place.address.as_str() } else { "" };
    all.map(|(place, repo)| push::Destination { repo, name: name(place) }).collect()
}
