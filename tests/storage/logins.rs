//! Who the server is, and who we are: host keys, keys, agents, passwords, the user's configuration.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::harness::sshd::{keygen, run};
use nfreezer::context::background;
use nfreezer::storage::Prompt;

use crate::*;

#[test]
fn only_a_known_host_key_is_accepted() {
    let sshd = Sshd::start();
    local_repo(&sshd);
    let location = sshd.location(&sshd.files().join("repo"));
    let key = fs::read_to_string(sshd.host_key().with_extension("pub")).expect("a key");
    let shown = run("ssh-keygen", &["-lf", &sshd.host_key().with_extension("pub").display().to_string()]);
    let fingerprint = shown.split_whitespace().find(|word| word.starts_with("SHA256:")).expect("a fingerprint");
    let place = format!("[127.0.0.1]:{}", sshd.port);
    let other = sshd.scratch().join("other");
    keygen(&other, "ed25519", "");
    let other = fs::read_to_string(other.with_extension("pub")).expect("a key");
    let known = sshd.scratch().join("hosts/known");
    let with = |accept| {
        with_ssh(sshd.options(), |ssh| {
            ssh.known_hosts = Some(vec![known.clone()]);
            ssh.accept_new_host_key = accept;
        })
    };

    let unknown = open_error(&location, with(false));
    assert_eq!(unknown.kind(), Kind::Connection);
    assert!(unknown.to_string().contains(fingerprint), "{unknown}");
    assert!(unknown.hint_text().is_some_and(|hint| hint.contains("--accept-new-host-key")));
    assert!(!known.exists());

    open(background(), &location, with(true)).expect("accepted");
    open(background(), &location, with(false)).expect("known from now on");
    run("ssh-keygen", &["-H", "-f", &known.display().to_string()]);
    assert!(!fs::read_to_string(&known).expect("a file").contains("127.0.0.1"), "hashed");
    open(background(), &location, with(false)).expect("known by its hash");

    fs::write(&known, format!("{place} {other}")).expect("written");
    for accept in [false, true] {
        let changed = open_error(&location, with(accept));
        assert!(changed.to_string().contains("CHANGED") && changed.to_string().contains(fingerprint), "{changed}");
        assert!(changed.hint_text().is_some_and(|hint| hint.contains("ssh-keygen -R")));
    }
    fs::write(&known, format!("{place} {key}@revoked * {key}")).expect("written");
    for accept in [false, true] {
        let revoked = open_error(&location, with(accept));
        assert!(revoked.kind() == Kind::Connection && revoked.to_string().contains("revoked"), "{revoked}");
    }
    for (lines, expected) in [
        (format!("[127.0.*]:* {key}"), true),
        (format!("[127.0.*]:*,!{place} {key}"), false),
        (format!("127.0.0.1 {key}"), true),
        (format!("# comment\nnonsense\n{place},else {key}"), true),
    ] {
        fs::write(&known, &lines).expect("written");
        assert_eq!(open(background(), &location, with(false)).is_ok(), expected, "{lines}");
    }
    // the openssh transport refuses in the same way
    fs::write(&known, "").expect("written");
    let refused = open_error(
        &location,
        with_ssh(with(false), |ssh| {
            ssh.transport = Transport::OpenSsh;
        }),
    );
    assert!(refused.kind() == Kind::Connection && refused.to_string().contains("verification failed"), "{refused}");
    open(
        background(),
        &location,
        with_ssh(with(true), |ssh| {
            ssh.transport = Transport::OpenSsh;
        }),
    )
    .expect("accepted");
}

/// Answers every question in the same way and keeps it.
struct Typist {
    answer: &'static str,
    asked: Mutex<Vec<String>>,
}

impl Typist {
    fn new(answer: &'static str) -> Arc<Self> {
        Arc::new(Typist { answer, asked: Mutex::default() })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no holder panics").clone()
    }
}

impl Prompt for Typist {
    fn secret(&self, text: &str) -> nfreezer::error::Result<String> {
        self.asked.lock().expect("no holder panics").push(text.into());
        Ok(self.answer.into())
    }
}

fn authorize(sshd: &Sshd, public: &Path) {
    fs::copy(public, sshd.authorized_keys()).expect("copied");
}

#[test]
fn an_encrypted_key_is_asked_for_once_even_over_reconnects() {
    let sshd = Sshd::start();
    local_repo(&sshd);
    let key = sshd.scratch().join("locked");
    keygen(&key, "ed25519", "open sesame");
    authorize(&sshd, &key.with_extension("pub"));
    let location = sshd.location(&sshd.files().join("repo"));
    let with = |prompt| {
        with_ssh(sshd.options(), |ssh| {
            ssh.identity = vec![key.clone()];
            ssh.prompt = prompt;
        })
    };

    let typist = Typist::new("open sesame");
    let storage = open(background(), &location, with(typist.clone())).expect("logged in");
    sshd.kill_sessions();
    storage.list(background(), Folder::Log).expect("a listing after a reconnect");
    assert_eq!((typist.asked().len(), sshd.logins()), (1, 2));
    assert!(typist.asked()[0].contains("locked"));

    let wrong = Typist::new("wrong");
    let refused = open_error(&location, with(wrong.clone()));
    assert!(refused.kind() == Kind::Connection && !refused.to_string().contains("wrong"), "{refused}");
    assert_eq!(wrong.asked().len(), 3, "three tries");
    let nobody = open_error(
        &location,
        with_ssh(sshd.options(), |ssh| {
            ssh.identity = vec![key];
        }),
    );
    assert!(nobody.to_string().contains("nobody can be asked"), "{nobody}");
}

/// An agent of the test's own.
struct Agent(Child, std::path::PathBuf);

impl Agent {
    fn start(folder: &Path) -> Agent {
        let socket = folder.join("agent");
        let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
        let agent = Agent(child.expect("ssh-agent is not installed: run scripts/setup.sh"), socket);
        while std::os::unix::net::UnixStream::connect(&agent.1).is_err() {
            thread::yield_now();
        }
        agent
    }

    fn add(&self, key: &Path) {
        let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.1).status();
        assert!(added.expect("ssh-add runs").success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_identity_of_the_agent_is_tried() {
    let sshd = Sshd::start();
    local_repo(&sshd);
    let agent = Agent::start(sshd.scratch());
    for (number, kind) in ["ed25519", "rsa", "ecdsa"].into_iter().enumerate() {
        let key = sshd.scratch().join(format!("key{number}"));
        keygen(&key, kind, "");
        agent.add(&key);
        authorize(&sshd, &key.with_extension("pub"));
    }
    let location = sshd.location(&sshd.files().join("repo"));
    let options = with_ssh(sshd.options(), |ssh| {
        ssh.identity = Vec::new();
        ssh.agent = Some(agent.1.clone());
    });
    for transport in [Transport::Ssh2, Transport::OpenSsh] {
        open(
            background(),
            &location,
            with_ssh(options.clone(), |ssh| {
                ssh.transport = transport;
            }),
        )
        .expect("the third key is the right one");
    }
    // with IdentitiesOnly the agent is asked for configured keys only
    let config = sshd.scratch().join("only");
    let line = |key: &str| format!("IdentitiesOnly yes\nIdentityFile {}\n", sshd.scratch().join(key).display());
    let with = || {
        with_ssh(options.clone(), |ssh| {
            ssh.ssh_config = Some(config.clone());
        })
    };
    fs::write(&config, line("key0")).expect("written");
    assert_eq!(open_error(&location, with()).kind(), Kind::Connection);
    fs::write(&config, line("key2")).expect("written");
    fs::remove_file(sshd.scratch().join("key2")).expect("only the public half is left");
    open(background(), &location, with()).expect("the agent has the other half");
}

#[test]
fn passwords_are_asked_for_and_questions_of_the_server_are_marked() {
    for (lines, question) in [
        ("PasswordAuthentication yes\nKbdInteractiveAuthentication no", "password of "),
        ("PasswordAuthentication no\nKbdInteractiveAuthentication yes\nUsePAM yes", "server asks: "),
    ] {
        let sshd = Sshd::with(Setup { extra: lines.into(), account: Some("correct horse"), ..Setup::default() });
        let location = sshd.location(&sshd.files());
        let with = |prompt| {
            with_ssh(sshd.options(), |ssh| {
                ssh.identity = Vec::new();
                ssh.prompt = prompt;
            })
        };
        let typist = Typist::new("correct horse");
        let storage =
            open(background(), &location, with(typist.clone())).unwrap_or_else(|e| panic!("{e}\n{}", sshd.log()));
        assert_eq!(storage.list(background(), Folder::Root).expect("a listing"), []);
        assert!(typist.asked().len() == 1 && typist.asked()[0].contains(question), "{:?}", typist.asked());
        let wrong = Typist::new("wrong battery");
        let refused = open_error(&location, with(wrong.clone()));
        assert!(refused.kind() == Kind::Connection && !refused.to_string().contains("battery"), "{refused}");
        assert!((1..=3).contains(&wrong.asked().len()), "{:?}", wrong.asked());
    }
}

#[test]
fn the_ssh_configuration_is_honoured() {
    let sshd = Sshd::start();
    let root = local_repo(&sshd);
    let config = sshd.scratch().join("config");
    let text = format!(
        "Host nas\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n\
         Host far\n  HostName 127.0.0.1\n  Port {0}\n  User {1}\n  IdentityFile {2}\n  ProxyCommand ssh -F {} -o UserKnownHostsFile={} -W %h:%p nas\n",
        sshd.port,
        sshd.user,
        sshd.identity().display(),
        config.display(),
        sshd.known_hosts().display(),
    );
    fs::write(&config, text).expect("written");
    let options = with_ssh(sshd.options(), |ssh| {
        ssh.identity = Vec::new();
        ssh.ssh_config = Some(config);
    });
    for (host, transport) in
        [("nas", Transport::Ssh2), ("nas", Transport::OpenSsh), ("nas", Transport::Auto), ("far", Transport::Auto)]
    {
        let location = Location::parse(&format!("{host}:{}", root.display())).expect("an address");
        let storage = open(
            background(),
            &location,
            with_ssh(options.clone(), |ssh| {
                ssh.transport = transport;
            }),
        )
        .expect("connected");
        assert_eq!(storage.list(background(), Folder::Log).expect("a listing"), [], "{host} {transport:?}");
    }
}
