//! Logging in through libssh2: configured keys, other keys of the agent, default key files, then the questions that the server may ask at
//! a prompt. Nothing secret is sent that the user was not asked for, and no question is asked before the host's key is verified.
//!
//! A server accepts few attempts (`MaxAuthTries`). So no key is offered twice, and the passphrase of a key is asked for only
//! if the server would accept the key.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

use ssh2::{ErrorCode, PublicKey, Session};
use zeroize::Zeroizing;

use super::channels::words;
use super::config::HostConfig;
use super::keys::{self, Key, Lock};
use super::options::SshOptions;
use super::questions::{Answer, Asker, Secrets, TRIES};
use super::tcp;
use crate::error::{Error, Kind, Result};
use crate::storage::sftp::printable;

/// LIBSSH2_ERROR_AUTHENTICATION_FAILED: the server refused a password, or a key before its signature.
const REFUSED: ErrorCode = ErrorCode::Session(-18);
/// LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED: the server refused a signature.
const UNVERIFIED: ErrorCode = ErrorCode::Session(-19);
/// The connection is lost, most likely because the server accepts no more attempts.
const LOST: [i32; 6] = [-7, -9, -13, -30, -43, -45];

/// One login.
pub struct Login<'a> {
    session: &'a Session,
    socket: &'a TcpStream,
    config: &'a HostConfig,
    options: &'a SshOptions,
    secrets: &'a Secrets,
    /// Public halves that were offered to the server.
    offered: Vec<Vec<u8>>,
    /// The names of the keys that it refused.
    refused: Vec<String>,
    /// Reasons why other keys could not be offered.
    notes: Vec<String>,
    /// Whether the server has ended the connection.
    is_lost: bool,
    /// The key file without a passphrase that the server accepted.
    accepted: Option<PathBuf>,
}

/// The keys of the user's agent.
struct AgentKeys {
    agent: ssh2::Agent,
    keys: Vec<PublicKey>,
}

impl AgentKeys {
    fn holds(&self, key: &Key) -> Option<&PublicKey> {
        self.keys.iter().find(|held| key.public.as_deref() == Some(held.blob()))
    }
}

impl<'a> Login<'a> {
    /// Makes a login on a session whose host key is verified.
    pub fn new(
        session: &'a Session,
        socket: &'a TcpStream,
        config: &'a HostConfig,
        options: &'a SshOptions,
        secrets: &'a Secrets,
    ) -> Self {
        Login {
            session,
            socket,
            config,
            options,
            secrets,
            offered: Vec::new(),
            refused: Vec::new(),
            notes: Vec::new(),
            is_lost: false,
            accepted: None,
        }
    }

    /// Tries everything in turn until the server is content. Returns the key file, if one without a passphrase was enough.
    pub fn run(mut self) -> Result<Option<PathBuf>> {
        self.try_all()?;
        Ok(self.accepted)
    }

    fn try_all(&mut self) -> Result<()> {
        let keys = self.keys();
        let agent = self.agent();
        // The first request for the methods is free, but costs a round trip: one key alone does without.
        let others = agent.iter().flat_map(|agent| &agent.keys).filter(|held| {
            !self.config.identities_only && !keys.iter().any(|key| key.public.as_deref() == Some(held.blob()))
        });
        let is_alone = keys.iter().filter(|key| key.lock.is_some()).count() + others.count() == 1;
        let first = if is_alone { None } else { Some(self.methods()) };
        if self.session.authenticated() {
            return Ok(()); // the server asks for nothing
        }
        if first.as_deref().is_none_or(|methods| offers(methods, "publickey"))
            && self.with_keys(&keys, agent.as_ref())?
        {
            return Ok(());
        }
        let asks = |methods: &String| offers(methods, "password") || offers(methods, "keyboard-interactive");
        let methods = first.filter(asks).unwrap_or_else(|| self.methods());
        if self.session.authenticated()
            || offers(&methods, "keyboard-interactive") && self.keyboard_interactive()?
            || offers(&methods, "password") && self.password()?
        {
            return Ok(());
        }
        Err(self.refusal(&methods))
    }

    /// Returns all configured keys, the explicit ones first. One that cannot be used is noted.
    fn keys(&mut self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.config.identity_files.iter().map(|file| Key::read(file)).collect();
        for (i, key) in keys.iter_mut().enumerate() {
            let name = key.file.display();
            if key.is_exposed() {
                self.note(format!("the key {name} is not used, since other users may read it: `chmod 600 {name}`"));
                key.lock = None;
            } else if let Some(why) = keys::fault(&key.file).filter(|_| i < self.config.explicit_keys) {
                self.note(format!("the key {name} is not used: {why}"));
            }
        }
        keys
    }

    fn methods(&self) -> String {
        self.session.auth_methods(&self.config.user).unwrap_or("").to_string()
    }

    fn with_keys(&mut self, keys: &[Key], agent: Option<&AgentKeys>) -> Result<bool> {
        let (explicit, defaults) = keys.split_at(self.config.explicit_keys.min(keys.len()));
        for key in explicit {
            let accepted = match agent.and_then(|agent| Some((agent, agent.holds(key)?))) {
                Some((agent, held)) => self.with_agent(agent, held),
                None if key.lock == Some(Lock::Open) => self.with_file(key),
                None => key.lock.is_some() && key.public.is_some() && self.with_encrypted_file(key)?,
            };
            if accepted {
                return Ok(true);
            }
        }
        if let Some(agent) = agent {
            let configured = defaults.iter().filter_map(|key| agent.holds(key));
            let others = agent.keys.iter().filter(|_| !self.config.identities_only);
            let all: Vec<&PublicKey> = configured.chain(others).collect();
            if all.into_iter().any(|held| self.with_agent(agent, held)) {
                return Ok(true);
            }
        }
        if defaults.iter().filter(|key| key.lock == Some(Lock::Open)).any(|key| self.with_file(key)) {
            return Ok(true);
        }
        for key in keys.iter().filter(|key| key.lock == Some(Lock::Encrypted)) {
            if self.with_encrypted_file(key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether the key has not been offered yet, and remembers it.
    fn is_new(&mut self, public: Option<&[u8]>) -> bool {
        if self.is_lost {
            return false;
        }
        let Some(public) = public else { return true };
        let is_new = !self.offered.iter().any(|key| key == public);
        if is_new {
            self.offered.push(public.into());
        }
        is_new
    }

    /// Returns a key file without a passphrase, and its certificate if there is one.
    fn with_file(&mut self, key: &Key) -> bool {
        let is_accepted = self.try_file(key);
        self.accepted = is_accepted.then(|| key.file.clone());
        is_accepted
    }

    fn try_file(&mut self, key: &Key) -> bool {
        let user = &self.config.user;
        let certificate = keys::beside(&key.file, "-cert.pub");
        if certificate.exists() && self.session.userauth_pubkey_file(user, Some(&certificate), &key.file, None).is_ok()
        {
            return true;
        }
        if !self.is_new(key.public.as_deref()) {
            return false;
        }
        match self.session.userauth_pubkey_file(&self.config.user, None, &key.file, None) {
            Ok(()) => true,
            Err(e) => self.failed(key.file.display().to_string(), &e),
        }
    }

    fn with_agent(&mut self, agent: &AgentKeys, held: &PublicKey) -> bool {
        if !self.is_new(Some(held.blob())) {
            return false;
        }
        let name = format!("{} of ssh-agent", printable(held.comment().as_bytes()));
        match agent.agent.userauth(&self.config.user, held) {
            Ok(()) => true,
            Err(e) => self.failed(name, &e),
        }
    }

    /// Notes why a key did not log in. Returns false.
    fn failed(&mut self, name: String, e: &ssh2::Error) -> bool {
        // libssh2 reports a lost connection as a refusal too
        self.is_lost |= is_lost(e) || tcp::is_gone(self.socket);
        // A failure to sign has the same code as a signature that the server refuses.
        let is_refused = e.code() == REFUSED || e.code() == UNVERIFIED && !e.message().starts_with("Callback");
        if is_refused || self.is_lost {
            return self.was_refused(name);
        }
        self.note(format!("the key {name} could not be used: {}", words(e)))
    }

    fn was_refused(&mut self, name: String) -> bool {
        self.refused.push(name);
        false
    }

    fn note(&mut self, text: String) -> bool {
        self.notes.push(text);
        false
    }

    /// Returns the keys of the agent; `None` if there is no agent.
    fn agent(&mut self) -> Option<AgentKeys> {
        let path = self.config.agent.as_ref()?;
        let connect = || {
            let mut agent = self.session.agent()?;
            agent.set_identity_path(path)?;
            agent.connect()?;
            agent.list_identities()?;
            Ok(AgentKeys { keys: agent.identities()?, agent })
        };
        match connect() {
            Ok(agent) => Some(agent),
            Err(e) => {
                self.note(format!("ssh-agent at {} could not be used: {}", path.display(), words(&e)));
                None
            }
        }
    }

    /// Asks for the passphrase of a key, unless the server refuses the key. An empty answer passes it over.
    fn with_encrypted_file(&mut self, key: &Key) -> Result<bool> {
        if !self.is_new(key.public.as_deref()) {
            return Ok(false);
        }
        let name = key.file.display().to_string();
        if self.is_refused(key) {
            return Ok(self.was_refused(name));
        }
        let question = format!("passphrase of the key {name}: ");
        let user = &self.config.user;
        let mut why = String::new();
        let attempt = |secret: &str| {
            // The key is decrypted before anything is sent.
            match self.session.userauth_pubkey_file(user, None, &key.file, Some(secret)) {
                Ok(()) => Answer::Accepted,
                Err(e) if [REFUSED, UNVERIFIED].contains(&e.code()) || is_lost(&e) => Answer::Refused,
                Err(e) => {
                    why = words(&e);
                    Answer::Wrong
                }
            }
        };
        match self.secrets.ask(&*self.options.prompt, &question, attempt) {
            Ok(Answer::Accepted) => Ok(true),
            Ok(Answer::Skipped) => Ok(self.note(format!("no passphrase was typed for the key {name}"))),
            Ok(Answer::Refused) => Ok(self.was_refused(name)),
            // The next question could be for the password of the account, which would be sent to the server.
            Ok(Answer::Wrong) => {
                let text = format!("the key {name} does not open with this passphrase ({why})");
                Err(Error::new(Kind::Connection, text)
                    .hint("an empty passphrase passes over a key; `ssh-keygen -y -f FILE` tests one"))
            }
            Err(e) if matches!(e.kind(), Kind::Interrupted(_)) => Err(e),
            Err(e) => Ok(self.note(format!("the server accepts the key {name}, but {e}"))),
        }
    }

    /// Returns whether the server refuses an encrypted key. Without its passphrase libssh2 comes as far as the answer of the server.
    fn is_refused(&self, key: &Key) -> bool {
        let private = fs::read_to_string(&key.file).map(Zeroizing::new);
        let (Some(public), Ok(private)) = (&key.public, private) else { return false };
        let line = keys::public_line(public);
        let probe = self.session.userauth_pubkey_memory(&self.config.user, Some(&line), &private, Some(""));
        probe.is_err_and(|e| e.code() == REFUSED)
    }

    fn password(&mut self) -> Result<bool> {
        let question = format!("password of {}@{}: ", self.config.user, self.config.hostname);
        let attempt = |secret: &str| match self.session.userauth_password(&self.config.user, secret) {
            Ok(()) => Answer::Accepted,
            Err(e) if e.code() == REFUSED => Answer::Wrong,
            Err(_) => Answer::Refused,
        };
        match self.secrets.ask(&*self.options.prompt, &question, attempt) {
            Ok(answer) => Ok(matches!(answer, Answer::Accepted)),
            Err(e) => self.unasked("a password", e),
        }
    }

    fn keyboard_interactive(&mut self) -> Result<bool> {
        let place = format!("{}@{}", self.config.user, self.config.hostname);
        for _ in 0..TRIES {
            let mut asker = Asker::new(&*self.options.prompt, self.secrets, &place);
            let accepted = self.session.userauth_keyboard_interactive(&self.config.user, &mut asker).is_ok();
            if let Some(e) = asker.failed.take() {
                return self.unasked("answers at a prompt", e);
            }
            asker.keep(accepted);
            if accepted {
                return Ok(true);
            }
            if asker.asked.is_empty() {
                break; // it refused without a question
            }
        }
        Ok(false)
    }

    /// Notes that the user could not be asked. A user's stop ends the login.
    fn unasked(&mut self, what: &str, e: Error) -> Result<bool> {
        match e.kind() {
            Kind::Interrupted(_) => Err(e),
            _ => Ok(self.note(format!("it also accepts {what}, but {e}"))),
        }
    }

    /// Returns the error for a login that failed, with the methods that were tried and those that the server still accepts.
    fn refusal(&self, methods: &str) -> Error {
        let offered = if methods.is_empty() { "nothing any more".into() } else { printable(methods.as_bytes()) };
        let mut text = format!("the server refused the login of {} (it offers {offered})", self.config.user);
        let keys = match self.refused.as_slice() {
            [] if self.notes.is_empty() => "; no key was offered to it".into(),
            [] => String::new(),
            names if self.is_lost || methods.is_empty() => {
                format!("; it ended the login after the keys {}", names.join(", "))
            }
            names => format!("; refused keys: {}", names.join(", ")),
        };
        text.push_str(&keys);
        for note in &self.notes {
            text.push_str("; ");
            text.push_str(note);
        }
        Error::new(Kind::Connection, text)
            .hint("add your public key to the server's authorized_keys, name a key with -i, or load it into ssh-agent")
    }
}

fn is_lost(e: &ssh2::Error) -> bool {
    LOST.iter().any(|code| e.code() == ErrorCode::Session(*code))
}

fn offers(methods: &str, method: &str) -> bool {
    methods.split(',').any(|offered| offered == method)
}
