//! Where blobs come from.

use crate::{PayloadError, decode_payload, encoded_symbols, payload::SYMBOL_BYTES};
use bytes::Bytes;
use newton_http::{BoxFuture, DialClass, Dialer, HttpClient, HttpError, Limits, Request};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Largest certificate a proxy may return to a put.
const MAX_PUT_ANSWER: usize = crate::MAX_CERTIFICATE_BYTES;

/// Serves payloads by certificate. Nothing it says is believed: callers check the bytes.
pub trait BlobSource: Send + Sync {
    /// The payload behind a certificate (`0x03 ‖ RLP`), which the DA reference says has `length` bytes.
    fn blob<'a>(
        &'a self,
        certificate: &'a [u8],
        length: u32,
    ) -> BoxFuture<'a, Result<Bytes, FetchError>>;
}

/// Why a source did not deliver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// 429 or 503: later, or elsewhere.
    #[error("DA source is busy (status {status}): {text}")]
    Busy {
        /// Status code.
        status: u16,
        /// What it said.
        text: String,
    },
    /// 418: the proxy holds the certificate to be unfit for good.
    #[error("DA proxy refuses the certificate (code {code}): {text}")]
    Refused {
        /// 1 does not parse, 2 too old, 3 invalid, 4 blob does not decode; 0 if the answer had no such JSON.
        code: u32,
        /// What it said.
        text: String,
    },
    /// 400 or 403: the proxy does not take such requests.
    #[error("DA proxy does not take the request (status {status}): {text}")]
    Request {
        /// Status code.
        status: u16,
        /// What it said.
        text: String,
    },
    /// Any other status; 500 is also "not found".
    #[error("DA proxy failed (status {status}): {text}")]
    Failed {
        /// Status code.
        status: u16,
        /// What it said.
        text: String,
    },
    /// No complete answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The answer is not an encoded payload.
    #[error("DA proxy's answer: {0}")]
    Encoding(#[from] PayloadError),
}

impl FetchError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Failed { .. } => true,
            Self::Http(error) => error.is_retryable(),
            Self::Refused { .. } | Self::Request { .. } | Self::Encoding(_) => false,
        }
    }
}

/// An EigenDA proxy, or anything with its REST interface (design 11.1).
///
/// A certificate travels as hex in the request's path; paths above 65,534 bytes (certificates above 32 KiB, some 320
/// non-signers) cannot be asked for and give [`HttpError::InvalidRequest`].
#[derive(Debug, Clone)]
pub struct EigenDaProxy {
    http: HttpClient,
}

impl EigenDaProxy {
    /// A proxy at a base URL, dialled in the class `da`.
    ///
    /// # Errors
    /// [`HttpError::InvalidUrl`].
    pub fn new(dialer: Arc<dyn Dialer>, url: &str) -> Result<Self, HttpError> {
        // Dispersal waits for the operators' signatures: 5 s on average, and minutes in bad times.
        let limits = Limits {
            exchange_timeout: Duration::from_secs(120),
            max_connections: 4,
            ..Limits::default()
        };
        HttpClient::with_limits(dialer, DialClass::Da, url, limits).map(Self::from)
    }

    /// Disperses a payload and returns its certificate (`0x03 ‖ RLP`).
    ///
    /// # Errors
    /// [`FetchError`]; the certificate is not checked here.
    pub async fn put(&self, payload: impl Into<Bytes>) -> Result<Bytes, FetchError> {
        let request = Request::post(
            "/put?commitment_mode=standard",
            "application/octet-stream",
            payload,
        );
        self.send(request.max_body(MAX_PUT_ANSWER)).await
    }

    async fn send(&self, request: Request) -> Result<Bytes, FetchError> {
        let response = self.http.send(request).await?;
        let (status, text) = (response.status.as_u16(), response.excerpt());
        Err(match status {
            200 => return Ok(response.body),
            429 | 503 => FetchError::Busy { status, text },
            418 => match serde_json::from_slice::<Refusal>(&response.body) {
                Ok(refusal) => FetchError::Refused {
                    code: refusal.status_code,
                    text: newton_http::printable(&refusal.msg),
                },
                Err(_) => FetchError::Refused { code: 0, text },
            },
            400 | 403 => FetchError::Request { status, text },
            _ => FetchError::Failed { status, text },
        })
    }
}

impl From<HttpClient> for EigenDaProxy {
    fn from(http: HttpClient) -> Self {
        Self { http }
    }
}

impl BlobSource for EigenDaProxy {
    fn blob<'a>(
        &'a self,
        certificate: &'a [u8],
        length: u32,
    ) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        Box::pin(async move {
            // The encoded form is what the commitment is over; its size follows from the length, up to a blob padded
            // further by its disperser, which gets one doubling.
            let path = format!(
                "/get/0x{}?commitment_mode=standard&return_encoded_payload=true",
                hex::encode(certificate)
            );
            let most = 2 * encoded_symbols(length as usize) * SYMBOL_BYTES;
            // Room for the text of an error.
            let encoded = self
                .send(Request::get(path).max_body(most.max(64 * 1024)))
                .await?;
            Ok(decode_payload(&encoded)?.into())
        })
    }
}

/// The JSON of status 418.
#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "StatusCode")]
    status_code: u32,
    #[serde(rename = "Msg")]
    msg: String,
}
