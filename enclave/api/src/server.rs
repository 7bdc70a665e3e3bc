//! One connection: TLS, HTTP/1.1, bounded bodies, one request after another.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use newton_types::rpc::ErrorName;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{Call, KeyRing, RpcError, auth::Permissions, jsonrpc};

/// What answers a call. Answers must not hold secrets; they leave through the host.
pub trait Handler: Send + Sync + 'static {
    /// Answers one call.
    fn call(
        &self,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Value, RpcError>> + Send + '_>>;
}

/// Bounds on what callers may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest request body in bytes of a caller without a key.
    pub body_bytes: usize,
    /// Longest request body in bytes of a caller whose bearer key opens something: a policy of 1 MiB, params and arguments in hex.
    pub keyed_body_bytes: usize,
    /// Connections served at once; further ones are closed.
    pub connections: usize,
    /// Calls in the handler at once; further ones are answered `Overloaded`.
    pub calls: usize,
    /// TLS handshake and header time.
    pub handshake: Duration,
    /// Time for a request's body to arrive, and for an idle connection.
    pub read: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 2 * 1024 * 1024,
            keyed_body_bytes: 6 * 1024 * 1024,
            connections: 128,
            calls: 64,
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
    calls: Semaphore,
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
                calls: Semaphore::new(limits.calls),
            }),
        }
    }

    /// Serves one accepted stream until its end. Errors of a peer are its own: they are logged at debug level only.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(_permit) = self.inner.connections.clone().try_acquire_owned() else {
            tracing::debug!("too many connections, one refused");
            return;
        };
        let limits = self.inner.limits;
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
        let permissions = self.keys.permissions(
            request
                .headers()
                .get(AUTHORIZATION)
                .and_then(|v| v.to_str().ok()),
        );
        let limit = if permissions == Permissions::default() {
            self.limits.body_bytes
        } else {
            self.limits.keyed_body_bytes
        };
        let body = Limited::new(request.into_body(), limit).collect();
        let body = match timeout(self.limits.read, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(e)) if e.downcast_ref::<LengthLimitError>().is_some() => {
                let error = RpcError::new(
                    ErrorName::RequestTooLarge,
                    format!("request body is larger than {limit} bytes"),
                )
                .with("limit", limit);
                return json(jsonrpc::answer(&Value::Null, Err(error)));
            }
            Ok(Err(_)) | Err(_) => {
                return plain(
                    StatusCode::REQUEST_TIMEOUT,
                    "the request's body did not arrive\n",
                );
            }
        };
        let parsed = jsonrpc::parse(&body);
        let outcome = match parsed.request {
            Err(error) => Err(error),
            Ok((method, params)) => match self.calls.try_acquire() {
                Err(_) => Err(RpcError::new(
                    ErrorName::Overloaded,
                    "too many calls at once, try again",
                )),
                Ok(_permit) => {
                    self.handler
                        .call(Call {
                            method,
                            params,
                            permissions,
                        })
                        .await
                }
            },
        };
        json(jsonrpc::answer(&parsed.id, outcome))
    }
}

fn json(body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
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
