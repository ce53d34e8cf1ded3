//! The page of benchmarks is written from rows, with a section for the object store.

use std::fs;
use std::process::Command;

const ROWS: &str = "A: 3 files, 4 bytes; B: 5 bytes in 4 files; P: 1 files, 2 bytes
| work | round trip | tool | wall s | client CPU s | client RSS MiB | MB up | MB down | |
|---|---|---|---:|---:|---:|---:|---:|---|
| first push of A | 0 ms | nfreezer | 1.00 | 0.50 | 100 | 10.00 | 0.10 | |
| first push of A | 0 ms | nfreezer | 2.00 | 0.50 | 100 | 10.00 | 0.10 | |
| first push of A | 0 ms | restic | 3.00 | 1.50 | 100 | 10.00 | 0.10 | |
| first push of A | 50 ms | nfreezer | 2.00 | 0.50 | 100 | 10.00 | 0.10 | |
| first push of A | 50 ms | restic | - | - | - | - | - | stopped after 45 s |
";

#[test]
fn the_page_of_benchmarks_has_a_section_for_the_object_store() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    ["scripts", "docs", "results"].iter().for_each(|name| fs::create_dir(place(name)).unwrap());
    let script = place("scripts/bench_report.py");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench_report.py"), &script).unwrap();
    for (name, text) in [("rows", ROWS), ("data", ROWS), ("s3", ROWS)] {
        fs::write(place("results").join(name), text).unwrap();
    }
    let mut run = Command::new("python3");
    run.arg(&script).arg(place("results")).arg("FILES=3").current_dir(folder.path());
    assert!(run.status().unwrap().success());
    let page = fs::read_to_string(place("docs/benchmarks.md")).unwrap();
    let (before, store) = page.split_once("## Object store").unwrap();
    for part in [before, store] {
        assert!(part.contains("| first push of A | 1.50 | 3.00 |"), "the median of two runs: {page}");
        assert!(part.contains("| first push of A | 2.00 | stopped after 45 s |"), "{page}");
    }
    assert!(fs::read_to_string(place("docs/benchmarks.svg")).unwrap().contains("stopped after 45 s"));
}
