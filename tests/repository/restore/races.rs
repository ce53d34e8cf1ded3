//! Actions of another process in the target during a restore.

use super::support::*;

/// Calls a function once, at the first event that satisfies `when`.
pub struct Once<F> {
    deed: Mutex<Option<F>>,
    when: fn(&Event<'_>) -> bool,
    seen: Seen,
}

impl<F: FnOnce() + Send> Once<F> {
    pub fn new(when: fn(&Event<'_>) -> bool, deed: F) -> Self {
        Once { deed: Mutex::new(Some(deed)), when, seen: Seen::default() }
    }

    pub fn is_done(&self) -> bool {
        self.deed.lock().unwrap().is_none()
    }
}

impl<F: FnOnce() + Send> Progress for Once<F> {
    fn event(&self, event: Event<'_>) {
        if (self.when)(&event)
            && let Some(deed) = self.deed.lock().unwrap().take()
        {
            deed();
        }
        self.seen.event(event);
    }
}

#[test]
fn t68_the_way_up_out_of_a_folder_that_was_moved_away_is_not_taken() {
    const DEPTH: usize = 90;
    let Repo { repo, .. } = repo();
    // The walk itself reports the entry at the bottom, so the folder is moved while the walk is there.
    let mut nodes = vec![node("unreadable", 0o600, Content::Unreadable(libc::EACCES as u32))];
    for level in (0..DEPTH).rev() {
        nodes = vec![node(format!("d{level:02}"), 0o751, directory(&repo, nodes)), node("z", 0o644, Content::Fifo)];
    }
    let s = snapshot(&repo, nodes);
    let (keep, out) = target();
    let outside = keep.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let before = fs::metadata(&outside).unwrap();
    let path = |depth: usize| (0..depth).fold(out.clone(), |path, level| path.join(format!("d{level:02}")));
    let (from, to) = (path(11), outside.join("moved"));
    let once = Once::new(|event| matches!(event, Event::Warning { .. }), || fs::rename(&from, &to).unwrap());
    let result = restore(&background().with_progress(&once), &repo, &s, b"/", &out, &Options::default());
    assert!(once.is_done(), "the folder was moved while the restore was below it");
    assert!(!matches!(result, Ok(summary) if summary.failed == 0), "the restore is not complete and must not say so");
    let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["moved"], "nothing is made outside of the target");
    let after = fs::metadata(&outside).unwrap();
    assert_eq!(after.mode(), before.mode(), "no attribute is set outside of the target");
    assert!(after.mtime() >= before.mtime(), "no attribute is set outside of the target");
}

#[test]
fn what_appears_under_a_name_meanwhile_is_not_replaced() {
    let Repo { repo, .. } = repo();
    let s = snapshot(&repo, vec![file(&repo, "f", &noise(1, 3 << 20))]);
    let (_keep, out) = target();
    for overwrite in [Overwrite::Never, Overwrite::IfChanged] {
        let _ = fs::remove_dir_all(&out);
        let mine = out.join("f");
        let once = Once::new(|event| matches!(event, Event::File { .. }), || fs::write(&mine, "mine").unwrap());
        let summary = restore(
            &background().with_progress(&once),
            &repo,
            &s,
            b"/",
            &out,
            &Options { overwrite, ..Options::default() },
        )
        .unwrap();
        assert!(once.is_done());
        assert_eq!((summary.files, summary.failed), (0, 1), "{overwrite:?}");
        assert_eq!(fs::read(&mine).unwrap(), b"mine", "{overwrite:?}");
        let why = once.seen.skipped.lock().unwrap()["/f"].clone();
        assert!(why.contains("appeared during the restore"), "{why}");
        assert_no_torso(&out);
    }
}
