//! The record of a component's HTTP exchanges, and the seam through which they leave.

use alloy_primitives::{B256, keccak256};
use serde::{Deserialize, Serialize};

/// A header as the component gave it or the server sent it.
pub type Header = (String, String);

/// A request of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// Absolute URL.
    pub url: String,
    /// Method, as given.
    pub method: String,
    /// Headers in order.
    pub headers: Vec<Header>,
    /// Body.
    #[serde(with = "serde_bytes")]
    pub body: Option<Vec<u8>>,
}

impl HttpRequest {
    /// Bytes of URL, method, headers and body together.
    #[must_use]
    pub fn size(&self) -> u64 {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        (self.url.len() + self.method.len() + headers + self.body.as_ref().map_or(0, Vec::len))
            as u64
    }
}

/// A server's response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Headers in order.
    pub headers: Vec<Header>,
    /// Body.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// What came of a request: a response, or an error text that the component sees.
pub type HttpOutcome = Result<HttpResponse, String>;

/// Performs HTTP requests for components. The appliance implements it over its dial service.
pub trait HttpFetcher: Send + Sync {
    /// Performs one request. `max_body` bounds the response's body.
    ///
    /// # Errors
    /// `Ok(Err(text))` is a failure that follows from the request and what authenticated servers say: the component sees it and
    /// the transcript records it. [`FetchError`] ends the run.
    fn fetch(&self, request: &HttpRequest, max_body: u64) -> Result<HttpOutcome, FetchError>;
}

/// Why a request ends the run it was made in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FetchError {
    /// The response's body is larger than the limit; the evaluation ends with the error of that limit.
    #[error("the response is too large")]
    TooLarge,
    /// No authenticated answer. The host can bring this about as it likes, so nothing may follow from it: the evaluation
    /// abstains.
    #[error("{reason}")]
    Unavailable {
        /// What went wrong, for the caller; no URL path, no header, no body.
        reason: String,
    },
}

impl FetchError {
    /// HTTP is not wired up here.
    #[must_use]
    pub fn absent() -> Self {
        Self::Unavailable {
            reason: "HTTP is not available here".to_owned(),
        }
    }
}

/// One exchange as `transcriptHash` binds it (protocol section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Hash of the request.
    pub request_hash: B256,
    /// Hash of the response or error.
    pub response_hash: B256,
}

impl Exchange {
    /// The exchange of `request` and `outcome`.
    #[must_use]
    pub fn new(request: &HttpRequest, outcome: &HttpOutcome) -> Self {
        Self {
            request_hash: request_hash(request),
            response_hash: response_hash(outcome),
        }
    }
}

/// `keccak256(abi.encode(Exchange[]))`.
#[must_use]
pub fn transcript_hash(exchanges: &[Exchange]) -> B256 {
    let mut abi = Vec::with_capacity(64 + 64 * exchanges.len());
    abi.extend_from_slice(&word(0x20));
    abi.extend_from_slice(&word(exchanges.len()));
    for exchange in exchanges {
        abi.extend_from_slice(exchange.request_hash.as_slice());
        abi.extend_from_slice(exchange.response_hash.as_slice());
    }
    keccak256(&abi)
}

/// `keccak256(abi.encode(string method, string url, Header[] headers, bool hasBody, bytes body))`.
#[must_use]
pub fn request_hash(request: &HttpRequest) -> B256 {
    let body = request.body.as_deref();
    keccak256(tuple(&[
        Part::Dynamic(bytes(request.method.as_bytes())),
        Part::Dynamic(bytes(request.url.as_bytes())),
        Part::Dynamic(headers(&request.headers)),
        Part::Static(word(usize::from(body.is_some()))),
        Part::Dynamic(bytes(body.unwrap_or_default())),
    ]))
}

/// `keccak256(abi.encode(uint16 status, Header[] headers, bytes body, string error))`, status 0 with an error.
#[must_use]
pub fn response_hash(outcome: &HttpOutcome) -> B256 {
    let (status, header_list, body, error) = match outcome {
        Ok(response) => (
            response.status,
            response.headers.as_slice(),
            response.body.as_slice(),
            "",
        ),
        Err(error) => (0, [].as_slice(), [].as_slice(), error.as_str()),
    };
    keccak256(tuple(&[
        Part::Static(word(usize::from(status))),
        Part::Dynamic(headers(header_list)),
        Part::Dynamic(bytes(body)),
        Part::Dynamic(bytes(error.as_bytes())),
    ]))
}

enum Part {
    Static([u8; 32]),
    Dynamic(Vec<u8>),
}

fn word(value: usize) -> [u8; 32] {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&(value as u64).to_be_bytes());
    word
}

fn tuple(parts: &[Part]) -> Vec<u8> {
    let mut head = Vec::with_capacity(32 * parts.len());
    let mut tail = Vec::new();
    for part in parts {
        match part {
            Part::Static(word) => head.extend_from_slice(word),
            Part::Dynamic(encoded) => {
                head.extend_from_slice(&word(32 * parts.len() + tail.len()));
                tail.extend_from_slice(encoded);
            }
        }
    }
    head.extend_from_slice(&tail);
    head
}

fn bytes(data: &[u8]) -> Vec<u8> {
    let mut encoded = word(data.len()).to_vec();
    encoded.extend_from_slice(data);
    encoded.resize(32 + data.len().div_ceil(32) * 32, 0);
    encoded
}

fn headers(list: &[Header]) -> Vec<u8> {
    let items: Vec<Part> = list
        .iter()
        .map(|(name, value)| {
            Part::Dynamic(tuple(&[
                Part::Dynamic(bytes(name.as_bytes())),
                Part::Dynamic(bytes(value.as_bytes())),
            ]))
        })
        .collect();
    let mut encoded = word(list.len()).to_vec();
    encoded.extend_from_slice(&tuple(&items));
    encoded
}

#[cfg(test)]
mod tests {
    use alloy_dyn_abi::DynSolValue as V;
    use alloy_primitives::U256;

    use super::*;

    fn sol_bytes(bytes: &[u8]) -> V {
        V::Bytes(bytes.to_vec())
    }

    fn sol_headers(list: &[Header]) -> V {
        let pair = |(name, value): &Header| {
            V::Tuple(vec![V::String(name.clone()), V::String(value.clone())])
        };
        V::Array(list.iter().map(pair).collect())
    }

    #[test]
    fn hashes_are_of_soliditys_encoding() {
        let lists = [
            Vec::new(),
            vec![
                ("a".to_owned(), "b".repeat(40)),
                (String::new(), "c".to_owned()),
            ],
        ];
        let bodies = [None, Some(Vec::new()), Some(vec![7; 33])];
        for headers in &lists {
            for body in &bodies {
                let request = HttpRequest {
                    url: "https://a.example/?q=1".to_owned(),
                    method: "POST".to_owned(),
                    headers: headers.clone(),
                    body: body.clone(),
                };
                let encoded = V::Tuple(vec![
                    V::String(request.method.clone()),
                    V::String(request.url.clone()),
                    sol_headers(headers),
                    V::Bool(body.is_some()),
                    sol_bytes(body.as_deref().unwrap_or_default()),
                ])
                .abi_encode_params();
                assert_eq!(request_hash(&request), keccak256(encoded));

                let bytes = body.clone().unwrap_or_default();
                let encoded = |status: u16, list: &[Header], body: &[u8], error: &str| {
                    V::Tuple(vec![
                        V::Uint(U256::from(status), 16),
                        sol_headers(list),
                        sol_bytes(body),
                        V::String(error.to_owned()),
                    ])
                    .abi_encode_params()
                };
                let expected = keccak256(encoded(404, headers, &bytes, ""));
                let response = HttpResponse {
                    status: 404,
                    headers: headers.clone(),
                    body: bytes,
                };
                assert_eq!(response_hash(&Ok(response)), expected);
                assert_eq!(
                    response_hash(&Err("refused".to_owned())),
                    keccak256(encoded(0, &[], b"", "refused"))
                );
            }
        }
        let exchange = |byte| Exchange {
            request_hash: B256::repeat_byte(byte),
            response_hash: B256::repeat_byte(byte + 1),
        };
        for exchanges in [vec![], vec![exchange(1), exchange(3)]] {
            let word = |hash: B256| V::FixedBytes(hash, 32);
            let list = exchanges
                .iter()
                .map(|e| V::Tuple(vec![word(e.request_hash), word(e.response_hash)]));
            let encoded = V::Tuple(vec![V::Array(list.collect())]).abi_encode_params();
            assert_eq!(transcript_hash(&exchanges), keccak256(encoded));
        }
    }
}
