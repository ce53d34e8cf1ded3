//! `dump` writes verified contents in order: files unchanged, folders as archives that other programs read.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nfreezer::context::background;
use nfreezer::dump::{self, Format, Summary};
use nfreezer::error::{Error, Kind};
use nfreezer::format::node::Content;
use nfreezer::format::record::Snapshot;
use nfreezer::repo::Repository;
use nfreezer::trees::Trees;

use crate::harness::cli::Env;
use crate::harness::faults::Between;
use crate::harness::repository;
use crate::harness::root::needs_root;
use crate::harness::rounds::Rounds;
use crate::harness::saved::Saved;
use crate::harness::tree::{Model, What, assert_same, nasty, noise, on_disk, write};

fn archive(repo: &Repository, s: &Snapshot, top: &Path, format: Format) -> (Vec<u8>, Result<Summary, Error>) {
    let trees = Trees::new(repo);
    let node = trees.at(background(), s, top.as_os_str().as_encoded_bytes()).unwrap();
    let Content::Directory(page) = node.content else { panic!("no directory") };
    let mut out = Vec::new();
    let summary = dump::archive(background(), &trees, page, format, &mut out);
    (out, summary)
}

/// Runs a program on an archive. Checks that the program succeeds, and returns its output.
fn read(program: &str, arguments: &[&str], archive: &[u8], into: &Path) -> String {
    let file = into.with_extension("archive");
    fs::write(&file, archive).unwrap();
    fs::create_dir_all(into).unwrap();
    let output = Command::new(program).args(arguments).arg(&file).current_dir(into).output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{program}: {text}");
    text
}

/// Removes the entries that an archive does not hold: the top folder itself and sockets.
fn archived(mut model: Model) -> Model {
    model.remove([].as_slice());
    model.retain(|_, seen| seen.what != What::Socket);
    model
}

#[test]
fn gnu_tar_extracts_every_kind_of_file_exactly() {
    if !needs_root("owners and devices") {
        return;
    }
    let saved = Saved::new();
    nasty(&saved.top());
    let snapshot = saved.push().snapshot;
    let (bytes, summary) = archive(&saved.repo, &snapshot, &saved.top(), Format::Tar);
    assert_eq!(summary.unwrap().left_out, 1, "the socket");
    let own = b"SCHILY.xattr.nfreezer.";
    assert!(!bytes.windows(own.len()).any(|part| part == own), "attributes of nfreezer are none of the file");
    let holes = 6 << 30;
    assert!((bytes.len() as u64) < holes / 50, "holes are not written: {}", bytes.len());
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let options = ["--xattrs", "--xattrs-include=*", "--same-owner", "-xpf"];
    read("tar", &options, &bytes, &out);
    assert_same(&archived(on_disk(&out)), &archived(on_disk(&saved.top())));
}

#[test]
fn a_zip_archive_has_contents_modes_and_links() {
    let saved = Saved::new();
    saved.write("folder/file", 1, 3_000_000);
    saved.write("empty", 2, 0);
    write(saved.top().join("text"), "a line of text\n".repeat(10_000));
    std::os::unix::fs::symlink("folder/file", saved.top().join("link")).unwrap();
    let snapshot = saved.push().snapshot;
    let (bytes, summary) = archive(&saved.repo, &snapshot, &saved.top(), Format::Zip);
    let summary = summary.unwrap();
    assert_eq!((summary.files, summary.directories, summary.others, summary.bytes), (3, 1, 1, 3_150_000));
    let program = "import os, stat, sys, zipfile\n\
        z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None\n\
        mode = lambda name: z.getinfo(name).external_attr >> 16\n\
        assert stat.S_ISLNK(mode('link')) and z.read('link') == b'folder/file'\n\
        assert len(z.read('folder/file')) == 3000000 and mode('folder/file') & 0o777 == 0o644\n\
        text = z.getinfo('text'); assert z.read('text') == b'a line of text\\n' * 10000\n\
        assert text.compress_type == zipfile.ZIP_DEFLATED and text.compress_size < 5000, text\n\
        assert z.getinfo('folder/file').compress_type == zipfile.ZIP_STORED\n\
        print(sorted(z.namelist()))";
    let dir = tempfile::tempdir().unwrap();
    let names = read("python3", &["-c", program], &bytes, &dir.path().join("out"));
    assert_eq!(names.trim(), "['empty', 'folder/', 'folder/file', 'link', 'text']");
}

#[test]
fn damaged_contents_end_an_archive_without_its_end_and_are_named() {
    let saved = Saved::new();
    for i in 0..20 {
        saved.write(&format!("file{i:02}"), i, 300_000);
    }
    let snapshot = saved.push().snapshot;
    let trees = Trees::new(&saved.repo);
    let path = [saved.top().as_os_str().as_encoded_bytes(), b"/file10"].concat();
    let node = trees.at(background(), &snapshot, &path).unwrap();
    let Content::File(extents) = &node.content else { panic!("a small file") };
    let nfreezer::format::reference::Extent::Data(r) = extents[0] else { panic!("no hole") };
    saved.flip(&r);
    saved.repo.forget_blocks();
    // Several threads fill a pack, so any other file may be the neighbour of a file in it.
    let block = r.offset / 65536;
    let is_hit = |name: &String| {
        let c = saved.chunk_of(&snapshot, name);
        c.pack == r.pack && c.offset / 65536 <= block && block <= (c.offset + c.stored - 1) / 65536
    };
    let hit: Vec<String> = (0..20).map(|i| format!("file{i:02}")).filter(is_hit).collect();
    for format in [Format::Tar, Format::Zip] {
        let (bytes, result) = archive(&saved.repo, &snapshot, &saved.top(), format);
        let error = result.unwrap_err();
        // The block may also hold the end of the preceding file in the pack.
        let text = error.to_string();
        let is_named = hit.iter().any(|name| text.contains(name));
        assert!(error.kind().is_damage() && is_named, "{format:?}: {error}");
        assert!(!bytes.ends_with(&[0; 1024]) && !bytes.windows(4).any(|four| four == b"PK\x05\x06"), "{format:?}");
        let wrong = noise(10, 300_000);
        assert!(!bytes.windows(64).any(|part| part == &wrong[70_000..70_064]), "{format:?}: the block behind it");
    }
    let error = dump::file(background(), &trees, node, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
}

#[test]
fn contents_are_fetched_ahead_of_the_output() {
    let saved = Saved::on(Arc::<Between<Rounds>>::default());
    for i in 0..600 {
        write(saved.top().join(format!("{}/{i}", i / 50)), noise(i, 3000));
    }
    saved.write("large", 1000, 40 << 20);
    let snapshot = saved.push().snapshot;
    let repo = repository::open(saved.memory.clone());
    saved.memory.take();
    let (bytes, summary) = archive(&repo, &snapshot, &saved.top(), Format::Tar);
    assert_eq!((summary.unwrap().files, bytes.len() % 512), (601, 0));
    let reads = saved.memory.take();
    // Fetched one after the other, 600 files and 40 chunks would take 640 rounds.
    assert!(reads.rounds < 40, "{reads:?}");
}

#[test]
fn a_file_goes_to_standard_output_and_a_closed_pipe_ends_quietly() {
    let env = Env::with_repository();
    let contents = noise(5, 30 << 20);
    let file = env.write("src/file", &contents);
    env.nfreezer(["push", "src"]).done();
    let what = format!("latest:{}", file.canonicalize().unwrap().display());
    let output = env.command(["dump", &what]).output().unwrap();
    assert!(output.status.success() && output.stdout == contents && output.stderr.is_empty());
    let mut child = env.command(["dump", &what]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(141), ""));
    let src = env.path("src").canonicalize().unwrap();
    let output = env.command(["dump", &format!("latest:{}", src.display())]).output().unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read("tar", &["-tf"], &output.stdout, &dir.path().join("out")).trim(), "file");
    let hint = env.nfreezer(["restore", &what, "--target", "-"]).exits(2).stderr;
    assert!(hint.contains(&format!("`nfreezer dump {what}`")), "{hint}");
}
