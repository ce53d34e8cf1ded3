//! Chunks that the target already has are not fetched.

use super::races::Once;
use super::support::*;
use nfreezer::push;

const MIB: usize = 1 << 20;

fn if_changed() -> Options {
    Options { overwrite: Overwrite::IfChanged, ..Options::default() }
}

/// Pushes a folder with one file. Returns the repository, opened anew without cached data, the snapshot and the folder.
fn pushed(contents: &[u8]) -> (Repository, Snapshot, tempfile::TempDir, PathBuf) {
    let Repo { repo, memory } = repo();
    let keep = tempfile::tempdir().unwrap();
    let source = keep.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("image"), contents).unwrap();
    let options = push::Options { sources: vec![source.clone()], ..push::Options::default() };
    let snapshot = push::push(background(), &repo, &options).unwrap().snapshot;
    (repository::open(memory), snapshot, keep, source)
}

fn over(repo: &Repository, s: &Snapshot, source: &Path, progress: &dyn Progress) -> Summary {
    let path = source.as_os_str().as_bytes();
    let ctx = background().with_progress(progress);
    let summary = restore(&ctx, repo, s, path, source, &if_changed()).unwrap();
    assert_no_torso(source);
    summary
}

#[test]
fn a_file_that_changed_in_places_fetches_the_chunks_of_these_places_only() {
    let saved = noise(1, 64 * MIB);
    let (repo, s, _keep, source) = pushed(&saved);
    // Inserts a byte that shifts the rest, and overwrites a part.
    let mut there = saved.clone();
    there.insert(20 * MIB, 7);
    there[50 * MIB..50 * MIB + 600_000].fill(1);
    fs::write(source.join("image"), &there).unwrap();
    let summary = over(&repo, &s, &source, &Seen::default());
    assert!(fs::read(source.join("image")).unwrap() == saved);
    assert_eq!((summary.files, summary.failed, summary.damaged), (1, 0, 0));
    // Two places, each with one chunk or two of at most 4 MiB.
    assert!(summary.reused >= 48 << 20, "{summary:?}");
    assert!(summary.received <= (64 << 20) - summary.reused + (1 << 20), "{summary:?}");
}

#[test]
fn a_sparse_file_and_a_file_of_the_same_size_are_reused_too() {
    let mut saved = noise(2, 8 * MIB);
    saved[3 * MIB..4 * MIB].fill(0);
    let (repo, s, _keep, source) = pushed(&saved);
    saved[7 * MIB..7 * MIB + 10].fill(5);
    let file = fs::File::create(source.join("image")).unwrap();
    use std::os::unix::fs::FileExt;
    file.write_all_at(&saved[..3 * MIB], 0).unwrap();
    file.write_all_at(&saved[4 * MIB..], 4 << 20).unwrap();
    let summary = over(&repo, &s, &source, &Seen::default());
    assert!(summary.reused > 0 && summary.received < 7 << 20, "{summary:?}");
    assert_ne!(fs::read(source.join("image")).unwrap(), saved);
    assert!(over(&repo, &s, &source, &Seen::default()).existing == 1, "it is as saved now");
}

#[test]
fn an_existing_file_that_changes_meanwhile_leads_to_no_wrong_byte() {
    let saved = noise(3, 24 * MIB);
    let (repo, s, keep, source) = pushed(&saved);
    let image = source.join("image");
    let longer = [&saved[..], b"more"].concat();
    let swapped = keep.path().join("swapped");
    symlink("/dev/zero", &swapped).unwrap();
    let meanwhile: [Box<dyn Fn() + Send + Sync>; 4] = [
        Box::new(|| fs::write(&image, noise(4, 24 * MIB)).unwrap()),
        Box::new(|| fs::write(&image, b"").unwrap()),
        Box::new(|| fs::remove_file(&image).unwrap()),
        Box::new(|| fs::rename(&swapped, &image).unwrap()),
    ];
    for change in &meanwhile {
        fs::write(&image, &longer).unwrap();
        // The event comes when the new file is opened, after the existing one was cut into chunks.
        let once = Once::new(|event| matches!(event, Event::File { .. }), change);
        let summary = over(&repo, &s, &source, &once);
        assert!(once.is_done());
        assert_eq!((summary.files, summary.failed), (1, 0));
        assert!(fs::symlink_metadata(&image).unwrap().is_file() && fs::read(&image).unwrap() == saved);
    }
}

#[test]
fn an_existing_file_whose_other_link_lies_outside_lends_chunks_and_stays() {
    let saved = noise(5, 6 * MIB);
    let (repo, s, keep, source) = pushed(&saved);
    let image = source.join("image");
    let there = [&b"x"[..], &saved].concat();
    fs::write(&image, &there).unwrap();
    fs::hard_link(&image, keep.path().join("outside")).unwrap();
    let summary = over(&repo, &s, &source, &Seen::default());
    assert!(summary.reused > 0, "{summary:?}");
    assert!(fs::read(&image).unwrap() == saved);
    assert!(fs::read(keep.path().join("outside")).unwrap() == there);
}

#[test]
fn a_file_that_is_replaced_without_comparing_is_fetched() {
    let saved = noise(6, 6 * MIB);
    let (repo, s, _keep, source) = pushed(&saved);
    fs::write(source.join("image"), &saved[..5 * MIB]).unwrap();
    let path = source.as_os_str().as_bytes();
    let options = Options { overwrite: Overwrite::Always, ..Options::default() };
    let summary = restore(background(), &repo, &s, path, &source, &options).unwrap();
    assert_eq!((summary.files, summary.reused), (1, 0));
    assert!(fs::read(source.join("image")).unwrap() == saved);
}
