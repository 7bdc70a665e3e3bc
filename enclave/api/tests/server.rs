//! The server and the pinned client over real TCP and TLS.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::start;
use newton_api::{
    Limits,
    client::{Client, ClientError, Pin},
};
use newton_types::{B256, rpc::ErrorName};
use serde_json::json;

fn rpc_name(e: ClientError) -> ErrorName {
    match e {
        ClientError::Rpc(e) => e.name,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_key_is_learnt_then_pinned() {
    let (address, spki) = start(Limits::default()).await;
    let learning = Client::new(&address, Pin::Learn).with_bearer("key");
    assert_eq!(learning.call("write", json!({})).await.unwrap(), "written");
    assert_eq!(learning.seen_key(), Some(spki));
    let pinned = Client::new(&address, Pin::Key(spki));
    let refused = pinned.call("write", json!({})).await.unwrap_err();
    assert_eq!(rpc_name(refused), ErrorName::Unauthorized);
    let wrong = Client::new(&address, Pin::Key(B256::ZERO));
    let refused = wrong.call("write", json!({})).await.unwrap_err();
    assert!(matches!(refused, ClientError::Connect { .. }), "{refused}");
    assert!(refused.to_string().contains("expected the attested"));
}

#[tokio::test]
async fn a_large_body_is_refused_by_name() {
    let limits = Limits {
        body_bytes: 1_000,
        keyed_body_bytes: 4_000,
        ..Limits::default()
    };
    let (address, _) = start(limits).await;
    let client = Client::new(&address, Pin::Learn);
    let big = json!({ "x": "y".repeat(2_000) });
    let refused = client.call("write", big.clone()).await.unwrap_err();
    assert_eq!(rpc_name(refused), ErrorName::RequestTooLarge);
    let keyed = client.clone().with_bearer("key");
    assert_eq!(keyed.call("write", big).await.unwrap(), json!("written"));
    let bigger = json!({ "x": "y".repeat(5_000) });
    let refused = keyed.call("write", bigger).await.unwrap_err();
    assert_eq!(rpc_name(refused), ErrorName::RequestTooLarge);
}

#[tokio::test]
async fn too_many_calls_are_told_so() {
    let limits = Limits {
        calls: 1,
        ..Limits::default()
    };
    let (address, _) = start(limits).await;
    let call = |_| {
        let client = Client::new(&address, Pin::Learn);
        tokio::spawn(async move { client.call("slow", json!({})).await })
    };
    let calls: Vec<_> = (0..4).map(call).collect();
    let mut served = 0;
    let mut overloaded = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => served += 1,
            Err(e) => {
                assert_eq!(rpc_name(e), ErrorName::Overloaded);
                overloaded += 1;
            }
        }
    }
    assert!(served >= 1 && overloaded >= 1, "{served} {overloaded}");
}
