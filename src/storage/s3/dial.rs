//! Prepares a connection to a bucket: credentials, region, the first connection.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use http::Request;
use object_store::RetryConfig;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::client::HttpRequestBody;

use super::body::Traffic;
use super::client::{Client, Exclusive};
use super::connect::tls;
use super::crypto::Crypto;
use super::errors::{self, Problem};
use super::http::{Http, Limits, Service};
use super::keys::{Keys, is_plain};
use super::profile::Settings;
use super::proxy::Proxies;
use super::runtime::Engine;
use super::signed::Signed;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::printable;
use crate::storage::bucket::{Bucket, Endpoint, S3Options};
use crate::storage::net::{Dial, DialError};

/// The region of stores that have none.
const REGION: &str = "us-east-1";

/// Variables by which a container or a machine of AWS passes credentials.
const SERVICES: [&str; 8] = [
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_METADATA_ENDPOINT",
];

/// The ones of these that name a file with a token, and whether the token is sent in a header.
const TOKENS: [(&str, bool); 2] =
    [("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", true), ("AWS_WEB_IDENTITY_TOKEN_FILE", false)];

/// Makes connections to a bucket.
pub struct Dialer {
    pub bucket: Bucket,
    pub options: S3Options,
    pub limits: Limits,
    pub traffic: Arc<Traffic>,
    pub engine: Arc<Engine>,
    pub exclusive: Arc<Exclusive>,
    pub ctx: Context<'static>,
    /// The connections that were made last, and the digest of their keys.
    pub last: Mutex<Option<(Arc<Http>, [u8; 32])>>,
}

impl Dial for Dialer {
    type Connection = Client;

    fn dial(&self) -> Result<Client, DialError> {
        let settings = Settings::read(&self.ctx, &self.options).map_err(last)?;
        let named = match (&self.bucket.endpoint, &settings.endpoint) {
            (Some(endpoint), _) => Some(endpoint.clone()),
            (None, Some(url)) => Some(Endpoint::parse(url).map_err(last)?),
            (None, None) => None,
        };
        let is_aws = named.as_ref().is_none_or(is_of_aws);
        let digest = settings.keys.as_ref().map(Keys::digest);
        if digest.is_some_and(|digest| self.have_expired(digest)) {
            return Err(last(errors::expired()));
        }
        if settings.keys.is_none() && settings.web_identity.is_empty() && !self.has_service(is_aws) {
            return Err(last(errors::no_credentials("none are in the environment or in ~/.aws/credentials")));
        }
        if settings.keys.is_none() {
            self.check_tokens(&settings).map_err(last)?;
        }
        let region = match &settings.region {
            Some(region) => region.clone(),
            None if is_aws => self.region()?,
            None => REGION.into(),
        };
        if !region.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)) || region.is_empty() {
            return Err(last(Error::new(Kind::Usage, format!("{region:?} cannot be the name of a region"))));
        }
        let mut endpoint = named.unwrap_or_else(|| of_aws(&format!("s3.{region}.amazonaws.com")));
        let mut bucket = format!("/{}", self.bucket.bucket);
        if settings.is_bucket_in_host {
            endpoint.host = format!("{}.{}", self.bucket.bucket, endpoint.host);
            bucket.clear();
        }
        let http = self.http(endpoint.clone())?;
        self.wait(http.open())?;
        *self.last.lock().expect("no holder panics") = digest.map(|digest| (Arc::clone(&http), digest));
        if is_aws {
            self.exclusive.set(true);
        }
        let signed = Signed { http: Arc::clone(&http), bucket: endpoint.url() + &bucket, region: region.clone() };
        let store = self.store(&endpoint, region, settings, http).map_err(last)?;
        Ok(Client {
            store,
            signed,
            prefix: self.bucket.prefix.clone(),
            engine: Arc::clone(&self.engine),
            exclusive: Arc::clone(&self.exclusive),
        })
    }

    fn server(&self) -> String {
        self.bucket.endpoint.as_ref().map_or_else(|| "the object store".into(), Endpoint::authority)
    }
}

impl Dialer {
    fn http(&self, endpoint: Endpoint) -> Result<Arc<Http>, DialError> {
        let authorities = self.options.environment.get("AWS_CA_BUNDLE").map(PathBuf::from);
        let tls = tls(authorities.as_deref()).map_err(last)?;
        let proxies = Proxies::read(&self.options.environment).map_err(last)?;
        Ok(Arc::new(Http::new(endpoint, proxies, tls, self.limits, Arc::clone(&self.traffic))))
    }

    fn wait<T>(&self, future: impl Future<Output = Result<T, Problem>>) -> Result<T, DialError> {
        let done = self.engine.wait(&self.ctx, || {}, future).map_err(last)?;
        done.map_err(|problem| match problem {
            Problem::Certificate(why) => last(errors::certificate(&why)),
            other => DialError { error: Error::new(Kind::Connection, other.to_string()), again: true },
        })
    }

    /// Returns whether the store has refused these keys because they have expired.
    fn have_expired(&self, digest: [u8; 32]) -> bool {
        let last = self.last.lock().expect("no holder panics");
        last.as_ref().is_some_and(|(http, keys)| *keys == digest && http.has_expired.load(Ordering::Relaxed))
    }

    /// Returns a setting of a service that hands out credentials.
    fn service<'a>(&'a self, settings: &'a Settings, name: &str) -> Option<&'a String> {
        self.options.environment.get(name).or_else(|| settings.web_identity.get(name))
    }

    /// Fails if a file with a token cannot be read or sent. The crate panics then.
    fn check_tokens(&self, settings: &Settings) -> Result<()> {
        for (name, is_header) in TOKENS {
            let Some(file) = self.service(settings, name) else { continue };
            let unusable = |why: &str| {
                let text = format!("cannot use the token in {}: {why}", printable::message(file));
                Error::new(Kind::Connection, text).hint(format!("{name} names a file that another program writes"))
            };
            let token = std::fs::read_to_string(file).map_err(|e| unusable(&e.to_string()))?;
            if is_header && !is_plain(&token) {
                return Err(unusable("it holds a line break or another character that no token has"));
            }
        }
        Ok(())
    }

    /// Returns whether a service may hand out credentials.
    fn has_service(&self, is_aws: bool) -> bool {
        let is_set = |name: &str| self.options.environment.contains_key(name);
        let is_off = self.options.environment.get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value == "true");
        SERVICES.iter().any(|name| is_set(name)) || is_aws && !is_off
    }

    /// Asks AWS for the region of the bucket, which needs no login.
    fn region(&self) -> Result<String, DialError> {
        let endpoint = of_aws("s3.amazonaws.com");
        let http = self.http(endpoint.clone())?;
        let request =
            Request::head(format!("{}/{}", endpoint.url(), self.bucket.bucket)).body(HttpRequestBody::empty());
        let request = request.map_err(|e| last(Error::failed(format!("cannot ask for the region: {e}"))))?;
        let answer = self.wait(http.exchange(request))?;
        let region = answer.headers().get("x-amz-bucket-region").map(|value| printable::excerpt(value.as_bytes()));
        Ok(region.unwrap_or_else(|| REGION.into()))
    }

    fn store(&self, endpoint: &Endpoint, region: String, settings: Settings, http: Arc<Http>) -> Result<AmazonS3> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket.bucket)
            .with_region(region)
            .with_endpoint(endpoint.url())
            .with_virtual_hosted_style_request(settings.is_bucket_in_host)
            .with_allow_http(true)
            .with_crypto_provider(Arc::new(Crypto))
            .with_http_connector(Service(http))
            .with_disable_bulk_delete(true)
            // The store compares it with what came; a bucket with object lock demands one.
            .with_checksum_algorithm(Checksum::SHA256)
            // Only storage/net repeats.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        for name in SERVICES {
            let key: Option<AmazonS3ConfigKey> = name.to_ascii_lowercase().parse().ok();
            if let (Some(key), Some(value)) = (key, self.service(&settings, name)) {
                builder = builder.with_config(key, value);
            }
        }
        if let Some(Keys { id, secret, token }) = settings.keys {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
            builder = if let Some(token) = token { builder.with_token(token) } else { builder };
        }
        builder.build().map_err(|e| Error::failed(format!("cannot use the object store: {e}")))
    }
}

/// Returns an error after which a further attempt would fail too.
fn last(error: Error) -> DialError {
    DialError { error, again: false }
}

fn of_aws(host: &str) -> Endpoint {
    Endpoint { tls: true, host: host.into(), port: None }
}

fn is_of_aws(endpoint: &Endpoint) -> bool {
    endpoint.host.ends_with(".amazonaws.com") || endpoint.host.ends_with(".amazonaws.com.cn")
}
