//! The results of a push, for one repository or for several.

use serde_json::json;

use super::args::Args;
use super::places::Place;
use super::summary;
use crate::cli::escape;
use crate::cli::exit::{INCOMPLETE, OK, exit_code};
use crate::cli::open::remember_run;
use crate::cli::output::{self, Output};
use crate::error::Result;
use crate::push;
use crate::repo::Repository;
use crate::seen::Run;

/// The result of one repository.
type Outcome = Result<(Repository, push::Summary)>;

/// Prints the results in the order of `places`. Returns the exit code.
pub fn report(args: &Args, places: &[Place], mut outcomes: Vec<Outcome>) -> Result<u8> {
    let mut out = Output::new(args.progress.output.json);
    if let ([_], Some(only)) = (places, outcomes.pop_if(|_| places.len() == 1)) {
        let (repo, done) = only?;
        remember_run(&repo, &mut out, Run::Push)?;
        if !args.progress.output.quiet {
            summary::print(&mut out, &done, args.dry_run)?;
        }
        out.object("summary", summary::fields(&done, args.dry_run))?;
        return out.flush().map(|()| if is_complete(&done) { OK } else { INCOMPLETE });
    }
    report_several(args, places, outcomes, &mut out)
}

fn is_complete(done: &push::Summary) -> bool {
    done.skipped + done.changed_while_read == 0
}

/// Fails with the code of the first repository if all of them failed.
fn report_several(args: &Args, places: &[Place], outcomes: Vec<Outcome>, out: &mut Output) -> Result<u8> {
    let (mut saved, mut failed, mut code) = (Vec::new(), Vec::new(), OK);
    let mut codes = Vec::new();
    for (place, outcome) in places.iter().zip(outcomes) {
        match outcome {
            Ok((repo, done)) => {
                remember_run(&repo, out, Run::Push)?;
                one(args, place, &done, out)?;
                code = if is_complete(&done) { code } else { INCOMPLETE };
                saved.push(place.address.clone());
            }
            Err(e) => {
                let code = exit_code(e.kind());
                codes.push(code);
                failed.push(place.address.clone());
                out.flush()?;
                output::error(out.is_json(), &e.while_doing(&place.address), code);
            }
        }
    }
    let (Some(first), true) = (codes.first(), saved.is_empty()) else {
        let code = if failed.is_empty() { code } else { INCOMPLETE };
        out.object("summary", output::object(json!({ "saved": saved, "failed": failed, "dry_run": args.dry_run })))?;
        return out.flush().map(|()| code);
    };
    out.flush().map(|()| *first)
}

/// Prints the result of one of several repositories.
fn one(args: &Args, place: &Place, done: &push::Summary, out: &mut Output) -> Result<()> {
    if !args.progress.output.quiet {
        out.line(format_args!("repository {}:", escape::text(place.address.as_bytes())))?;
        summary::print(out, done, args.dry_run)?;
    }
    let mut fields = summary::fields(done, args.dry_run);
    fields.insert("repository".into(), place.address.clone().into());
    out.object("push", fields)
}
