//! Questions to the user during a login, and the answers that worked.

use std::collections::HashMap;
use std::sync::Mutex;

use ssh2::KeyboardInteractivePrompt;
use zeroize::Zeroizing;

use super::options::Prompt;
use crate::error::{Error, Result};
use crate::storage::sftp::printable;

/// Number of times that a wrong passphrase or password may be typed.
pub const TRIES: usize = 3;

/// The outcome of an answer.
pub enum Answer {
    Accepted,
    /// Another answer may be right.
    Wrong,
    /// No answer helps.
    Refused,
    /// Nothing was typed.
    Skipped,
}

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

    /// Tries the secret that worked before, then asks up to [`TRIES`] times. An error is the prompt's.
    pub fn ask(&self, prompt: &dyn Prompt, question: &str, mut attempt: impl FnMut(&str) -> Answer) -> Result<Answer> {
        if let Some(secret) = self.get(question) {
            if let Answer::Accepted = attempt(&secret) {
                return Ok(Answer::Accepted);
            }
            self.forget(question);
        }
        for attempts in 0..TRIES {
            let again = if attempts > 0 { "this one is wrong; " } else { "" };
            let secret = Zeroizing::new(prompt.secret(&format!("{again}{question}"))?);
            if secret.is_empty() {
                return Ok(Answer::Skipped);
            }
            match attempt(&secret) {
                Answer::Wrong => {}
                Answer::Accepted => {
                    self.keep(question, &secret);
                    return Ok(Answer::Accepted);
                }
                other => return Ok(other),
            }
        }
        Ok(Answer::Wrong)
    }
}

/// Passes the server's questions on, marked as its words.
pub struct Asker<'a> {
    prompt: &'a dyn Prompt,
    secrets: &'a Secrets,
    place: &'a str,
    /// The questions of this round, with their answers.
    pub asked: Vec<(String, Zeroizing<String>)>,
    /// The first error of the prompt.
    pub failed: Option<Error>,
}

impl<'a> Asker<'a> {
    /// Makes an asker for the account at `place`.
    pub fn new(prompt: &'a dyn Prompt, secrets: &'a Secrets, place: &'a str) -> Self {
        Asker { prompt, secrets, place, asked: Vec::new(), failed: None }
    }

    /// Keeps the answers if they were right, else forgets them.
    pub fn keep(&self, were_right: bool) {
        for (question, secret) in &self.asked {
            if were_right { self.secrets.keep(question, secret) } else { self.secrets.forget(question) }
        }
    }
}

impl KeyboardInteractivePrompt for Asker<'_> {
    fn prompt<'a>(&mut self, _user: &str, instructions: &str, prompts: &[ssh2::Prompt<'a>]) -> Vec<String> {
        let mut answers = Vec::new();
        for prompt in prompts {
            let words = format!("{} {}", printable(instructions.as_bytes()), printable(prompt.text.as_bytes()));
            let question = format!("{}: server asks: {} ", self.place, words.trim());
            let known = self.secrets.get(&question).map(|secret| Ok(secret.to_string()));
            let answer = known.unwrap_or_else(|| self.prompt.secret(&question)).unwrap_or_else(|e| {
                self.failed.get_or_insert(e);
                String::new()
            });
            self.asked.push((question, Zeroizing::new(answer.clone())));
            answers.push(answer);
        }
        answers
    }
}
