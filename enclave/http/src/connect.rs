//! From a dialled pipe to an HTTP/1.1 connection.

use crate::{BaseUrl, BoxStream, DialClass, Dialer, HttpError};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// Most bytes of a response's head: hyper buffers them before it gives up.
const MAX_HEAD: usize = 64 * 1024;

/// The client's TLS configuration: TLS 1.2 and 1.3, ring, the given roots, ALPN `http/1.1`, no client certificate.
///
/// Certificate validity is judged by the system clock, which inside an enclave is the host's: a host that turns the clock
/// back can revive an expired certificate whose key it holds.
pub fn tls_config(roots: RootCertStore) -> Arc<ClientConfig> {
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            // The ring provider supports both versions; only an empty set of cipher suites can fail here.
            .expect("ring supports the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Mozilla's roots, compiled in.
pub fn public_roots() -> RootCertStore {
    RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    }
}

/// Adds the certificates of a PEM text to `roots`.
///
/// # Errors
/// If the text holds no certificate, or one that cannot be a root.
pub fn add_root(roots: &mut RootCertStore, pem: &str) -> std::io::Result<()> {
    let invalid = |why: String| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| invalid(format!("not PEM: {e}")))?;
        roots
            .add(certificate)
            .map_err(|e| invalid(format!("not a root certificate: {e}")))?;
    }
    if roots.len() == before {
        return Err(invalid("no certificate in the PEM text".to_owned()));
    }
    Ok(())
}

pub(crate) async fn connect(
    dialer: &dyn Dialer,
    class: DialClass,
    url: &BaseUrl,
    tls: &Arc<ClientConfig>,
) -> Result<SendRequest<Full<Bytes>>, HttpError> {
    let pipe = dialer
        .dial(class, url.host(), url.port())
        .await
        .map_err(|source| HttpError::Dial {
            peer: url.peer(),
            source,
        })?;
    let stream: BoxStream = if url.is_tls() {
        let name = ServerName::try_from(url.host().to_owned())
            .map_err(|_| HttpError::InvalidUrl("host is neither a DNS name nor an address"))?;
        let stream = TlsConnector::from(tls.clone())
            .connect(name, pipe)
            .await
            .map_err(|source| HttpError::Tls {
                peer: url.peer(),
                source,
            })?;
        Box::new(stream)
    } else {
        pipe
    };
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| HttpError::Protocol {
            peer: url.peer(),
            source,
        })?;
    // Ends when the sender is dropped or the peer closes; its error also reaches the request that waits on it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}
