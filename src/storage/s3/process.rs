//! Credentials from a program that a profile names (`credential_process`).

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::keys::{Keys, is_plain};
use crate::context::{Context, SLICE};
use crate::error::{Error, Kind, Result};
use crate::printable;
use crate::storage::command_words;

/// Most bytes of the output.
const MOST: u64 = 64 << 10;
/// Longest wait for the program, which may ask the user to touch a token.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

/// Runs the program and reads its answer. Its errors go to standard error, its output never does.
pub fn keys(ctx: &Context, profile: &str, command: &str) -> Result<Keys> {
    let failed = |why: &str| {
        let text = format!("the credential_process of the profile {} {why}", printable::name(profile.as_bytes()));
        Error::new(Kind::Connection, text).hint("run it in a shell to see why; ~/.aws/config has the command")
    };
    let words = command_words(command).ok_or_else(|| failed("is empty, or a quote in it is not closed"))?;
    let mut program = Command::new(&words[0]);
    program.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = program.spawn().map_err(|e| failed(&format!("cannot be started: {e}")))?;
    let output = match output(ctx, &mut child) {
        Ok(Some(output)) => output,
        ended => {
            let _ = child.kill();
            let _ = child.wait();
            ended?;
            return Err(failed(&format!("did not end within {} s", LONGEST.as_secs())));
        }
    };
    let status = child.wait().map_err(|e| failed(&format!("cannot be waited for: {e}")))?;
    if !status.success() {
        return Err(failed(&format!("failed: {status}")));
    }
    let answer: Option<Answer> = serde_json::from_slice(&output).ok();
    let is_valid = |answer: &Answer| {
        let Answer { version, access_key_id, secret_access_key, session_token } = answer;
        let token = session_token.as_deref().unwrap_or_default();
        *version == 1 && [&**access_key_id, secret_access_key, token].iter().all(|text| is_plain(text))
    };
    let answer = answer.filter(is_valid).ok_or_else(|| failed("printed no valid credentials"))?;
    Ok(Keys { id: answer.access_key_id, secret: answer.secret_access_key, token: answer.session_token })
}

/// Reads the output of the program to its end. `None` if that takes too long.
fn output(ctx: &Context, child: &mut Child) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(stdout) = child.stdout.take() else { return Ok(None) };
    let (sender, receiver) = channel();
    let reader = thread::Builder::new().name("credentials".into()).spawn(move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize));
        if stdout.take(MOST).read_to_end(&mut bytes).is_ok() {
            let _ = sender.send(bytes);
        }
    });
    reader.map_err(Error::no_thread)?;
    let deadline = Instant::now() + LONGEST;
    loop {
        ctx.check()?;
        match receiver.recv_timeout(SLICE) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
            Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::background;

    #[test]
    fn a_program_hands_out_credentials_and_its_faults_show_none() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("keys");
        let run = |text: &str| {
            std::fs::write(&script, text).unwrap();
            keys(background(), "jo", &format!("sh '{}' hidden-argument", script.display()))
        };
        let found = run(
            "echo '{\"Version\": 1, \"AccessKeyId\": \"AK\", \"SecretAccessKey\": \"hidden\",\n\"SessionToken\": \"t\"}'",
        );
        let found = found.unwrap();
        assert_eq!((&*found.id, &*found.secret, found.token.as_deref()), ("AK", "hidden", Some("t")));
        for text in [
            "echo hidden",
            "echo '{\"Version\": 2, \"AccessKeyId\": \"AK\", \"SecretAccessKey\": \"hidden\"}'",
            "echo '{\"Version\": 1, \"AccessKeyId\": \"AK\", \"Secret\": \"hidden\"}'",
            "echo hidden; exit 3",
            "yes hidden",
            "",
        ] {
            let error = run(text).err().expect(text);
            let all = format!("{error} {error:?} {:?}", error.hint_text());
            assert!(error.kind() == Kind::Connection && !all.contains("hidden"), "{text}: {all}");
        }
        for command in ["", "'", "/nowhere/at-all"] {
            assert_eq!(keys(background(), "jo", command).err().expect(command).kind(), Kind::Connection);
        }
        let stopped = background().child();
        stopped.cancel();
        assert_eq!(keys(&stopped, "jo", "sleep 60").err().unwrap().kind(), Kind::Cancelled);
    }
}
