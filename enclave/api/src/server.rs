//! One connection: TLS, HTTP/1.1, bounded bodies, one request after another.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use newton_types::rpc::ErrorName;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    Call, KeyRing, RpcError,
    auth::Permissions,
    budget::{Memory, held},
    jsonrpc,
    patience::Patience,
};

/// What answers a call. Answers must not hold secrets; they leave through the host.
pub trait Handler: Send + Sync + 'static {
    /// Answers one call.
    fn call(
        &self,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Value, RpcError>> + Send + '_>>;

    /// Memory that making and sending an answer of this method may take, in bytes.
    fn answer_bytes(&self, method: &str) -> usize {
        let _ = method;
        1 << 20
    }
}

/// Bounds on what callers may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest request body in bytes of a caller without a key.
    pub body_bytes: usize,
    /// Longest request body in bytes of a caller whose bearer key opens something: a policy of 1 MiB, params and arguments in hex.
    pub keyed_body_bytes: usize,
    /// Connections served at once; further ones wait.
    pub connections: usize,
    /// Connections that wait for a place, each no longer than `handshake`; further ones are closed.
    pub waiting: usize,
    /// Calls in the handler at once; further ones are answered `Overloaded`.
    pub calls: usize,
    /// Bytes that all requests and answers may take at once; what would exceed them is answered `Overloaded`.
    pub memory_bytes: usize,
    /// TLS handshake and header time, and before them the wait for a place.
    pub handshake: Duration,
    /// Time for a request's body to arrive, for an idle connection, and for a caller to take some of an answer.
    pub read: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 2 * 1024 * 1024,
            keyed_body_bytes: 6 * 1024 * 1024,
            connections: 128,
            // More than the shim lets in by default (256), so that nobody is turned away without a word.
            waiting: 256,
            calls: 64,
            memory_bytes: 256 * 1024 * 1024,
            handshake: Duration::from_secs(30),
            read: Duration::from_secs(60),
        }
    }
}

/// A TLS set-up that rustls refuses.
#[derive(Debug, thiserror::Error)]
#[error("TLS key or certificate refused: {0}")]
pub struct TlsSetupError(#[from] rustls::Error);

/// TLS 1.3 with the enclave's own key; `private_key_pkcs8` is PKCS #8 DER.
pub fn tls_acceptor(
    certificate_der: Vec<u8>,
    private_key_pkcs8: Vec<u8>,
) -> Result<TlsAcceptor, TlsSetupError> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(private_key_pkcs8));
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])?
    .with_no_client_auth()
    .with_single_cert(vec![CertificateDer::from(certificate_der)], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The JSON-RPC server. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    tls: TlsAcceptor,
    keys: KeyRing,
    handler: Arc<dyn Handler>,
    limits: Limits,
    connections: Arc<Semaphore>,
    waiting: Semaphore,
    calls: Arc<Semaphore>,
    memory: Memory,
    stats: Counters,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Calls that reached the handler.
    pub calls: u64,
    /// Calls that a bucket refused.
    pub rate_limited: u64,
    /// Calls refused because too many, or too many bytes, were being served.
    pub overloaded: u64,
    /// Connections closed because too many waited, or one for too long.
    pub connections_refused: u64,
    /// Connections now.
    pub connections: u64,
}

#[derive(Default)]
struct Counters {
    calls: AtomicU64,
    rate_limited: AtomicU64,
    overloaded: AtomicU64,
    connections_refused: AtomicU64,
}

impl Server {
    /// A server with its key, its bearer keys and its handler.
    pub fn new(tls: TlsAcceptor, keys: KeyRing, handler: Arc<dyn Handler>, limits: Limits) -> Self {
        Self {
            inner: Arc::new(Inner {
                tls,
                keys,
                handler,
                limits,
                connections: Arc::new(Semaphore::new(limits.connections)),
                waiting: Semaphore::new(limits.waiting),
                calls: Arc::new(Semaphore::new(limits.calls)),
                memory: Memory::new(limits.memory_bytes),
                stats: Counters::default(),
            }),
        }
    }

    /// What happened since the start.
    pub fn stats(&self) -> ServerStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (inner, stats) = (&self.inner, &self.inner.stats);
        ServerStats {
            calls: load(&stats.calls),
            rate_limited: load(&stats.rate_limited),
            overloaded: load(&stats.overloaded),
            connections_refused: load(&stats.connections_refused),
            connections: (inner.limits.connections - inner.connections.available_permits()) as u64,
        }
    }

    /// Serves one accepted stream until its end. Errors of a peer are its own: they are logged at debug level only.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(_place) = self.inner.place().await else {
            self.inner
                .stats
                .connections_refused
                .fetch_add(1, Ordering::Relaxed);
            tracing::debug!("too many connections, one refused");
            return;
        };
        let limits = self.inner.limits;
        let stream = Patience::new(stream, limits.read);
        let stream = match timeout(limits.handshake, self.inner.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return tracing::debug!(error = %e, "TLS handshake failed"),
            Err(_) => return tracing::debug!("TLS handshake timed out"),
        };
        let inner = self.inner.clone();
        let service = service_fn(move |request| {
            let inner = inner.clone();
            async move { Ok::<_, Infallible>(inner.respond(request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.read)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(e) = connection.await {
            tracing::debug!(error = %e, "connection ended");
        }
    }
}

impl Inner {
    /// A connection's place. Without TLS a caller cannot be told that there is none, so it waits a while: places of callers that have their
    /// answer become free only when their closing has come through the host.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let connections = self.connections.clone();
        if let Ok(place) = connections.clone().try_acquire_owned() {
            return Some(place);
        }
        let _waiting = self.waiting.try_acquire().ok()?;
        timeout(self.limits.handshake, connections.acquire_owned())
            .await
            .ok()?
            .ok()
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(request.uri().path(), "/" | "/rpc") {
            return plain(StatusCode::NOT_FOUND, "JSON-RPC is served at /rpc\n");
        }
        if request.method() != Method::POST {
            return plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "POST a JSON-RPC 2.0 request\n",
            );
        }
        let caller = self.keys.caller(
            request
                .headers()
                .get(AUTHORIZATION)
                .and_then(|v| v.to_str().ok()),
        );
        // Before the body: who calls too often costs next to nothing.
        if let Err(wait) = caller.bucket.take() {
            self.stats.rate_limited.fetch_add(1, Ordering::Relaxed);
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) + 1;
            let error = RpcError::new(
                ErrorName::RateLimited,
                format!("too many calls, the next one is taken in {wait} ms"),
            )
            .with("retry_after_ms", wait);
            return refused(error);
        }
        let permissions = caller.permissions;
        let limit = if permissions == Permissions::default() {
            self.limits.body_bytes
        } else {
            self.limits.keyed_body_bytes
        };
        let declared = request
            .body()
            .size_hint()
            .upper()
            .map_or(limit, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if declared > limit {
            return refused(too_large(limit));
        }
        // A body is held as bytes, and as the values they are parsed into.
        let Some(body_memory) = self.memory.take(declared.saturating_mul(2)) else {
            return refused(self.overloaded("memory"));
        };
        let body = Limited::new(request.into_body(), limit).collect();
        let body = match timeout(self.limits.read, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(e)) if e.downcast_ref::<LengthLimitError>().is_some() => {
                return refused(too_large(limit));
            }
            Ok(Err(_)) | Err(_) => {
                return plain(
                    StatusCode::REQUEST_TIMEOUT,
                    "the request's body did not arrive\n",
                );
            }
        };
        let parsed = jsonrpc::parse(&body);
        drop(body);
        let (method, params) = match parsed.request {
            Ok(request) => request,
            Err(error) => return json(&parsed.id, Err(error), Vec::new()),
        };
        let Ok(place) = self.calls.clone().try_acquire_owned() else {
            return json(&parsed.id, Err(self.overloaded("calls")), Vec::new());
        };
        let Some(answer_memory) = self.memory.take(self.handler.answer_bytes(&method)) else {
            return json(&parsed.id, Err(self.overloaded("memory")), Vec::new());
        };
        self.stats.calls.fetch_add(1, Ordering::Relaxed);
        let outcome = self
            .handler
            .call(Call {
                method,
                params,
                permissions,
            })
            .await;
        drop((place, body_memory));
        json(&parsed.id, outcome, vec![answer_memory])
    }

    fn overloaded(&self, what: &str) -> RpcError {
        self.stats.overloaded.fetch_add(1, Ordering::Relaxed);
        RpcError::new(ErrorName::Overloaded, "too many calls at once, try again")
            .with("resource", what)
    }
}

fn too_large(limit: usize) -> RpcError {
    RpcError::new(
        ErrorName::RequestTooLarge,
        format!("request body is larger than {limit} bytes"),
    )
    .with("limit", limit)
}

/// An error before the request's id is known.
fn refused(error: RpcError) -> Response<Full<Bytes>> {
    json(&Value::Null, Err(error), Vec::new())
}

fn json(
    id: &Value,
    outcome: Result<Value, RpcError>,
    permits: Vec<OwnedSemaphorePermit>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(held(jsonrpc::answer(id, outcome), permits));
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
