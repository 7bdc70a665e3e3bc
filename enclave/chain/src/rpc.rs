//! A view that trusts an RPC node: for development, and only if the manifest declares it (design 6.3, 7).
//!
//! What can be checked without proofs is checked all the same: chain id, heights, links by parent hash, that logs belong
//! to the blocks and contracts asked for and come in order, and that nothing is larger than expected.

mod wire;

use newton_http::{BoxFuture, HttpClient, HttpError, Request};
use newton_types::events::HeaderInfo;
use newton_types::manifest::ConsensusManifest;
use newton_types::{Address, B256, keccak256};
use serde_json::{Value, json};

use crate::view::{Log, MAX_RANGE};
use crate::{ChainError, ChainView};

/// Headers asked for in one batch.
const BATCH: u64 = 64;

/// Sends one JSON-RPC body and returns the answer's body, bounded by the implementation.
pub trait JsonRpcTransport: Send + Sync {
    /// One exchange.
    fn request(&self, body: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChainError>>;
}

/// JSON-RPC over [`newton_http`].
pub struct HttpTransport(
    /// A client of the node's URL; its limits bound answers in size and time.
    pub HttpClient,
);

impl JsonRpcTransport for HttpTransport {
    fn request(&self, body: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChainError>> {
        Box::pin(async move {
            let failed = |e: HttpError| match e {
                HttpError::BodyTooLarge { limit, .. } => ChainError::TooLarge { limit },
                other => ChainError::Unreachable(other.to_string()),
            };
            let request = Request::post("", "application/json", body);
            let response = self.0.send(request).await.map_err(failed)?;
            // Some nodes answer JSON-RPC errors with a status of their own; the body says more.
            if !response.status.is_success() && !response.body.starts_with(b"{") {
                return Err(ChainError::Unreachable(format!(
                    "status {}: {}",
                    response.status,
                    response.excerpt()
                )));
            }
            Ok(response.body.to_vec())
        })
    }
}

/// Shows that the manifest declares the development switch `unverified_chain_view`. There is no other way to make one.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedRpc(());

impl UnverifiedRpc {
    /// From a manifest that declares it. Parsing has refused the switch on chains that are not for development.
    pub fn declared_by(manifest: &ConsensusManifest) -> Result<Self, ChainError> {
        match &manifest.development {
            Some(development) if development.unverified_chain_view => Ok(Self(())),
            _ => Err(ChainError::NotDeclared),
        }
    }
}

/// A view through one RPC node, which it trusts.
pub struct RpcChainView<T> {
    transport: T,
    chain_id: u64,
}

impl<T: JsonRpcTransport> RpcChainView<T> {
    /// Connects and compares the chain id.
    pub async fn connect(
        transport: T,
        chain_id: u64,
        _declared: UnverifiedRpc,
    ) -> Result<Self, ChainError> {
        let view = Self {
            transport,
            chain_id,
        };
        let answer = view.one("eth_chainId", json!([])).await?;
        let got = answer.parse(wire::quantity)?;
        if got != chain_id {
            return Err(ChainError::WrongChain {
                expected: chain_id,
                got,
            });
        }
        Ok(view)
    }

    async fn one(&self, method: &'static str, params: Value) -> Result<wire::Answer, ChainError> {
        let mut answers = self.batch(method, vec![params]).await?;
        // `batch` returns one answer per question.
        Ok(answers.remove(0))
    }

    async fn batch(
        &self,
        method: &'static str,
        params: Vec<Value>,
    ) -> Result<Vec<wire::Answer>, ChainError> {
        let count = params.len();
        let calls: Vec<Value> = params
            .into_iter()
            .enumerate()
            .map(|(id, params)| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .collect();
        // A single question goes unbatched: every node takes that.
        let body = match calls.as_slice() {
            [call] => call.to_string(),
            calls => Value::from(calls).to_string(),
        };
        let bytes = self.transport.request(body.into_bytes()).await?;
        wire::answers(method, count, &bytes)
    }

    async fn tagged(&self, tag: &str) -> Result<HeaderInfo, ChainError> {
        let method = "eth_getBlockByNumber";
        let answer = self.one(method, json!([tag, false])).await?;
        answer.parse(wire::header)
    }

    async fn header_range(&self, from: u64, to: u64) -> Result<Vec<HeaderInfo>, ChainError> {
        let method = "eth_getBlockByNumber";
        check_range(method, from, to)?;
        let mut headers: Vec<HeaderInfo> = Vec::with_capacity((to - from + 1) as usize);
        let mut start = from;
        while start <= to {
            let end = to.min(start + BATCH - 1);
            let params = (start..=end)
                .map(|n| json!([format!("{n:#x}"), false]))
                .collect();
            for (number, answer) in (start..=end).zip(self.batch(method, params).await?) {
                // A height that the node does not have (any more) is null.
                if answer.is_null() {
                    return Err(ChainError::Moved { number });
                }
                let header = answer.parse(wire::header)?;
                if header.number != number {
                    return Err(
                        answer.invalid(format!("it is block {}, not {number}", header.number))
                    );
                }
                headers.push(header);
            }
            start = end + 1;
        }
        // Two answers may stand on two sides of a reorg.
        match headers.windows(2).find(|w| w[1].parent_hash != w[0].hash) {
            Some(w) => Err(ChainError::Moved {
                number: w[1].number,
            }),
            None => Ok(headers),
        }
    }

    async fn log_range(
        &self,
        addresses: &[Address],
        headers: &[HeaderInfo],
    ) -> Result<Vec<Log>, ChainError> {
        let method = "eth_getLogs";
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
            return Ok(Vec::new());
        };
        check_range(method, first.number, last.number)?;
        // Halves that still have to be asked, the first one last.
        let mut ranges = vec![(first.number, last.number)];
        let mut logs: Vec<Log> = Vec::new();
        while let Some((from, to)) = ranges.pop() {
            let filter = json!([{
                "fromBlock": format!("{from:#x}"),
                "toBlock": format!("{to:#x}"),
                "address": addresses,
            }]);
            match self.one(method, filter).await {
                Ok(answer) => {
                    let some = answer.parse(wire::logs)?;
                    let asked =
                        &headers[(from - first.number) as usize..=(to - first.number) as usize];
                    check_logs(&answer, &some, addresses, asked)?;
                    logs.extend(some);
                }
                // Nodes refuse answers that are too large, each with a code of its own: ask for less.
                Err(error) if from < to && may_be_too_large(&error) => {
                    let middle = from + (to - from) / 2;
                    ranges.push((middle + 1, to));
                    ranges.push((from, middle));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(logs)
    }
}

impl<T: JsonRpcTransport> ChainView for RpcChainView<T> {
    fn chain_id(&self) -> u64 {
        self.chain_id
    }

    fn finalized(&self) -> BoxFuture<'_, Result<HeaderInfo, ChainError>> {
        Box::pin(self.tagged("finalized"))
    }

    fn head(&self) -> BoxFuture<'_, Result<HeaderInfo, ChainError>> {
        Box::pin(self.tagged("latest"))
    }

    fn headers(&self, from: u64, to: u64) -> BoxFuture<'_, Result<Vec<HeaderInfo>, ChainError>> {
        Box::pin(self.header_range(from, to))
    }

    fn logs<'a>(
        &'a self,
        addresses: &'a [Address],
        headers: &'a [HeaderInfo],
    ) -> BoxFuture<'a, Result<Vec<Log>, ChainError>> {
        Box::pin(self.log_range(addresses, headers))
    }

    fn storage(
        &self,
        address: Address,
        slot: B256,
        block: HeaderInfo,
    ) -> BoxFuture<'_, Result<B256, ChainError>> {
        Box::pin(async move {
            // By hash (EIP-1898), so that a reorg cannot answer for another block.
            let block = json!({"blockHash": block.hash, "requireCanonical": true});
            let answer = self
                .one("eth_getStorageAt", json!([address, slot, block]))
                .await?;
            answer.parse(wire::word)
        })
    }
}

fn check_range(method: &'static str, from: u64, to: u64) -> Result<(), ChainError> {
    match to.checked_sub(from) {
        Some(n) if n < MAX_RANGE => Ok(()),
        _ => Err(ChainError::Range { method, from, to }),
    }
}

fn may_be_too_large(error: &ChainError) -> bool {
    matches!(
        error,
        ChainError::Refused { .. } | ChainError::TooLarge { .. }
    )
}

fn check_logs(
    answer: &wire::Answer,
    logs: &[Log],
    addresses: &[Address],
    headers: &[HeaderInfo],
) -> Result<(), ChainError> {
    let first = headers.first().map_or(0, |h| h.number);
    for log in logs {
        let number = log.position.block;
        let header = number
            .checked_sub(first)
            .and_then(|i| headers.get(usize::try_from(i).ok()?))
            .ok_or_else(|| answer.invalid(format!("a log of block {number}, not asked for")))?;
        if header.hash != log.block_hash {
            return Err(ChainError::Moved { number });
        }
        if !addresses.contains(&log.address) {
            return Err(answer.invalid(format!("a log of {}, not asked for", log.address)));
        }
    }
    for w in logs.windows(2) {
        let (a, b) = (w[0].position, w[1].position);
        let in_order = a.block < b.block || (a.block == b.block && a.log < b.log && a.tx <= b.tx);
        if !in_order {
            return Err(answer.invalid(format!("log {b} after {a}")));
        }
    }
    Ok(())
}

/// First characters of a foreign text, without control characters.
fn printable(text: &str) -> String {
    text.chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn answer_hash(bytes: &[u8]) -> B256 {
    keccak256(bytes)
}
