//! Answers of an RPC node.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use newton_chain::{
    ChainError, ChainView, Follower, JsonRpcTransport, RpcChainView, UnverifiedRpc,
};
use newton_http::BoxFuture;
use newton_types::manifest::{Consensus, ConsensusManifest, Development, ShareHolders};
use newton_types::{B256, events::HeaderInfo};

use crate::events::contracts;

const CHAIN_ID: u64 = 31_337;

/// A node that gives the answers it was made with, in order, whatever it is asked; then none.
#[derive(Clone)]
struct Node(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl JsonRpcTransport for Node {
    fn request(&self, _: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChainError>> {
        let answer = self.0.lock().unwrap().pop_front();
        Box::pin(async move { answer.ok_or_else(|| ChainError::Unreachable("no more".into())) })
    }
}

fn manifest() -> ConsensusManifest {
    ConsensusManifest {
        consensus: Consensus {
            network: "fuzz".into(),
            authority_chain: CHAIN_ID,
            chains: vec![],
            share_holders: ShareHolders {
                threshold: 1,
                public_keys: vec![],
            },
        },
        development: Some(Development {
            unverified_chain_view: true,
            ..Development::default()
        }),
    }
}

/// Nothing here waits for anything.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the node answers at once"),
    }
}

fn view(input: &[u8]) -> RpcChainView<Node> {
    let mut answers = VecDeque::from([br#"{"id":0,"result":"0x7a69"}"#.to_vec()]);
    // A zero byte is no part of any JSON text.
    answers.extend(input.split(|b| *b == 0).map(<[u8]>::to_vec));
    let node = Node(Arc::new(Mutex::new(answers)));
    let declared = UnverifiedRpc::declared_by(&manifest()).unwrap();
    now(RpcChainView::connect(node, CHAIN_ID, declared)).unwrap()
}

/// The bytes between zeros as the answers to each question of the view, and to a follower that asks its own. What passes
/// is what was asked for: linked headers of the heights asked, logs of these blocks and contracts, in order.
pub fn rpc(input: &[u8]) {
    let addresses = newton_chain::addresses(&contracts());
    if let Ok(headers) = now(view(input).headers(5, 7)) {
        let heights: Vec<u64> = headers.iter().map(|h| h.number).collect();
        assert_eq!(heights, [5, 6, 7]);
        assert!(headers.windows(2).all(|w| w[1].parent_hash == w[0].hash));
        let asked = view(input);
        // The same answers again: the headers are the first, the logs the next.
        let _ = now(asked.headers(5, 7));
        check_logs(&asked, &addresses, &headers);
    }
    let headers: Vec<HeaderInfo> = (5..8)
        .map(|n| HeaderInfo {
            number: n,
            hash: B256::with_last_byte(n as u8),
            parent_hash: B256::with_last_byte(n as u8 - 1),
            timestamp: n,
        })
        .collect();
    check_logs(&view(input), &addresses, &headers);
    let _ = now(view(input).finalized());
    let _ = now(view(input).head());
    let _ = now(view(input).storage(addresses[0], B256::ZERO, headers[0]));

    let mut follower = Follower::new(
        Arc::new(view(input)),
        contracts(),
        5,
        Some(B256::with_last_byte(4)),
    );
    if let Ok(step) = now(follower.finalized())
        && let Some(first) = step.blocks.first()
    {
        assert_eq!(first.header.number, 5);
        assert_eq!(first.header.parent_hash, B256::with_last_byte(4));
        follower.delivered(&step);
    }
    let _ = now(follower.pending()).map(<[_]>::len);
}

fn check_logs(
    view: &RpcChainView<Node>,
    addresses: &[newton_types::Address],
    headers: &[HeaderInfo],
) {
    let Ok(logs) = now(view.logs(addresses, headers)) else {
        return;
    };
    for log in &logs {
        assert!(addresses.contains(&log.address) && log.topics.len() <= 4);
        assert!(
            headers
                .iter()
                .any(|h| h.number == log.position.block && h.hash == log.block_hash)
        );
    }
    assert!(logs.windows(2).all(|w| w[0].position < w[1].position));
}
