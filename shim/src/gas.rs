//! The gas payer: signs the enclave's calldata with a key of the host's and sends it.
//!
//! The host chooses nonce and fees. The key can be emptied by a host that wants to, and by an enclave up to
//! `max_fee_per_gas`; nothing else depends on it.

use crate::config::{GasChain, GasConfig, KeySource};
use crate::{GasStatus, ShimError};
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U128, U256, hex};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use newton_http::{DialClass, HttpClient, HttpError, Limits, TcpDialer};
use newton_relay::control::Transaction;
use newton_relay::{ErrorCode, HostError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// Largest answer of an endpoint: a block's header and transaction hashes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// For how long our own count of nonces beats an endpoint that has not seen our last transaction.
const NONCE_MEMORY: Duration = Duration::from_secs(30);
/// Tip where the endpoint names none.
const DEFAULT_TIP: u128 = 1_000_000_000;

/// One account on several chains. No `Debug`: it holds a key.
pub(crate) struct GasPayer {
    signer: PrivateKeySigner,
    max_fee: u128,
    chains: Vec<Chain>,
}

struct Chain {
    id: u64,
    http: HttpClient,
    /// The last nonce used here; held while a transaction is made, so that they go out one by one.
    last_nonce: Mutex<Option<(u64, Instant)>>,
}

impl GasPayer {
    pub(crate) fn new(config: &GasConfig) -> Result<Self, ShimError> {
        let limits = Limits {
            max_body: MAX_ANSWER,
            ..Limits::default()
        };
        let chain = |GasChain { chain_id: id, url }: &GasChain| {
            let http = HttpClient::with_limits(Arc::new(TcpDialer), DialClass::Rpc, url, limits)
                .map_err(|source| ShimError::GasChain {
                    chain_id: *id,
                    source,
                })?;
            Ok(Chain {
                id: *id,
                http,
                last_nonce: Mutex::default(),
            })
        };
        Ok(Self {
            signer: read_key(&config.key)?,
            max_fee: config.max_fee_per_gas,
            chains: config
                .chains
                .iter()
                .map(chain)
                .collect::<Result<_, ShimError>>()?,
        })
    }

    pub(crate) fn address(&self) -> Address {
        self.signer.address()
    }

    /// Sends a transaction and returns its hash, without waiting for a block.
    pub(crate) async fn submit(&self, transaction: &Transaction) -> Result<B256, HostError> {
        let chain = self
            .chains
            .iter()
            .find(|c| c.id == transaction.chain_id)
            .ok_or_else(|| {
                HostError::new(ErrorCode::NotAllowed, "the host pays no gas on this chain")
            })?;
        let to = Address::from(transaction.to);
        let mut last = chain.last_nonce.lock().await;
        let estimate = chain
            .estimate(self.address(), to, &transaction.calldata)
            .await?;
        let (max_fee_per_gas, max_priority_fee_per_gas) = chain.fees(self.max_fee).await?;
        let pending: U64 = chain
            .call(
                "eth_getTransactionCount",
                json!([self.address(), "pending"]),
            )
            .await?;
        let mut nonce: u64 = pending.to();
        if let Some((used, at)) = *last
            && at.elapsed() < NONCE_MEMORY
        {
            nonce = nonce.max(used + 1);
        }
        let transaction = TxEip1559 {
            chain_id: chain.id,
            nonce,
            // The enclave's own limit if it names one, else what the endpoint estimates and a quarter more.
            gas_limit: if transaction.gas_limit > 0 {
                transaction.gas_limit
            } else {
                estimate.saturating_add(estimate / 4)
            },
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to: TxKind::Call(to),
            value: U256::ZERO,
            access_list: Default::default(),
            input: Bytes::copy_from_slice(&transaction.calldata),
        };
        let signature = self
            .signer
            .sign_hash_sync(&transaction.signature_hash())
            .map_err(|_| HostError::new(ErrorCode::Internal, "signing failed"))?;
        let signed = TxEnvelope::from(transaction.into_signed(signature));
        let (hash, raw) = (*signed.tx_hash(), Bytes::from(signed.encoded_2718()));
        match chain
            .call::<Value>("eth_sendRawTransaction", json!([raw]))
            .await
        {
            Ok(_) => {}
            // An endpoint that has it already has what we want.
            Err(error) if error.text().contains("already known") => {}
            Err(error) => return Err(error),
        }
        *last = Some((nonce, Instant::now()));
        tracing::info!(chain = chain.id, %hash, nonce, "transaction sent");
        Ok(hash)
    }

    /// Balance on every chain.
    pub(crate) async fn status(&self) -> Vec<GasStatus> {
        let mut all = Vec::new();
        for chain in &self.chains {
            let balance = chain
                .call::<U256>("eth_getBalance", json!([self.address(), "latest"]))
                .await;
            all.push(GasStatus {
                chain_id: chain.id,
                address: self.address(),
                balance_wei: balance.as_ref().ok().map(U256::to_string),
                error: balance.err().map(|e| e.text().to_owned()),
            });
        }
        all
    }
}

fn read_key(source: &KeySource) -> Result<PrivateKeySigner, ShimError> {
    let (text, from) = match source {
        KeySource::File(path) => {
            let text =
                std::fs::read_to_string(path).map_err(ShimError::file("gas payer's key", path))?;
            (Zeroizing::new(text), path.display().to_string())
        }
        KeySource::Env(name) => {
            let missing = |_| ShimError::GasKey {
                from: name.clone(),
                reason: "the variable is not set",
            };
            (
                Zeroizing::new(std::env::var(name).map_err(missing)?),
                name.clone(),
            )
        }
    };
    let bad = |reason| ShimError::GasKey {
        from: from.clone(),
        reason,
    };
    let mut bytes = Zeroizing::new([0; 32]);
    let digits = text.trim();
    hex::decode_to_slice(
        digits.strip_prefix("0x").unwrap_or(digits),
        bytes.as_mut_slice(),
    )
    .map_err(|_| bad("expected 32 bytes in hex"))?;
    PrivateKeySigner::from_slice(bytes.as_slice()).map_err(|_| bad("not a key of secp256k1"))
}

/// An answer of JSON-RPC 2.0.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Value,
    error: Option<RpcError>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    message: String,
    #[serde(default)]
    data: Value,
}

impl Chain {
    async fn estimate(
        &self,
        from: Address,
        to: Address,
        calldata: &[u8],
    ) -> Result<u64, HostError> {
        let request = json!([{ "from": from, "to": to, "data": hex::encode_prefixed(calldata) }]);
        self.call::<U64>("eth_estimateGas", request)
            .await
            .map(|gas| gas.to())
    }

    /// Highest fee and tip for a unit of gas: room for the base fee to double.
    async fn fees(&self, max: u128) -> Result<(u128, u128), HostError> {
        let block: Value = self
            .call("eth_getBlockByNumber", json!(["latest", false]))
            .await?;
        let base = block
            .get("baseFeePerGas")
            .and_then(Value::as_str)
            .and_then(|text| text.parse::<U128>().ok());
        let base: u128 = base
            .ok_or_else(|| HostError::new(ErrorCode::Internal, "endpoint names no base fee"))?
            .to();
        if base > max {
            return Err(HostError::new(
                ErrorCode::Rejected,
                &format!("base fee {base} exceeds the host's limit {max}"),
            ));
        }
        let tip = self
            .call::<U128>("eth_maxPriorityFeePerGas", json!([]))
            .await
            .map_or(DEFAULT_TIP, |tip| tip.to());
        let fee = base.saturating_mul(2).saturating_add(tip).min(max);
        Ok((fee, tip.min(fee)))
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, HostError> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer: Answer = self.http.post_json("", &request).await.map_err(|error| {
            let code = match error {
                HttpError::Timeout { .. } => ErrorCode::Timeout,
                HttpError::Dial { .. } | HttpError::Tls { .. } => ErrorCode::Unreachable,
                _ => ErrorCode::Internal,
            };
            HostError::new(code, &error.to_string())
        })?;
        if let Some(error) = answer.error {
            return Err(error.into_host_error(method));
        }
        serde_json::from_value(answer.result).map_err(|_| {
            HostError::new(ErrorCode::Internal, &format!("{method}: unexpected result"))
        })
    }
}

impl RpcError {
    /// Code 3 is geth's for a revert; the data is the contract's error.
    fn into_host_error(self, method: &str) -> HostError {
        let reverted = self.code == 3 || self.message.contains("revert");
        let code = if reverted {
            ErrorCode::Reverted
        } else {
            ErrorCode::Rejected
        };
        let data = self
            .data
            .as_str()
            .map(|d| format!(" data {d}"))
            .unwrap_or_default();
        HostError::new(
            code,
            &format!("{method}: {} ({}){data}", self.message, self.code),
        )
    }
}
