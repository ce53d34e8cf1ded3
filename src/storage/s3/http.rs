//! Carries the requests of the crate object_store: connections that are used again, limits of time and size, rate limits.
//!
//! In: signed requests. Out: whole answers of success, or a [`Problem`] with the known facts about the failure. Nothing is
//! repeated here, except on another connection when an idle one turns out to be closed before it took the request.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use openssl::ssl::SslConnector;

use super::body::{Call, Outgoing, Traffic};
use super::connect::connect;
use super::errors::{self, Problem, Refusal};
use super::proxy::{Proxies, Proxy};
use super::xml;
use crate::printable;
use crate::storage::bucket::Endpoint;
use crate::storage::net::allowance::{OVERDUE, TOO_SLOW};

/// An idle connection is used again for this time; servers close theirs after 20 s and more.
const IDLE: Duration = Duration::from_secs(15);
/// Most idle connections.
const KEPT: usize = 32;
/// Between two looks at the clock while an answer is awaited.
const TICK: Duration = Duration::from_secs(1);
/// Most bytes of an answer that is no object: a page of a listing.
pub const ANSWER: usize = 16 << 20;
/// Most bytes of a refusal.
const REFUSAL: usize = 64 << 10;
/// Longest wait for a service within the machine or its network that hands out credentials.
const SERVICE: Duration = Duration::from_secs(2);

/// The timeouts of a request.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Making a connection.
    pub connect: Duration,
    /// Nothing moves although an answer is due.
    pub stalled: Duration,
}

/// The connections to a store.
pub struct Http {
    endpoint: Endpoint,
    proxies: Proxies,
    tls: SslConnector,
    limits: Limits,
    traffic: Arc<Traffic>,
    idle: Mutex<Vec<Idle>>,
    /// The store has refused the credentials because they have expired.
    pub has_expired: AtomicBool,
}

struct Idle {
    requests: SendRequest<Outgoing>,
    since: Instant,
}

impl Http {
    /// Makes connections to `endpoint` on demand.
    pub fn new(endpoint: Endpoint, proxies: Proxies, tls: SslConnector, limits: Limits, traffic: Arc<Traffic>) -> Self {
        let has_expired = AtomicBool::new(false);
        Http { endpoint, proxies, tls, limits, traffic, idle: Mutex::default(), has_expired }
    }

    /// Returns the refusal in an answer of the store that is no success.
    pub fn refusal(&self, answer: &Response<Bytes>) -> Option<Refusal> {
        let refusal = errors::refused(answer)?;
        self.has_expired.fetch_or(refusal.has_expired(), Ordering::Relaxed);
        Some(refusal)
    }

    /// Makes a first connection and keeps it for the first request.
    pub async fn open(&self) -> Result<(), Problem> {
        let via = self.proxies.to(&self.endpoint);
        let requests = connect(&self.endpoint, via, &self.tls, self.limits.connect).await?;
        self.keep(requests);
        Ok(())
    }

    fn keep(&self, requests: SendRequest<Outgoing>) {
        let mut idle = self.idle.lock().expect("no holder panics");
        if !requests.is_closed() && idle.len() < KEPT {
            idle.push(Idle { requests, since: Instant::now() });
        }
    }

    /// Takes a connection that waits for a request, the newest first.
    fn kept(&self) -> Option<SendRequest<Outgoing>> {
        let mut idle = self.idle.lock().expect("no holder panics");
        idle.retain(|kept| kept.since.elapsed() < IDLE && !kept.requests.is_closed());
        let at = idle.iter().rposition(|kept| kept.requests.is_ready())?;
        Some(idle.remove(at).requests)
    }

    /// Sends a request and reads its answer.
    pub async fn exchange(&self, request: HttpRequest) -> Result<Response<Bytes>, Problem> {
        let call = request.extensions().get::<Arc<Call>>().cloned().unwrap_or_else(|| Arc::new(Call::new(ANSWER)));
        let to = destination(request.uri())?;
        let is_own = to.authority() == self.endpoint.authority() && to.tls == self.endpoint.tls;
        let (parts, body) = request.into_parts();
        let mut request = Request::from_parts(parts, Outgoing::new(body, Arc::clone(&call), Arc::clone(&self.traffic)));
        let via = self.proxies.to(&to);
        prepare(&mut request, &to, via.filter(|_| !to.tls))?;
        call.touch();
        let mut kept = if is_own { self.kept() } else { None };
        loop {
            let is_used = kept.is_some();
            let limit = if is_own { self.limits.connect } else { SERVICE };
            let mut requests = match kept.take() {
                Some(requests) => requests,
                None => connect(&to, via, &self.tls, limit).await?,
            };
            let answer = match self.watched(&call, requests.try_send_request(request)).await? {
                Ok(answer) => answer,
                Err(mut e) => match e.take_message().filter(|_| is_used) {
                    // An idle connection was closed before it took the request.
                    Some(unsent) => {
                        request = unsent;
                        continue;
                    }
                    None => return Err(lost(e.error())),
                },
            };
            let answer = self.read(&call, answer).await?;
            if is_own {
                self.keep(requests);
            }
            return Ok(answer);
        }
    }

    /// Reads an answer to its end, or as much of it as was asked for.
    async fn read(&self, call: &Call, answer: Response<Incoming>) -> Result<Response<Bytes>, Problem> {
        let (parts, mut body) = answer.into_parts();
        let most = if parts.status.is_success() { call.most } else { REFUSAL };
        let mut bytes = Vec::new();
        if let Some(size) = parts.headers.get(CONTENT_LENGTH).and_then(|size| size.to_str().ok()?.parse().ok()) {
            bytes.reserve_exact(most.min(size));
        }
        while let Some(frame) = self.watched(call, body.frame()).await? {
            let Ok(data) = frame.map_err(|e| lost(&e))?.into_data() else { continue };
            self.traffic.received.fetch_add(data.len() as u64, Ordering::Relaxed);
            let pause = Traffic::pause(self.traffic.download.as_ref(), data.len());
            call.moved(data.len(), pause);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
                call.touch();
            }
            bytes.extend_from_slice(&data[..data.len().min(most - bytes.len())]);
            if bytes.len() == most && !data.is_empty() && !hyper::body::Body::is_end_stream(&body) {
                break; // what comes beyond the range is dropped unseen, with its connection
            }
        }
        Ok(Response::from_parts(parts, bytes.into()))
    }

    /// Waits for a step of an exchange while bytes move, for a bounded time.
    async fn watched<F: Future>(&self, call: &Call, future: F) -> Result<F::Output, Problem> {
        let mut future = pin!(future);
        loop {
            let step = tokio::time::timeout(TICK, future.as_mut()).await;
            if call.is_overdue(self.limits.stalled * OVERDUE) {
                return Err(Problem::Lost(TOO_SLOW.into()));
            }
            match step {
                Ok(done) => return Ok(done),
                Err(_) if call.idle() > self.limits.stalled => {
                    let seconds = self.limits.stalled.as_secs();
                    return Err(Problem::Lost(format!("nothing was heard for {seconds} s")));
                }
                Err(_) => {}
            }
        }
    }
}

fn lost(e: &hyper::Error) -> Problem {
    let why = if e.is_incomplete_message() {
        "the connection was closed before the answer was complete".into()
    } else {
        let cause = std::error::Error::source(e).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{e}{cause}")
    };
    Problem::Lost(printable::excerpt(why.as_bytes()))
}

fn destination(uri: &Uri) -> Result<Endpoint, Problem> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(Problem::Unreachable("the address names no host".into()));
    }
    Ok(Endpoint { tls: uri.scheme_str() == Some("https"), host: host.to_ascii_lowercase(), port: uri.port_u16() })
}

/// Writes path and host of a request as HTTP/1.1 wants them. A proxy without a tunnel gets the whole address.
fn prepare(request: &mut Request<Outgoing>, to: &Endpoint, via: Option<&Proxy>) -> Result<(), Problem> {
    let invalid = |_| Problem::Unreachable("the address is not valid in HTTP".into());
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::from_str(&to.authority()).map_err(|e| invalid(e.to_string()))?;
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let server = via.map(|_| to.url()).unwrap_or_default();
    let target = format!("{server}{path}");
    *request.uri_mut() = target.parse().map_err(|e: http::uri::InvalidUri| invalid(e.to_string()))?;
    if let Some(login) = via.and_then(|proxy| proxy.login.clone()) {
        request.headers_mut().insert(PROXY_AUTHORIZATION, login);
    }
    Ok(())
}

/// Returns whether an answer is a whole listing. The crate takes any XML and HTML for an empty one.
fn is_list(body: &[u8]) -> bool {
    xml::is_whole(&String::from_utf8_lossy(body), "ListBucketResult")
}

/// The service that object_store calls.
#[derive(Clone)]
pub struct Service(pub Arc<Http>);

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

impl HttpConnector for Service {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = destination(request.uri()).map(|to| to.authority()).unwrap_or_default();
        let is_own = host == self.0.endpoint.authority();
        let is_listing = request.uri().query().is_some_and(|query| query.contains("list-type=2"));
        let failed = |problem| HttpError::new(HttpErrorKind::Unknown, problem);
        match self.0.exchange(request).await {
            Ok(answer) if is_own && is_listing && answer.status().is_success() && !is_list(answer.body()) => {
                Err(failed(Problem::Strange("what came is no listing".into())))
            }
            Ok(mut answer) => {
                if let Some(refusal) = is_own.then(|| self.0.refusal(&answer)).flatten() {
                    return Err(failed(Problem::Refused(refusal)));
                }
                if let Some(refusal) = errors::refused(&answer) {
                    return Err(failed(Problem::Credentials(format!("{host} answers {refusal}"))));
                }
                // rclone answers so when a range is all of the object.
                if answer.status() == StatusCode::OK && answer.headers().contains_key(CONTENT_RANGE) {
                    *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
                }
                Ok(answer.map(Into::into))
            }
            Err(problem) if is_own => Err(failed(problem)),
            Err(problem) => Err(failed(Problem::Credentials(problem.to_string()))),
        }
    }
}
