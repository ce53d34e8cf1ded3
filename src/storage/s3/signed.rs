//! Requests that the crate object_store does not offer, or whose answers it does not verify. The crate signs them; they are
//! sent over the same connections, and their answers are read here.

use std::sync::Arc;

use base64ct::{Base64, Encoding};
use bytes::Bytes;
use http::{Method, Request};
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::HttpRequestBody;
use openssl::hash::{MessageDigest, hash};
use sha2::{Digest, Sha256};

use super::crypto::Crypto;
use super::errors::{self, Problem};
use super::http::Http;

/// Signs requests for a bucket.
pub struct Signed {
    pub http: Arc<Http>,
    /// The URL of the bucket.
    pub bucket: String,
    pub region: String,
}

/// A request: its method, the path behind the bucket with its query, and its body.
pub struct Ask {
    pub method: Method,
    pub target: String,
    pub body: Bytes,
}

impl Signed {
    /// Sends a request with the credentials of `store`. Returns the body of a successful answer.
    pub async fn send(&self, store: &AmazonS3, ask: Ask) -> Result<Bytes, Problem> {
        let credential = store.credentials().get_credential().await;
        let credential = credential.map_err(|e| match errors::problem(&e) {
            Some(problem) => Problem::Credentials(problem.to_string()),
            None => Problem::Credentials(e.to_string()),
        })?;
        let digest = Sha256::digest(&ask.body);
        let mut request = Request::builder().method(ask.method).uri(format!("{}{}", self.bucket, ask.target));
        if !ask.body.is_empty() {
            request = request.header("content-type", "application/xml");
            request = request.header("x-amz-checksum-sha256", Base64::encode_string(&digest));
            // Stores demand this for a list of objects. An OpenSSL without MD5 (FIPS) leaves the other checksum.
            if let Ok(sum) = hash(MessageDigest::md5(), &ask.body) {
                request = request.header("content-md5", Base64::encode_string(&sum));
            }
        }
        let unsigned = |e: &dyn std::fmt::Display| Problem::Strange(format!("the request cannot be made: {e}"));
        let mut request = request.body(HttpRequestBody::from(ask.body)).map_err(|e| unsigned(&e))?;
        let authorizer = AwsAuthorizer::new(&credential, "s3", &self.region).with_crypto(&Crypto);
        authorizer.try_authorize(&mut request, Some(&digest)).map_err(|e| unsigned(&e))?;
        let answer = self.http.exchange(request).await?;
        match self.http.refusal(&answer) {
            Some(refusal) => Err(Problem::Refused(refusal)),
            None => Ok(answer.into_body()),
        }
    }
}

/// Encodes a text for the path or the query of a URL. Slashes stay, as in the paths of objects.
pub fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
