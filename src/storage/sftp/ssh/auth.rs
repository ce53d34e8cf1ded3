//! Logging in through libssh2: keys of `-i`, keys of the agent, key files, then what the server may ask for at a prompt.
//! Nothing secret is sent that the user was not asked for, and no question is asked before the host's key is verified.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use ssh2::{KeyboardInteractivePrompt, Session};
use zeroize::Zeroizing;

use super::config::HostConfig;
use super::keys::{self, Lock};
use super::options::{Prompt, SshOptions};
use crate::error::{Error, Kind, Result};
use crate::storage::sftp::printable;

/// How often a wrong passphrase or password may be typed.
const TRIES: usize = 3;

/// Secrets that worked, so that a later reconnect does not ask again.
#[derive(Default)]
pub struct Secrets(Mutex<HashMap<String, Zeroizing<String>>>);

impl Secrets {
    fn get(&self, question: &str) -> Option<Zeroizing<String>> {
        self.0.lock().expect("no holder panics").get(question).cloned()
    }

    fn keep(&self, question: &str, secret: &Zeroizing<String>) {
        self.0.lock().expect("no holder panics").insert(question.into(), secret.clone());
    }

    fn forget(&self, question: &str) {
        self.0.lock().expect("no holder panics").remove(question);
    }
}

/// One login.
pub struct Login<'a> {
    pub session: &'a Session,
    pub config: &'a HostConfig,
    pub options: &'a SshOptions,
    pub secrets: &'a Secrets,
}

impl Login<'_> {
    /// Tries everything in turn until the server is content.
    pub fn run(&self) -> Result<()> {
        let mut tried: Vec<Vec<u8>> = Vec::new();
        let mut notes: Vec<String> = Vec::new();
        let (named, others) = self.config.identity_files.split_at(self.options.identity.len());
        for file in named {
            if !file.exists() {
                return Err(Error::new(Kind::Usage, format!("there is no key file {}", file.display())));
            }
        }
        let files = || named.iter().chain(others);
        let open = |file: &&std::path::PathBuf| self.lock(file) == Some(Lock::Open);
        if named.iter().filter(open).any(|file| self.with_file(file, None, &mut tried))
            || self.with_agent(&mut tried, &mut notes)
        {
            return Ok(());
        }
        if others.iter().filter(open).any(|file| self.with_file(file, None, &mut tried)) {
            return Ok(());
        }
        for file in files().filter(|file| self.lock(file) == Some(Lock::Encrypted)) {
            if keys::public_half(file).is_none_or(|public| !tried.contains(&public))
                && self.with_encrypted_file(file)?
            {
                return Ok(());
            }
        }
        let methods = self.session.auth_methods(&self.config.user).unwrap_or("").to_string();
        if self.session.authenticated() {
            return Ok(()); // the server asks for nothing
        }
        let offers = |method: &str| methods.split(',').any(|offered| offered == method);
        if offers("keyboard-interactive") && self.keyboard_interactive()? {
            return Ok(());
        }
        if offers("password") && self.password()? {
            return Ok(());
        }
        let offered = if methods.is_empty() { "nothing any more".into() } else { printable(methods.as_bytes()) };
        notes.insert(0, format!("the server refused the login of {} (it offers {offered})", self.config.user));
        Err(Error::new(Kind::Connection, notes.join("; "))
            .hint("add your public key to the server's authorized_keys, name a key with -i, or load it into ssh-agent"))
    }

    fn lock(&self, file: &Path) -> Option<Lock> {
        keys::lock(&Zeroizing::new(fs::read_to_string(file).ok()?))
    }

    /// A key file and, where there is one, its certificate.
    fn with_file(&self, file: &Path, passphrase: Option<&str>, tried: &mut Vec<Vec<u8>>) -> bool {
        let user = &self.config.user;
        let certificate = keys::beside(file, "-cert.pub");
        if certificate.exists() && self.session.userauth_pubkey_file(user, Some(&certificate), file, passphrase).is_ok()
        {
            return true;
        }
        if let Some(public) = keys::public_half(file) {
            if tried.contains(&public) {
                return false;
            }
            tried.push(public);
        }
        self.session.userauth_pubkey_file(user, None, file, passphrase).is_ok()
    }

    /// All identities of the agent, those of the key files first; only those with `IdentitiesOnly`.
    fn with_agent(&self, tried: &mut Vec<Vec<u8>>, notes: &mut Vec<String>) -> bool {
        let Some(path) = &self.config.agent else { return false };
        let mut try_agent = || -> Result<bool, ssh2::Error> {
            let mut agent = self.session.agent()?;
            agent.set_identity_path(path)?;
            agent.connect()?;
            agent.list_identities()?;
            let configured: Vec<Vec<u8>> =
                self.config.identity_files.iter().filter_map(|f| keys::public_half(f)).collect();
            let (mut first, mut rest): (Vec<_>, Vec<_>) = agent
                .identities()?
                .into_iter()
                .partition(|identity| configured.iter().any(|key| key == identity.blob()));
            if self.config.identities_only {
                rest.clear();
            }
            first.append(&mut rest);
            for identity in first {
                if tried.iter().any(|key| key == identity.blob()) {
                    continue;
                }
                tried.push(identity.blob().to_vec());
                if agent.userauth(&self.config.user, &identity).is_ok() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        try_agent().unwrap_or_else(|e| {
            notes.push(format!("ssh-agent at {} could not be used: {}", path.display(), super::channels::words(&e)));
            false
        })
    }

    /// Asks for the passphrase. libssh2 does not distinguish a wrong one from a refused key, so an own look at the key is not possible.
    fn with_encrypted_file(&self, file: &Path) -> Result<bool> {
        let question = format!("passphrase of the key {}: ", file.display());
        self.ask_until(&question, |secret| {
            match self.session.userauth_pubkey_file(&self.config.user, None, file, Some(secret)) {
                Ok(()) => Answer::Accepted,
                // -16 is LIBSSH2_ERROR_FILE: the key could not be decrypted, and nothing was sent
                Err(e) if e.code() == ssh2::ErrorCode::Session(-16) => Answer::Wrong,
                Err(_) => Answer::Refused,
            }
        })
    }

    fn password(&self) -> Result<bool> {
        let question = format!("password of {}@{}: ", self.config.user, self.config.hostname);
        self.ask_until(&question, |secret| match self.session.userauth_password(&self.config.user, secret) {
            Ok(()) => Answer::Accepted,
            Err(e) if e.code() == ssh2::ErrorCode::Session(-18) => Answer::Wrong,
            Err(_) => Answer::Refused,
        })
    }

    fn ask_until(&self, question: &str, mut attempt: impl FnMut(&str) -> Answer) -> Result<bool> {
        if let Some(secret) = self.secrets.get(question) {
            if matches!(attempt(&secret), Answer::Accepted) {
                return Ok(true);
            }
            self.secrets.forget(question);
        }
        for _ in 0..TRIES {
            let secret = Zeroizing::new(self.options.prompt.secret(question)?);
            match attempt(&secret) {
                Answer::Accepted => {
                    self.secrets.keep(question, &secret);
                    return Ok(true);
                }
                Answer::Wrong => {}
                Answer::Refused => return Ok(false),
            }
        }
        Ok(false)
    }

    fn keyboard_interactive(&self) -> Result<bool> {
        for _ in 0..TRIES {
            let mut asker = Asker {
                prompt: &*self.options.prompt,
                secrets: self.secrets,
                asked: Vec::new(),
                failed: None,
                place: self.place(),
            };
            let result = self.session.userauth_keyboard_interactive(&self.config.user, &mut asker);
            if let Some(e) = asker.failed {
                return Err(e);
            }
            match result {
                Ok(()) => {
                    asker.asked.iter().for_each(|(question, secret)| self.secrets.keep(question, secret));
                    return Ok(true);
                }
                Err(_) => asker.asked.iter().for_each(|(question, _)| self.secrets.forget(question)),
            }
            if asker.asked.is_empty() {
                break; // it refused without a question
            }
        }
        Ok(false)
    }

    fn place(&self) -> String {
        format!("{}@{}", self.config.user, self.config.hostname)
    }
}

enum Answer {
    Accepted,
    Wrong,
    Refused,
}

/// Passes the server's questions on, marked as its words.
struct Asker<'a> {
    prompt: &'a dyn Prompt,
    secrets: &'a Secrets,
    asked: Vec<(String, Zeroizing<String>)>,
    failed: Option<Error>,
    place: String,
}

impl KeyboardInteractivePrompt for Asker<'_> {
    fn prompt<'a>(&mut self, _user: &str, instructions: &str, prompts: &[ssh2::Prompt<'a>]) -> Vec<String> {
        let mut answers = Vec::new();
        for prompt in prompts {
            let words = format!("{} {}", printable(instructions.as_bytes()), printable(prompt.text.as_bytes()));
            let question = format!("{}: server asks: {} ", self.place, words.trim());
            let answer = match self
                .secrets
                .get(&question)
                .map_or_else(|| self.prompt.secret(&question), |s| Ok(s.to_string()))
            {
                Ok(answer) => answer,
                Err(e) => {
                    self.failed.get_or_insert(e);
                    String::new()
                }
            };
            self.asked.push((question, Zeroizing::new(answer.clone())));
            answers.push(answer);
        }
        answers
    }
}
