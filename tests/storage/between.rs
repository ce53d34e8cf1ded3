//! Moves a repository from SFTP to an object store and back, by `copy` and by copies of its objects.

use std::fs;
use std::process::Command;

use crate::harness::cli::{Env, PASSPHRASE};
use crate::harness::object_store::{KEY_ID, Rclone, SECRET};
use crate::harness::sshd::Sshd;
use crate::{noise, run};

/// Runs nfreezer with an SSH configuration in which the host `server` is the test's server.
fn done(env: &Env, config: &str, arguments: &[&str]) {
    env.nfreezer(arguments.iter().copied().chain([config])).done();
}

#[test]
fn a_repository_moves_between_sftp_and_an_object_store_in_both_directions() {
    let (sshd, store) = (Sshd::start(), Rclone::start());
    let mut env = Env::new();
    env.set("AWS_ACCESS_KEY_ID", KEY_ID).set("AWS_SECRET_ACCESS_KEY", SECRET).set("NFREEZER_TO_PASSWORD", PASSPHRASE);
    let config = format!("-ossh.config={}", sshd.client_config(&env.path("."), sshd.port).display());
    let over_sftp = |name: &str| format!("server:{}", sshd.files().join(name).display());
    let (first, second, third) = (over_sftp("first"), store.address("second"), over_sftp("third"));
    (0..20).for_each(|i| drop(env.write(&format!("src/{i}/file"), noise(i, 50_000))));
    for repository in [&first, &second, &third] {
        done(&env, &config, &["init", "-r", repository]);
    }
    done(&env, &config, &["push", "-r", &first, "src"]);
    env.write("src/more", noise(99, 2_000_000));
    done(&env, &config, &["push", "-r", &first, "src"]);
    done(&env, &config, &["copy", "-r", &first, "--to", &second]);
    done(&env, &config, &["copy", "-r", &second, "--to", &third, &config.replace("-o", "--to-option=")]);
    let source = env.path("src").display().to_string();
    for (repository, out) in [(&second, "out2"), (&third, "out3")] {
        done(&env, &config, &["check", "-r", repository, "--read-data"]);
        done(&env, &config, &["restore", "-r", repository, &format!("latest:{source}"), "--target", out]);
        run("diff", &["-r", &source, &env.path(out).display().to_string()]);
    }

    // rclone copies the objects from the SFTP server's folder into the bucket, and back.
    let bucket = format!(
        ":s3,provider=Other,endpoint='http://127.0.0.1:{}',access_key_id={KEY_ID},secret_access_key={SECRET}:bucket",
        store.port
    );
    let sync = |from: &str, to: &str| {
        let rclone =
            Command::new("rclone").args(["sync", "--config", "/dev/null", from, to]).output().expect("rclone runs");
        assert!(rclone.status.success(), "{}", String::from_utf8_lossy(&rclone.stderr));
    };
    sync(&sshd.files().join("first").display().to_string(), &format!("{bucket}/synced"));
    done(&env, &config, &["check", "-r", &store.address("synced"), "--read-data", "--accept-rollback"]);
    env.write("src/later", noise(7, 100_000));
    done(&env, &config, &["push", "-r", &store.address("synced"), "src"]);
    sync(&format!("{bucket}/synced"), &env.path("back").display().to_string());
    let back = env.path("back").display().to_string();
    done(&env, &config, &["check", "-r", &back, "--read-data"]);
    done(&env, &config, &["push", "-r", &back, "src"]);
    assert!(fs::metadata(env.path("back/config")).is_ok());
}
