//! Passphrases and keys are not found in anything that a process shows to others or leaves behind.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use crate::harness::cli::Env;
use crate::harness::mounted::eventually;
use crate::harness::root::needs_root;
use nfreezer::crypto::keys::Keys;
use nfreezer::crypto::secret::Passphrase;
use nfreezer::format::keyfile::{KeyFile, decode_config};
use nfreezer::name::{ObjectId, hex};

const SECRET: &str = "zebra-canyon-4711-lantern-osprey";

/// Makes a repository whose passphrase comes from a file or a command; the environment holds no passphrase.
fn repository() -> Env {
    let mut env = Env::without_passphrase();
    env.set("NFREEZER_REPOSITORY", "repo");
    let file = env.write("passphrase", format!("{SECRET}\n"));
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    env.write("source/file", "contents");
    env.nfreezer(["init", "-p", "passphrase"]).done();
    env
}

/// Returns the master key, and the fingerprint that is derived in the same way as the working keys. Their owner can
/// compute both.
fn master(env: &Env) -> ([u8; 32], [u8; 16]) {
    let id = decode_config(&fs::read(env.path("repo/config")).unwrap()).unwrap();
    let entry = fs::read_dir(env.path("repo/keys")).unwrap().next().unwrap().unwrap();
    let bytes = fs::read(entry.path()).unwrap();
    let key = ObjectId::parse(entry.file_name().to_str().unwrap()).unwrap();
    let passphrase = Passphrase::new(SECRET.into()).unwrap();
    let master = KeyFile::parse(&key, &id, &bytes).unwrap().open(&passphrase).unwrap().0;
    (*master.expose(), Keys::derive(&master, &id).fingerprint())
}

/// A push that has opened the repository and waits for input from a fifo. It runs until it is dropped.
struct Waiting {
    child: Child,
    fifo: std::path::PathBuf,
}

impl Waiting {
    fn new(env: &Env, options: &[&str]) -> Self {
        let fifo = env.path("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut command = env.command(["push", "--stdin"].iter().chain(options));
        // The fifo stays open for writing, so the push waits for data that never arrives.
        let file = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let mut input = file.try_clone().unwrap();
        let child = command.stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Once the push reads its input, it has used the passphrase.
        std::io::Write::write_all(&mut input, b"x").unwrap();
        eventually("it opens the repository", || rustix::io::ioctl_fionread(&input).unwrap() == 0);
        Waiting { child, fifo }
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.child.id())
    }

    /// Returns the writable memory of the process, read as root.
    fn memory(&self) -> Vec<u8> {
        let maps = fs::read_to_string(self.proc("maps")).unwrap();
        let mut memory = fs::File::open(self.proc("mem")).unwrap();
        let mut all = Vec::new();
        for line in maps.lines() {
            let (range, rest) = line.split_once(' ').unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let [from, to] = [from, to].map(|n| u64::from_str_radix(n, 16).unwrap());
            if rest.starts_with("rw") && memory.seek(SeekFrom::Start(from)).is_ok() {
                let _ = memory.by_ref().take(to - from).read_to_end(&mut all);
                all.push(0);
            }
        }
        all
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.fifo);
    }
}

fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret)
}

#[test]
fn t81_the_passphrase_is_neither_in_environ_nor_in_cmdline_nor_in_memory_once_it_was_used() {
    if !needs_root("the memory of a process that lets no other one of its user look") {
        return;
    }
    let env = repository();
    let sources: [&[&str]; 2] = [&["-p", "passphrase"], &["--password-command", "cat passphrase"]];
    for source in sources {
        let waiting = Waiting::new(&env, source);
        for name in ["environ", "cmdline", "status", "comm"] {
            assert!(!holds(&fs::read(waiting.proc(name)).unwrap(), SECRET.as_bytes()), "{name} with {source:?}");
        }
        let (memory, (master, fingerprint)) = (waiting.memory(), master(&env));
        assert!(holds(&memory, &fingerprint), "derived values are found: the search looks at the right places");
        assert!(!holds(&memory, &master), "the master key is still in memory with {source:?}");
        assert!(!holds(&memory, SECRET.as_bytes()), "the passphrase is still in memory with {source:?}");
    }
}

#[test]
fn t81_no_core_is_dumped_and_no_other_process_of_the_user_may_look() {
    let env = repository();
    let mut waiting = Waiting::new(&env, &["-p", "passphrase"]);
    let limits = fs::read_to_string(waiting.proc("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"], "{limits}");
    // In /proc, the files of a process that is not dumpable belong to root: its user can attach no debugger and cannot
    // read /proc/PID/mem.
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(waiting.proc("mem")).unwrap());
    assert_eq!(owner, 0);
    assert!(Command::new("kill").args(["-ABRT", &waiting.child.id().to_string()]).status().unwrap().success());
    let status = waiting.child.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false), "{status}");
}

#[test]
fn t81_nobody_else_of_the_same_user_reads_the_memory() {
    if !needs_root("another user beside root") {
        return;
    }
    let env = repository();
    // The push runs as an unprivileged user, in a folder that this user may read and write.
    let root = env.path("").parent().unwrap().to_owned();
    let script = r#"
        chmod 755 "$1" && chown -R 65534:65534 "$1" && cd "$1/work" && mkfifo fifo && chmod 666 fifo && exec 3<>fifo
        cp "$2" program
        setpriv --reuid 65534 --regid 65534 --clear-groups ./program push --stdin -p passphrase -r repo <&3 >/dev/null 2>&1 &
        pid=$!
        echo >&3
        for i in $(seq 600); do read -t 0 -u 3 || break; sleep 0.1; done
        read -t 0 -u 3 || echo waiting
        setpriv --reuid 65534 --regid 65534 --clear-groups sleep 100 & other=$!
        until grep -q sleep /proc/$other/comm; do sleep 0.1; done
        setpriv --reuid 65534 --regid 65534 --clear-groups head -c 1 /proc/$other/environ >/dev/null 2>&1 && echo another
        setpriv --reuid 65534 --regid 65534 --clear-groups head -c 1 /proc/$pid/environ >/dev/null 2>&1 && echo environ
        setpriv --reuid 65534 --regid 65534 --clear-groups sh -c "exec 4</proc/$pid/mem" 2>/dev/null && echo mem
        kill $pid $other
        echo done"#;
    let output = Command::new("bash").args(["-c", script, "-"]).arg(root).arg(env!("CARGO_BIN_EXE_nfreezer")).output();
    let output = output.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "waiting\nanother\ndone\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn t81_nothing_that_is_said_or_written_holds_a_passphrase_or_a_key() {
    let env = repository();
    let mut said = String::new();
    let (key, _) = master(&env);
    let commands: [&[&str]; 8] = [
        &["push", "-v", "-v", "-v", "source"],
        &["push", "--json", "source"],
        &["snapshots", "--json"],
        &["ls", "-l", "-R"],
        &["key", "list"],
        &["key", "export"],
        &["snapshots", "-p", "nowhere"],
        &["restore", "latest", "--target", "out", "-v"],
    ];
    for command in commands {
        let source: &[&str] = if command.contains(&"-p") { &[] } else { &["-p", "passphrase"] };
        let output = env.nfreezer(command.iter().chain(source));
        assert_eq!(output.code != 0, command.contains(&"nowhere"), "{command:?}: {}", output.stderr);
        said += &(output.stdout + &output.stderr);
    }
    let output = env.nfreezer(["snapshots", "--password-command", &format!("echo wrong-{SECRET}")]).exits(12);
    said += &output.stdout;
    said += &output.stderr;
    let files = Command::new("grep").args(["-rlaF", SECRET]).arg(env.home()).arg(env.path("repo")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&files.stdout), "");
    for secret in [SECRET.to_owned(), hex(&key)] {
        assert!(!said.contains(&secret), "{secret}");
    }
    let state = env.home().join(".local/state/nfreezer");
    for file in fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path()) {
        assert!(!holds(&fs::read(&file).unwrap(), hex(&key).as_bytes()), "{}", file.display());
    }
}
