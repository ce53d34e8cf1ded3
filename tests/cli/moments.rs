//! Selection of snapshots by time, path and tag on the command line.

use crate::harness::cli::Env;

/// Makes a repository with two snapshots of `tree` and a newer one of `other`.
fn repository() -> Env {
    let env = Env::with_repository();
    for (contents, time) in [("old", "2020-01-05 10:00:00"), ("new", "3 days ago")] {
        env.write("tree/f", contents);
        env.nfreezer(["push", "tree", "--time", time, "--tag", "nightly,home"]).done();
    }
    env.write("other/g", "other");
    env.nfreezer(["push", "other", "--description", "before the move"]).done();
    env
}

fn path(env: &Env, name: &str) -> String {
    env.path(name).to_str().unwrap().to_owned()
}

#[test]
fn a_time_names_the_newest_snapshot_up_to_then() {
    let env = repository();
    let tree = path(&env, "tree");
    for (time, expected) in [("2020-01-05", "old"), ("2021", "old"), ("2020-01-05 10:00", "old"), ("yesterday", "new")]
    {
        let target = path(&env, &format!("out {time}"));
        env.nfreezer(["restore", &format!("{time}:{tree}"), "--target", &target]).done();
        assert_eq!(std::fs::read_to_string(format!("{target}/f")).unwrap(), expected, "{time}");
        assert_eq!(env.nfreezer(["ls", &format!("{time}:{tree}")]).exits(0).stdout, "f\n", "{time}");
    }
    let stderr = env.nfreezer(["ls", "2019"]).exits(1).stderr;
    assert!(stderr.contains("no snapshot was taken up to 2019"), "{stderr}");
}

#[test]
fn latest_falls_back_to_the_newest_snapshot_that_has_the_path() {
    let env = repository();
    let output = env.nfreezer(["ls", &format!("latest:{}", path(&env, "tree"))]).exits(0);
    assert_eq!(output.stdout, "f\n");
    assert!(output.stderr.contains("the newest one that has it"), "{}", output.stderr);
    let missing = env.nfreezer(["ls", "latest:/nowhere"]).exits(1);
    assert!(missing.stderr.contains("no /nowhere in snapshot"), "{}", missing.stderr);
}

#[test]
fn a_tilde_is_the_home_folder_and_a_lone_path_gets_a_hint() {
    let env = Env::with_repository();
    let documents = env.home().join("documents");
    std::fs::create_dir_all(&documents).unwrap();
    std::fs::write(documents.join("letter"), "x").unwrap();
    env.nfreezer(["push", documents.to_str().unwrap()]).done();
    assert_eq!(env.nfreezer(["ls", "latest:~/documents"]).exits(0).stdout, "letter\n");
    let stderr = env.nfreezer(["ls", documents.to_str().unwrap()]).exits(2).stderr;
    assert!(stderr.contains(&format!("`latest:{}`", documents.display())), "{stderr}");
}

#[test]
fn lists_of_tags_are_split_and_empty_lists_name_what_exists() {
    let env = repository();
    let table = env.nfreezer(["snapshots", "--tag", "home"]).exits(0).stdout;
    assert_eq!(table.lines().filter(|line| line.contains("home,nightly")).count(), 2, "{table}");
    let table = env.nfreezer(["snapshots"]).exits(0).stdout;
    assert!(table.contains("before the move") && !table.contains("Added"), "{table}");
    let empty = env.nfreezer(["snapshots", "--tag", "nosuch"]).exits(0).stdout;
    assert!(empty.contains("no snapshot passes the filters") && empty.contains("tags: home, nightly"), "{empty}");
    let stderr = env.nfreezer(["ls", "--host", "laptpo"]).exits(1).stderr;
    assert!(stderr.contains("no snapshot passes the filters") && stderr.contains("tags: home, nightly"), "{stderr}");
    env.nfreezer(["snapshots", "--last", "0"]).exits(2).stderr.contains("at least 1").then_some(()).unwrap();
}
