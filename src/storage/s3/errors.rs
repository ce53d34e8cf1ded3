//! Decides what follows from a failed answer of a store: another attempt, or an error with a hint.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::xml;
use crate::error::{Error, Kind};
use crate::printable;
use crate::storage::FULL_DISK;
use crate::storage::net::Fault;

/// The reason why a request has no result.
#[derive(Debug)]
pub enum Problem {
    /// The connection was lost, or cannot be trusted.
    Lost(String),
    /// The server could not be reached.
    Unreachable(String),
    /// The server's certificate is not accepted.
    Certificate(String),
    /// The store refused.
    Refused(Refusal),
    /// The answer is not the one of an S3 service.
    Strange(String),
    /// A service that hands out credentials did not.
    Credentials(String),
}

/// An answer with a status of failure.
#[derive(Debug)]
pub struct Refusal {
    /// The status of HTTP.
    pub status: u16,
    /// The code of S3, such as `NoSuchKey`; empty if there is none (HEAD has no body).
    pub code: String,
    message: String,
    /// The region of the bucket, where the answer names it.
    pub region: Option<String>,
    location: Option<String>,
    /// Seconds after which a busy store wants to be asked again.
    after: u64,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Lost(text)
            | Problem::Unreachable(text)
            | Problem::Certificate(text)
            | Problem::Strange(text)
            | Problem::Credentials(text) => f.write_str(text),
            Problem::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for Problem {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { status, code, message, .. } = self;
        match (code.is_empty(), message.is_empty()) {
            (true, _) => write!(f, "status {status}"),
            (false, true) => write!(f, "{code} (status {status})"),
            (false, false) => write!(f, "{code} (status {status}): {message}"),
        }
    }
}

/// Returns the text of an element of an answer.
fn element(body: &str, name: &str) -> Option<String> {
    xml::text(body, name).map(|text| printable::excerpt(text.trim().as_bytes()))
}

/// Returns the refusal in an answer that is no success.
pub fn refused(answer: &Response<Bytes>) -> Option<Refusal> {
    let status = answer.status();
    (!status.is_success()).then(|| Refusal::new(status.as_u16(), answer.headers(), answer.body()))
}

impl Refusal {
    /// Takes an answer apart.
    pub fn new(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body);
        let header = |name| headers.get(name).map(|value| printable::excerpt(value.as_bytes()));
        Refusal {
            status,
            code: element(&body, "Code").unwrap_or_default(),
            message: element(&body, "Message").unwrap_or_default(),
            region: header("x-amz-bucket-region").or_else(|| element(&body, "Region")),
            location: header("location").or_else(|| element(&body, "Endpoint")),
            after: header("retry-after").and_then(|seconds| seconds.parse().ok()).unwrap_or(0),
        }
    }

    /// Takes the part of a successful answer apart that refuses one of many objects.
    pub fn of_object(part: &str) -> Self {
        let (code, message) = (element(part, "Code").unwrap_or_default(), element(part, "Message").unwrap_or_default());
        let status = match &*code {
            "NoSuchKey" | "NoSuchVersion" => 404,
            "AccessDenied" => 403,
            _ => 200,
        };
        Refusal { status, code, message, region: None, location: None, after: 0 }
    }

    /// Returns whether the store may serve the same request later.
    fn is_busy(&self) -> bool {
        let codes = [
            "SlowDown",
            "ServiceUnavailable",
            "InternalError",
            "RequestTimeout",
            "OperationAborted",
            "ConditionalRequestConflict",
            "Throttling",
            "ThrottlingException",
            "RequestLimitExceeded",
            "TooManyRequests",
        ];
        codes.contains(&&*self.code) || matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504) && !self.is_full()
    }

    /// Returns whether the store refuses the credentials because they have expired. The answer to HEAD has no code.
    pub fn has_expired(&self) -> bool {
        let is_unnamed = self.status == 400 && self.code.is_empty() && self.region.is_none();
        is_unnamed || matches!(&*self.code, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired")
    }

    fn is_full(&self) -> bool {
        let codes = ["XMinioStorageFull", "QuotaExceeded", "InsufficientStorage", "InsufficientStorageSpace"];
        self.status == 507 || codes.contains(&&*self.code)
    }

    /// Returns whether a condition of the request does not hold: the object exists.
    pub fn is_taken(&self) -> bool {
        self.status == 412 || self.code == "PreconditionFailed"
    }

    /// Returns whether the store does not know conditions.
    pub fn is_not_implemented(&self) -> bool {
        self.status == 501 || self.code == "NotImplemented"
    }

    /// Returns the fault of an operation: `doing` is its verb, `what` its object.
    pub fn fault(&self, doing: &str, what: &str) -> Fault {
        if self.is_busy() {
            return Fault::Busy(self.to_string(), Duration::from_secs(self.after));
        }
        if self.has_expired() {
            return Fault::Lost(self.to_string()); // the next connection looks for new ones
        }
        let text = format!("cannot {doing} {what} in the object store: {self}");
        let error = |kind| Error::new(kind, &*text);
        Fault::Final(match (self.status, &*self.code) {
            _ if self.is_full() => error(Kind::NoSpace).hint(FULL_DISK),
            (_, "NoSuchBucket") => error(Kind::NoRepository).hint("check the name, or create the bucket with the tools of the store"),
            (_, "NoSuchKey" | "NoSuchVersion") | (404, "") => error(Kind::Missing),
            (416, _) | (_, "InvalidRange") => Error::damaged(format!("object {what} ends too early")),
            (_, "RequestTimeTooSkewed") => error(Kind::Connection)
                .hint("the clocks of this machine and of the store differ: set the right time (`timedatectl`)"),
            (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidSecurity" | "InvalidToken") | (401, _) => error(Kind::Connection)
                .hint("check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws/credentials"),
            (300..=399, _) | (_, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                error(Kind::Connection).hint(self.elsewhere())
            }
            (403, _) => error(Kind::Failed).hint(
                "check the access key; its policy must allow s3:GetObject, s3:PutObject and s3:ListBucket, and s3:DeleteObject for `prune`",
            ),
            _ => error(Kind::Failed),
        })
    }

    fn elsewhere(&self) -> String {
        match (&self.region, &self.location) {
            (Some(region), _) => format!("the bucket is in another region: set AWS_REGION={region}"),
            (None, Some(place)) => {
                format!("the store answers at another address ({place}): write that one, or set AWS_REGION")
            }
            (None, None) => "set AWS_REGION to the region of the bucket, and check http or https in the address".into(),
        }
    }
}

/// Returns the problem below an error of the crate.
pub fn problem(error: &object_store::Error) -> Option<&Problem> {
    let mut below = error.source();
    while let Some(error) = below {
        if let Some(problem) = error.downcast_ref::<Problem>() {
            return Some(problem);
        }
        below = error.source();
    }
    None
}

/// Returns the refusal below an error of the crate.
pub fn refusal(error: &object_store::Error) -> Option<&Refusal> {
    match problem(error)? {
        Problem::Refused(refusal) => Some(refusal),
        _ => None,
    }
}

/// Returns the fault of an operation: `doing` is its verb, `what` its object.
pub fn fault(error: &object_store::Error, doing: &str, what: &str) -> Fault {
    match problem(error) {
        Some(problem) => problem.fault(doing, what),
        None => Fault::Final(strange(doing, what, &printable::excerpt(error.to_string().as_bytes()))),
    }
}

impl Problem {
    /// Returns the fault of an operation: `doing` is its verb, `what` its object.
    pub fn fault(&self, doing: &str, what: &str) -> Fault {
        match self {
            Problem::Lost(why) | Problem::Unreachable(why) => Fault::Lost(why.clone()),
            Problem::Refused(refusal) => refusal.fault(doing, what),
            Problem::Certificate(why) => Fault::Final(certificate(why)),
            Problem::Credentials(why) => Fault::Final(no_credentials(why)),
            Problem::Strange(why) => Fault::Final(strange(doing, what, why)),
        }
    }
}

fn strange(doing: &str, what: &str, why: &str) -> Error {
    Error::failed(format!("cannot {doing} {what} in the object store: its answer is not valid: {why}"))
        .hint("check that the address is the one of an S3 service")
}

/// Returns the error for a certificate that is not accepted.
pub fn certificate(why: &str) -> Error {
    Error::new(Kind::Connection, format!("the certificate of the object store is not accepted: {why}"))
        .hint("name the file with its authority in AWS_CA_BUNDLE, or write s3+http:// if it speaks no TLS")
}

/// Returns the error for credentials that have expired and of which there are no new ones.
pub fn expired() -> Error {
    Error::new(Kind::Connection, "the credentials for the object store have expired")
        .hint("get new ones, and run the same command again")
}

/// Returns the error for missing credentials.
pub fn no_credentials(why: &str) -> Error {
    Error::new(Kind::Connection, format!("there are no credentials for the object store: {why}"))
        .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for a profile of ~/.aws/credentials")
}
