//! A host between an enclave and the chain's node: it hands everything on, and shows it late, piece by piece, or out of order.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use alloy::primitives::U64;
use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use newton_http::{DialClass, HttpClient, TcpDialer};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// How the chain is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Blocks by which finality comes later than at the node.
    pub finality_lag: u64,
    /// Logs of one block at a time: a question about several is refused, as nodes refuse answers that are too large.
    pub block_by_block: bool,
    /// Logs in reverse order.
    pub reversed: bool,
    /// Not at all.
    pub down: bool,
}

/// The relay. Dropping it ends it.
pub struct Relay {
    address: SocketAddr,
    shown: Arc<Mutex<Shown>>,
    server: JoinHandle<()>,
}

impl Relay {
    /// Relays to the node at `url`.
    ///
    /// # Errors
    /// If `url` is none, or no port is free.
    pub async fn start(url: &str, shown: Shown) -> Result<Self> {
        let node = HttpClient::new(Arc::new(TcpDialer), DialClass::Rpc, url).context("URL")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shown = Arc::new(Mutex::new(shown));
        let view = shown.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (node, view) = (node.clone(), view.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let (node, view) = (node.clone(), view.clone());
                        async move { Ok::<_, Infallible>(answer(&node, &view, request).await) }
                    });
                    http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                });
            }
        });
        Ok(Self {
            address,
            shown,
            server,
        })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Shows the chain in another way from now on.
    pub fn show(&self, shown: Shown) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    node: &HttpClient,
    shown: &Mutex<Shown>,
    request: Request<Incoming>,
) -> Response<Full<hyper::body::Bytes>> {
    let shown = *shown.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, body) = match relayed(node, shown, request).await {
        Ok(answer) => (StatusCode::OK, answer.to_string()),
        Err(e) => (StatusCode::BAD_GATEWAY, format!("{e:#}")),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

async fn relayed(node: &HttpClient, shown: Shown, request: Request<Incoming>) -> Result<Value> {
    ensure!(!shown.down, "the node is out of reach");
    let body = request.into_body().collect().await?.to_bytes();
    let question: Value = serde_json::from_slice(&body).context("the question")?;
    match question {
        Value::Array(questions) => {
            let mut answers = Vec::new();
            for question in questions {
                answers.push(one(node, shown, question).await?);
            }
            Ok(answers.into())
        }
        question => one(node, shown, question).await,
    }
}

async fn one(node: &HttpClient, shown: Shown, mut question: Value) -> Result<Value> {
    match question["method"].as_str() {
        Some("eth_getBlockByNumber") if question["params"][0] == "finalized" => {
            let newest: Value = node.post_json("", &question).await?;
            let number: U64 = serde_json::from_value(newest["result"]["number"].clone())
                .context("the finalized block")?;
            let late = number.saturating_sub(U64::from(shown.finality_lag));
            question["params"][0] = json!(late);
            Ok(node.post_json("", &question).await?)
        }
        Some("eth_getLogs") => {
            let filter = &question["params"][0];
            if shown.block_by_block && filter["fromBlock"] != filter["toBlock"] {
                let error =
                    json!({ "code": -32005, "message": "more logs than this node gives at once" });
                return Ok(json!({ "jsonrpc": "2.0", "id": question["id"], "error": error }));
            }
            let mut answer: Value = node.post_json("", &question).await?;
            if let (true, Some(logs)) = (shown.reversed, answer["result"].as_array_mut()) {
                logs.reverse();
            }
            Ok(answer)
        }
        _ => Ok(node.post_json("", &question).await?),
    }
}
