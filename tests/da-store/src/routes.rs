//! Routes and statuses.

use crate::storage::Storage;
use crate::{Faults, certify};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use newton_artifacts::{
    Certificate, DaRules, MAX_BLOB_BYTES, MAX_CERTIFICATE_BYTES, MAX_PAYLOAD_BYTES, encode_payload,
};
use serde_json::json;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Requests with a blob in memory at once.
const MAX_BUSY: usize = 4;
/// Longest body of the development routes.
const MAX_DEV_BODY: usize = 2 * MAX_CERTIFICATE_BYTES + 16;
const BINARY: &str = "application/octet-stream";

#[derive(Debug)]
pub(crate) struct Store {
    storage: Arc<Storage>,
    reference_block: u32,
    faults: Mutex<Faults>,
    busy: Semaphore,
}

/// An answer other than 200.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    /// `StatusCode` of a 418.
    code: u32,
    text: String,
}

type Answer = Result<(&'static str, Bytes), Refusal>;

impl Store {
    pub(crate) fn open(dir: &Path, reference_block: u32) -> io::Result<Self> {
        let storage = Arc::new(Storage::open(dir)?);
        Ok(Self {
            storage,
            reference_block,
            faults: Mutex::default(),
            busy: Semaphore::new(MAX_BUSY),
        })
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    pub(crate) fn lose(&self, certificate: &[u8]) -> io::Result<bool> {
        self.storage.remove(certificate)
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let answer = match (request.method(), path.as_str()) {
            (&Method::POST, "/put" | "/put/") => self.put(request).await,
            (&Method::GET, "/health") => Ok(("text/plain", Bytes::new())),
            (&Method::GET, "/config") => Ok(json_answer(&self.config())),
            (&Method::GET, "/dev/faults") => Ok(json_answer(
                &*self.faults.lock().unwrap_or_else(PoisonError::into_inner),
            )),
            (&Method::PUT, "/dev/faults") => self.put_faults(request).await,
            (&Method::POST, "/dev/lose") => self.post_lose(request).await,
            (&Method::GET, path) => match path.strip_prefix("/get/") {
                Some(commitment) => self.get(commitment, request.uri().query()).await,
                None => Err(refusal(404, "no such route")),
            },
            _ => Err(refusal(405, "no such method here")),
        };
        match answer {
            Ok((content_type, body)) => response(StatusCode::OK, content_type, body),
            Err(Refusal {
                status: StatusCode::IM_A_TEAPOT,
                code,
                text,
            }) => {
                let (content_type, body) = json_answer(&json!({"StatusCode": code, "Msg": text}));
                response(StatusCode::IM_A_TEAPOT, content_type, body)
            }
            Err(Refusal { status, text, .. }) => response(status, "text/plain", text.into()),
        }
    }

    async fn put(&self, request: Request<Incoming>) -> Answer {
        check_mode(request.uri().query())?;
        // The semaphore is never closed.
        let _busy = self.busy.acquire().await.expect("semaphore open");
        let payload = body(request, MAX_PAYLOAD_BYTES).await?;
        self.misbehave(true).await?;
        if payload.is_empty() {
            return Err(refusal(400, "empty payload"));
        }
        let (storage, reference_block) = (self.storage.clone(), self.reference_block);
        blocking(move || {
            let certificate = certify(&payload, reference_block)
                .map_err(|e| refusal(400, e))?
                .to_bytes();
            storage
                .put(&certificate, &payload)
                .map_err(|e| refusal(500, format!("storing failed: {e}")))?;
            Ok((BINARY, certificate.into()))
        })
        .await
    }

    async fn get(&self, commitment: &str, query: Option<&str>) -> Answer {
        check_mode(query)?;
        let encoded = match parameter(query, "return_encoded_payload") {
            None | Some("false") => false,
            Some("true" | "") => true,
            Some(_) => return Err(refusal(400, "return_encoded_payload must be true or false")),
        };
        let certificate = unhex(commitment)?;
        let _busy = self.busy.acquire().await.expect("semaphore open");
        self.misbehave(false).await?;
        let storage = self.storage.clone();
        let payload = blocking(move || read(&storage, &certificate)).await?;
        let mut bytes = if encoded {
            encode_payload(&payload).map_err(|e| refusal(500, e))?
        } else {
            payload
        };
        let faults = self
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if faults.corrupt {
            // The first payload byte of the encoded form: still well-formed, but other bytes.
            let at = if encoded { 33 } else { bytes.len() / 2 };
            bytes[at] ^= 1;
        }
        bytes.truncate(faults.truncate.unwrap_or(usize::MAX));
        Ok((BINARY, bytes.into()))
    }

    async fn misbehave(&self, put: bool) -> Result<(), Refusal> {
        let (latency, status, code) = {
            let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
            (faults.latency_ms, faults.status(put), faults.code)
        };
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
        match status {
            None => Ok(()),
            Some(status) => Err(Refusal {
                code,
                ..refusal(status, "as told to")
            }),
        }
    }

    async fn put_faults(&self, request: Request<Incoming>) -> Answer {
        let body = body(request, MAX_DEV_BODY).await?;
        let faults: Faults = serde_json::from_slice(&body).map_err(|e| refusal(400, e))?;
        for status in [faults.put_status, faults.get_status].into_iter().flatten() {
            if !(400..600).contains(&status) {
                return Err(refusal(
                    400,
                    format!("status {status}, expected 400 to 599"),
                ));
            }
        }
        self.set_faults(faults);
        Ok(("text/plain", Bytes::new()))
    }

    async fn post_lose(&self, request: Request<Incoming>) -> Answer {
        let body = body(request, MAX_DEV_BODY).await?;
        let text = std::str::from_utf8(&body).map_err(|e| refusal(400, e))?;
        match self.lose(&unhex(text.trim())?) {
            Ok(true) => Ok(("text/plain", Bytes::new())),
            Ok(false) => Err(refusal(500, "no such blob")),
            Err(error) => Err(refusal(500, error)),
        }
    }

    fn config(&self) -> serde_json::Value {
        json!({
            "development": true,
            "certificate_version": 4,
            "max_payload_bytes": MAX_PAYLOAD_BYTES,
            "max_blob_bytes": MAX_BLOB_BYTES,
            "reference_block": self.reference_block,
            "commitment_modes": ["standard"],
        })
    }
}

/// The payload of a certificate, which must be one of ours.
fn read(storage: &Storage, certificate: &[u8]) -> Result<Vec<u8>, Refusal> {
    let teapot = |code, text: String| Refusal {
        status: StatusCode::IM_A_TEAPOT,
        code,
        text,
    };
    let parsed = Certificate::parse(certificate).map_err(|e| teapot(1, e.to_string()))?;
    // Length 0 fits every blob: only the payload knows its own.
    parsed
        .check(&DaRules::default(), 0)
        .map_err(|e| teapot(3, e.to_string()))?;
    let payload = storage
        .read(certificate)
        .map_err(|e| refusal(500, format!("reading failed: {e}")))?;
    let payload = payload.ok_or_else(|| refusal(500, "no such blob"))?;
    if !crate::certify::names(&parsed, &payload) {
        return Err(refusal(500, "the stored payload is damaged"));
    }
    Ok(payload)
}

fn check_mode(query: Option<&str>) -> Result<(), Refusal> {
    match parameter(query, "commitment_mode") {
        Some("standard") => Ok(()),
        Some("optimism_generic" | "optimism_keccak256") => {
            Err(refusal(403, "commitment mode is not enabled"))
        }
        Some(_) => Err(refusal(400, "unknown commitment mode")),
        None => Err(refusal(400, "commitment_mode is missing")),
    }
}

fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let pairs = query?
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .into_iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn unhex(text: &str) -> Result<Vec<u8>, Refusal> {
    let digits = text
        .strip_prefix("0x")
        .ok_or_else(|| refusal(400, "certificate must start with 0x"))?;
    if digits.len() > 2 * MAX_CERTIFICATE_BYTES {
        return Err(refusal(400, "certificate is too long"));
    }
    hex::decode(digits).map_err(|e| refusal(400, e))
}

async fn body(request: Request<Incoming>, limit: usize) -> Result<Bytes, Refusal> {
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(refusal(400, format!("body exceeds {limit} bytes")))
        }
        Err(error) => Err(refusal(400, error)),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(refusal(500, e)))
}

#[allow(clippy::needless_pass_by_value)] // Errors of every kind, each used up here.
fn refusal(status: u16, text: impl ToString) -> Refusal {
    // Every status in this file is a valid one, and `put_faults` checks those it takes.
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Refusal {
        status,
        code: 0,
        text: text.to_string(),
    }
}

fn json_answer<T: serde::Serialize>(value: &T) -> (&'static str, Bytes) {
    // Plain structures with string keys always serialise.
    (
        "application/json",
        serde_json::to_vec(value).unwrap_or_default().into(),
    )
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
