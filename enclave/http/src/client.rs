//! The client: limits, a few reused connections, one exchange at a time on each.

use crate::connect::{connect, public_roots, tls_config};
use crate::{BaseUrl, DialClass, Dialer, HttpError, Stage};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use rustls::ClientConfig;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections kept for the next request.
const MAX_IDLE: usize = 4;
/// A connection idle for longer is not used again: most servers close theirs after 60 s or more.
const IDLE_FOR: Duration = Duration::from_secs(20);

/// Limits of one client.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a slot, dialling and TLS together.
    pub connect_timeout: Duration,
    /// From sending the request to the last byte of the body.
    pub exchange_timeout: Duration,
    /// Largest response body in bytes; a request may set its own.
    pub max_body: usize,
    /// Connections at once; further requests wait.
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            exchange_timeout: Duration::from_secs(30),
            max_body: 8 * 1024 * 1024,
            max_connections: 16,
        }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    max_body: Option<usize>,
}

impl Request {
    /// A request without body; `path` is appended to the base URL's path (empty: the base itself).
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            max_body: None,
        }
    }

    /// `GET path`.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// `POST path` with a body of the given content type.
    pub fn post(
        path: impl Into<String>,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        let mut request = Self::new(Method::POST, path);
        request
            .headers
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        request.body = body.into();
        request
    }

    /// The body, instead of none.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// All headers, instead of those set so far. `Host` and `Content-Length` are set by the client.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// Adds a header. `Host` and `Content-Length` are set by the client.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Largest response body in bytes, instead of the client's limit.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = Some(bytes);
        self
    }
}

/// A complete response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code, whatever it is.
    pub status: StatusCode,
    /// Headers as received.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// The first 200 characters of the body for an error text, control characters replaced.
    pub fn excerpt(&self) -> String {
        printable(&String::from_utf8_lossy(
            &self.body[..self.body.len().min(800)],
        ))
    }
}

/// A client of one base URL. Cloning shares connections.
#[derive(Clone)]
pub struct HttpClient {
    inner: Arc<Inner>,
}

struct Inner {
    dialer: Arc<dyn Dialer>,
    class: DialClass,
    url: BaseUrl,
    limits: Limits,
    tls: Arc<ClientConfig>,
    headers: HeaderMap,
    slots: Semaphore,
    idle: Mutex<Vec<(Instant, SendRequest<Full<Bytes>>)>>,
}

impl HttpClient {
    /// A client of `url` with default limits; `https` is verified against Mozilla's roots.
    ///
    /// # Errors
    /// [`HttpError::InvalidUrl`].
    pub fn new(dialer: Arc<dyn Dialer>, class: DialClass, url: &str) -> Result<Self, HttpError> {
        Self::with_limits(dialer, class, url, Limits::default())
    }

    /// The same with the caller's limits.
    ///
    /// # Errors
    /// [`HttpError::InvalidUrl`].
    pub fn with_limits(
        dialer: Arc<dyn Dialer>,
        class: DialClass,
        url: &str,
        limits: Limits,
    ) -> Result<Self, HttpError> {
        Self::with_tls(
            dialer,
            class,
            url,
            limits,
            tls_config(public_roots()),
            HeaderMap::new(),
        )
    }

    /// The same with the caller's TLS configuration (see [`tls_config`]) and headers sent with every request (an API
    /// key; mark its value sensitive).
    ///
    /// # Errors
    /// [`HttpError::InvalidUrl`].
    pub fn with_tls(
        dialer: Arc<dyn Dialer>,
        class: DialClass,
        url: &str,
        limits: Limits,
        tls: Arc<ClientConfig>,
        headers: HeaderMap,
    ) -> Result<Self, HttpError> {
        let url = BaseUrl::parse(url)?;
        let slots = Semaphore::new(limits.max_connections.clamp(1, Semaphore::MAX_PERMITS));
        let idle = Mutex::new(Vec::new());
        Ok(Self {
            inner: Arc::new(Inner {
                dialer,
                class,
                url,
                limits,
                tls,
                headers,
                slots,
                idle,
            }),
        })
    }

    /// The base URL; safe to print.
    pub fn url(&self) -> &BaseUrl {
        &self.inner.url
    }

    /// Sends a request and reads the whole answer.
    ///
    /// A reused connection that turns out closed before anything was sent is replaced once; nothing else is retried.
    ///
    /// # Errors
    /// Any but [`HttpError::Status`] and [`HttpError::Json`].
    pub async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let inner = &*self.inner;
        let max_body = request.max_body.unwrap_or(inner.limits.max_body);
        let mut outgoing = inner.outgoing(request)?;
        let connect_limit = inner.limits.connect_timeout;
        let slot = timeout(connect_limit, inner.slots.acquire())
            .await
            .map_err(|_| inner.timeout(Stage::Connect, connect_limit))?
            // The semaphore is never closed.
            .expect("semaphore open");
        let exchange_limit = inner.limits.exchange_timeout;
        let mut reused = inner.take_idle();
        loop {
            let fresh = reused.is_none();
            let mut sender = match reused.take() {
                Some(sender) => sender,
                None => timeout(
                    connect_limit,
                    connect(&*inner.dialer, inner.class, &inner.url, &inner.tls),
                )
                .await
                .map_err(|_| inner.timeout(Stage::Connect, connect_limit))??,
            };
            let exchange = async {
                let response = match sender.try_send_request(outgoing).await {
                    Ok(response) => response,
                    Err(mut error) => {
                        let unsent = error.take_message();
                        return Err((unsent, inner.protocol(error.into_error())));
                    }
                };
                inner
                    .collect(response, max_body)
                    .await
                    .map_err(|error| (None, error))
            };
            match timeout(exchange_limit, exchange).await {
                Err(_) => return Err(inner.timeout(Stage::Exchange, exchange_limit)),
                Ok(Ok(response)) => {
                    inner.put_idle(sender);
                    drop(slot);
                    return Ok(response);
                }
                Ok(Err((Some(unsent), _))) if !fresh => outgoing = unsent,
                Ok(Err((_, error))) => return Err(error),
            }
        }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// As [`HttpClient::send`].
    pub async fn get(&self, path: &str) -> Result<Response, HttpError> {
        self.send(Request::get(path)).await
    }

    /// Posts JSON to `path` (empty: the base URL itself) and parses the JSON of a 2xx answer.
    ///
    /// # Errors
    /// As [`HttpClient::send`], [`HttpError::Status`] for any other status, [`HttpError::Json`].
    pub async fn post_json<Q: Serialize + ?Sized, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &Q,
    ) -> Result<A, HttpError> {
        let body = serde_json::to_vec(body)
            .map_err(|_| HttpError::InvalidRequest("body does not serialise to JSON"))?;
        self.json(Request::post(path, "application/json", body))
            .await
    }

    /// Sends any request and parses the JSON of a 2xx answer.
    ///
    /// # Errors
    /// As [`HttpClient::post_json`].
    pub async fn json<A: DeserializeOwned>(&self, request: Request) -> Result<A, HttpError> {
        let response = self.send(request).await?;
        let peer = self.inner.url.peer();
        if !response.status.is_success() {
            return Err(HttpError::Status {
                peer,
                status: response.status.as_u16(),
                excerpt: response.excerpt(),
            });
        }
        serde_json::from_slice(&response.body).map_err(|source| HttpError::Json { peer, source })
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpClient({}, {})", self.inner.class, self.inner.url)
    }
}

impl Inner {
    fn outgoing(&self, request: Request) -> Result<hyper::Request<Full<Bytes>>, HttpError> {
        let mut outgoing = hyper::Request::new(Full::new(request.body));
        *outgoing.method_mut() = request.method;
        *outgoing.uri_mut() = self.url.target(&request.path)?;
        let headers = outgoing.headers_mut();
        headers.extend(self.headers.clone());
        headers.extend(request.headers);
        let host = HeaderValue::from_str(&self.url.host_header())
            .map_err(|_| HttpError::InvalidUrl("host cannot stand in a header"))?;
        headers.insert(HOST, host);
        Ok(outgoing)
    }

    async fn collect(
        &self,
        response: hyper::Response<Incoming>,
        limit: usize,
    ) -> Result<Response, HttpError> {
        let (head, mut body) = response.into_parts();
        let too_large = |got: u64| HttpError::BodyTooLarge {
            peer: self.url.peer(),
            limit,
            got,
        };
        // The announced length is only a hint of how much to refuse early; memory follows what really arrives.
        let announced = body.size_hint().lower();
        if announced > limit as u64 {
            return Err(too_large(announced));
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|source| self.protocol(source))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let got = whole.len() + data.len();
            if got > limit {
                return Err(too_large(got as u64));
            }
            whole.extend_from_slice(&data);
        }
        Ok(Response {
            status: head.status,
            headers: head.headers,
            body: whole.freeze(),
        })
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, sender)| since.elapsed() < IDLE_FOR && !sender.is_closed());
        // `is_ready` is false while hyper still drains a previous exchange; such a connection may be picked up later.
        let at = idle.iter().rposition(|(_, sender)| sender.is_ready())?;
        Some(idle.swap_remove(at).1)
    }

    fn put_idle(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push((Instant::now(), sender));
        }
    }

    fn timeout(&self, stage: Stage, after: Duration) -> HttpError {
        HttpError::Timeout {
            peer: self.url.peer(),
            stage,
            after,
        }
    }

    fn protocol(&self, source: hyper::Error) -> HttpError {
        HttpError::Protocol {
            peer: self.url.peer(),
            source,
        }
    }
}

/// The first 200 characters of untrusted text, control characters replaced by spaces.
pub fn printable(text: &str) -> String {
    text.chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
