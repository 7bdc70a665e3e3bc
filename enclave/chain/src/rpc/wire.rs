//! JSON-RPC answers: parsed strictly as far as we read them.

use newton_types::events::{EventPosition, HeaderInfo};
use newton_types::{Address, B256, Bytes};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{answer_hash, printable};
use crate::{ChainError, Log};

/// One result, and what is needed to report it.
pub(super) struct Answer {
    method: &'static str,
    result: Box<RawValue>,
    hash: B256,
}

impl Answer {
    pub(super) fn is_null(&self) -> bool {
        self.result.get() == "null"
    }

    pub(super) fn parse<T>(
        &self,
        parser: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ChainError> {
        parser(self.result.get()).map_err(|reason| self.invalid(reason))
    }

    pub(super) fn invalid(&self, reason: String) -> ChainError {
        ChainError::Invalid {
            method: self.method,
            reason,
            answer_hash: self.hash,
        }
    }
}

#[derive(Deserialize)]
struct Response {
    id: Option<u64>,
    result: Option<Box<RawValue>>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    code: i64,
    #[serde(default)]
    message: String,
}

/// The results of `count` questions with ids 0, 1, … in this order, whatever order they came in.
pub(super) fn answers(
    method: &'static str,
    count: usize,
    bytes: &[u8],
) -> Result<Vec<Answer>, ChainError> {
    let hash = answer_hash(bytes);
    let invalid = |reason: String| ChainError::Invalid {
        method,
        reason,
        answer_hash: hash,
    };
    let is_list = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let responses: Vec<Response> = if is_list {
        serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?
    } else {
        vec![serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?]
    };
    let mut slots: Vec<Option<Box<RawValue>>> = (0..count).map(|_| None).collect();
    for response in responses {
        if let Some(failure) = response.error {
            return Err(ChainError::Refused {
                method,
                code: failure.code,
                message: printable(&failure.message),
            });
        }
        let slot = response
            .id
            .and_then(|id| slots.get_mut(usize::try_from(id).ok()?))
            .ok_or_else(|| invalid(format!("answer to id {:?}, not asked", response.id)))?;
        // serde reads `"result": null` as absent; a null result is an answer too.
        let result = match response.result {
            Some(result) => result,
            None => RawValue::from_string("null".into()).map_err(|e| invalid(e.to_string()))?,
        };
        if slot.replace(result).is_some() {
            return Err(invalid("two answers to one question".into()));
        }
    }
    slots
        .into_iter()
        .map(|slot| {
            slot.map(|result| Answer {
                method,
                result,
                hash,
            })
            .ok_or_else(|| invalid("a question went without answer".into()))
        })
        .collect()
}

/// A number as `0x…` without leading zeros, as the Ethereum JSON-RPC writes it; up to 64 bits.
#[derive(Clone, Copy)]
struct Quantity(u64);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        parse_quantity(&text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

fn parse_quantity(text: &str) -> Result<u64, String> {
    let digits = text
        .strip_prefix("0x")
        .filter(|d| !d.is_empty() && d.len() <= 16 && d.bytes().all(|b| b.is_ascii_hexdigit()))
        .ok_or_else(|| format!("{} is no 64-bit quantity", printable(text)))?;
    u64::from_str_radix(digits, 16).map_err(|e| e.to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHeader {
    number: Quantity,
    hash: B256,
    parent_hash: B256,
    timestamp: Quantity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLog {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
    block_hash: B256,
    block_number: Quantity,
    transaction_index: Quantity,
    log_index: Quantity,
    #[serde(default)]
    removed: bool,
}

pub(super) fn quantity(json: &str) -> Result<u64, String> {
    serde_json::from_str::<Quantity>(json)
        .map(|q| q.0)
        .map_err(|e| e.to_string())
}

pub(super) fn word(json: &str) -> Result<B256, String> {
    serde_json::from_str(json).map_err(|e| e.to_string())
}

pub(super) fn header(json: &str) -> Result<HeaderInfo, String> {
    let raw: RawHeader = serde_json::from_str(json).map_err(|e| e.to_string())?;
    Ok(HeaderInfo {
        number: raw.number.0,
        hash: raw.hash,
        parent_hash: raw.parent_hash,
        timestamp: raw.timestamp.0,
    })
}

pub(super) fn logs(json: &str) -> Result<Vec<Log>, String> {
    let raw: Vec<RawLog> = serde_json::from_str(json).map_err(|e| e.to_string())?;
    raw.into_iter().map(log).collect()
}

fn log(raw: RawLog) -> Result<Log, String> {
    let small = |what: &str, q: Quantity| {
        u32::try_from(q.0).map_err(|_| format!("{what} {} does not fit 32 bits", q.0))
    };
    if raw.removed {
        return Err(format!("a removed log of block {}", raw.block_number.0));
    }
    if raw.topics.len() > 4 {
        return Err(format!("a log with {} topics", raw.topics.len()));
    }
    Ok(Log {
        address: raw.address,
        topics: raw.topics,
        data: raw.data,
        block_hash: raw.block_hash,
        position: EventPosition {
            block: raw.block_number.0,
            tx: small("transaction index", raw.transaction_index)?,
            log: small("log index", raw.log_index)?,
        },
    })
}
