//! Files that `push` leaves out, and its treatment of sources, through the library and through the binary.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::harness::cli::{Env, Output};
use crate::harness::repository;
use crate::harness::root::needs_root;
use crate::harness::tree::{What, in_snapshot, noise, write};
use nfreezer::context::background;
use nfreezer::name::Folder;
use nfreezer::pattern::Pattern;
use nfreezer::progress::{Event, Progress};
use nfreezer::push::{Options, Select, Summary, push};
use nfreezer::repo::Repository;
use nfreezer::storage::{Dry, Memory, Storage};

/// Upper bound of the padding of a pack that is not full, in bytes.
const STEP: u64 = 2 << 20;

struct Setup {
    repo: Repository,
    storage: Arc<Memory>,
    dir: tempfile::TempDir,
    seen: Seen,
}

/// Skipped and excluded paths and warnings, one line for each.
#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Progress for Seen {
    fn event(&self, event: Event<'_>) {
        let text = match event {
            Event::Skipped { path, why } => format!("skipped {}: {why}", String::from_utf8_lossy(path)),
            Event::Excluded { path } => format!("excluded {}", String::from_utf8_lossy(path)),
            Event::Warning { text } => format!("warning {text}"),
            _ => return,
        };
        self.0.lock().unwrap().push(text);
    }
}

impl Setup {
    fn new() -> Self {
        let storage = Arc::new(Memory::default());
        let repo = repository::init(storage.clone());
        let dir = tempfile::tempdir().unwrap();
        Setup { repo, storage, dir, seen: Seen::default() }
    }

    fn with(files: &[&str]) -> Self {
        let setup = Setup::new();
        for file in files {
            match file.strip_suffix('/') {
                Some(folder) => fs::create_dir_all(setup.path(folder)).unwrap(),
                None => write(setup.path(file), file),
            }
        }
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("top").join(name)
    }

    fn options(&self, select: Select) -> Options {
        Options { sources: vec![self.path("")], host: "host".into(), select: Arc::new(select), ..Options::default() }
    }

    fn push(&self, options: &Options) -> Summary {
        self.seen.0.lock().unwrap().clear();
        push(&background().with_progress(&self.seen), &self.repo, options).unwrap()
    }

    /// Returns the names in the snapshot; names of folders end in a slash.
    fn saved(&self, summary: &Summary) -> Vec<String> {
        let model = in_snapshot(&self.repo, &summary.snapshot, &self.path(""));
        let name = |(path, seen): (&Vec<u8>, &crate::harness::tree::Seen)| {
            let slash = if seen.what == What::Directory { "/" } else { "" };
            String::from_utf8_lossy(path).into_owned() + slash
        };
        model.iter().map(name).filter(|name| name != "/").collect()
    }

    #[track_caller]
    fn check(&self, select: Select, expected: &[&str]) -> Summary {
        let summary = self.push(&self.options(select));
        assert_eq!(self.saved(&summary), expected);
        summary
    }

    /// Returns the lines of the last push, with paths below the top.
    fn said(&self) -> Vec<String> {
        let top = self.path("").display().to_string();
        self.seen.0.lock().unwrap().iter().map(|line| line.replace(&top, "")).collect()
    }
}

fn patterns(patterns: &[&str]) -> Select {
    let pattern = |text: &&str| Pattern { text: text.as_bytes().to_vec(), ignore_case: false, place: "test".into() };
    Select::new(&patterns.iter().map(pattern).collect::<Vec<_>>()).unwrap()
}

fn with(mut select: Select, change: impl FnOnce(&mut Select)) -> Select {
    change(&mut select);
    select
}

fn ignore_files() -> Select {
    with(Select::default(), |select| select.ignore_files = true)
}

#[test]
fn patterns_leave_out_names_paths_and_folders_and_take_back() {
    let setup = Setup::with(&["a.tmp", "b/a.tmp", "b/keep.tmp", "b/c/d", "cache", "x/cache/1", "y/z/c/d", "empty/"]);
    let summary = setup.check(
        patterns(&["*.tmp", "!keep.tmp", "cache/", "b/c"]),
        &["b/", "b/keep.tmp", "cache", "empty/", "x/", "y/", "y/z/", "y/z/c/", "y/z/c/d"],
    );
    assert_eq!(summary.excluded, 4);
    assert_eq!(setup.said(), ["excluded a.tmp", "excluded b/a.tmp", "excluded b/c", "excluded x/cache"]);
    let top = setup.path("").display().to_string();
    setup
        .check(patterns(&[&format!("{top}*"), &format!("!{top}b")]), &["b/", "b/a.tmp", "b/c/", "b/c/d", "b/keep.tmp"]);
}

#[test]
fn the_source_itself_is_saved_whatever_patterns_say_and_the_group_stays() {
    let setup = Setup::with(&["a", "b.tmp"]);
    let first = setup.check(Select::default(), &["a", "b.tmp"]);
    let second = setup.check(patterns(&["top", "*.tmp"]), &["a"]);
    assert_eq!(second.snapshot.group, first.snapshot.group);
    assert_eq!(second.parent, Some(first.snapshot.id));
    assert_eq!((second.unchanged + second.changed, second.new), (1, 0));
}

#[test]
fn a_folder_that_is_left_out_is_not_even_opened() {
    let setup = Setup::with(&["secret/a", "b"]);
    let times = || {
        let stat = rustix::fs::stat(setup.path("secret")).unwrap();
        (stat.st_atime, stat.st_atime_nsec)
    };
    let atime = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 };
    let stamps = rustix::fs::Timestamps { last_access: atime, last_modification: atime };
    rustix::fs::utimensat(rustix::fs::CWD, setup.path("secret"), &stamps, rustix::fs::AtFlags::empty()).unwrap();
    let watch = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::NONBLOCK).unwrap();
    let opened = rustix::fs::inotify::WatchFlags::OPEN | rustix::fs::inotify::WatchFlags::ACCESS;
    rustix::fs::inotify::add_watch(&watch, setup.path("secret"), opened).unwrap();
    setup.check(patterns(&["secret"]), &["b"]);
    assert_eq!(times(), (1, 0));
    let mut buffer = [0; 4096];
    let events = rustix::io::read(&watch, &mut buffer);
    assert_eq!(events, Err(rustix::io::Errno::AGAIN), "it was opened");
}

#[test]
fn marked_folders_keep_only_their_mark() {
    let setup = Setup::with(&["a/1", "a/.nobackup", "b/1", "b/CACHEDIR.TAG", "c/1", "c/CACHEDIR.TAG", "d/.nobackup/1"]);
    fs::write(setup.path("c/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n# x\n").unwrap();
    let mut select = Select::default();
    select.exclude_if_present(b".nobackup", b"").unwrap();
    select.exclude_if_present(b"CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55").unwrap();
    let expected = [
        "a/",
        "a/.nobackup",
        "b/",
        "b/1",
        "b/CACHEDIR.TAG",
        "c/",
        "c/CACHEDIR.TAG",
        "d/",
        "d/.nobackup/",
        "d/.nobackup/1",
    ];
    let summary = setup.check(select.clone(), &expected);
    assert_eq!(setup.said(), ["excluded a/", "excluded c/", "excluded d/"]);
    assert_eq!(summary.excluded, 3);
    write(setup.path(".nobackup"), "");
    setup.check(select, &[".nobackup"]);
}

#[test]
fn large_files_are_left_out() {
    let setup = Setup::with(&["small"]);
    write(setup.path("1000"), [0; 1000]);
    write(setup.path("1001"), [0; 1001]);
    fs::create_dir(setup.path("d")).unwrap();
    setup.check(with(Select::default(), |select| select.larger_than = Some(1000)), &["1000", "d/", "small"]);
}

#[test]
fn ignore_files_speak_gitignore() {
    let files = [
        "a.o",
        "b/a.o",
        "b/keep.o",
        "build/x",
        "b/build",
        "root",
        "b/root",
        "t/a.tmp",
        "t/u/b.tmp",
        "t/u/v/k.tmp",
        "sp ",
    ];
    let setup = Setup::with(&files);
    fs::write(
        setup.path(".nfreezerignore"),
        "\u{feff}# comment\r\n*.o\r\n\n!keep.o\n/root\nbuild/\nt/**/*.tmp\n\\#literal\nsp\\ \n",
    )
    .unwrap();
    fs::write(setup.path("#literal"), "").unwrap();
    fs::write(setup.path("t/u/.nfreezerignore"), "!b.tmp\n").unwrap();
    fs::write(setup.path("t/u/v/.nfreezerignore"), "!/k.tmp\nv\n").unwrap();
    let expected = [
        ".nfreezerignore",
        "b/",
        "b/build",
        "b/keep.o",
        "b/root",
        "t/",
        "t/u/",
        "t/u/.nfreezerignore",
        "t/u/b.tmp",
        "t/u/v/",
        "t/u/v/.nfreezerignore",
        "t/u/v/k.tmp",
    ];
    let summary = setup.check(ignore_files(), &expected);
    assert_eq!((summary.excluded, summary.skipped), (7, 0));
    let all = setup.push(&setup.options(Select::default()));
    assert_eq!(all.excluded, 0, "without the option they are files like others");
    // The rules of an ignore file end with its folder. No ignore file takes back an exclusion of the command line.
    setup.check(
        with(patterns(&["t", "keep.o"]), |select| select.ignore_files = true),
        &[".nfreezerignore", "b/", "b/build", "b/root"],
    );
}

#[test]
fn an_ignore_file_that_cannot_be_used_is_reported() {
    let setup = Setup::with(&["a/x", "b/x", "c/x", "d/x"]);
    fs::create_dir(setup.path("a/.nfreezerignore")).unwrap();
    symlink("/etc/passwd", setup.path("b/.nfreezerignore")).unwrap();
    fs::write(setup.path("c/.nfreezerignore"), b"\xff\xfe\nx\n[z-a]\n").unwrap();
    fs::write(setup.path("d/.nfreezerignore"), vec![b'#'; (1 << 20) + 1]).unwrap();
    let summary = setup.push(&setup.options(ignore_files()));
    assert_eq!(summary.skipped, 3);
    let said = setup.said();
    assert_eq!(said[0], "skipped a/.nfreezerignore: nothing is left out by it: it is no regular file");
    assert_eq!(said[1], "skipped b/.nfreezerignore: nothing is left out by it: it is no regular file");
    assert!(said[2].starts_with("warning line 3 of c/.nfreezerignore leaves out nothing: "), "{}", said[2]);
    assert_eq!(
        said[3..],
        ["excluded c/x", "skipped d/.nfreezerignore: nothing is left out by it: it is larger than 1 MiB"]
    );
    let saved = self::Setup::saved(&setup, &summary);
    assert!(["a/x", "b/x", "d/x"].iter().all(|x| saved.iter().any(|s| s == x)), "{saved:?}");
}

/// A separate file system on this folder, unmounted on drop.
struct Mount(PathBuf);

impl Mount {
    fn run(arguments: &[&str], at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        assert!(Command::new("mount").args(arguments).arg(at).status().unwrap().success(), "tests run as root");
        Mount(at.to_path_buf())
    }

    fn tmpfs(at: &Path) -> Self {
        Mount::run(&["-t", "tmpfs", "tmpfs"], at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn one_file_system_keeps_mount_points_as_empty_folders() {
    if !needs_root("file systems of its own") {
        return;
    }
    let setup = Setup::with(&["a/x", "z"]);
    let _mount = Mount::tmpfs(&setup.path("a/mnt"));
    write(setup.path("a/mnt/deep/file"), "x");
    let select = with(Select::default(), |select| select.one_file_system = true);
    let summary = setup.check(select.clone(), &["a/", "a/mnt/", "a/x", "z"]);
    assert_eq!((setup.said(), summary.excluded), (vec!["excluded a/mnt/".to_owned()], 1));
    setup.check(Select::default(), &["a/", "a/mnt/", "a/mnt/deep/", "a/mnt/deep/file", "a/x", "z"]);
    // A source on that file system adds it to the file systems that the push stays on.
    let mut options = setup.options(select);
    options.sources.push(setup.path("a/mnt/deep"));
    let summary = setup.push(&options);
    assert_eq!(setup.saved(&summary), ["a/", "a/mnt/", "a/mnt/deep/", "a/mnt/deep/file", "a/x", "z"]);
}

#[test]
fn one_file_system_keeps_the_files_of_an_overlay_whose_layers_are_on_other_devices() {
    if !needs_root("file systems of its own") {
        return;
    }
    let setup = Setup::with(&["z"]);
    let [low, high] = ["../low", "../high"].map(|name| setup.path(name));
    let _layers = [Mount::tmpfs(&low), Mount::tmpfs(&high)];
    write(low.join("deep/low"), "x");
    write(low.join("deep/proc"), "named like a mount point");
    symlink("low", low.join("deep/link")).unwrap();
    for folder in ["upper", "work"] {
        std::fs::create_dir(high.join(folder)).unwrap();
    }
    let [low, high] = [low, high].map(|path| path.display().to_string());
    let layers = format!("lowerdir={low},upperdir={high}/upper,workdir={high}/work,xino=off");
    let _overlay = Mount::run(&["-t", "overlay", "overlay", "-o", &layers], &setup.path("a"));
    write(setup.path("a/deep/high"), "y");
    let device = |name: &str| setup.path(name).symlink_metadata().unwrap().dev();
    assert!(device("a/deep/low") != device("a/deep") && device("a/deep/high") != device("a/deep"));
    let mut options = setup.options(with(Select::default(), |select| select.one_file_system = true));
    options.sources = vec![setup.path("a")];
    let summary = setup.push(&options);
    let names = ["a/", "a/deep/", "a/deep/high", "a/deep/link", "a/deep/low", "a/deep/proc"];
    assert_eq!((setup.saved(&summary), summary.excluded), (names.map(String::from).to_vec(), 0));
}

#[test]
fn a_device_can_be_left_out_altogether() {
    if !needs_root("file systems of its own") {
        return;
    }
    let setup = Setup::with(&["a/x", "z"]);
    let _mount = Mount::tmpfs(&setup.path("a/mnt"));
    write(setup.path("a/mnt/deep/file"), "x");
    let _bind = Mount::run(&["--bind", setup.path("a/mnt/deep").to_str().unwrap()], &setup.path("bound"));
    let device = rustix::fs::stat(setup.path("a/mnt")).unwrap().st_dev;
    let options = Options { exclude_devices: vec![device], ..setup.options(Select::default()) };
    let summary = setup.push(&options);
    assert_eq!(setup.saved(&summary), ["a/", "a/x", "z"]);
    let said = setup.said();
    assert_eq!(said.len(), 2);
    assert!(
        said[0].starts_with("warning left out a/mnt: ") && said[1].starts_with("warning left out bound: "),
        "{said:?}"
    );
}

#[test]
fn force_reads_again_and_a_parent_can_be_named() {
    let setup = Setup::with(&["a", "b"]);
    crate::harness::tree::settle();
    let first = setup.push(&setup.options(Select::default()));
    let options = setup.options(Select::default());
    assert_eq!(setup.push(&options).read, 0);
    let forced = setup.push(&Options { force: true, ..options.clone() });
    assert_eq!((forced.read, forced.parent, forced.packs), (2, None, 0));
    assert_eq!(forced.snapshot.root, first.snapshot.root);
    let id = first.snapshot.id.short();
    let with = setup.push(&Options { parent: Some(id), host: "other".into(), ..options.clone() });
    assert_eq!((with.read, with.parent), (0, Some(first.snapshot.id)));
    let wrong = push(
        &background().with_progress(&setup.seen),
        &setup.repo,
        &Options { parent: Some("ffffffff".into()), ..options },
    );
    assert!(wrong.unwrap_err().to_string().contains("ffffffff"));
}

#[test]
fn without_a_change_there_is_no_new_snapshot_if_none_is_wanted() {
    let setup = Setup::with(&["a"]);
    let options = Options { skip_if_unchanged: true, ..setup.options(Select::default()) };
    let snapshots = || setup.repo.state(background()).unwrap().snapshots().len();
    let log = || setup.storage.list(background(), Folder::Log).unwrap().len();
    assert!(setup.push(&options).record.is_some());
    let records = log();
    let second = setup.push(&options);
    assert_eq!((second.record.is_some(), snapshots(), log()), (false, 1, records));
    assert!(
        setup.push(&Options { host: "other".into(), ..options.clone() }).record.is_some(),
        "another machine's is not ours"
    );
    write(setup.path("a"), "changed");
    assert!(setup.push(&options).record.is_some());
    fs::remove_file(setup.path("a")).unwrap();
    assert!(setup.push(&options).record.is_some());
    assert_eq!(snapshots(), 4);
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_a_push_then_sends() {
    let setup = Setup::with(&["small"]);
    for i in 0..9 {
        write(setup.path(&format!("{i}")), noise(i, 3 << 20));
    }
    let contents = || {
        let folders = Folder::all().chain([Folder::Root]);
        folders
            .flat_map(|folder| setup.storage.list(background(), folder).unwrap())
            .map(|e| (e.name, e.size))
            .collect::<Vec<_>>()
    };
    let before = contents();
    let dry = repository::open(Arc::new(Dry::new(setup.storage.clone())));
    let simulated = push(&background().with_progress(&setup.seen), &dry, &setup.options(Select::default())).unwrap();
    assert_eq!(contents(), before);
    assert!(setup.repo.state(background()).unwrap().snapshots().is_empty());
    let real = setup.push(&setup.options(Select::default()));
    assert_eq!((simulated.packs, simulated.new, simulated.read), (real.packs, real.new, real.read));
    // The dry run fills packs in another order, and references in the metadata are longer or shorter by a few bytes.
    assert!(simulated.added.abs_diff(real.added) < 1000, "{} and {}", simulated.added, real.added);
    assert!(simulated.stored.abs_diff(real.stored) <= real.packs * STEP, "{} and {}", simulated.stored, real.stored);
    assert!(simulated.sent.abs_diff(real.sent) <= real.packs * STEP + 1000, "{} and {}", simulated.sent, real.sent);
    let again = push(&background().with_progress(&setup.seen), &dry, &setup.options(Select::default())).unwrap();
    assert_eq!((again.packs, again.unchanged + again.changed, again.new), (0, 10, 0));
}

// ------------------------------------------------------------------------------------------------ through the binary

/// Returns the names below `top` in the newest snapshot.
fn listed(env: &Env) -> Vec<String> {
    let top = format!("latest:{}", env.path("top").canonicalize().unwrap().display());
    env.nfreezer(["ls", "-R", &top]).success().stdout.lines().map(str::to_owned).collect()
}

fn run_with_stdin(env: &Env, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = env.command(arguments);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn every_option_of_selection_is_wired() {
    let env = Env::with_repository();
    for file in ["a.tmp", "B.JPG", "c.bak", "d.PNG", "cache/x", "mark/x", "mark/.no", "keep", "ign/x", "ign/y"] {
        env.write(&format!("top/{file}"), file);
    }
    env.write("top/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55");
    env.write("top/large", [7; 3000]);
    env.write("top/ign/.nfreezerignore", "x\n");
    env.write("patterns", "# comment\n\n  *.bak  \n");
    env.write("ipatterns", "*.png\n");
    let options = [
        "push",
        "top",
        "-e",
        "*.tmp",
        "--iexclude",
        "*.jpg",
        "--exclude-file",
        "patterns",
        "--iexclude-file",
        "ipatterns",
        "--exclude-caches",
        "--exclude-if-present",
        ".no",
        "--exclude-larger-than",
        "2K",
        "-x",
        "-v",
    ];
    let output = env.nfreezer(options).success();
    assert_eq!(
        listed(&env),
        ["cache/", "cache/CACHEDIR.TAG", "ign/", "ign/.nfreezerignore", "ign/y", "keep", "mark/", "mark/.no"]
    );
    assert!(output.stderr.contains("excluded ") && output.stderr.contains("/top/a.tmp"), "{}", output.stderr);
    assert!(output.stdout.contains(", 8 left out"), "{}", output.stdout);
    env.nfreezer(["push", "top", "--no-ignore-files"]).done();
    assert!(listed(&env).contains(&"ign/x".to_owned()));
    let output = env.nfreezer(["--json", "push", "top", "-e", "cache"]).success();
    assert_eq!(output.objects().last().unwrap()["excluded"], 2);
}

#[test]
fn wrong_patterns_and_lists_are_usage_errors_with_their_place() {
    let env = Env::with_repository();
    env.write("top/a", "a");
    env.write("patterns", "fine\n\n[a\n");
    env.write("raw", b"top\0\0top\0");
    env.write("raw2", b"top\0top");
    for (arguments, words) in [
        (&["-e", "[a"][..], "--exclude: the pattern `[a` is wrong: "),
        (&["--iexclude", "a/../b"], "--iexclude: the pattern `a/../b` is wrong: "),
        (&["--exclude-file", "patterns"], "patterns, line 3: the pattern `[a` is wrong: "),
        (&["--exclude-if-present", "a/b"], "--exclude-if-present: not the name of a file: `a/b`"),
        (&["--exclude-larger-than", "big"], "write a size"),
        (&["--files-from-raw", "raw"], "raw is no list of names that end with a zero byte: one of them is empty"),
        (&["--files-from-raw", "raw2"], "the last one does not"),
        (&["--stdin"], "standard input is saved by itself"),
        (&["--stdin", "--files-from", "raw"], "cannot be used with"),
        (&["-", "--stdin-from-command"], "cannot start the command"),
        (&["--force", "--parent", "latest"], "cannot be used with"),
    ] {
        let output = env.nfreezer([&["push", "top"], arguments].concat());
        let command = words.contains("command");
        assert_eq!(output.code, if command { 1 } else { 2 }, "{arguments:?}: {}", output.stderr);
        assert!(command || output.stderr.contains(words), "{arguments:?}: {}", output.stderr);
    }
    let output = env.nfreezer(["push", "top", "--exclude-file", "none"]).exits(1);
    assert!(output.stderr.contains("read the patterns in none"), "{}", output.stderr);
    let output = env.nfreezer(["push"]).exits(2);
    assert!(output.stderr.contains("no source is given"), "{}", output.stderr);
    let output = env.nfreezer(["push", "--stdin-from-command"]).exits(2);
    assert!(output.stderr.contains("behind `--`"), "{}", output.stderr);
    assert!(env.nfreezer(["snapshots", "--json"]).success().objects().len() == 1, "nothing was saved");
}

#[test]
fn lists_name_sources_of_any_name() {
    let env = Env::with_repository();
    let odd = std::ffi::OsString::from_vec(b"odd \xff\nname".to_vec());
    for name in ["1.txt", "2.txt", " blank ", "#hash", "*", "d/e/f.txt", "d/e/g"] {
        env.write(&format!("top/{name}"), name);
    }
    fs::write(env.path("top").join(&odd), "odd").unwrap();
    env.write("globs", "# comment\n\n  top/[12].txt \ntop/d/*/*.txt\ntop/\\*\n");
    env.nfreezer(["push", "--files-from", "globs"]).done();
    assert_eq!(listed(&env), ["*", "1.txt", "2.txt", "d/", "d/e/", "d/e/f.txt"]);
    env.write("verbatim", "top/ blank \n\ntop/#hash\ntop/*\n");
    env.nfreezer(["push", "--files-from-verbatim", "verbatim"]).done();
    assert_eq!(listed(&env), [" blank ", "#hash", "*"]);
    let raw = [b"top/".as_slice(), odd.as_bytes(), b"\0top/d\0"].concat();
    run_with_stdin(&env, &["push", "--files-from-raw", "-", "top/1.txt"], &raw).done();
    assert_eq!(listed(&env), ["1.txt", "d/", "d/e/", "d/e/f.txt", "d/e/g", "odd \\xff\\nname"]);
    let gone = run_with_stdin(&env, &["push", "--files-from", "-"], b"top/1.txt\ntop/gone\ntop/*.none\n").exits(3);
    assert!(
        gone.stderr.contains("skipped top/gone: ") && gone.stderr.contains("skipped top/*.none: "),
        "{}",
        gone.stderr
    );
    assert_eq!(listed(&env), ["1.txt"]);
    let none = run_with_stdin(&env, &["push", "--files-from", "-"], b"top/gone\n").exits(1);
    assert!(none.stderr.contains("nothing to push: cannot read the source top/gone"), "{}", none.stderr);
    let wrong = run_with_stdin(&env, &["push", "--files-from", "-"], b"top\ntop/[a\n").exits(2);
    assert!(wrong.stderr.contains("-, line 2: the pattern `[a` is wrong"), "{}", wrong.stderr);
}

#[test]
fn standard_input_comes_back_equal() {
    let env = Env::with_repository();
    let bytes = noise(9, 50 << 20);
    run_with_stdin(&env, &["push", "--stdin"], &bytes).done();
    env.nfreezer(["restore", "latest:/stdin", "--target", "out"]).done();
    assert!(fs::read(env.path("out/stdin")).unwrap() == bytes);
    let output = run_with_stdin(&env, &["--json", "push", "-", "--stdin-filename", "db/dump.sql"], &bytes).success();
    let objects = output.objects();
    let summary = objects.last().unwrap();
    assert_eq!((&summary["read"], summary["new"].as_u64()), (&(50u64 << 20).into(), Some(1)));
    assert!(summary["stored"].as_u64().unwrap() < 1 << 20, "it is there already: {summary}");
    env.nfreezer(["restore", "latest:/db/dump.sql", "--target", "out"]).done();
    assert!(fs::read(env.path("out/dump.sql")).unwrap() == bytes);
    let snapshots = env.nfreezer(["snapshots", "--json"]).success().objects();
    assert_eq!(snapshots[1]["paths"][0], "/db/dump.sql");
    run_with_stdin(&env, &["push", "-", "--stdin-filename", "../x"], b"x").fails(2);
}

#[test]
fn a_command_that_fails_leaves_no_snapshot() {
    let env = Env::with_repository();
    let push = |script: &str| {
        env.nfreezer(["push", "--stdin-from-command", "--stdin-filename", "out", "--", "sh", "-c", script])
    };
    push("echo hello; echo notes >&2").done();
    assert_eq!(fs::read(restored(&env)).unwrap(), b"hello\n");
    for (script, words) in [
        ("head -c 30000000 /dev/urandom; echo why >&2; exit 7", "the command `sh` ended with exit status 7"),
        ("echo x; kill -9 $$", "the command `sh` was ended by signal 9"),
        ("exec >&-; sleep 0.3; exit 1", "the command `sh` ended with exit status 1"),
    ] {
        let output = push(script).exits(1);
        assert!(output.stderr.contains(&format!("error: cannot read /out: {words}")), "{}", output.stderr);
        assert!(!script.contains("why") || output.stderr.contains("why\n"), "{}", output.stderr);
    }
    let output = env.nfreezer(["push", "--stdin-from-command", "--", "/no/such/program"]).exits(1);
    assert!(output.stderr.contains("start the command `/no/such/program`"), "{}", output.stderr);
    let whole = |o: &serde_json::Value| o["type"] == "snapshot" && o["partial"] == false;
    let snapshots = env.nfreezer(["snapshots", "--json"]).success().objects();
    assert_eq!(snapshots.iter().filter(|o| whole(o)).count(), 1);
}

fn restored(env: &Env) -> PathBuf {
    env.nfreezer(["restore", "latest:/out", "--target", "restored"]).done();
    env.path("restored/out")
}

#[test]
fn a_command_is_ended_when_the_push_is_interrupted() {
    let env = Env::with_repository();
    let script = "echo $$ > pid; echo begun; exec sleep 1000";
    let mut child = env.command(["push", "--stdin-from-command", "--", "sh", "-c", script]).spawn().unwrap();
    let pid = loop {
        match fs::read_to_string(env.path("pid")).unwrap_or_default().trim().parse::<i32>() {
            Ok(pid) => break pid,
            Err(_) => std::thread::yield_now(),
        }
    };
    let push = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(push, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the command is still there");
}

#[test]
fn a_dry_run_changes_not_a_byte_and_no_change_makes_no_snapshot() {
    let env = Env::with_repository();
    env.write("top/a", noise(1, 1 << 20));
    let state = || {
        let find = "find repo -type f -printf '%p %s %T@ %C@ ' -exec sha256sum {} ';' | sort; find repo -type d -printf '%p %T@\n' | sort";
        Command::new("sh").args(["-c", find]).current_dir(env.path("")).output().unwrap().stdout
    };
    let before = state();
    let output = env.nfreezer(["push", "-n", "top"]).success();
    assert!(
        output.stdout.contains("would send ") && output.stdout.contains("dry run: nothing was written"),
        "{}",
        output.stdout
    );
    let object = env.nfreezer(["push", "--dry-run", "--json", "top"]).success().objects().pop().unwrap();
    assert_eq!((&object["snapshot"], &object["dry_run"]), (&serde_json::Value::Null, &true.into()));
    assert_eq!(state(), before);
    let real = env.nfreezer(["push", "--json", "top", "--skip-if-unchanged"]).success().objects().pop().unwrap();
    let stored = |object: &serde_json::Value| object["stored"].as_u64().unwrap();
    assert!(stored(&real).abs_diff(stored(&object)) <= 2 * STEP);
    assert!(real["snapshot"].is_string());
    let before = state();
    let again = env.nfreezer(["push", "top", "--skip-if-unchanged"]).success();
    assert!(again.stdout.contains("nothing has changed"), "{}", again.stdout);
    let again = env.nfreezer(["push", "top", "--skip-if-unchanged", "--json"]).success().objects().pop().unwrap();
    assert_eq!((&again["snapshot"], state()), (&serde_json::Value::Null, before));
}

#[test]
fn the_repository_is_never_a_source() {
    let env = Env::with_repository();
    env.write("top/a", "a");
    for source in ["repo", "repo/packs", "./top/../repo/", "repo/config"] {
        let output = env.nfreezer(["push", source]).exits(2);
        assert!(output.stderr.contains("it is the repository itself, or lies in it"), "{source}: {}", output.stderr);
    }
    symlink("../repo", env.path("top/link")).unwrap();
    env.nfreezer(["push", "top"]).done();
    assert_eq!(listed(&env), ["a", "link"]);
    env.nfreezer(["push", "top/link"]).done();
    fs::rename(env.path("repo"), env.path("top/repo")).unwrap();
    let output = env.nfreezer(["push", "-r", "top/repo", "top"]).success();
    assert!(output.stderr.contains("top/repo: it is the repository itself"), "{}", output.stderr);
}

#[test]
fn a_mounted_backup_is_never_saved_nor_a_part_of_it_mounted_elsewhere() {
    if !needs_root("file systems of its own") {
        return;
    }
    let env = Env::with_repository();
    env.write("top/a/b", "b");
    env.nfreezer(["push", "top"]).done();
    fs::create_dir_all(env.path("top/mnt")).unwrap();
    let mounted = env.path("top/mnt");
    env.nfreezer(["mount", "top/mnt"]).done();
    let _mount = Mount(mounted.clone());
    let part = format!("{}/latest{}", mounted.display(), env.path("top").canonicalize().unwrap().display());
    let _bind = Mount::run(&["--bind", &part], &env.path("top/bound"));
    let output = env.nfreezer(["push", "top"]).success();
    for name in ["mnt", "bound"] {
        assert!(
            output.stderr.contains(&format!("/top/{name}: it is the repository itself or a mounted backup")),
            "{}",
            output.stderr
        );
    }
    assert_eq!(listed(&env), ["a/", "a/b"]);
    for source in ["top/mnt", "top/mnt/latest", "top/bound/a"] {
        let output = env.nfreezer(["push", source]).exits(2);
        assert!(output.stderr.contains("it lies in a mounted backup"), "{source}: {}", output.stderr);
    }
    drop(_bind);
    env.nfreezer(["umount", "top/mnt"]).done();
}

#[test]
fn patterns_compare_characters_in_options_and_lists() {
    let env = Env::with_repository();
    for name in ["é.txt", "ü.txt", "u.txt", "Ä.jpg", "é", "ab"] {
        env.write(&format!("top/{name}"), name);
    }
    env.nfreezer(["push", "top", "-e", "[éè].txt", "-e", "??", "--iexclude", "ä.JPG"]).done();
    assert_eq!(listed(&env), ["u.txt", "é", "ü.txt"]);
    env.nfreezer(["push", "top", "-e", "*.txt", "-e", "!?.txt"]).done();
    assert_eq!(listed(&env), ["ab", "u.txt", "Ä.jpg", "é", "é.txt", "ü.txt"]);
    env.write("globs", "\u{feff}top/?.txt\r\ntop/[Ä-Ö].jpg\r\n");
    env.nfreezer(["push", "--files-from", "globs"]).done();
    assert_eq!(listed(&env), ["u.txt", "Ä.jpg", "é.txt", "ü.txt"]);
    env.write("names", "\u{feff}top/ab\r\ntop/é\r\n");
    env.nfreezer(["push", "--files-from-verbatim", "names"]).done();
    assert_eq!(listed(&env), ["ab", "é"]);
    env.write("patterns", "\u{feff}?.txt\r\nÄ.jpg\r\n");
    env.nfreezer(["push", "top", "--exclude-file", "patterns"]).done();
    assert_eq!(listed(&env), ["ab", "é"]);
    env.write("top/.nfreezerignore", "\u{feff}?.txt\r\nÄ.jpg\r\n");
    env.nfreezer(["push", "top"]).done();
    assert_eq!(listed(&env), [".nfreezerignore", "ab", "é"]);
}

#[test]
fn a_push_warns_about_what_was_probably_not_meant() {
    let setup = Setup::with(&["a", "b", "c/d", "c/e"]);
    let warnings = |setup: &Setup| -> Vec<String> {
        setup.said().into_iter().filter_map(|line| line.strip_prefix("warning ").map(str::to_owned)).collect()
    };
    setup.push(&setup.options(patterns(&["*.tmp", "a", "!none", "top"])));
    let said = warnings(&setup);
    assert!(said[0].starts_with("`top` (test) matches the source ") && said[0].ends_with("saved anyway"), "{said:?}");
    assert_eq!(said[1..], ["nothing in the sources matches `*.tmp` (test), `!none` (test)"]);
    setup.push(&setup.options(Select::default()));
    assert_eq!(warnings(&setup), Vec::<String>::new());
    fs::remove_dir_all(setup.path("c")).unwrap();
    fs::remove_file(setup.path("b")).unwrap();
    fs::write(setup.path("a"), "").unwrap();
    setup.push(&setup.options(Select::default()));
    assert!(warnings(&setup)[0].starts_with("the snapshot holds less than half of its parent (1 files"));
    fs::remove_file(setup.path("a")).unwrap();
    setup.push(&setup.options(Select::default()));
    assert_eq!(warnings(&setup), ["the snapshot is empty: the sources hold no files"]);
    // The parent of a push of other sources is another snapshot of the host, so there is nothing to compare.
    fs::write(setup.path("small"), "s").unwrap();
    fs::write(setup.path("large"), [1; 100]).unwrap();
    setup.push(&setup.options(Select::default()));
    let other = Options { sources: vec![setup.path("small")], ..setup.options(Select::default()) };
    setup.push(&other);
    assert_eq!(warnings(&setup), Vec::<String>::new());
    let device = Options { sources: vec!["/dev/null".into()], ..setup.options(Select::default()) };
    setup.push(&device);
    assert!(warnings(&setup)[0].starts_with("/dev/null is a device: the device node is saved, not its contents"));
}
