//! The options of the disk cache.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::cli::Env;
use crate::harness::tree::files_below;

#[test]
fn commands_use_the_cache_and_those_that_judge_the_server_read_past_it() {
    let mut env = Env::with_repository();
    let cache = env.path("tree/cache");
    env.set("NFREEZER_CACHE", cache.to_str().unwrap());
    env.write("tree/letter", "dear");
    assert!(env.nfreezer(["push", "tree"]).exits(0).stdout.contains("1 new"));
    assert!(files_below(&cache).len() >= 3, "a record, a pack and the tag: {:?}", files_below(&cache));
    let second = env.nfreezer(["push", "tree", "--skip-if-unchanged"]).exits(0);
    assert!(second.stdout.contains("nothing has changed"), "the cache is left out: {}", second.stdout);
    for pack in files_below(&env.path("repo/packs")) {
        let mut bytes = fs::read(&pack).unwrap();
        bytes.iter_mut().skip(72).for_each(|byte| *byte ^= 1);
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    env.nfreezer(["ls", "--recursive", "latest"]).done();
    env.nfreezer(["check"]).fails(4);
    env.nfreezer(["prune"]).fails(15);
    // The cache may be deleted. Then the damage shows.
    fs::remove_dir_all(&cache).unwrap();
    env.nfreezer(["ls", "latest"]).fails(4);
}

#[test]
fn a_folder_or_a_size_that_cannot_be_used_is_named() {
    let mut env = Env::with_repository();
    env.write("tree/letter", "dear");
    let open = env.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    for (options, text, hint) in [
        (&["--cache", "open"][..], "other users may write to the folder", "chmod go-w"),
        (&["--cache", "tree/letter"], "is not a folder", "a folder of your own"),
        (&["--cache-size", "100M"], "--cache-size: no cache is given", "add --cache DIR"),
        (&["--cache", "cache", "--cache-size", "1M"], "at least 64M", ""),
    ] {
        let error = env.nfreezer([&["push", "tree"], options].concat()).exits(2).stderr;
        assert!(error.contains(text) && error.contains(hint), "{options:?}: {error}");
    }
    env.set("NFREEZER_CACHE", "cache").set("NFREEZER_CACHE_SIZE", "much");
    let error = env.nfreezer(["push", "tree"]).exits(2).stderr;
    assert!(error.contains("NFREEZER_CACHE_SIZE: write a size such as"), "{error}");
    env.unset("NFREEZER_CACHE_SIZE");
    // A push runs without a cache, and warns, where the cache folder cannot be made.
    env.set("NFREEZER_CACHE", "/proc/nfreezer");
    let warned = env.nfreezer(["push", "tree"]).exits(0).stderr;
    assert!(warned.contains("cannot make the cache /proc/nfreezer") && warned.contains("without a cache"), "{warned}");
}
