//! Control channel and life of the enclave.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use alloy_consensus::{Transaction as _, TxEnvelope, transaction::SignerRecoverable};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{Address, B256, U256, hex};
use common::{Appliance, blocking, eventually, start};
use newton_relay::asynchronous::{AsyncStream, read_frame, write_frame};
use newton_relay::control::{
    ControlClient, ControlError, ControlOptions, Level, MAX_BODY, ToGuest, ToHost, Transaction,
};
use newton_relay::{ErrorCode, ports};
use newton_shim::{
    EnclaveState, GasChain, GasConfig, KeySource, ShimError, fetch_metrics, fetch_report,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn manifest_down_and_words_up() {
    let host = start(|_| ()).await;
    let parent = host.parent().await;
    assert_eq!(parent.manifest.consensus, common::CONSENSUS);
    assert_eq!(parent.manifest.local, common::LOCAL);
    assert_eq!(parent.manifest.operator, [0xaa; 20]);
    assert!(host.shim.wait_ready(Duration::from_secs(5)).await.unwrap() < Duration::from_secs(5));

    let client = ControlClient::start(
        parent,
        ControlOptions::default(),
        Arc::new(Appliance::default()),
    );
    client.log(Level::Warn, "pages \u{1b}[31mare\nred");
    client.metrics("newton_pages 1\n".into());
    client.status("{\"sequence_no\":6}".into());
    eventually("status", || host.shim.status().is_some()).await;
    assert_eq!(host.shim.status().unwrap(), "{\"sequence_no\":6}");
    assert_eq!(host.shim.log_lines(), ["Warn pages ?[31mare?red"]);
    assert_eq!(host.shim.metrics(), "newton_pages 1\n");
    assert_eq!(
        host.shim
            .request_status(Duration::from_secs(5))
            .await
            .unwrap(),
        "{\"sequence_no\":7}"
    );

    let report = fetch_report(host.dir.path()).await.unwrap();
    assert_eq!(report.enclave, EnclaveState::Running);
    assert!(report.connected && report.boot_ms.is_some());
    assert_eq!(report.appliance, json!({"sequence_no": 7}));
    assert_eq!(
        fetch_metrics(host.dir.path()).await.unwrap(),
        "newton_pages 1\n"
    );
    let mode = std::fs::metadata(host.dir.path().join("status.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let lost = host.dir.path().to_owned();
    host.shim.stop().await;
    assert!(fetch_report(&lost).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_and_the_next_is_served() {
    let host = start(|_| ()).await;
    let guest = host.guest();
    let connect = async || AsyncStream::new(guest.connect(ports::CONTROL).unwrap()).unwrap();
    let mut stream = connect().await;
    write_frame(
        &mut stream,
        &ToHost::Hello { version: 99 }.encode().unwrap(),
        MAX_BODY,
    )
    .await
    .unwrap();
    let answer =
        ToGuest::decode(&read_frame(&mut stream, MAX_BODY).await.unwrap().unwrap()).unwrap();
    assert!(matches!(answer, ToGuest::Refused(e) if e.code() == ErrorCode::Version));
    assert!(read_frame(&mut stream, MAX_BODY).await.unwrap().is_none());

    let mut stream = connect().await;
    write_frame(
        &mut stream,
        &ToHost::Status {
            id: 0,
            json: "{}".into(),
        }
        .encode()
        .unwrap(),
        MAX_BODY,
    )
    .await
    .unwrap();
    let answer =
        ToGuest::decode(&read_frame(&mut stream, MAX_BODY).await.unwrap().unwrap()).unwrap();
    assert!(matches!(answer, ToGuest::Refused(e) if e.code() == ErrorCode::Malformed));

    // A length beyond every limit, and a frame with a wrong checksum: the connection ends, nothing is allocated for it.
    for bytes in [[0xff; 8], [1, 0, 0, 0, 1, 2, 3, 4]] {
        let mut stream = connect().await;
        stream.write_all(&bytes).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let mut end = Vec::new();
        // A reset is an end too: unread bytes were in flight.
        let _ = stream.read_to_end(&mut end).await;
        assert!(end.is_empty());
    }
    assert!(host.shim.status().is_none());
    host.parent().await;

    std::fs::remove_file(host.dir.path().join("local.toml")).unwrap();
    let mut stream = connect().await;
    write_frame(
        &mut stream,
        &ToHost::Hello { version: 1 }.encode().unwrap(),
        MAX_BODY,
    )
    .await
    .unwrap();
    let answer =
        ToGuest::decode(&read_frame(&mut stream, MAX_BODY).await.unwrap().unwrap()).unwrap();
    assert!(matches!(answer, ToGuest::Refused(e) if e.code() == ErrorCode::Io));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_replaces_the_one_before() {
    let host = start(|_| ()).await;
    let guest = host.guest();
    let hello = async || {
        let mut stream = AsyncStream::new(guest.connect(ports::CONTROL).unwrap()).unwrap();
        write_frame(
            &mut stream,
            &ToHost::Hello { version: 1 }.encode().unwrap(),
            MAX_BODY,
        )
        .await
        .unwrap();
        read_frame(&mut stream, MAX_BODY).await.unwrap().unwrap();
        stream
    };
    let mut first = hello().await;
    let _second = hello().await;
    assert!(read_frame(&mut first, MAX_BODY).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_channel_survives_restarts_of_either_side() {
    let host = start(|_| ()).await;
    let appliance = Arc::new(Appliance::default());
    let client = ControlClient::start(
        host.parent().await,
        ControlOptions::default(),
        appliance.clone(),
    );
    host.shim.wait_ready(Duration::from_secs(5)).await.unwrap();
    // The shim comes back, the enclave did not notice.
    host.shim.restart_services().await.unwrap();
    eventually("connected again", || client.is_connected()).await;
    assert!(
        host.shim
            .request_status(Duration::from_secs(5))
            .await
            .is_some()
    );
    client.close();

    // The enclave is killed and comes back, the services did not notice.
    let waiting = async { host.shim.wait_enclave_exit().await };
    let killing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        host.shim.kill_enclave().await;
    };
    let (how, ()) = tokio::join!(waiting, killing);
    assert!(how.contains("9"), "{how}");
    let report = fetch_report(host.dir.path()).await.unwrap();
    assert!(matches!(report.enclave, EnclaveState::Ended(_)));
    host.shim.restart_enclave().await.unwrap();
    let error = host
        .shim
        .wait_ready(Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(matches!(error, ShimError::NotReady { .. }), "{error}");
    let client = ControlClient::start(
        host.parent().await,
        ControlOptions::default(),
        appliance.clone(),
    );
    host.shim.wait_ready(Duration::from_secs(5)).await.unwrap();

    // Stopping asks first: this appliance only notes it, so it is killed when its time is up.
    host.shim.stop().await;
    assert!(appliance.told_to_stop.load(Ordering::SeqCst));
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_ends_early_shows_its_console() {
    let script = "echo the reason why; exit 5";
    let host = start(|c| {
        let process = c.process.as_mut().unwrap();
        process.appliance = "/bin/sh".into();
        process.args = vec!["-c".into(), script.into()];
    })
    .await;
    match host
        .shim
        .wait_ready(Duration::from_secs(10))
        .await
        .unwrap_err()
    {
        ShimError::Ended { reason, console } => {
            assert_eq!(reason, "exit status: 5");
            assert!(console.contains("the reason why"));
        }
        error => panic!("{error}"),
    }
    assert_eq!(host.shim.wait_enclave_exit().await, "exit status: 5");
    let dir = tempfile::tempdir().unwrap();
    let mut config = common::config(dir.path());
    config.process.as_mut().unwrap().appliance = "/does/not/exist".into();
    assert!(matches!(
        newton_shim::Shim::start(config).await,
        Err(ShimError::Start { .. })
    ));
}

/// Answers JSON-RPC by method, and notes what was asked.
struct Endpoint {
    url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    answers: Arc<Mutex<BTreeMap<&'static str, Value>>>,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/secret-path", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(Mutex::new(BTreeMap::from([
            ("eth_estimateGas", json!({"result": "0x5208"})),
            (
                "eth_getBlockByNumber",
                json!({"result": {"baseFeePerGas": "0x3b9aca00"}}),
            ),
            ("eth_maxPriorityFeePerGas", json!({"result": "0x2"})),
            ("eth_getTransactionCount", json!({"result": "0x5"})),
            ("eth_sendRawTransaction", json!({"result": B256::ZERO})),
            ("eth_getBalance", json!({"result": "0xde0b6b3a7640000"})),
        ])));
        let (noted, table) = (asked.clone(), answers.clone());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                let request: Value = loop {
                    let mut chunk = [0; 4096];
                    let n = stream.read(&mut chunk).await.unwrap();
                    bytes.extend_from_slice(&chunk[..n]);
                    let body = bytes
                        .windows(4)
                        .position(|w| w == b"\r\n\r\n")
                        .map(|at| &bytes[at + 4..]);
                    if let Some(Ok(request)) = body.map(serde_json::from_slice) {
                        break request;
                    }
                };
                let method = request["method"].as_str().unwrap().to_owned();
                let answer = table.lock().unwrap()[method.as_str()].to_string();
                noted
                    .lock()
                    .unwrap()
                    .push((method, request["params"].clone()));
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    answer.len()
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self {
            url,
            asked,
            answers,
        }
    }

    fn answer(&self, method: &'static str, answer: Value) {
        self.answers.lock().unwrap().insert(method, answer);
    }

    fn sent(&self) -> Vec<TxEnvelope> {
        let asked = self.asked.lock().unwrap();
        let raw = asked
            .iter()
            .filter(|(method, _)| method == "eth_sendRawTransaction");
        raw.map(|(_, params)| {
            let bytes = hex::decode(params[0].as_str().unwrap()).unwrap();
            TxEnvelope::decode_2718(&mut bytes.as_slice()).unwrap()
        })
        .collect()
    }
}

const KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const ACCOUNT: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_signed_and_sent() {
    let endpoint = Endpoint::start().await;
    let key_dir = tempfile::tempdir().unwrap();
    let key = key_dir.path().join("gas.key");
    std::fs::write(&key, format!("{KEY}\n")).unwrap();
    let url = endpoint.url.clone();
    let host = start(|c| {
        c.gas = Some(GasConfig {
            key: KeySource::File(key),
            chains: vec![GasChain {
                chain_id: 31337,
                url,
            }],
            max_fee_per_gas: 100_000_000_000,
        });
    })
    .await;
    let account: Address = ACCOUNT.parse().unwrap();
    assert_eq!(host.shim.gas_address(), Some(account));
    let client = ControlClient::start(
        host.parent().await,
        ControlOptions::default(),
        Arc::new(Appliance::default()),
    );
    let transaction = Transaction {
        chain_id: 31337,
        to: [7; 20],
        calldata: vec![1, 2, 3],
        gas_limit: 90_000,
    };
    let submit = async |transaction: &Transaction| {
        let (client, transaction) = (client.clone(), transaction.clone());
        blocking(move || client.submit(transaction)).await
    };

    let hash = submit(&transaction).await.unwrap();
    let sent = endpoint.sent().remove(0);
    assert_eq!(sent.tx_hash().0, hash);
    assert_eq!(sent.recover_signer().unwrap(), account);
    assert_eq!(
        (sent.chain_id(), sent.nonce(), sent.gas_limit()),
        (Some(31337), 5, 90_000)
    );
    assert_eq!(
        (sent.to(), sent.value(), sent.input().as_ref()),
        (Some([7; 20].into()), U256::ZERO, &[1, 2, 3][..])
    );
    assert_eq!(
        (sent.max_fee_per_gas(), sent.max_priority_fee_per_gas()),
        (2_000_000_002, Some(2))
    );
    // The endpoint still says 5: our own count goes on.
    submit(&Transaction {
        gas_limit: 0,
        ..transaction.clone()
    })
    .await
    .unwrap();
    let second = endpoint.sent().remove(1);
    assert_eq!((second.nonce(), second.gas_limit()), (6, 21_000 * 5 / 4));

    let refusal = async |transaction: &Transaction| match submit(transaction).await.unwrap_err() {
        ControlError::Host(error) => (error.code(), error.text().to_owned()),
        error => panic!("{error}"),
    };
    let elsewhere = Transaction {
        chain_id: 1,
        ..transaction.clone()
    };
    assert_eq!(refusal(&elsewhere).await.0, ErrorCode::NotAllowed);
    endpoint.answer(
        "eth_estimateGas",
        json!({"error": {"code": 3, "message": "execution reverted", "data": "0xdeadbeef"}}),
    );
    let (code, text) = refusal(&transaction).await;
    assert_eq!(code, ErrorCode::Reverted);
    assert!(text.contains("0xdeadbeef"), "{text}");
    endpoint.answer(
        "eth_estimateGas",
        json!({"error": {"code": -32000, "message": "insufficient funds"}}),
    );
    assert_eq!(refusal(&transaction).await.0, ErrorCode::Rejected);
    endpoint.answer("eth_estimateGas", json!({"result": "0x5208"}));
    endpoint.answer(
        "eth_getBlockByNumber",
        json!({"result": {"baseFeePerGas": "0xffffffffffff"}}),
    );
    assert_eq!(refusal(&transaction).await.0, ErrorCode::Rejected);
    endpoint.answer("eth_getBlockByNumber", json!({"result": {}}));
    assert_eq!(refusal(&transaction).await.0, ErrorCode::Internal);
    assert_eq!(endpoint.sent().len(), 2);

    let report = fetch_report(host.dir.path()).await.unwrap();
    assert_eq!(
        report.gas[0].balance_wei.as_deref(),
        Some("1000000000000000000")
    );
    assert!(
        !serde_json::to_string(&report)
            .unwrap()
            .contains("secret-path")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gas_payer_and_with_a_bad_key() {
    let host = start(|_| ()).await;
    let client = ControlClient::start(
        host.parent().await,
        ControlOptions::default(),
        Arc::new(Appliance::default()),
    );
    let transaction = Transaction {
        chain_id: 1,
        to: [7; 20],
        calldata: vec![],
        gas_limit: 0,
    };
    let error = blocking(move || client.submit(transaction))
        .await
        .unwrap_err();
    assert!(matches!(error, ControlError::Host(e) if e.code() == ErrorCode::Rejected));

    let dir = tempfile::tempdir().unwrap();
    for text in ["0xnothex-but-secret", "00", &"0".repeat(64)] {
        let mut config = common::config(dir.path());
        let file = dir.path().join("key");
        std::fs::write(&file, text).unwrap();
        config.gas = Some(GasConfig {
            key: KeySource::File(file),
            chains: vec![],
            max_fee_per_gas: 1,
        });
        let error = newton_shim::Shim::start(config).await.err().unwrap();
        assert!(matches!(error, ShimError::GasKey { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
