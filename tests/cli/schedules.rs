//! `schedule`: the files that it writes, and its calls of a fake `systemctl` and a fake `crontab`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::cli::Env;
use crate::profiles::write_profile;

/// Makes a profile and the fake programs: `systemctl` logs its calls and exits with this code, `crontab` keeps a file.
fn env(systemctl: u8) -> Env {
    let mut env = Env::without_passphrase();
    write_profile(&env, "home", "repository = \"me@nas:/b\"\n[push]\nsources = [\"/etc\"]\n");
    let (log, tab) = (env.path("calls"), env.path("crontab"));
    let programs = [
        (
            "systemctl",
            format!("echo \"$*\" >> '{}'\n[ \"$2\" = show ] && echo Mon 03:12\nexit {systemctl}", log.display()),
        ),
        (
            "crontab",
            format!(
                "case $1 in -l) cat '{0}' 2>/dev/null || {{ echo no crontab for me >&2; exit 1; }};; -) cat > '{0}';; esac",
                tab.display()
            ),
        ),
    ];
    for (name, script) in programs {
        let path = env.write(&format!("bin/{name}"), format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", env.path("bin").display());
    env.set("PATH", &path);
    env
}

fn calls(env: &Env) -> Vec<String> {
    let log = env.path("calls");
    let calls = fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect();
    fs::remove_file(log).ok();
    calls
}

#[test]
fn a_timer_of_systemd_is_written_listed_and_removed() {
    let env = env(0);
    let install = ["schedule", "install", "home", "--daily", "03:05", "--user", "--on-ac-power"];
    let output = env.nfreezer(install).exits(0).stdout;
    assert!(output.contains("profile home runs by a timer of systemd: *-*-* 03:05:00"), "{output}");
    assert!(output.contains("systemctl --user start nfreezer-home.service"), "{output}");
    assert_eq!(
        calls(&env),
        [
            "--user show --property=Version",
            "--user daemon-reload",
            "--user enable nfreezer-home.timer",
            "--user restart nfreezer-home.timer"
        ]
    );
    let units = env.home().join(".config/systemd/user");
    let timer = fs::read_to_string(units.join("nfreezer-home.timer")).unwrap();
    for line in ["OnCalendar=*-*-* 03:05:00", "Persistent=true", "RandomizedDelaySec=30min", "WantedBy=timers.target"] {
        assert!(timer.lines().any(|l| l == line), "{line} in {timer}");
    }
    let service = fs::read_to_string(units.join("nfreezer-home.service")).unwrap();
    let profile = env.home().join(".config/nfreezer/home.toml");
    let start = format!("ExecStart=\"{}\" run \"{}\"", env!("CARGO_BIN_EXE_nfreezer"), profile.display());
    for line in [&start, "ConditionACPower=true", "Nice=19", "IOSchedulingClass=idle", "SuccessExitStatus=3"] {
        assert!(service.lines().any(|l| l == line), "{line} in {service}");
    }
    let listed = env.nfreezer(["schedule", "list", "--json"]).exits(0).objects();
    let ours = listed.iter().find(|object| object["file"] == profile.to_str().unwrap()).unwrap();
    assert_eq!((&ours["when"], &ours["next"]), (&"*-*-* 03:05:00".into(), &"Mon 03:12".into()));
    // `remove` works without the profile, too.
    fs::remove_file(&profile).unwrap();
    calls(&env);
    env.nfreezer(["schedule", "remove", "home"]).done();
    assert!(calls(&env).contains(&"--user disable --now nfreezer-home.timer".to_owned()));
    assert_eq!(fs::read_dir(units).unwrap().count(), 0);
    let again = env.nfreezer(["schedule", "remove", "home"]).exits(1).stderr;
    assert!(again.contains("profile home is not scheduled"), "{again}");
}

#[test]
fn a_unit_of_somebody_else_is_not_replaced() {
    let env = env(0);
    let unit = env.home().join(".config/systemd/user/nfreezer-home.service");
    fs::create_dir_all(unit.parent().unwrap()).unwrap();
    fs::write(&unit, "[Service]\n").unwrap();
    let stderr = env.nfreezer(["schedule", "install", "home", "--hourly", "--user"]).exits(1).stderr;
    assert!(stderr.contains("nfreezer-home.service exists"), "{stderr}");
    assert_eq!(fs::read_to_string(unit).unwrap(), "[Service]\n");
}

#[test]
fn a_dry_run_prints_the_units_of_the_system() {
    let env = env(0);
    let printed = env.nfreezer(["schedule", "install", "home", "--weekly", "sun 23:00", "-n"]).exits(0).stdout;
    assert!(
        printed.contains("nfreezer-home.timer:\n") && printed.contains("OnCalendar=Sun *-*-* 23:00:00"),
        "{printed}"
    );
    assert!(!env.home().join(".config/systemd").exists());
    let wrong = env.nfreezer(["schedule", "install", "home", "--daily", "25:00"]).exits(2).stderr;
    assert!(wrong.contains("write a time such as 03:00"), "{wrong}");
    env.nfreezer(["schedule", "install", "home"]).fails(2);
    env.nfreezer(["schedule", "install", "home", "--hourly", "--daily", "03:00"]).fails(2);
    env.nfreezer(["schedule", "install", "nas", "--hourly"]).fails(2);
}

#[test]
fn a_dry_run_prints_what_another_machine_would_get() {
    let env = env(1);
    fs::remove_file(env.path("bin/crontab")).unwrap();
    for (more, words) in [
        (&["--cron"][..], "crontab:\n5 3 * * * "),
        (&[], "crontab:\n5 3 * * * "),
        (&["--on-ac-power"], "nfreezer-home.timer:\n"),
    ] {
        let install = [&["schedule", "install", "home", "--daily", "03:05"], more].concat();
        // A machine that runs the tests may have a crontab of its own.
        let planned = env.nfreezer([&install[..], &["-n"]].concat()).exits(0);
        assert!(planned.stdout.contains(words), "{more:?}: {}", planned.stdout);
        if std::path::Path::new("/usr/bin/crontab").exists() {
            continue;
        }
        assert!(planned.stderr.contains("without --dry-run this command fails"), "{}", planned.stderr);
        env.nfreezer(install).fails(1);
    }
}

#[test]
fn without_systemd_a_line_of_the_crontab_is_kept() {
    let env = env(1);
    let tab = env.path("crontab");
    fs::write(&tab, "0 1 * * * other # job\n").unwrap();
    let output = env.nfreezer(["schedule", "install", "home", "--daily", "03:05"]).exits(0).stdout;
    assert!(output.contains("a line of the crontab"), "{output}");
    env.nfreezer(["schedule", "install", "home", "--weekly", "mon 4:30"]).done();
    let profile = env.home().join(".config/nfreezer/home.toml").display().to_string();
    let line = format!(
        "30 4 * * 1 {} run -q --low-priority {profile} # nfreezer schedule: home",
        env!("CARGO_BIN_EXE_nfreezer")
    );
    assert_eq!(fs::read_to_string(&tab).unwrap(), format!("0 1 * * * other # job\n{line}\n"));
    let listed = env.nfreezer(["schedule", "list", "--json"]).exits(0).objects();
    let ours = listed.iter().find(|object| object["by"] == "cron").unwrap();
    assert_eq!((&ours["when"], &ours["file"]), (&"30 4 * * 1".into(), &profile.into()));
    env.nfreezer(["schedule", "remove", "home"]).done();
    assert_eq!(fs::read_to_string(&tab).unwrap(), "0 1 * * * other # job\n");
    let power = env.nfreezer(["schedule", "install", "home", "--hourly", "--on-ac-power"]).exits(1).stderr;
    assert!(power.contains("systemd does not run here"), "{power}");
}
