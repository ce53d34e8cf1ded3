//! Extended headers of POSIX tar (pax): values that do not fit into the fixed fields of a header.

/// Records of an extended header: `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
#[derive(Default)]
pub struct Records(Vec<u8>);

impl Records {
    /// Adds a record.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = 1 + key.len() + 1 + value.len() + 1;
        let mut len = rest + 1;
        while rest + len.to_string().len() != len {
            len = rest + len.to_string().len();
        }
        self.0.extend_from_slice(format!("{len} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// Returns the encoded records; empty if there are none.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        // The record of 99 bytes would have 100 with a length of three digits.
        for len in [0, 1, 5, 80, 88, 89, 90, 91, 92, 93, 980, 990, 991, 992, 993] {
            let mut records = Records::default();
            records.add(b"path", &vec![b'x'; len]);
            let text = std::str::from_utf8(records.bytes()).unwrap();
            assert_eq!(text.split_once(' ').unwrap().0, text.len().to_string(), "{len}");
        }
        let mut records = Records::default();
        records.add(b"mtime", b"1.5");
        assert_eq!(records.bytes(), b"13 mtime=1.5\n");
    }
}
