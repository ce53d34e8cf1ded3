//! `run`: steps, hooks, exit codes, and a week of one profile with a faked clock.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::cli::{Env, Output};
use crate::profiles::write_profile;

/// Makes a repository and a profile that consists of its address and these lines.
fn with_profile(rest: &str) -> Env {
    let mut env = Env::with_repository();
    let repo = env.path("repo");
    env.unset("NFREEZER_REPOSITORY");
    env.write("documents/letter", "dear");
    let work = env.path("").display().to_string();
    let text = format!("repository = \"{}\"\n{rest}", repo.display());
    write_profile(&env, "home", &text.replace("WORK/", &work));
    env
}

fn summary(output: &Output) -> Value {
    output.objects().pop().unwrap()
}

/// Returns the outcome of each step: its exit code, or `skipped`.
fn steps(summary: &Value) -> Vec<String> {
    let of = |step: &Value| match step["skipped"].as_str() {
        Some(_) => format!("{} skipped", step["command"].as_str().unwrap()),
        None => format!("{} {}", step["command"].as_str().unwrap(), step["code"]),
    };
    summary["steps"].as_array().unwrap().iter().map(of).collect()
}

/// Returns the lines that the hooks have appended and the summaries that they read, and clears both.
fn hooked(env: &Env) -> (Vec<String>, Vec<Value>) {
    let read = |name: &str| fs::read_to_string(env.path(name)).unwrap_or_default();
    let summaries = read("summaries").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines = read("hooks").lines().map(str::to_owned).collect();
    fs::remove_file(env.path("hooks")).ok();
    fs::remove_file(env.path("summaries")).ok();
    (lines, summaries)
}

const WEEK: &str = r#"
[push]
sources = ["WORK/documents"]
tag = "nightly"

[forget]
keep-daily = 3

[prune]
every = "2d"
keep-forgotten = "1d"
max-unused = "0%"

[check]
every = "3d"

[hooks]
before = "echo before $NFREEZER_PROFILE $NFREEZER_EXIT_CODE >> WORK/hooks"
after = "echo after $NFREEZER_EXIT_CODE ${#NFREEZER_SNAPSHOTS} >> WORK/hooks"
failed = "cat >> WORK/summaries; echo $NFREEZER_HOOK $NFREEZER_EXIT_CODE $NFREEZER_ERROR >> WORK/hooks"
finally = ["cat >> WORK/summaries; echo finally >> WORK/hooks"]
"#;

#[test]
fn a_week_of_nights_with_one_that_fails() {
    let mut env = with_profile(WEEK);
    let (repo, away) = (env.path("repo"), env.path("away"));
    let mut deleted = 0;
    for (day, wanted) in [
        "push 0, forget 0, prune 0, check 0",
        "push 0, forget 0, prune skipped, check skipped",
        "push 0, forget 0, prune 0, check skipped",
        "push 10, forget skipped, prune skipped, check skipped",
        "push 0, forget 0, prune 0, check 0",
        "push 0, forget 0, prune skipped, check skipped",
        "push 0, forget 0, prune 0, check skipped",
        "push 0, forget 0, prune skipped, check 0",
        "push 0, forget 0, prune 0, check skipped",
    ]
    .into_iter()
    .enumerate()
    {
        env.set("NFREEZER_TEST_CLOCK", &(86_400 * day).to_string());
        let noise: String = (0..20_000_u64).map(|n| format!("{:x}", (n + 7) * (n + 13) * (day as u64 + 3))).collect();
        env.write("documents/diary", noise);
        let fails = day == 3;
        if fails {
            fs::rename(&repo, &away).unwrap();
        }
        let output = env.nfreezer(["run", "home", "--json"]).exits(if fails { 10 } else { 0 });
        let summary = summary(&output);
        assert_eq!(steps(&summary).join(", "), wanted, "day {day}: {}", output.stderr);
        let (lines, summaries) = hooked(&env);
        if fails {
            fs::rename(&away, &repo).unwrap();
            assert_eq!(lines[0], "before home 0");
            assert!(lines[1].starts_with("failed 10 push failed with exit code 10: there is no repo"), "{lines:?}");
            assert_eq!((lines[2].as_str(), lines.len()), ("finally", 3));
            assert_eq!((&summaries[0]["code"], &summaries[0]["profile"]), (&10.into(), &"home".into()));
            assert!(output.stderr.contains("error: the run of profile home failed: push failed"), "{}", output.stderr);
        } else {
            assert_eq!(lines, ["before home 0", "after 0 32", "finally"], "day {day}");
            assert_eq!(summaries[0]["steps"][0]["summary"]["new"], summary["steps"][0]["summary"]["new"]);
        }
        deleted += summary["steps"][2]["summary"]["deleted"]["objects"].as_u64().unwrap_or(0);
    }
    env.set("NFREEZER_REPOSITORY", repo.to_str().unwrap());
    let listed = env.nfreezer(["snapshots", "--json"]).exits(0).objects();
    let times: Vec<&str> = listed.iter().filter_map(|object| object["time"].as_str()).collect();
    assert_eq!(times.len(), 3, "the policy keeps three: {times:?}");
    assert!(listed[0]["tags"][0] == "nightly" && deleted > 0, "{deleted} objects were deleted");
    env.nfreezer(["check", "--read-data"]).done();
}

#[test]
fn a_run_prints_one_summary_and_a_dry_run_writes_nothing() {
    let env = with_profile(
        "[push]\nsources = [\"WORK/documents\"]\n[forget]\nkeep-last = 1\n[hooks]\nbefore = \"echo x >> WORK/hooks\"",
    );
    let dry = env.nfreezer(["run", "home", "-n"]).exits(0).stdout;
    assert!(dry.starts_with("push: no snapshot saved; files: 1 new") && dry.contains("nothing was written"), "{dry}");
    assert!(hooked(&env).0.is_empty(), "no hooks in a dry run");
    let done = env.nfreezer(["run", "home"]).exits(0).stdout;
    let lines: Vec<&str> = done.lines().collect();
    assert!(lines[0].starts_with("push: snapshot ") && lines[0].contains(" saved; files: 1 new, 0 changed"), "{done}");
    assert_eq!(lines[1], "forget: 0 snapshots forgotten");
    assert!(lines[2].starts_with("run of profile home: done, in ") && lines.len() == 3, "{done}");
    let quiet = env.nfreezer(["run", "home", "-q"]).exits(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    // Objects of a step carry the name of the step.
    let objects = env.nfreezer(["run", "home", "--json"]).exits(0).objects();
    assert!(objects.iter().any(|object| object["type"] == "snapshot" && object["step"] == "forget"), "{objects:?}");
    assert!(objects.iter().any(|object| object["type"] == "step" && object["code"] == 0));
}

#[test]
fn a_command_is_saved_and_one_that_fails_is_not() {
    let env = with_profile(
        "[[push]]\nsources = [\"WORK/documents\", \"/no/such/source\"]\n\
         [[push]]\nstdin-from-command = \"echo dump; exit 0\"\nstdin-filename = \"/app.sql\"\n\
         [[push]]\nstdin-from-command = [\"sh\", \"-c\", \"echo half; exit 7\"]\nstdin-filename = \"/other.sql\"\n\
         [forget]\nkeep-last = 1",
    );
    let output = env.nfreezer(["run", "home", "--json"]).exits(1);
    let summary = summary(&output);
    assert_eq!(steps(&summary), ["push 3", "push 0", "push 1", "forget skipped"]);
    assert!(summary["error"].as_str().unwrap().contains("the command `sh` ended with exit status 7"), "{summary}");
    let repo = env.path("repo");
    let dump = env.nfreezer(["dump", "-r", repo.to_str().unwrap(), "latest:/app.sql"]).exits(0);
    assert_eq!(dump.stdout, "dump\n");
}

#[test]
fn snapshots_are_copied_and_a_second_repository_that_is_absent_stops_nothing() {
    let mut env = with_profile(
        "[push]\nsources = [\"WORK/documents\"]\n[[copy]]\nto = \"WORK/second\"\n[[copy]]\nto = \"WORK/absent\"\n\
         [forget]\nkeep-last = 1",
    );
    let second = env.path("second");
    env.nfreezer(["init", "-r", second.to_str().unwrap()]).done();
    env.set("NFREEZER_TO_PASSWORD", crate::harness::cli::PASSPHRASE);
    let output = env.nfreezer(["run", "home", "--json"]).exits(10);
    let summary = summary(&output);
    assert_eq!(steps(&summary), ["push 0", "copy 0", "copy 10", "forget 0"]);
    assert_eq!(summary["steps"][1]["summary"]["copied"].as_array().unwrap().len(), 1);
    let listed = env.nfreezer(["snapshots", "--json", "-r", second.to_str().unwrap()]).exits(0).objects();
    assert_eq!(listed.len(), 2, "one snapshot and the summary");
}

#[test]
fn a_failing_hook_before_stops_the_run() {
    let env = with_profile(
        "[push]\nsources = [\"WORK/documents\"]\n[hooks]\nbefore = [\"exit 5\", \"echo no >> WORK/hooks\"]\n\
         failed = \"echo failed >> WORK/hooks\"\nfinally = \"echo finally >> WORK/hooks; exit 3\"",
    );
    let output = env.nfreezer(["run", "home"]).exits(1);
    assert!(output.stderr.contains("the hook before failed with exit code 5: exit 5"), "{}", output.stderr);
    assert_eq!(hooked(&env).0, ["failed", "finally"]);
    assert!(!output.stdout.contains("push"), "{}", output.stdout);
}

#[test]
fn a_second_run_of_a_profile_ends_at_once() {
    let env = with_profile(
        "[push]\nsources = [\"WORK/documents\"]\n[hooks]\n\
         before = \"touch WORK/started; while [ ! -e WORK/go ]; do sleep 0.05; done\"",
    );
    let first = env.spawn(["run", "home"]);
    wait_for(&env.path("started"));
    let second = env.nfreezer(["run", "home"]).exits(1).stderr;
    fs::write(env.path("go"), "").unwrap();
    assert!(second.contains("another run of profile home is not finished: process "), "{second}");
    assert!(first.wait_with_output().unwrap().status.success());
    env.nfreezer(["run", "home", "-q"]).done();
}

#[test]
fn hooks_run_after_a_run_that_is_terminated() {
    let env = with_profile(
        "[[push]]\nstdin-from-command = \"touch WORK/started; exec sleep 60\"\n[[push]]\nsources = [\"WORK/documents\"]\n\
         [hooks]\nfailed = \"echo failed $NFREEZER_EXIT_CODE >> WORK/hooks\"\nfinally = \"echo finally >> WORK/hooks\"",
    );
    let mut command = env.command(["run", "home", "--json"]);
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_for(&env.path("started"));
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    let last: Value = serde_json::from_str(String::from_utf8(output.stdout).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!(steps(&last), ["push 143", "push skipped"]);
    assert_eq!(hooked(&env).0, ["failed 143", "finally"]);
}

#[test]
fn low_priority_holds_for_what_a_push_starts() {
    let env = with_profile(
        "[push]\nstdin-from-command = \"nice; ionice\"\nstdin-filename = \"/priority\"\nlow-priority = true",
    );
    env.nfreezer(["run", "home"]).done();
    let repo = env.path("repo");
    let dump = env.nfreezer(["dump", "-r", repo.to_str().unwrap(), "latest:/priority"]).exits(0);
    assert_eq!(dump.stdout, "19\nidle\n");
}

fn wait_for(path: &Path) {
    let begun = std::time::Instant::now();
    while !path.exists() {
        assert!(begun.elapsed().as_secs() < 120, "{} does not appear", path.display());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
