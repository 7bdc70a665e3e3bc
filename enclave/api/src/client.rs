//! The caller's side: TLS that is pinned to a key hash instead of a certificate authority.
//!
//! The enclave's certificate is self-signed; what vouches for its key is the attestation document. A first connection
//! learns the key ([`Pin::Learn`]), fetches the document and checks that it binds this very key; later connections pin it.

use std::{
    future::Future,
    pin::Pin as Pinned,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use newton_types::{B256, rpc::ErrorName};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use x509_cert::der::{Decode, Encode};

use crate::RpcError;

/// Longest answer that is read, in bytes: an artifact of 24 MiB in hex, and room.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Which TLS key is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Any: only to fetch an attestation document that is then checked against the key seen.
    Learn,
    /// The key with this SHA-256 over its SubjectPublicKeyInfo.
    Key(B256),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No TCP or TLS connection; a wrong TLS key shows here, too.
    #[error("cannot reach {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// HTTP broke off.
    #[error("HTTP: {0}")]
    Http(String),
    /// The answer is not a JSON-RPC answer.
    #[error("answer is not JSON-RPC: {0}")]
    Malformed(String),
    /// The enclave answered with an error.
    #[error("{0}")]
    Rpc(#[from] RpcError),
}

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What opens a connection.
pub type Opening<'a> =
    Pinned<Box<dyn Future<Output = std::io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// How connections are opened, where it is not TCP: inside an enclave every one goes through the host.
pub trait Open: Send + Sync {
    /// Connects to `address` (`host:port`).
    fn open<'a>(&'a self, address: &'a str) -> Opening<'a>;
}

struct Tcp;

impl Open for Tcp {
    fn open<'a>(&'a self, address: &'a str) -> Opening<'a> {
        Box::pin(async move {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            Ok(Box::new(tcp) as Box<dyn Stream>)
        })
    }
}

/// A caller of one enclave.
#[derive(Clone)]
pub struct Client {
    address: String,
    open: Arc<dyn Open>,
    pin: Pin,
    bearer: Option<String>,
    seen: Arc<Mutex<Option<B256>>>,
}

impl Client {
    /// A client of `address` (`host:port`).
    pub fn new(address: impl Into<String>, pin: Pin) -> Self {
        Self::over(Arc::new(Tcp), address, pin)
    }

    /// A client of `address` over connections that `open` makes.
    pub fn over(open: Arc<dyn Open>, address: impl Into<String>, pin: Pin) -> Self {
        Self {
            address: address.into(),
            open,
            pin,
            bearer: None,
            seen: Arc::default(),
        }
    }

    /// Sends this bearer key with every call.
    #[must_use]
    pub fn with_bearer(mut self, key: impl Into<String>) -> Self {
        self.bearer = Some(key.into());
        self
    }

    /// SHA-256 over the SubjectPublicKeyInfo of the last connection's key.
    pub fn seen_key(&self) -> Option<B256> {
        *self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Calls `method` with named parameters, on a connection of its own.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        let stream = self
            .connect()
            .await
            .map_err(|source| ClientError::Connect {
                address: self.address.clone(),
                source,
            })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(http)?;
        let driver = tokio::spawn(connection);
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut request = Request::post("/rpc")
            .header(HOST, self.address.as_str())
            .header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(http)?;
        let response = sender.send_request(request).await.map_err(http)?;
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(http)?
            .to_bytes();
        driver.abort();
        read_answer(&body)
    }

    /// A connection of its own, for callers that speak HTTP themselves.
    pub async fn connect(
        &self,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<Box<dyn Stream>>> {
        let stream = self.open.open(&self.address).await?;
        let provider = Arc::new(ring::default_provider());
        let verifier = PinnedKey {
            pin: self.pin,
            seen: self.seen.clone(),
            provider: provider.clone(),
        };
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(std::io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let name = ServerName::try_from("enclave.newton").map_err(std::io::Error::other)?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

/// The result in the body of an answer.
///
/// # Errors
/// [`ClientError::Malformed`] if it is no answer, [`ClientError::Rpc`] if it is an error of the table.
pub fn read_answer(body: &[u8]) -> Result<Value, ClientError> {
    let malformed = |why: &str| ClientError::Malformed(why.to_owned());
    let mut answer: Value =
        serde_json::from_slice(body).map_err(|e| ClientError::Malformed(e.to_string()))?;
    if let Some(error) = answer.get("error") {
        let name = error["data"]["name"]
            .as_str()
            .and_then(ErrorName::from_name)
            .ok_or_else(|| malformed("error without a known name"))?;
        let message = error["message"].as_str().unwrap_or_default();
        let mut rpc = RpcError::new(name, message);
        if let Some(data) = error["data"].as_object() {
            rpc.data = data.clone();
        }
        return Err(rpc.into());
    }
    answer
        .get_mut("result")
        .map(Value::take)
        .ok_or_else(|| malformed("neither result nor error"))
}

fn http(e: impl std::fmt::Display) -> ClientError {
    ClientError::Http(e.to_string())
}

/// Accepts a certificate by the hash of its key alone; the handshake's signature is still checked.
#[derive(Debug)]
struct PinnedKey {
    pin: Pin,
    seen: Arc<Mutex<Option<B256>>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let bad = |_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding);
        let certificate = x509_cert::Certificate::from_der(end_entity).map_err(bad)?;
        let spki = certificate
            .tbs_certificate()
            .subject_public_key_info()
            .to_der()
            .map_err(bad)?;
        let key = B256::from_slice(&Sha256::digest(spki));
        *self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(key);
        match self.pin {
            Pin::Learn => Ok(ServerCertVerified::assertion()),
            Pin::Key(expected) if expected == key => Ok(ServerCertVerified::assertion()),
            Pin::Key(expected) => Err(rustls::Error::General(format!(
                "TLS key hash {key}, expected the attested {expected}"
            ))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
