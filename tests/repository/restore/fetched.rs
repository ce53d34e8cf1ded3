//! A restore fetches nothing twice.

use super::support::*;

fn files(repo: &Repository, refs: &[Ref], name: impl Fn(usize) -> String) -> Snapshot {
    let one = |(i, r): (usize, &Ref)| node(name(i), 0o644, Content::File(vec![Extent::Data(*r)]));
    snapshot(repo, refs.iter().enumerate().map(one).collect())
}

/// Restores a snapshot. Returns the number of ranged reads and the bytes of contents that they fetched.
fn fetched(repo: &Repository, s: &Snapshot, count: u64) -> (u64, u64) {
    let (_keep, out) = target();
    let before = repo.cache_stats();
    let (summary, _) = plain(repo, s, &out);
    assert_eq!((summary.files, summary.failed, summary.damaged), (count, 0, 0));
    let after = repo.cache_stats();
    (after.reads - before.reads, after.contents - before.contents)
}

#[test]
fn large_files_that_lie_between_each_other_in_packs_are_fetched_once() {
    let Repo { repo, memory: _memory } = repo();
    let (count, chunk) = (112, 1 << 20);
    let contents: Vec<Vec<u8>> = (0..count).map(|i| noise(i, chunk)).collect();
    let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    let refs: Vec<Ref> = contents.chunks(14).flat_map(|pack| chunks(&repo, ChunkKind::Data, pack)).collect();
    // Every second chunk belongs to the files that are restored first. They have more chunks than are announced at a
    // time.
    let s = files(&repo, &refs, |i| format!("{}{i:03}", i % 2));
    repo.set_cache(32 << 20);
    let (_, bytes) = fetched(&repo, &s, count);
    let stored = count * chunk as u64;
    // On a busy machine a few blocks leave this small cache before their use. Whole stretches would fetch 1.6 times the
    // bytes.
    assert!((stored..stored + stored / 10).contains(&bytes), "{bytes} bytes were fetched for {stored}");
}

#[test]
fn small_files_are_fetched_once_and_many_at_a_time() {
    let Repo { repo, memory: _memory } = repo();
    let contents: Vec<Vec<u8>> = (0..700).map(|i| noise(i, 20_000)).collect();
    let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    let refs = chunks(&repo, ChunkKind::Data, &contents);
    let s = files(&repo, &refs, |i| format!("{i:03}"));
    let (reads, bytes) = fetched(&repo, &s, 700);
    // The limit includes the padding and the table at the end of the last stretch.
    let most = u64::from(refs[0].pack.len) + u64::from(refs[0].pack.len / 50);
    assert!(bytes <= most, "{bytes} bytes were fetched of a pack of {}", refs[0].pack.len);
    assert!(reads < 60, "{reads} reads");
}
