//! More than the server can do: typed refusals, bounded memory, and service afterwards.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{sync::atomic::Ordering, time::Duration};

use common::{BIG, GENEROUS, Started, start_with};
use newton_api::{
    Limits, RpcError,
    client::{Client, ClientError, Pin},
};
use newton_types::{
    manifest::Rate,
    rpc::{Disposition, ErrorName},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

fn client(started: &Started) -> Client {
    Client::new(&started.address, Pin::Key(started.spki))
}

fn refusal(outcome: Result<Value, ClientError>) -> RpcError {
    match outcome {
        Err(ClientError::Rpc(e)) => e,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twice_the_capacity_is_answered_with_typed_refusals() {
    const CAPACITY: usize = 8;
    let limits = Limits {
        calls: CAPACITY,
        ..Limits::default()
    };
    let started = start_with(limits, GENEROUS, GENEROUS).await;
    let mut callers = JoinSet::new();
    for _ in 0..2 * CAPACITY {
        let client = client(&started);
        callers.spawn(async move {
            let (mut served, mut refused) = (0, 0);
            for _ in 0..25 {
                match client.call("work", json!({})).await {
                    Ok(answer) => {
                        assert_eq!(answer, json!("worked"));
                        served += 1;
                    }
                    Err(e) => {
                        let e = refusal(Err(e));
                        assert_eq!(e.name, ErrorName::Overloaded);
                        assert_eq!(e.name.disposition(), Disposition::Retryable);
                        assert_eq!(e.data["resource"], "calls");
                        refused += 1;
                    }
                }
            }
            (served, refused)
        });
    }
    let (mut served, mut refused) = (0, 0);
    while let Some(outcome) = callers.join_next().await {
        let (s, r) = outcome.unwrap();
        served += s;
        refused += r;
    }
    assert_eq!(served + refused, 2 * CAPACITY * 25);
    assert!(served > 0);
    assert!(started.handler.most.load(Ordering::SeqCst) <= CAPACITY);
    let stats = started.server.stats();
    assert_eq!(
        (stats.calls, stats.overloaded),
        (served as u64, refused as u64)
    );
    assert_eq!(
        client(&started).call("work", json!({})).await.unwrap(),
        json!("worked")
    );
}

#[tokio::test]
async fn calls_beyond_the_capacity_are_refused_at_once() {
    let limits = Limits {
        calls: 1,
        ..Limits::default()
    };
    let started = start_with(limits, GENEROUS, GENEROUS).await;
    let slow = client(&started);
    let first = tokio::spawn(async move { slow.call("slow", json!({})).await });
    while started.server.stats().calls == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = refusal(client(&started).call("work", json!({})).await);
    assert_eq!(error.name, ErrorName::Overloaded);
    assert_eq!(first.await.unwrap().unwrap(), json!("slow"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_capacity_wait_for_a_place() {
    let limits = Limits {
        connections: 2,
        waiting: 30,
        ..Limits::default()
    };
    let started = start_with(limits, GENEROUS, GENEROUS).await;
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let client = client(&started);
        callers.spawn(async move {
            for _ in 0..3 {
                client.call("work", json!({})).await.unwrap();
            }
        });
    }
    while let Some(outcome) = callers.join_next().await {
        outcome.unwrap();
    }
    assert!(started.handler.most.load(Ordering::SeqCst) <= 2);
    assert_eq!(started.server.stats().connections_refused, 0);
}

#[tokio::test]
async fn the_line_for_a_place_has_an_end() {
    let limits = Limits {
        connections: 1,
        waiting: 1,
        handshake: Duration::from_secs(2),
        ..Limits::default()
    };
    let started = start_with(limits, GENEROUS, GENEROUS).await;
    let idle = client(&started).connect().await.unwrap();
    // One waits until its patience ends, the other finds the line full.
    let (first, second) = (client(&started), client(&started));
    let (first, second) = tokio::join!(
        first.call("work", json!({})),
        second.call("work", json!({}))
    );
    for outcome in [first, second] {
        assert!(
            matches!(outcome, Err(ClientError::Connect { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(started.server.stats().connections_refused, 2);
    drop(idle);
    client(&started).call("work", json!({})).await.unwrap();
}

#[tokio::test]
async fn a_key_has_a_bucket_of_its_own() {
    let rate = |burst| Rate {
        per_second: 1,
        burst,
    };
    let started = start_with(Limits::default(), rate(3), rate(1)).await;
    let keyed = client(&started).with_bearer("key");
    for _ in 0..3 {
        keyed.call("write", json!({})).await.unwrap();
    }
    let error = refusal(keyed.call("write", json!({})).await);
    assert_eq!(error.name, ErrorName::RateLimited);
    assert_eq!(error.name.disposition(), Disposition::Retryable);
    let wait = error.data["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1_001).contains(&wait), "{wait}");
    // Everyone else has another bucket, and an unknown key is everyone.
    let open = client(&started).with_bearer("unknown");
    assert_eq!(
        refusal(open.call("write", json!({})).await).name,
        ErrorName::Unauthorized
    );
    assert_eq!(
        refusal(client(&started).call("work", json!({})).await).name,
        ErrorName::RateLimited
    );
    assert!(started.server.stats().rate_limited >= 2);
    tokio::time::sleep(Duration::from_millis(wait)).await;
    keyed.call("write", json!({})).await.unwrap();
}

#[tokio::test]
async fn requests_hold_no_more_memory_than_there_is() {
    let limits = Limits {
        memory_bytes: 64 << 10,
        ..Limits::default()
    };
    let started = start_with(limits, GENEROUS, GENEROUS).await;
    let error = refusal(
        client(&started)
            .call("work", json!({ "filler": "x".repeat(40 << 10) }))
            .await,
    );
    assert_eq!(error.name, ErrorName::Overloaded);
    assert_eq!(error.data["resource"], "memory");
    // An answer of that size neither.
    let error = refusal(client(&started).call("big", json!({})).await);
    assert_eq!(error.data["resource"], "memory");
    client(&started).call("work", json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_stops_reading_is_let_go() {
    use tokio::io::AsyncWriteExt;

    let limits = Limits {
        // One big answer at a time.
        memory_bytes: 3 * BIG,
        read: Duration::from_millis(500),
        ..Limits::default()
    };
    let started = start_with(limits, GENEROUS, GENEROUS).await;
    let mut stuck = client(&started).connect().await.unwrap();
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "big", "params": {} }).to_string();
    let request = format!(
        "POST /rpc HTTP/1.1\r\nhost: enclave\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stuck.write_all(request.as_bytes()).await.unwrap();
    stuck.flush().await.unwrap();
    while started.server.stats().calls == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = refusal(client(&started).call("big", json!({})).await);
    assert_eq!(error.name, ErrorName::Overloaded);
    // Until the server has lost patience. The connection stands all the while.
    let answer = loop {
        match client(&started).call("big", json!({})).await {
            Ok(answer) => break answer,
            Err(e) => assert_eq!(refusal(Err(e)).name, ErrorName::Overloaded),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(answer.as_str().unwrap().len(), BIG);
    drop(stuck);
}
