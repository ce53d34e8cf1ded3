//! `status`: its output for a monitor.

use crate::harness::cli::Env;

fn two_backups() -> Env {
    let env = Env::with_repository();
    env.write("fresh/file", "x");
    env.write("stale/file", "x");
    env.nfreezer(["push", "fresh", "--host", "laptop"]).done();
    env.nfreezer(["push", "stale", "--host", "server", "--time", "3 days ago"]).done();
    env
}

#[test]
fn status_names_each_host_and_path_whose_newest_snapshot_is_too_old() {
    let env = two_backups();
    let all = env.nfreezer(["status"]).exits(0).stdout;
    let stale = env.path("stale").display().to_string();
    let lines: Vec<&str> = all.lines().collect();
    assert!(lines[1].starts_with("laptop") && lines[1].contains(" s "), "{all}");
    assert!(lines[2].starts_with("server") && lines[2].contains(&stale) && lines[2].contains("3 d"), "{all}");
    assert!(all.contains("Last push:") && all.contains("never by this machine") && all.contains("GiB of "), "{all}");
    let old = env.nfreezer(["status", "--max-age", "26h", "-q"]).exits(16);
    assert_eq!(old.stdout, "");
    assert!(old.stderr.contains(&format!("the newest snapshot of {stale} on host server is 3 d")), "{}", old.stderr);
    assert!(!old.stderr.contains("laptop"), "{}", old.stderr);
    let fine = env.nfreezer(["status", "--max-age", "26h", "--host", "laptop", "-q"]).exits(0);
    assert_eq!((fine.stdout, fine.stderr), (String::new(), String::new()), "quiet if nothing is wrong");
    let none = env.nfreezer(["status", "--max-age", "26h", "--host", "other"]).exits(16);
    assert!(none.stderr.contains("there is no complete snapshot") && none.stdout.contains("hosts: laptop, server"));
    env.nfreezer(["status", "--host", "laptop", "--min-free", "1"]).done();
    let full = env.nfreezer(["status", "--min-free", "900000T", "-q"]).exits(16).stderr;
    assert!(full.contains("of free space, less than"), "{full}");
}

#[test]
fn a_snapshot_of_the_future_does_not_silence_a_monitor() {
    let env = Env::with_repository();
    env.write("tree/file", "x");
    env.nfreezer(["push", "tree", "--time", "2100-01-01"]).done();
    let output = env.nfreezer(["status", "--max-age", "26h", "-q"]).exits(0);
    assert!(output.stderr.contains("claims to be of 2100-01-01"), "{output:?}");
    let objects = env.nfreezer(["status", "--json"]).exits(0).objects();
    assert!(!objects[0]["time"].as_str().unwrap().starts_with("2100"), "counts from its first sight: {objects:?}");
}

#[test]
fn status_as_json_and_as_a_textfile() {
    let env = two_backups();
    env.nfreezer(["prune"]).done();
    let file = env.path("nfreezer.prom");
    let objects = env.nfreezer(["status", "--json", "--max-age", "1d", "--prometheus", "nfreezer.prom"]).exits(16);
    let objects = objects.objects();
    let rows: Vec<_> = objects.iter().filter(|object| object["type"] == "backup").collect();
    assert_eq!((rows[0]["old"].as_bool(), rows[1]["old"].as_bool()), (Some(false), Some(true)));
    assert_eq!(rows[1]["paths"][0], env.path("stale").to_str().unwrap());
    let summary = objects.last().unwrap();
    assert_eq!((&summary["wrong"], &summary["snapshots"]), (&1.into(), &2.into()));
    assert!(summary["last_prune"].is_string() && summary["last_check"].is_null(), "{summary}");
    assert!(summary["space_free"].as_u64().unwrap() > 0);
    let text = std::fs::read_to_string(file).unwrap();
    let labels = format!("repository=\"{}\"", env.path("repo").display());
    let path = env.path("fresh").display().to_string();
    for line in [
        "# TYPE nfreezer_snapshot_timestamp_seconds gauge".to_owned(),
        format!("nfreezer_snapshot_files{{{labels},host=\"laptop\",path=\"{path}\"}} 1"),
        format!("nfreezer_last_run_timestamp_seconds{{{labels},run=\"prune\"}} "),
        format!("nfreezer_space_free_bytes{{{labels}}} "),
    ] {
        assert!(text.lines().any(|have| have.starts_with(&line)), "{line}\n{text}");
    }
    // Each metric has one HELP and one TYPE line in front of its samples.
    let mut known = String::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => known = rest.split(' ').next().unwrap().to_owned(),
            None => assert!(line.starts_with("# HELP") || line.starts_with(&format!("{known}{{")), "{line}"),
        }
    }
}
