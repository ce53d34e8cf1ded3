//! Known answers of the primitives as nfreezer uses them (T75). `tests/format/format.rs` has the vectors of RFC 4231,
//! RFC 9106 and the format itself.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use nfreezer::name::hex;
use sha2::Sha256;

fn unhex(text: &str) -> Vec<u8> {
    let text = text.trim_matches('-');
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

#[test]
fn t75_aes_256_gcm_answers_as_nist_says_and_refuses_its_wrong_tags() {
    let (mut right, mut wrong) = (0, 0);
    for line in include_str!("vectors/gcm.txt").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [key, nonce, aad, ciphertext, tag, plain] = fields[..] else { panic!("{line}") };
        let cipher = Aes256Gcm::new_from_slice(&unhex(key)).unwrap();
        let nonce = Nonce::try_from(unhex(nonce).as_slice()).unwrap();
        let (aad, sealed) = (unhex(aad), [unhex(ciphertext), unhex(tag)].concat());
        let opened = cipher.decrypt(&nonce, Payload { msg: &sealed, aad: &aad });
        if plain == "FAIL" {
            assert!(opened.is_err(), "{line}");
            wrong += 1;
        } else {
            assert_eq!(opened.unwrap(), unhex(plain));
            assert_eq!(cipher.encrypt(&nonce, Payload { msg: &unhex(plain), aad: &aad }).unwrap(), sealed);
            right += 1;
        }
    }
    assert_eq!((right, wrong), (50, 50));
}

/// Checks the three cases of RFC 5869 with SHA-256 (A.1 to A.3).
#[test]
fn t75_hkdf_answers_as_rfc_5869_says() {
    let bytes = |range: std::ops::RangeInclusive<u8>| range.collect::<Vec<u8>>();
    let cases = [
        (
            vec![0x0b; 22],
            bytes(0..=0x0c),
            bytes(0xf0..=0xf9),
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(0..=0x4f),
            bytes(0x60..=0xaf),
            bytes(0xb0..=0xff),
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            vec![0x0b; 22],
            vec![],
            vec![],
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ];
    for (ikm, salt, info, prk, okm) in cases {
        let (made, hkdf) = Hkdf::<Sha256>::extract(Some(&salt), &ikm);
        let mut out = vec![0; okm.len() / 2];
        hkdf.expand(&info, &mut out).unwrap();
        assert_eq!((hex(&made).as_str(), hex(&out).as_str()), (prk, okm));
    }
}
