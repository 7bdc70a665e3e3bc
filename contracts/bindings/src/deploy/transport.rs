//! JSON-RPC to a node over the project's own HTTP client, so that HTTPS needs no second TLS stack.

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::transports::http::reqwest::header::HeaderMap;
use alloy::transports::{TransportError, TransportErrorKind, TransportFut};
use newton_http::{
    DialClass, HttpClient, Limits, Request, TcpDialer, add_root, public_roots, tls_config,
};
use tower::Service;

use super::DeployError;

/// A node at an `http` or `https` URL. HTTPS is verified against Mozilla's roots, and one's own if given.
#[derive(Clone, Debug)]
pub struct NodeTransport {
    client: HttpClient,
}

impl NodeTransport {
    /// `root`: a PEM file with certificates that vouch for the node as well.
    ///
    /// # Errors
    /// [`DeployError::Node`] for an unusable URL, without showing it: it may hold an API key. [`DeployError::Read`] if the
    /// file cannot be read or holds no certificate.
    pub fn new(url: &str, root: Option<&Path>) -> Result<Self, DeployError> {
        let mut roots = public_roots();
        if let Some(path) = root {
            std::fs::read_to_string(path)
                .and_then(|pem| add_root(&mut roots, &pem))
                .map_err(|source| DeployError::Read {
                    path: path.to_owned(),
                    source,
                })?;
        }
        let client = HttpClient::with_tls(
            Arc::new(TcpDialer),
            DialClass::Rpc,
            url,
            Limits::default(),
            tls_config(roots),
            HeaderMap::new(),
        )?;
        Ok(Self { client })
    }
}

impl Service<RequestPacket> for NodeTransport {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        let client = self.client.clone();
        Box::pin(async move {
            let body = packet.serialize().map_err(TransportError::ser_err)?;
            let request = Request::post("", "application/json", body.get().to_owned());
            let response = client
                .send(request)
                .await
                .map_err(TransportErrorKind::custom)?;
            if !response.status.is_success() {
                let status = response.status.as_u16();
                return Err(TransportErrorKind::http_error(status, response.excerpt()));
            }
            serde_json::from_slice(&response.body)
                .map_err(|error| TransportError::deser_err(error, response.excerpt()))
        })
    }
}
