//! HTTP as policies' components use it (design 4.4): any public `https` URL, redirects followed, compression undone.
//!
//! The difference that matters is between what the request and the authenticated servers say, which is an answer
//! ([`PublicError::Refused`], [`PublicError::TooLarge`]), and what the host can bring about by not relaying, which is none
//! ([`PublicError::Unreachable`]): a policy must not decide by it.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use hyper::{Method, StatusCode};
use rustls::ClientConfig;
use url::{Host, Url};

use crate::{DialClass, Dialer, HttpClient, HttpError, Limits, Request, Response, is_public};

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 10;
/// Longest URL in bytes.
const MAX_URL: usize = 8 * 1024;
/// What another origin gets to see of the component's headers: everything else may hold a secret.
const SAFE_HEADERS: [HeaderName; 6] = [
    ACCEPT,
    ACCEPT_ENCODING,
    ACCEPT_LANGUAGE,
    CONTENT_LANGUAGE,
    CONTENT_TYPE,
    USER_AGENT,
];
/// Headers of the connection, which the client makes itself.
const OWN_HEADERS: [HeaderName; 6] = [
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    TE,
    TRAILER,
    UPGRADE,
];

/// Limits of one request, all redirects together.
#[derive(Debug, Clone, Copy)]
pub struct PublicLimits {
    /// From the start to the last byte.
    pub timeout: Duration,
    /// Whether `https` servers on loopback addresses may be reached, on any port. For development only.
    pub loopback: bool,
}

/// One request of a component.
#[derive(Debug, Clone, Copy)]
pub struct PublicRequest<'a> {
    /// Method, in any case.
    pub method: &'a str,
    /// Absolute URL.
    pub url: &'a str,
    /// Headers in order. Those of the connection (`Host`, `Content-Length` and the like) are made by the client instead.
    pub headers: &'a [(String, String)],
    /// Body.
    pub body: Option<&'a [u8]>,
}

/// The answer of the last server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicResponse {
    /// Status code, whatever it is.
    pub status: u16,
    /// Headers in order, names in lower case. Of a body that was decompressed here, `content-encoding` and `content-length` are
    /// left out.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublicError {
    /// Follows from the request, or from what authenticated servers answered: the same on every machine.
    #[error("{0}")]
    Refused(String),
    /// The body, or what it decompresses to, is larger than the caller takes. Follows from the answer.
    #[error("response body exceeds {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// No authenticated answer: the network, the host or the server failed.
    #[error(transparent)]
    Unreachable(HttpError),
    /// Not done in time.
    #[error("no complete answer within {after:?}")]
    Timeout {
        /// The limit.
        after: Duration,
    },
}

/// A client for one component run: connections are reused within it, never between runs.
pub struct PublicClient {
    dialer: Arc<dyn Dialer>,
    tls: Arc<ClientConfig>,
    limits: PublicLimits,
    origins: Mutex<BTreeMap<String, HttpClient>>,
}

impl PublicClient {
    /// A client that dials [`DialClass::Public`] and verifies servers by `tls`.
    #[must_use]
    pub fn new(dialer: Arc<dyn Dialer>, tls: Arc<ClientConfig>, limits: PublicLimits) -> Self {
        Self {
            dialer,
            tls,
            limits,
            origins: Mutex::new(BTreeMap::new()),
        }
    }

    /// Performs one request. `max_body` bounds the response's body in bytes, compressed and not.
    ///
    /// # Errors
    /// [`PublicError`].
    pub async fn fetch(
        &self,
        request: &PublicRequest<'_>,
        max_body: usize,
    ) -> Result<PublicResponse, PublicError> {
        let after = self.limits.timeout;
        tokio::time::timeout(after, self.follow(request, max_body))
            .await
            .unwrap_or(Err(PublicError::Timeout { after }))
    }

    async fn follow(
        &self,
        request: &PublicRequest<'_>,
        max_body: usize,
    ) -> Result<PublicResponse, PublicError> {
        let mut hop = Hop {
            url: self.target(request.url)?,
            method: method(request.method)?,
            headers: headers(request.headers)?,
            body: Bytes::copy_from_slice(request.body.unwrap_or_default()),
        };
        // Who asks for an encoding wants to see it; who does not gets plain bytes.
        let decode = !hop.headers.contains_key(ACCEPT_ENCODING);
        if decode {
            hop.headers
                .insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&hop, max_body).await?;
            let Some(location) = redirect(&response) else {
                return finish(&response, decode, max_body);
            };
            let next = hop
                .url
                .join(location)
                .map_err(|_| refused("redirected to what is not a URL"))?;
            let next = self.target(next.as_str())?;
            hop.turn(response.status, next);
        }
        Err(refused("more than 10 redirects"))
    }

    async fn send(&self, hop: &Hop, max_body: usize) -> Result<Response, PublicError> {
        let path = match hop.url.query() {
            Some(query) => format!("{}?{query}", hop.url.path()),
            None => hop.url.path().to_owned(),
        };
        let request = Request::new(hop.method.clone(), path)
            .headers(hop.headers.clone())
            .body(hop.body.clone())
            .max_body(max_body);
        self.origin(&hop.url)?
            .send(request)
            .await
            .map_err(|error| match error {
                HttpError::BodyTooLarge { limit, .. } => PublicError::TooLarge { limit },
                HttpError::InvalidUrl(why) | HttpError::InvalidRequest(why) => refused(why),
                error => PublicError::Unreachable(error),
            })
    }

    fn origin(&self, url: &Url) -> Result<HttpClient, PublicError> {
        let origin = url.origin().ascii_serialization();
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = origins.get(&origin) {
            return Ok(client.clone());
        }
        let limits = Limits {
            connect_timeout: self.limits.timeout,
            exchange_timeout: self.limits.timeout,
            ..Limits::default()
        };
        let client = HttpClient::with_tls(
            self.dialer.clone(),
            DialClass::Public,
            &origin,
            limits,
            self.tls.clone(),
            HeaderMap::new(),
        )
        .map_err(|_| refused("the URL's host cannot be used"))?;
        origins.insert(origin, client.clone());
        Ok(client)
    }

    /// Parses a URL and checks that it may be asked for at all. Names are resolved by the host, which has its own wall.
    fn target(&self, text: &str) -> Result<Url, PublicError> {
        if text.len() > MAX_URL {
            return Err(refused("the URL is longer than 8,192 bytes"));
        }
        let mut url = Url::parse(text).map_err(|_| refused("not an absolute URL"))?;
        if url.scheme() != "https" {
            return Err(refused("only https URLs are fetched"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("user information in URLs is not supported"));
        }
        url.set_fragment(None);
        let (public, loopback) = match url.host() {
            Some(Host::Ipv4(ip)) => (is_public(ip.into()), ip.is_loopback()),
            Some(Host::Ipv6(ip)) => (is_public(ip.into()), ip.is_loopback()),
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                let local = name == "localhost" || name.ends_with(".localhost");
                (!local, local)
            }
            None => return Err(refused("the URL has no host")),
        };
        if loopback && self.limits.loopback {
            return Ok(url);
        }
        if !public {
            return Err(refused("the URL's host is not a public address"));
        }
        if url.port().is_some() {
            return Err(refused("only port 443 is reached"));
        }
        Ok(url)
    }
}

/// One request on the way.
struct Hop {
    url: Url,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Hop {
    /// What follows a redirect (RFC 9110 section 15.4, with the change to GET that browsers make).
    fn turn(&mut self, status: StatusCode, next: Url) {
        let to_get = match status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        if to_get {
            self.method = Method::GET;
            self.body = Bytes::new();
            for name in [CONTENT_TYPE, CONTENT_LANGUAGE, CONTENT_ENCODING] {
                self.headers.remove(name);
            }
        }
        if next.origin() != self.url.origin() {
            let safe = self
                .headers
                .iter()
                .filter(|(name, _)| SAFE_HEADERS.contains(name))
                .map(|(name, value)| (name.clone(), value.clone()));
            // One by one: a map's own extension would replace repeated names.
            let mut kept = HeaderMap::new();
            for (name, value) in safe {
                kept.append(name, value);
            }
            self.headers = kept;
        }
        self.url = next;
    }
}

/// The place a response redirects to.
fn redirect(response: &Response) -> Option<&str> {
    match response.status.as_u16() {
        301 | 302 | 303 | 307 | 308 => response.headers.get(LOCATION)?.to_str().ok(),
        _ => None,
    }
}

fn finish(
    response: &Response,
    decode: bool,
    max_body: usize,
) -> Result<PublicResponse, PublicError> {
    let encoding = response.headers.get(CONTENT_ENCODING);
    let gzip = decode
        && !response.body.is_empty()
        && encoding.is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"gzip") || e == "x-gzip");
    let body = if gzip {
        inflate(&response.body, max_body)?
    } else {
        response.body.to_vec()
    };
    let headers = response
        .headers
        .iter()
        .filter(|(name, _)| !gzip || (**name != CONTENT_ENCODING && **name != CONTENT_LENGTH))
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    Ok(PublicResponse {
        status: response.status.as_u16(),
        headers,
        body,
    })
}

fn inflate(body: &[u8], limit: usize) -> Result<Vec<u8>, PublicError> {
    let mut plain = Vec::new();
    // One byte more than allowed tells a body that is too large from one that just fits.
    MultiGzDecoder::new(body)
        .take(limit as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|_| refused("the response's body is not the gzip it is said to be"))?;
    if plain.len() > limit {
        return Err(PublicError::TooLarge { limit });
    }
    Ok(plain)
}

fn method(text: &str) -> Result<Method, PublicError> {
    let method = Method::from_bytes(text.to_ascii_uppercase().as_bytes())
        .map_err(|_| refused("the method is not a token"))?;
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(refused("CONNECT and TRACE are not supported"));
    }
    Ok(method)
}

fn headers(given: &[(String, String)]) -> Result<HeaderMap, PublicError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| refused("a header's name is not a token"))?;
        let mut value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| refused("a header's value has a control character"))?;
        value.set_sensitive(true);
        if !OWN_HEADERS.contains(&name) && name != "connection" && name != "keep-alive" {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

fn refused(why: &str) -> PublicError {
    PublicError::Refused(why.to_owned())
}
