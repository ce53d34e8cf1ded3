//! Claims of a hostile server that do not depend on its protocol: names and sizes in listings.

/// Returns names that no log object can have. `record` is the name of a record.
pub fn odd_names(record: &str) -> Vec<Vec<u8>> {
    let upper = record.to_uppercase();
    [
        &b".."[..],
        b".",
        b"a/b",
        b"../../etc/passwd",
        b"nul\0",
        b"line\nbreak",
        b"\x1b[2J",
        &[b'x'; 300],
        b"\xff\xfe",
        b"",
        upper.as_bytes(),
        b"00000001",
        format!("{record}/").as_bytes(),
        format!("/{record}").as_bytes(),
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Sizes that no record can have.
pub const SIZES: [u64; 6] = [0, 1, 1 << 40, 1 << 63, u64::MAX, (128 << 20) + 100_000];
