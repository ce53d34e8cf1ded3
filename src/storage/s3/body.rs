//! The body of a request in small parts, so that progress is seen and the rate limit holds; and the counters of a request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpRequestBody};
use tokio::time::Sleep;

use crate::storage::net::allowance;
use crate::storage::net::pace::Pace;

/// Largest part of a body that is handed on at once.
const PART: usize = 64 << 10;

/// Bytes of all requests, and their limits.
#[derive(Default)]
pub struct Traffic {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    pub upload: Option<Pace>,
    pub download: Option<Pace>,
}

impl Traffic {
    /// Returns how long `bytes` that are ready now have to wait.
    pub fn pause(pace: Option<&Pace>, bytes: usize) -> Duration {
        let now = Instant::now();
        pace.map_or(Duration::ZERO, |pace| pace.book(bytes, now).saturating_duration_since(now))
    }
}

/// The counters of one request.
pub struct Call {
    started: Instant,
    /// When something moved last, in milliseconds since the beginning.
    moved: AtomicU64,
    /// The time in milliseconds that it earned by the bytes it moved, and for which a rate limit of the user held it back.
    earned: AtomicU64,
    /// Bytes of the body that went out.
    pub sent: AtomicU64,
    /// Most bytes of a successful answer.
    pub most: usize,
}

impl Call {
    /// Makes the counters of a request whose answer has at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Call {
            started: Instant::now(),
            moved: AtomicU64::new(0),
            earned: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            most,
        }
    }

    /// Notes that something moved.
    pub fn touch(&self) {
        self.moved.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Notes that bytes of a body moved, and how long the rate limit held them back.
    pub fn moved(&self, bytes: usize, held_back: Duration) {
        let earned = allowance::earned(bytes) + held_back;
        self.earned.fetch_add(earned.as_millis() as u64, Ordering::Relaxed);
        self.touch();
    }

    /// Returns whether the request took longer than `base` and the time that it earned.
    pub fn is_overdue(&self, base: Duration) -> bool {
        self.started.elapsed() > base + Duration::from_millis(self.earned.load(Ordering::Relaxed))
    }

    /// Returns for how long nothing has moved.
    pub fn idle(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.moved.load(Ordering::Relaxed)))
    }
}

/// The body of a request.
pub struct Outgoing {
    inner: HttpRequestBody,
    ready: Bytes,
    pause: Option<Pin<Box<Sleep>>>,
    call: Arc<Call>,
    traffic: Arc<Traffic>,
}

impl Outgoing {
    /// Wraps a body.
    pub fn new(inner: HttpRequestBody, call: Arc<Call>, traffic: Arc<Traffic>) -> Self {
        Outgoing { inner, ready: Bytes::new(), pause: None, call, traffic }
    }

    fn part(&self) -> usize {
        let most = self.traffic.upload.as_ref().map_or(PART, |pace| pace.packet(PART));
        most.min(self.ready.len())
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        while self.ready.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => self.ready = frame.into_data().unwrap_or_default(),
                other => return Poll::Ready(other),
            }
            if !self.ready.is_empty() {
                self.pause = None;
            }
        }
        let part = self.part();
        if self.traffic.upload.is_some() {
            if self.pause.is_none() {
                let pause = Traffic::pause(self.traffic.upload.as_ref(), part);
                self.call.moved(0, pause);
                self.pause = Some(Box::pin(tokio::time::sleep(pause)));
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
            }
            self.pause = None;
        }
        self.call.moved(part, Duration::ZERO);
        self.call.sent.fetch_add(part as u64, Ordering::Relaxed);
        self.traffic.sent.fetch_add(part as u64, Ordering::Relaxed);
        let part = self.ready.split_to(part);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.size_hint().exact().unwrap_or(0);
        SizeHint::with_exact(inner + self.ready.len() as u64)
    }
}
