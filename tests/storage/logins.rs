//! Authentication of the server and of the client: host keys, keys, agents, passwords, the user's configuration.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::harness::root::needs_root;
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
    let (heard, notice) = crate::line::listener();
    let with = |accept| {
        with_ssh(Options { notice: notice.clone(), ..sshd.options() }, |ssh| {
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
    let news = std::mem::take(&mut *heard.lock().expect("no holder panics"));
    let file = known.display().to_string();
    let is_right =
        |news: &[String]| news.len() == 1 && [fingerprint, &place, &file].iter().all(|w| news[0].contains(*w));
    assert!(is_right(&news), "{news:?}");
    open(background(), &location, with(true)).expect("known from now on");
    open(background(), &location, with(false)).expect("known from now on");
    run("ssh-keygen", &["-H", "-f", &known.display().to_string()]);
    assert!(!fs::read_to_string(&known).expect("a file").contains("127.0.0.1"), "hashed");
    open(background(), &location, with(false)).expect("known by its hash");

    fs::write(&known, format!("{place} {other}")).expect("written");
    for accept in [false, true] {
        let changed = open_error(&location, with(accept));
        assert!(changed.to_string().contains("CHANGED") && changed.to_string().contains(fingerprint), "{changed}");
        assert!(changed.hint_text().is_some_and(|hint| hint.contains(&format!("ssh-keygen -R '{place}'"))));
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
    // the openssh transport refuses an unknown host too
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
    let news = std::mem::take(&mut *heard.lock().expect("no holder panics"));
    assert!(is_right(&news), "{news:?}");
}

#[test]
fn known_hosts_of_the_configuration_may_have_blanks_in_their_names() {
    let sshd = Sshd::start();
    let root = local_repo(&sshd);
    let known = sshd.scratch().join("own hosts");
    let config = sshd.scratch().join("config");
    let lines = format!(
        "Host nas\n HostName 127.0.0.1\n Port {}\n User {}\n IdentityFile {}\n UserKnownHostsFile \"{}\" /none\n",
        sshd.port,
        sshd.user,
        sshd.identity().display(),
        known.display()
    );
    fs::write(&config, lines).expect("written");
    let location = Location::parse(&format!("nas:{}", root.display())).expect("an address");
    for (accept, works) in [(false, false), (true, true), (false, true)] {
        let options = with_ssh(sshd.options(), |ssh| {
            ssh.identity = Vec::new();
            ssh.known_hosts = None;
            ssh.ssh_config = Some(config.clone());
            ssh.accept_new_host_key = accept;
        });
        assert_eq!(open(background(), &location, options).is_ok(), works);
    }
    let there = run("ssh-keygen", &["-F", &format!("[127.0.0.1]:{}", sshd.port), "-f", &known.display().to_string()]);
    assert!(there.contains("ssh-ed25519"), "{there}");
}

/// Answers questions from a list and keeps the questions.
struct Typist {
    answers: Vec<&'static str>,
    asked: Mutex<Vec<String>>,
}

impl Typist {
    fn new(answer: &'static str) -> Arc<Self> {
        Typist::in_turn(&[answer])
    }

    /// Makes a typist that answers in this order, and repeats the last answer.
    fn in_turn(answers: &[&'static str]) -> Arc<Self> {
        Arc::new(Typist { answers: answers.into(), asked: Mutex::default() })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no holder panics").clone()
    }
}

impl Prompt for Typist {
    fn secret(&self, text: &str) -> nfreezer::error::Result<String> {
        let mut asked = self.asked.lock().expect("no holder panics");
        asked.push(text.into());
        Ok(self.answers[(asked.len() - 1).min(self.answers.len() - 1)].into())
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

    let wrong = Typist::new("mistyped");
    let refused = open_error(&location, with(wrong.clone()));
    assert!(refused.kind() == Kind::Connection && !refused.to_string().contains("mistyped"), "{refused}");
    assert_eq!(wrong.asked().len(), 3, "three tries");
    let nobody = open_error(
        &location,
        with_ssh(sshd.options(), |ssh| {
            ssh.identity = vec![key];
        }),
    );
    assert!(nobody.to_string().contains("there is no terminal to ask for it"), "{nobody}");
}

/// An ssh-agent for one test.
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
    // with IdentitiesOnly the client uses only configured keys of the agent
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
    if !needs_root("an account of its own") {
        return;
    }
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

/// Returns the number of keys that the server has refused.
fn refusals(sshd: &Sshd) -> usize {
    sshd.log().lines().filter(|line| line.contains("Failed publickey")).count()
}

#[test]
fn few_attempts_are_enough_for_a_configured_key_among_many_of_the_agent() {
    let sshd = Sshd::with(Setup { extra: "MaxAuthTries 2".into(), ..Setup::default() });
    let root = local_repo(&sshd);
    let agent = Agent::start(sshd.scratch());
    let key = |number: usize| sshd.scratch().join(format!("key{number}"));
    for number in 0..5 {
        keygen(&key(number), "ed25519", "");
        agent.add(&key(number));
    }
    authorize(&sshd, &key(4).with_extension("pub"));
    let config = sshd.scratch().join("config");
    let login = |lines: &str, identity: &[&Path]| {
        fs::write(&config, lines).expect("written");
        let options = with_ssh(sshd.options(), |ssh| {
            ssh.identity = identity.iter().map(|file| file.to_path_buf()).collect();
            ssh.agent = Some(agent.1.clone());
            ssh.ssh_config = Some(config.clone());
        });
        open(background(), &sshd.location(&root), options).map(drop)
    };
    // without a configured key the server ends the login first, and the error shows the reason
    let refused = login("IdentityFile none\n", &[]).expect_err("too many keys");
    assert!(refused.kind() == Kind::Connection && refused.to_string().contains("ended the login after"), "{refused}");
    let before = refusals(&sshd);
    let public = key(4).with_extension("pub");
    for (identity, only) in [(key(4), true), (key(4), false), (public.clone(), true), (public.clone(), false)] {
        let only = if only { "IdentitiesOnly yes\n" } else { "" };
        login(&format!("{only}IdentityFile {}\n", identity.display()), &[]).expect("a configured key comes first");
        login(&format!("{only}IdentityFile none\n"), &[&identity]).expect("-i comes first");
    }
    // a private key file in OpenSSH's format contains the public key; later only the public key file is left
    fs::remove_file(&public).expect("removed");
    run("ssh-keygen", &["-q", "-p", "-P", "", "-N", "locked", "-f", &key(4).display().to_string()]);
    login(&format!("IdentitiesOnly yes\nIdentityFile {}\n", key(4).display()), &[]).expect("the agent has it open");
    fs::write(&public, run("ssh-keygen", &["-y", "-P", "locked", "-f", &key(4).display().to_string()]))
        .expect("written");
    fs::remove_file(key(4)).expect("removed");
    login("IdentityFile none\n", &[&public]).expect("the agent has the other half");
    assert_eq!(refusals(&sshd), before, "no other key was offered");
}

#[test]
fn a_mistyped_passphrase_of_any_kind_of_key_is_asked_for_again_and_never_sent() {
    let sshd = Sshd::with(Setup { extra: "PasswordAuthentication yes".into(), ..Setup::default() });
    let location = sshd.location(&local_repo(&sshd));
    let mut keys = Vec::new();
    for (name, kind, format) in [
        ("pem", "rsa", &["-m", "PEM"][..]),
        ("pkcs8", "ecdsa", &["-m", "PKCS8"]),
        ("openssh", "ed25519", &[]),
        ("rsa", "rsa", &[]),
    ] {
        for public in [true, false] {
            let key = sshd.scratch().join(format!("{name}{public}"));
            let file = key.display().to_string();
            run("ssh-keygen", &[&["-q", "-t", kind, "-N", "open sesame", "-f", &file], format].concat());
            keys.push((key, public));
        }
    }
    for (key, public) in keys {
        authorize(&sshd, &key.with_extension("pub"));
        if !public {
            fs::remove_file(key.with_extension("pub")).expect("removed");
        }
        let with = |prompt: &Arc<Typist>| {
            let prompt: Arc<dyn Prompt> = prompt.clone();
            with_ssh(sshd.options(), |ssh| {
                ssh.identity = vec![key.clone()];
                ssh.prompt = prompt;
            })
        };
        let name = key.display().to_string();
        let typist = Typist::in_turn(&["mistyped", "open sesame"]);
        open(background(), &location, with(&typist)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(typist.asked().len() == 2 && typist.asked()[1].contains("wrong"), "{name}: {:?}", typist.asked());
        let typist = Typist::new("mistyped");
        let refused = open_error(&location, with(&typist));
        assert!(refused.kind() == Kind::Connection && refused.to_string().contains(&name), "{refused}");
        assert!(refused.to_string().contains("does not open"), "{refused}");
        assert_eq!(typist.asked().len(), 3, "{:?}", typist.asked());
        assert!(typist.asked().iter().all(|question| question.contains(&name)), "{:?}", typist.asked());
        // a key that the server refuses needs no passphrase
        fs::write(sshd.authorized_keys(), "").expect("written");
        let typist = Typist::new("open sesame");
        let refused = open_error(&location, with(&typist));
        assert!(refused.to_string().contains(&format!("refused keys: {name}")), "{refused}");
        let is_known = public || name.contains("openssh") || name.contains("rsa");
        let about_key = typist.asked().iter().filter(|question| question.contains("passphrase")).count();
        assert_eq!(about_key, usize::from(!is_known), "{name}: {:?}", typist.asked());
    }
}

#[test]
fn without_a_terminal_the_reason_is_the_refused_key() {
    let sshd = Sshd::with(Setup { extra: "PasswordAuthentication yes".into(), ..Setup::default() });
    let location = sshd.location(&local_repo(&sshd));
    fs::write(sshd.authorized_keys(), "").expect("written");
    let refused = open_error(&location, sshd.options());
    let text = refused.to_string();
    assert_eq!(refused.kind(), Kind::Connection, "{text}");
    assert!(text.contains(&format!("refused keys: {}", sshd.identity().display())), "{text}");
    assert!(text.contains("publickey,password") && text.contains("it also accepts a password, but"), "{text}");
    assert!(refused.hint_text().is_some_and(|hint| hint.contains("authorized_keys")));
}

#[test]
fn a_key_that_other_users_may_read_is_not_used() {
    let sshd = Sshd::start();
    let location = sshd.location(&local_repo(&sshd));
    let mode = |mode| fs::set_permissions(sshd.identity(), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    let config = sshd.scratch().join("config");
    fs::write(&config, format!("IdentityFile {}\n", sshd.identity().display())).expect("written");
    let configured = with_ssh(sshd.options(), |ssh| {
        ssh.identity = Vec::new();
        ssh.ssh_config = Some(config);
    });
    let remedy = format!("`chmod 600 {}`", sshd.identity().display());
    for exposed in [0o644, 0o640, 0o601] {
        mode(exposed);
        let named = open_error(&location, sshd.options());
        assert!(named.kind() == Kind::Usage && named.hint_text().is_some_and(|hint| hint.contains(&remedy)), "{named}");
        let refused = open_error(&location, configured.clone()).to_string();
        assert!(refused.contains("since other users may read it") && refused.contains(&remedy), "{refused}");
    }
    mode(0o400);
    open(background(), &location, sshd.options()).expect("a private key");
    open(background(), &location, configured).expect("a private key");
}
#[test]
fn a_jump_host_of_the_configuration_is_used() {
    let sshd = Sshd::start();
    let root = local_repo(&sshd);
    let config = sshd.scratch().join("config");
    let lines = |hosts: &Path| {
        format!(
            "Host *\n HostName 127.0.0.1\n Port {}\n User {}\n IdentityFile {}\n IdentitiesOnly yes\n UserKnownHostsFile {}\n\
             Host nas\n ProxyJump jump\n",
            sshd.port,
            sshd.user,
            sshd.identity().display(),
            hosts.display()
        )
    };
    fs::write(&config, lines(&sshd.known_hosts())).expect("written");
    let location = Location::parse(&format!("nas:{}", root.display())).expect("an address");
    let options = with_ssh(sshd.options(), |ssh| {
        ssh.identity = Vec::new();
        ssh.known_hosts = None;
        ssh.ssh_config = Some(config.clone());
        ssh.transport = Transport::Auto;
    });
    open(background(), &location, options.clone())
        .unwrap_or_else(|e| panic!("{e} {:?}\n{}", e.hint_text(), sshd.log()));
    assert_eq!(sshd.logins(), 2, "one at each host");
    // The host key of the jump host is unknown.
    let unknown = sshd.scratch().join("unknown");
    fs::write(&config, lines(&unknown)).expect("written");
    for accept in [false, true] {
        let refused = open_error(&location, with_ssh(options.clone(), |ssh| ssh.accept_new_host_key = accept));
        assert_eq!(refused.kind(), Kind::Connection);
        assert!(refused.hint_text().is_some_and(|hint| hint.contains("does not hold for a jump host")), "{refused}");
    }
}
