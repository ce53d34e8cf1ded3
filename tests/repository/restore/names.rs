//! Users and groups in ACLs are found by name, like owners.

use super::support::*;
use crate::harness::cli::{Env, Output};
use crate::harness::process::within;
use nfreezer::acl::{ACCESS, DEFAULT, Names};
use nfreezer::format::own::ACL_NAMES;

const NONE: u32 = u32::MAX;

/// Returns an ACL of these entries: tag, permissions, number.
fn acl_of(entries: &[(u8, u8, u32)]) -> Vec<u8> {
    let entry = |(tag, bits, id): &(u8, u8, u32)| [&[*tag, 0, *bits, 0][..], &id.swap_bytes().to_be_bytes()].concat();
    [&[2, 0, 0, 0][..], &entries.iter().map(entry).collect::<Vec<_>>().concat()].concat()
}

/// Returns the ACL `u::rw-,u:4711:rw-,u:4712:r--,g::---,g:4711:r--,m::rw-,o::---`.
fn saved() -> Vec<u8> {
    acl_of(&[(1, 6, NONE), (2, 6, 4711), (2, 4, 4712), (4, 0, NONE), (8, 4, 4711), (16, 6, NONE), (32, 0, NONE)])
}

/// Returns the value of the attribute with these names: group or user, number, name.
fn names(all: &[(bool, u32, &str)]) -> Vec<u8> {
    let name = |id: nfreezer::acl::Named| {
        let found = all.iter().find(|(group, number, _)| (*group, *number) == (id.group, id.id));
        found.map_or(Vec::new(), |(.., name)| name.as_bytes().to_vec())
    };
    Names::of([saved().as_slice()].into_iter(), name).encode()
}

fn with(mut node: Node, pairs: &[(&[u8], Vec<u8>)]) -> Node {
    node.xattrs = Xattrs::Inline(pairs.iter().map(|(name, value)| (name.to_vec(), value.clone())).collect());
    node
}

fn numbers(path: &Path) -> Vec<String> {
    let output = Command::new("getfacl").args(["-cEpn"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let named = |line: &&str| line.splitn(4, ':').filter(|part| part.parse::<u32>().is_ok()).count() > 0;
    text.lines().filter(named).map(str::to_owned).collect()
}

#[test]
fn acl_entries_map_by_name_like_owners() {
    let Repo { repo, .. } = repo();
    let nobody = nfreezer::accounts::user(b"nobody").expect("every system has this user").uid;
    let names = names(&[(false, 4711, "nobody"), (false, 4712, "no-such-user-here"), (true, 4711, "root")]);
    let f = with(file(&repo, "f", b"x"), &[(ACL_NAMES, names.clone()), (ACCESS, saved())]);
    let below = node("d", 0o755, directory(&repo, vec![]));
    let d = with(below, &[(ACL_NAMES, names), (DEFAULT, saved())]);
    let s = snapshot(&repo, vec![f, d]);
    for numeric_ids in [false, true] {
        let (_keep, out) = target();
        let (summary, seen) = run(&repo, &s, &out, &Options { numeric_ids, ..Options::default() });
        assert_eq!((seen.skipped(), summary.attributes), (Vec::new(), 0));
        let first = if numeric_ids { 4711 } else { nobody };
        // An unknown name keeps its number. No name turns another user or group into root.
        let mut expected = vec![format!("user:{first}:rw-"), "user:4712:r--".into(), "group:4711:r--".into()];
        expected[..2].sort_by_key(|line| line.split(':').nth(1).unwrap().parse::<u32>().unwrap());
        assert_eq!(numbers(&out.join("f")), expected);
        let default: Vec<_> = expected.iter().map(|line| format!("default:{line}")).collect();
        assert_eq!(numbers(&out.join("d")), default);
    }
}

#[test]
fn hostile_names_are_reported_and_the_acl_keeps_its_numbers() {
    let Repo { repo, .. } = repo();
    let doubled = b"\x02\x00\x01\x01a\x00\x01\x01b".to_vec();
    let huge = vec![0u8; 70_000];
    let beyond = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec();
    for bad in [Vec::new(), vec![0], doubled, huge, beyond] {
        let mut f = file(&repo, "f", b"x");
        let pairs = vec![(ACL_NAMES.to_vec(), bad), (ACCESS.to_vec(), saved())];
        let large = pairs[0].1.len() > 4000;
        let stored = || chunks(&repo, ChunkKind::Xattrs, &[&encode_xattrs(&pairs)])[0];
        f.xattrs = if large { Xattrs::Stored(stored()) } else { Xattrs::Inline(pairs.clone()) };
        let s = snapshot(&repo, vec![f]);
        let (_keep, out) = target();
        let (summary, seen) = plain(&repo, &s, &out);
        let skipped = seen.skipped();
        assert_eq!(skipped, ["/f"]);
        assert!(seen.skipped.lock().unwrap()["/f"].contains("its ACLs are restored by number"), "{:?}", seen.skipped);
        assert_eq!((summary.damaged, summary.attributes, summary.files), (1, 0, 1));
        assert_eq!(numbers(&out.join("f")), ["user:4711:rw-", "user:4712:r--", "group:4711:r--"]);
    }
}

#[test]
fn attributes_of_nfreezer_that_are_not_known_are_ignored() {
    let Repo { repo, .. } = repo();
    let f = with(file(&repo, "f", b"x"), &[(b"nfreezer.later", b"1".to_vec()), (b"user.a", b"1".to_vec())]);
    let (_keep, out) = target();
    let (summary, seen) = plain(&repo, &snapshot(&repo, vec![f]), &out);
    assert_eq!((seen.skipped(), summary.attributes, summary.files), (Vec::new(), 0, 1));
}

#[test]
fn two_users_that_become_one_get_what_both_had() {
    let Repo { repo, .. } = repo();
    let nobody = nfreezer::accounts::user(b"nobody").unwrap().uid;
    let names = names(&[(false, 4711, "nobody"), (false, 4712, "nobody")]);
    let f = with(file(&repo, "f", b"x"), &[(ACL_NAMES, names), (ACCESS, saved())]);
    let (_keep, out) = target();
    let (summary, _) = plain(&repo, &snapshot(&repo, vec![f]), &out);
    assert_eq!(summary.attributes, 0);
    assert_eq!(numbers(&out.join("f")), [format!("user:{nobody}:r--"), "group:4711:r--".into()]);
}

/// Runs the program on a machine with these users and groups besides root.
fn on_machine(env: &Env, users: &[(&str, u32)], groups: &[(&str, u32)], arguments: &[&str]) -> Output {
    let line = |(name, id): &(&str, u32), rest: &str| format!("{name}:x:{id}:{rest}\n");
    let users = users.iter().map(|user| line(user, "100::/:/bin/false")).collect::<String>();
    let groups = groups.iter().map(|group| line(group, "")).collect::<String>();
    let passwd = env.write("passwd", format!("root:x:0:0::/root:/bin/sh\n{users}"));
    let group = env.write("group", format!("root:x:0:\n{groups}"));
    let script = "mount --bind \"$0\" /etc/passwd && mount --bind \"$1\" /etc/group && shift && exec \"$@\"";
    let mut outer = Command::new("unshare");
    outer.args(["-m", "sh", "-c", script]).args([passwd, group]);
    Output::of(&mut within(outer, &env.command(arguments)))
}

#[test]
fn a_user_with_another_number_on_the_other_machine_keeps_access_and_no_other_user_gets_it() {
    if !needs_root("other users and groups in a mount namespace") {
        return;
    }
    let env = Env::with_repository();
    let f = env.write("src/f", "x");
    std::os::unix::fs::chown(&f, Some(5551), Some(6661)).unwrap();
    let set = |entries: &str, path: &Path| {
        assert!(Command::new("setfacl").args(["-m", entries]).arg(path).status().unwrap().success());
    };
    set("u:5551:rw,g:6661:r,u:5559:r", &f);
    set("d:u:5551:rwx", &env.path("src"));
    let (alice, team) = ([("alicex", 5551)], [("teamx", 6661)]);
    on_machine(&env, &alice, &team, &["push", "src"]).done();
    let here = ([("malloryx", 5551), ("alicex", 5552)], [("strangers", 6661), ("teamx", 6662)]);
    let what = format!("latest:{}", env.path("src").display());
    on_machine(&env, &here.0, &here.1, &["restore", &what, "-t", "out"]).done();
    assert_eq!(numbers(&env.path("out/f")), ["user:5552:rw-", "user:5559:r--", "group:6662:r--"]);
    assert_eq!(numbers(&env.path("out")), ["default:user:5552:rwx"]);
    let stat = fs::metadata(env.path("out/f")).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (5552, 6662), "as the owner");
    on_machine(&env, &here.0, &here.1, &["restore", &what, "-t", "numeric", "--numeric-ids"]).done();
    assert_eq!(numbers(&env.path("numeric/f")), ["user:5551:rw-", "user:5559:r--", "group:6661:r--"]);
}

/// An ACL of this many users, and the entries that every ACL has.
fn many_users(count: u32) -> Vec<u8> {
    let users = (0..count).map(|i| (2, (i % 7 + 1) as u8, 20_000 + i));
    let rest = [(4, 0, NONE), (16, 7, NONE), (32, 0, NONE)];
    acl_of(&[(1, 6, NONE)].into_iter().chain(users).chain(rest).collect::<Vec<_>>())
}

#[test]
fn an_acl_of_thousands_of_users_is_restored_or_reported_and_grants_no_more() {
    let acl = |path: &Path| {
        nfreezer::xattr::all(&fs::File::open(path).unwrap().into())
            .into_iter()
            .find(|(name, _)| name == ACCESS)
            .map(|(_, acl)| acl)
    };
    let memory = |name| tempfile::Builder::new().prefix(name).tempdir_in("/dev/shm").unwrap();
    let (source, out) = (memory("source"), memory("out"));
    // Of 4 KiB; of more, which is stored in a chunk of its own; the largest one, of 64 KiB.
    for count in [500, 600, 8187] {
        let path = source.path().join(count.to_string());
        fs::write(&path, b"x").unwrap();
        rustix::fs::setxattr(&path, ACCESS, &many_users(count), rustix::fs::XattrFlags::empty()).unwrap();
        assert_eq!(acl(&path), Some(many_users(count)));
    }
    let Repo { repo, .. } = repo();
    let options = nfreezer::push::Options {
        sources: vec![source.path().to_owned()],
        host: "h".into(),
        user: "u".into(),
        ..Default::default()
    };
    let pushed = nfreezer::push::push(background(), &repo, &options).unwrap();
    assert_eq!(pushed.skipped, 0);
    let restored = |target: &Path| {
        let seen = Seen::default();
        let ctx = background().with_progress(&seen);
        let from = source.path().as_os_str().as_bytes();
        let summary = restore(&ctx, &repo, &pushed.snapshot, from, target, &Options::default()).unwrap();
        (summary, seen)
    };
    let (summary, seen) = restored(&out.path().join("whole"));
    assert_eq!((seen.skipped(), summary.attributes), (Vec::new(), 0));
    for count in [500, 600, 8187] {
        assert_eq!(acl(&out.path().join("whole").join(count.to_string())), Some(many_users(count)), "{count} users");
    }
    // A file system without room for such attributes, such as ext4 with blocks of 4 KiB.
    let (_keep, disk) = target();
    let (summary, _) = restored(&disk);
    for count in [500, 600, 8187] {
        let path = disk.join(count.to_string());
        let is_whole = acl(&path) == Some(many_users(count));
        let grants_nothing = fs::metadata(&path).unwrap().permissions().mode() & 0o077 == 0;
        assert!(is_whole || acl(&path).is_none() && grants_nothing && summary.attributes > 0, "{count}: {summary:?}");
    }
}
