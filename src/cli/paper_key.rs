//! A key file on paper: lines of letters and digits that cannot be mistaken for each other, each with a checksum, so that it can be
//! typed in again; and the same as a QR code.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::base32::{canonical, decode, encode};
use super::private_files::read_bounded;
use super::{escape, standard};
use crate::error::{Error, Kind, Result};
use crate::format::keyfile::KEY_FILE;

/// Bytes on a line: 32 digits.
const LINE: usize = 20;
/// The first characters of the text in a QR code.
const MARK: &str = "NFREEZER-KEY-1:";
/// Largest page that is read.
const LARGEST: u64 = 1 << 20;

/// Four digits that tell a line that was mistyped or is out of place.
fn check(number: usize, bytes: &[u8]) -> String {
    let digest = Sha256::digest([&[number as u8], bytes].concat());
    encode(&digest[..3])[..4].to_owned()
}

/// Returns the lines of a key file: a number, groups of four digits, the check.
pub fn lines(file: &[u8]) -> Vec<String> {
    let groups =
        |text: &str| text.as_bytes().chunks(4).map(|g| String::from_utf8_lossy(g).into_owned()).collect::<Vec<_>>();
    let line = |(i, bytes): (usize, &[u8])| {
        format!("{:02}  {:39}  = {}", i + 1, groups(&encode(bytes)).join(" "), check(i + 1, bytes))
    };
    file.chunks(LINE).enumerate().map(line).collect()
}

/// Returns the text of the QR code of a key file.
pub fn code_text(file: &[u8]) -> String {
    format!("{MARK}{}", encode(file))
}

/// Returns the QR code, two rows of modules in a line of text, with the quiet zone around it: dark modules are inked.
/// On a dark terminal light and dark change places, which most scanners take too.
pub fn code(file: &[u8]) -> Result<Vec<String>> {
    let failed = |e| Error::failed(format!("cannot make the QR code: {e}"));
    let code = qrcode::QrCode::with_error_correction_level(code_text(file), qrcode::EcLevel::M).map_err(failed)?;
    let (colors, width) = (code.to_colors(), code.width() as isize);
    let dark = |x: isize, y: isize| {
        let inside = (0..width).contains(&x) && (0..width).contains(&y);
        inside && colors[(y * width + x) as usize] == qrcode::Color::Dark
    };
    let cell = |x, y| match (dark(x, y), dark(x, y + 1)) {
        (false, false) => ' ',
        (true, false) => '\u{2580}',
        (false, true) => '\u{2584}',
        (true, true) => '\u{2588}',
    };
    Ok((-4..width + 4).step_by(2).map(|y| (-4..width + 4).map(|x| cell(x, y)).collect()).collect())
}

/// The heading of the page.
pub struct Heading {
    /// The address of the repository.
    pub address: String,
    /// Its id in hex.
    pub repository: String,
    /// The short id of the key.
    pub key: String,
    /// The label that the user chose.
    pub label: String,
    /// When it was made, where that is known.
    pub made: Option<String>,
    /// The cost of one guess.
    pub cost: String,
    /// Whether it needs a local key.
    pub local: bool,
}

/// Returns the page to print: at most 72 columns wide but for the code.
pub fn text(heading: &Heading, file: &[u8]) -> Result<String> {
    let Heading { address, repository, key, label, made, cost, local } = heading;
    let named = if label.is_empty() { String::new() } else { format!(" \"{label}\"") };
    let made = made.as_ref().map(|made| format!(", made {made}")).unwrap_or_default();
    let secret = if *local { "the passphrase and the local key" } else { "the passphrase" };
    let mut page = format!(
        "nfreezer key {key}{named}{made}\n\
         repository {}\n\
         at {address}\n\
         Argon2id {cost}\n\n\
         This page opens the repository together with {secret}, also when the\n\
         folder keys/ on the server is lost. A finder of the page can try passphrases,\n\
         as the server can. Removing the key from the server does not change that.\n\
         The page is useless without {secret}.\n\n",
        repository
    );
    lines(file).iter().for_each(|line| page += &format!("{line}\n"));
    page += "\nTo use it, type the numbered lines into a file, or put the text of the code\n\
             into it. A mistyped line is reported by its number; O is 0, I and L are 1.\n\n\
             \x20   nfreezer -r REPO --key-file FILE restore latest --target DIR\n\
             \x20   nfreezer -r REPO key import FILE      (puts it back for good)\n\n";
    code(file)?.iter().for_each(|line| page += &format!("{}\n", line.trim_end()));
    Ok(page)
}

/// Reads a key file from a file: a copy of the one on the server, a page with its lines, or the text of its QR code.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let name = escape::text(path.as_os_str().as_encoded_bytes());
    if standard::is_input_path(path) {
        standard::claim_input_again(&standard::named("the key file", path))?;
    }
    let bytes = read_bounded(path, LARGEST).map_err(|e| Error::io(format!("read the key file {name}"), e))?;
    parse(&bytes).map_err(|why| {
        Error::new(Kind::Usage, format!("{name} is no key file: {why}"))
            .hint("it needs the numbered lines of the page that `nfreezer key export` made, or the text of its QR code")
    })
}

fn parse(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if bytes.len() == KEY_FILE && bytes.starts_with(b"NFRZKEY1") {
        return Ok(bytes.to_vec());
    }
    let text = String::from_utf8_lossy(bytes);
    let marked = text.split_whitespace().find_map(|word| word.strip_prefix(MARK));
    if let Some(digits) = marked {
        return decode(digits, KEY_FILE).ok_or_else(|| "the text of the QR code is not complete".into());
    }
    let mut file = Vec::new();
    for line in text.lines() {
        let Some((number, digits, sum)) = numbered(line) else { continue };
        let here = file.len() / LINE + 1;
        if number != here {
            return Err(format!("line {here} is missing: line {number} comes instead"));
        }
        let len = LINE.min(KEY_FILE.saturating_sub(file.len()));
        let part = decode(&digits, len).filter(|part| check(number, part) == canonical(&sum));
        file.extend(part.ok_or_else(|| format!("line {number} is mistyped"))?);
        if file.len() == KEY_FILE {
            return Ok(file);
        }
    }
    match file.len() / LINE {
        0 => Err("no line of a key is in it".into()),
        n => Err(format!("line {} is missing", n + 1)),
    }
}

/// `07  XXXX XXXX .. = XXXX`
fn numbered(line: &str) -> Option<(usize, String, String)> {
    let (front, sum) = line.split_once('=')?;
    let (number, digits) = front.trim_start().split_once(char::is_whitespace)?;
    let number = Some(number).filter(|n| n.len() <= 2)?.replace(['o', 'O'], "0").replace(['l', 'I', 'i'], "1");
    let number = number.parse().ok()?;
    Some((number, digits.split_whitespace().collect(), sum.split_whitespace().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Vec<u8> {
        let noise = (0..KEY_FILE as u32).map(|i| (i * 151 + i / 7) as u8);
        noise.enumerate().map(|(i, byte)| *b"NFRZKEY1".get(i).unwrap_or(&byte)).collect()
    }

    #[test]
    fn a_key_file_comes_back_from_its_page_however_it_is_typed() {
        let page = lines(&key()).join("\n");
        assert_eq!(lines(&key()).len(), 14);
        for typed in [
            page.clone(),
            page.to_lowercase(),
            page.replace('0', "o"),
            page.replace('1', "l"),
            page.replace("  ", " "),
            page.replace(' ', "\t"),
        ] {
            assert_eq!(parse(format!("title\n\n{typed}\nthe end = really\n").as_bytes()).unwrap(), key(), "{typed}");
        }
        assert_eq!(parse(&key()).unwrap(), key());
        assert_eq!(parse(format!("scanned: {}\n", code_text(&key())).as_bytes()).unwrap(), key());
    }

    #[test]
    fn a_mistyped_line_is_named() {
        let page = lines(&key());
        let with = |change: &dyn Fn(&mut Vec<String>)| {
            let mut page = page.clone();
            change(&mut page);
            parse(page.join("\n").as_bytes()).unwrap_err()
        };
        assert_eq!(with(&|page| page[4] = page[4].replacen(&page[4][4..6].to_owned(), "ZZ", 1)), "line 5 is mistyped");
        assert_eq!(with(&|page| drop(page.remove(6))), "line 7 is missing: line 8 comes instead");
        assert_eq!(with(&|page| drop(page.pop())), "line 14 is missing");
        assert_eq!(with(&|page| page.swap(1, 2)), "line 2 is missing: line 3 comes instead");
        assert_eq!(with(&|page| page[0] = page[0].replacen("01", "1x", 1)), "line 1 is missing: line 2 comes instead");
        assert_eq!(parse(b"hello").unwrap_err(), "no line of a key is in it");
        assert!(parse(format!("{MARK}ABC").as_bytes()).is_err());
    }
}
