use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use super::*;
use crate::error::Kind;

const MIB: usize = 1 << 20;

fn folder(path: &Path) -> (CacheFolder, Arc<Mutex<Vec<String>>>) {
    let said = Arc::<Mutex<Vec<String>>>::default();
    let says = Arc::clone(&said);
    let notice = Arc::new(move |text: &str| says.lock().unwrap().push(text.to_owned()));
    (CacheFolder::open(path, 0, notice).unwrap(), said)
}

fn id(n: u8) -> ObjectId {
    ObjectId([n; 32])
}

fn add(cache: &DiskCache, n: u8, len: usize) {
    cache.add(Sort::Others, &id(n), &[Part { offset: 0, bytes: &vec![n; len] }]);
}

fn has(cache: &DiskCache, n: u8) -> bool {
    cache.find(Sort::Others, &id(n)).is_some()
}

/// Bytes of all files below a folder.
fn bytes(path: &Path) -> u64 {
    let below = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    below.map(|path| if path.is_dir() { bytes(&path) } else { path.metadata().unwrap().len() }).sum()
}

#[test]
fn bytes_come_back_from_their_place_and_the_rest_is_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/cache");
    let (folder, said) = folder(&path);
    let cache = folder.of(&[1; 32]);
    assert!(!has(&cache, 1));
    let parts = [Part { offset: 0, bytes: b"header" }, Part { offset: 5000, bytes: b"block" }];
    cache.add(Sort::Contents, &id(1), &parts);
    let file = cache.find(Sort::Contents, &id(1)).unwrap();
    assert_eq!((file.at(0, 6), file.at(5000, 5)), (b"header".to_vec(), b"block".to_vec()));
    assert_eq!((file.at(100, 2), file.at(5003, 9), file.at(9000, 1)), (vec![0; 2], b"ck".to_vec(), vec![]));
    assert!(cache.find(Sort::Others, &id(1)).is_none());
    assert!(folder.of(&[2; 32]).find(Sort::Contents, &id(1)).is_none(), "of another repository");
    let private = [path.clone(), path.join(hex(&[1; 32])), path.join(hex(&[1; 32])).join("contents")];
    for folder in private {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
    }
    let file = path.join(hex(&[1; 32])).join("contents").join(id(1).to_string());
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(path.join("CACHEDIR.TAG")).unwrap().starts_with("Signature: 8a477f597d28d172"));
    assert!(said.lock().unwrap().is_empty());
}

#[test]
fn the_files_that_were_not_used_go_first_and_the_size_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (mut folder, _) = folder(dir.path());
    folder.capacity = 32 << 20;
    let (one, two) = (folder.of(&[1; 32]), folder.of(&[2; 32]));
    let age = |cache: &DiskCache, n: u8, hours: u64| {
        let path = dir.path().join(&cache.repository).join("metadata").join(id(n).to_string());
        let time = SystemTime::now() - Duration::from_secs(hours * 3600);
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    };
    (0..10).for_each(|n| add(&one, n, MIB));
    (0..10).for_each(|n| age(&one, n, 10 + u64::from(n)));
    assert!(has(&one, 9), "used now, so it is not the oldest any more");
    for n in 0..40 {
        add(&two, n, MIB);
        assert!(bytes(dir.path()) <= folder.capacity, "after {n}");
    }
    assert!(bytes(dir.path()) > folder.capacity / 2);
    let left: Vec<u8> = (0..10).filter(|n| has(&one, *n)).collect();
    assert!(left.is_empty() || left == [9], "{left:?}");
    assert!(has(&two, 39) && !has(&two, 0));
    // A new process knows nothing of the old one and keeps the bound.
    let three = folder.of(&[3; 32]);
    (0..20).for_each(|n| add(&three, n, MIB));
    assert!(bytes(dir.path()) <= folder.capacity);
}

#[test]
fn it_may_be_deleted_while_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let (folder, said) = folder(&path);
    let cache = folder.of(&[1; 32]);
    add(&cache, 1, 10);
    let open = cache.find(Sort::Others, &id(1)).unwrap();
    fs::remove_dir_all(&path).unwrap();
    assert_eq!(open.at(0, 10), [1; 10]);
    assert!(!has(&cache, 1));
    add(&cache, 2, 10);
    assert!(has(&cache, 2) && path.is_dir(), "it was made again");
    fs::remove_dir_all(path.join(hex(&[1; 32]))).unwrap();
    add(&cache, 3, 10);
    assert!(has(&cache, 3));
    assert!(said.lock().unwrap().is_empty());
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let silent: Notice = Arc::new(|_| ());
    for (mode, is_fine) in [(0o700, true), (0o755, true), (0o770, false), (0o707, false), (0o1777, false)] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        let opened = CacheFolder::open(dir.path(), 0, Arc::clone(&silent)).map(drop);
        assert_eq!(opened.as_ref().err().map(Error::kind), (!is_fine).then_some(Kind::Usage), "{mode:o}: {opened:?}");
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let file = CacheFolder::open(&dir.path().join("file"), 0, silent).map(drop).unwrap_err();
    assert_eq!((file.kind(), file.to_string().contains("is not a folder")), (Kind::Usage, true), "{file}");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
        let foreign = CacheFolder::open(dir.path(), 0, Arc::new(|_| ())).map(drop).unwrap_err();
        assert_eq!(foreign.kind(), Kind::Usage);
    }
}

#[test]
fn a_link_or_a_folder_in_place_of_a_file_leads_nowhere_and_is_one_warning() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    let (folder, said) = folder(&path);
    let place = path.join(hex(&[1; 32])).join("metadata");
    add(&folder.of(&[1; 32]), 1, 10);
    fs::write(dir.path().join("victim"), "precious").unwrap();
    symlink(dir.path().join("victim"), place.join(id(2).to_string())).unwrap();
    fs::create_dir(place.join(id(3).to_string())).unwrap();
    let cache = folder.of(&[1; 32]);
    assert!(has(&cache, 1) && !has(&cache, 2) && !has(&cache, 3));
    (2..6).for_each(|n| add(&cache, n, 10));
    assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"precious");
    let said: Vec<String> = std::mem::take(&mut said.lock().unwrap());
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("cannot add to the cache in") && said[0].contains("continues without"), "{said:?}");
    // The same for the folders.
    fs::remove_dir_all(path.join(hex(&[1; 32]))).unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    symlink(dir.path().join("elsewhere"), path.join(hex(&[1; 32]))).unwrap();
    add(&folder.of(&[1; 32]), 1, 10);
    assert_eq!(fs::read_dir(dir.path().join("elsewhere")).unwrap().count(), 0);
}
