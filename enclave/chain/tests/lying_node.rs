//! Answers that no honest node gives: each is refused for what it is, and none reaches the caller.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Mutex;

use newton_chain::{
    ChainError, ChainView, Follower, JsonRpcTransport, MAX_RANGE, RpcChainView, UnverifiedRpc,
};
use newton_http::BoxFuture;

use newton_types::manifest::Contracts;
use newton_types::{Address, B256, keccak256};
use serde_json::{Value, json};
use support::{CHAIN_ID, manifest};

type Tamper = Box<dyn Fn(&str, &mut Value) + Send + Sync>;

/// An honest chain of `head` blocks with one log of `contract` in every third, and something that spoils answers.
struct Fake {
    head: u64,
    tamper: Mutex<Option<Tamper>>,
    /// Largest number of logs given at once.
    most_logs: usize,
}

fn hash(n: u64) -> B256 {
    keccak256(n.to_be_bytes())
}

fn contract(i: u8) -> Address {
    Address::repeat_byte(0xa0 + i)
}

fn contracts() -> Contracts {
    Contracts {
        enclave_version_registry: contract(0),
        operator_registry: contract(1),
        key_registry: contract(2),
        state_commit_registry: contract(3),
        policy_client_registry: contract(4),
        policy_registry: contract(5),
        policy_data_registry: contract(6),
        task_manager: contract(7),
    }
}

impl Fake {
    fn number(&self, tag: &Value) -> u64 {
        match tag.as_str().unwrap() {
            "latest" => self.head,
            "finalized" => self.head - 2,
            hex => u64::from_str_radix(&hex[2..], 16).unwrap(),
        }
    }

    fn log(n: u64, index: u64) -> Value {
        json!({
            "address": contract(2), "topics": [keccak256("MinKeyEpochSet(uint64)")],
            "data": B256::with_last_byte(1), "blockHash": hash(n), "blockNumber": format!("{n:#x}"),
            "transactionIndex": "0x0", "logIndex": format!("{index:#x}"),
            "transactionHash": hash(n), "removed": false,
        })
    }

    fn answer(&self, call: &Value) -> Value {
        let params = &call["params"];
        let result = match call["method"].as_str().unwrap() {
            "eth_chainId" => json!(format!("{CHAIN_ID:#x}")),
            "eth_getBlockByNumber" => {
                let n = self.number(&params[0]);
                json!({
                    "number": format!("{n:#x}"), "hash": hash(n), "timestamp": format!("{:#x}", 100 + n),
                    "parentHash": hash(n.wrapping_sub(1)), "transactions": [],
                })
            }
            "eth_getLogs" => {
                let from = self.number(&params[0]["fromBlock"]);
                let to = self.number(&params[0]["toBlock"]);
                let logs: Vec<Value> = (from..=to)
                    .filter(|n| n % 3 == 0)
                    .flat_map(|n| [Self::log(n, 0), Self::log(n, 4)])
                    .collect();
                if logs.len() > self.most_logs {
                    return json!({"id": call["id"], "error": {"code": -32005, "message": "too\u{7} many"}});
                }
                json!(logs)
            }
            other => panic!("{other}"),
        };
        json!({"jsonrpc": "2.0", "id": call["id"], "result": result})
    }
}

impl JsonRpcTransport for &'static Fake {
    fn request(&self, body: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChainError>> {
        let calls: Value = serde_json::from_slice(&body).unwrap();
        let mut answer = match &calls {
            Value::Array(calls) => Value::Array(calls.iter().map(|c| self.answer(c)).collect()),
            call => self.answer(call),
        };
        let method = match &calls {
            Value::Array(calls) => calls[0]["method"].clone(),
            call => call["method"].clone(),
        };
        if let Some(tamper) = &*self.tamper.lock().unwrap() {
            tamper(method.as_str().unwrap(), &mut answer);
        }
        Box::pin(async move { Ok(answer.to_string().into_bytes()) })
    }
}

async fn view(head: u64) -> (&'static Fake, RpcChainView<&'static Fake>) {
    let fake: &'static Fake = Box::leak(Box::new(Fake {
        head,
        tamper: Mutex::new(None),
        most_logs: usize::MAX,
    }));
    let declared = UnverifiedRpc::declared_by(&manifest(true)).unwrap();
    let view = RpcChainView::connect(fake, CHAIN_ID, declared)
        .await
        .unwrap();
    (fake, view)
}

fn spoil(fake: &Fake, tamper: impl Fn(&str, &mut Value) + Send + Sync + 'static) {
    *fake.tamper.lock().unwrap() = Some(Box::new(tamper));
}

/// Changes the results of one method, in a batch or not.
fn results(method: &'static str, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Tamper {
    Box::new(move |m, answer| {
        if m == method {
            match answer {
                Value::Array(list) => list.iter_mut().for_each(|a| change(&mut a["result"])),
                one => change(&mut one["result"]),
            }
        }
    })
}

async fn read(view: &RpcChainView<&'static Fake>) -> Result<usize, ChainError> {
    let headers = view.headers(0, 200).await?;
    Ok(view
        .logs(&[contract(2), contract(3)], &headers)
        .await?
        .len())
}

#[tokio::test]
async fn an_honest_answer_passes_whatever_its_order_and_chunks() {
    let (fake, view) = view(300).await;
    assert_eq!(read(&view).await.unwrap(), 2 * 67);
    spoil(fake, |_, answer| {
        if let Value::Array(list) = answer {
            list.reverse();
        }
    });
    assert_eq!(read(&view).await.unwrap(), 2 * 67);
    let head = view.head().await.unwrap();
    assert_eq!(
        (head.number, head.hash, head.timestamp),
        (300, hash(300), 400)
    );
    assert_eq!(view.finalized().await.unwrap().number, 298);
    assert_eq!(view.logs(&[contract(2)], &[]).await.unwrap(), []);
}

#[tokio::test]
async fn refused_log_ranges_are_halved() {
    let fake: &'static Fake = Box::leak(Box::new(Fake {
        head: 300,
        tamper: Mutex::new(None),
        most_logs: 7,
    }));
    let declared = UnverifiedRpc::declared_by(&manifest(true)).unwrap();
    let view = RpcChainView::connect(fake, CHAIN_ID, declared)
        .await
        .unwrap();
    assert_eq!(read(&view).await.unwrap(), 2 * 67);
    // One block that is refused by itself is an error, and control characters do not reach the log.
    let fake: &'static Fake = Box::leak(Box::new(Fake {
        head: 300,
        tamper: Mutex::new(None),
        most_logs: 1,
    }));
    let view = RpcChainView::connect(fake, CHAIN_ID, declared)
        .await
        .unwrap();
    match read(&view).await.unwrap_err() {
        ChainError::Refused { code, message, .. } => {
            assert_eq!((code, message.as_str()), (-32005, "too  many"));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn answers_that_do_not_fit_the_question_are_invalid() {
    let (fake, view) = view(300).await;
    let cases: Vec<(&str, Tamper)> = vec![
        (
            "wrong height",
            results("eth_getBlockByNumber", |r| r["number"] = json!("0x7")),
        ),
        (
            "no hash",
            results("eth_getBlockByNumber", |r| r["hash"] = Value::Null),
        ),
        (
            "short hash",
            results("eth_getBlockByNumber", |r| r["hash"] = json!("0x12")),
        ),
        (
            "time of 65 bits",
            results("eth_getBlockByNumber", |r| {
                r["timestamp"] = json!("0x10000000000000000");
            }),
        ),
        (
            "time in decimal",
            results("eth_getBlockByNumber", |r| r["timestamp"] = json!(5)),
        ),
        (
            "answer missing",
            Box::new(|_, answer| {
                if let Value::Array(list) = answer {
                    list.pop();
                }
            }),
        ),
        (
            "answer twice",
            Box::new(|_, answer| {
                if let Value::Array(list) = answer {
                    list[1] = list[0].clone();
                }
            }),
        ),
        (
            "answer to nothing",
            Box::new(|_, answer| {
                if let Value::Array(list) = answer {
                    list[0]["id"] = json!(999);
                }
            }),
        ),
        (
            "not a batch",
            Box::new(|_, answer| *answer = json!("hello")),
        ),
        ("logs no list", results("eth_getLogs", |r| *r = json!({}))),
        (
            "log of another contract",
            results("eth_getLogs", |r| {
                r[3]["address"] = json!(contract(9));
            }),
        ),
        (
            "log of a later block",
            results("eth_getLogs", |r| {
                r[3]["blockNumber"] = json!("0x12c");
            }),
        ),
        (
            "logs swapped",
            results("eth_getLogs", |r| r.as_array_mut().unwrap().swap(0, 1)),
        ),
        (
            "log twice",
            results("eth_getLogs", |r| {
                let twice = r[1].clone();
                r.as_array_mut().unwrap().insert(1, twice);
            }),
        ),
        (
            "removed log",
            results("eth_getLogs", |r| r[0]["removed"] = json!(true)),
        ),
        (
            "five topics",
            results("eth_getLogs", |r| {
                r[0]["topics"] = json!(vec![B256::ZERO; 5]);
            }),
        ),
        (
            "index of 33 bits",
            results("eth_getLogs", |r| {
                r[0]["logIndex"] = json!("0x100000000");
            }),
        ),
        (
            "odd data",
            results("eth_getLogs", |r| r[0]["data"] = json!("0x123")),
        ),
    ];
    for (name, tamper) in cases {
        *fake.tamper.lock().unwrap() = Some(tamper);
        let error = read(&view).await.expect_err(name);
        assert!(
            matches!(error, ChainError::Invalid { .. }),
            "{name}: {error}"
        );
        assert!(!error.is_retryable() && !error.is_contradiction(), "{name}");
    }
}

#[tokio::test]
async fn a_chain_that_moves_is_asked_again() {
    let (fake, view) = view(300).await;
    let cases: Vec<(&str, Tamper)> = vec![
        (
            "link broken",
            results("eth_getBlockByNumber", |r| {
                if r["number"] == json!("0x64") {
                    r["parentHash"] = json!(B256::ZERO);
                }
            }),
        ),
        (
            "block gone",
            results("eth_getBlockByNumber", |r| {
                if r["number"] == json!("0x64") {
                    *r = Value::Null;
                }
            }),
        ),
        (
            "log of another branch",
            results("eth_getLogs", |r| {
                r[3]["blockHash"] = json!(B256::ZERO);
            }),
        ),
    ];
    for (name, tamper) in cases {
        *fake.tamper.lock().unwrap() = Some(tamper);
        let error = read(&view).await.expect_err(name);
        assert!(matches!(error, ChainError::Moved { .. }), "{name}: {error}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn ranges_are_bounded() {
    let (_, view) = view(3_000).await;
    assert_eq!(
        view.headers(5, 5 + MAX_RANGE - 1).await.unwrap().len() as u64,
        MAX_RANGE
    );
    for (from, to) in [(5, 5 + MAX_RANGE), (6, 5)] {
        let error = view.headers(from, to).await.unwrap_err();
        assert!(matches!(error, ChainError::Range { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_follower_refuses_blocks_that_do_not_build_on_what_it_delivered() {
    let (fake, view) = view(100).await;
    let view: std::sync::Arc<dyn ChainView> = std::sync::Arc::new(view);
    // The store's last block has another hash than this chain's.
    let mut follower = Follower::new(view.clone(), contracts(), 50, Some(B256::repeat_byte(1)));
    let error = follower.finalized().await.unwrap_err();
    assert!(
        matches!(error, ChainError::Contradiction { number: 49, .. }),
        "{error}"
    );

    let mut follower = Follower::new(view.clone(), contracts(), 50, Some(hash(49)));
    let step = follower.finalized().await.unwrap();
    assert_eq!(step.blocks.len(), 49);
    let events: usize = step.blocks.iter().map(|b| b.events.len()).sum();
    assert_eq!(events, 2 * 16);
    follower.delivered(&step);
    assert_eq!(follower.pending().await.unwrap().len(), 2);
    // A head that stepped back, and finality that did.
    spoil(fake, |_, _| {});
    let step = follower.finalized().await.unwrap();
    assert!(step.blocks.is_empty() && step.is_complete());
    // Pending blocks on another branch than the delivered one.
    *fake.tamper.lock().unwrap() = Some(results("eth_getBlockByNumber", |r| {
        for field in ["hash", "parentHash"] {
            let other = keccak256(r[field].as_str().unwrap());
            r[field] = json!(other);
        }
    }));
    let error = follower.pending().await.unwrap_err();
    assert!(matches!(error, ChainError::Moved { .. }), "{error}");
}
