//! A node of its own for a test, and contracts on it that emit whatever log they are told to.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use alloy_sol_types::SolEvent;
use newton_chain::{ChainError, HttpTransport, JsonRpcTransport, RpcChainView, UnverifiedRpc};
use newton_http::{DialClass, HttpClient, TcpDialer};
use newton_types::manifest::{Consensus, ConsensusManifest, Contracts, Development, ShareHolders};
use newton_types::{Address, B256};
use serde_json::{Value, json};

pub const CHAIN_ID: u64 = 31_337;

fn anvil() -> PathBuf {
    if let Some(path) = std::env::var_os("NEWTON_ANVIL") {
        return path.into();
    }
    let local =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/node_modules/.bin/anvil");
    if local.exists() {
        local
    } else {
        "anvil".into()
    }
}

/// A manifest that declares the development switch, or does not.
pub fn manifest(unverified_chain_view: bool) -> ConsensusManifest {
    ConsensusManifest {
        consensus: Consensus {
            network: "test".into(),
            authority_chain: CHAIN_ID,
            chains: vec![],
            share_holders: ShareHolders {
                threshold: 1,
                public_keys: vec![],
            },
        },
        development: Some(Development {
            unverified_chain_view,
            ..Development::default()
        }),
    }
}

/// An anvil that mines when told to, with finality two blocks behind its head.
pub struct Node {
    child: Child,
    client: HttpClient,
    pub sender: Address,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    pub async fn start() -> Self {
        let program = anvil();
        let mut child = Command::new(&program)
            .args(["--hardfork", "prague", "--port", "0", "--no-mining"])
            .args(["--slots-in-an-epoch", "1", "--accounts", "1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| {
                panic!("cannot start {}: {e}; set NEWTON_ANVIL", program.display())
            });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let at = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned))
            .expect("anvil says where it listens");
        // Keep its pipe empty.
        std::thread::spawn(move || lines.for_each(drop));
        let url = format!("http://{at}");
        let client = HttpClient::new(Arc::new(TcpDialer), DialClass::Rpc, &url).unwrap();
        let mut node = Self {
            child,
            client,
            sender: Address::ZERO,
        };
        let accounts = node.rpc("eth_accounts", json!([])).await;
        node.sender = serde_json::from_value(accounts[0].clone()).unwrap();
        node
    }

    pub fn transport(&self) -> HttpTransport {
        HttpTransport(self.client.clone())
    }

    pub async fn view(&self) -> Arc<RpcChainView<HttpTransport>> {
        let declared = UnverifiedRpc::declared_by(&manifest(true)).unwrap();
        let view = RpcChainView::connect(self.transport(), CHAIN_ID, declared).await;
        Arc::new(view.unwrap())
    }

    pub async fn rpc(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer: Result<_, ChainError> = self
            .transport()
            .request(body.to_string().into_bytes())
            .await;
        let answer: Value = serde_json::from_slice(&answer.unwrap()).unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    pub async fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([format!("{blocks:#x}")]))
            .await;
    }

    /// Deploys one emitter per contract of the set.
    pub async fn deploy(&self) -> Contracts {
        let mut at = Vec::new();
        for _ in 0..8 {
            let transaction = json!([{
                "from": self.sender, "data": newton_types::Bytes::from(creation_code()), "gas": "0x200000",
            }]);
            let hash = self.rpc("eth_sendTransaction", transaction).await;
            self.mine(1).await;
            let receipt = self.rpc("eth_getTransactionReceipt", json!([hash])).await;
            at.push(serde_json::from_value(receipt["contractAddress"].clone()).unwrap());
        }
        Contracts {
            enclave_version_registry: at[0],
            operator_registry: at[1],
            key_registry: at[2],
            state_commit_registry: at[3],
            policy_client_registry: at[4],
            policy_registry: at[5],
            policy_data_registry: at[6],
            task_manager: at[7],
        }
    }

    /// Queues a transaction in which `contract` emits `event`; mine to have it.
    pub async fn emit(&self, contract: Address, event: &impl SolEvent) {
        let log = event.encode_log_data();
        self.emit_raw(contract, log.topics(), &log.data).await;
    }

    pub async fn emit_raw(&self, contract: Address, topics: &[B256], data: &[u8]) {
        let mut input = vec![topics.len() as u8];
        topics
            .iter()
            .for_each(|t| input.extend_from_slice(t.as_slice()));
        input.extend_from_slice(data);
        let transaction = json!([{
            "from": self.sender, "to": contract, "gas": "0x200000",
            "data": newton_types::Bytes::from(input),
        }]);
        self.rpc("eth_sendTransaction", transaction).await;
    }
}

/// Calldata: number of topics (1 to 4), the topics, the data. Emits exactly that log.
fn creation_code() -> Vec<u8> {
    const CALLDATALOAD: u8 = 0x35;
    const CALLDATASIZE: u8 = 0x36;
    const CALLDATACOPY: u8 = 0x37;
    let push = |code: &mut Vec<u8>, value: u8| code.extend([0x60, value]);
    let body = |topics: u8| {
        let mut code = vec![0x5b]; // JUMPDEST
        for i in (0..topics).rev() {
            push(&mut code, 1 + 32 * i);
            code.push(CALLDATALOAD);
        }
        let start = 1 + 32 * topics;
        push(&mut code, start);
        code.extend([CALLDATASIZE, 0x03, 0x80]); // SUB, DUP1: the data's length, twice
        push(&mut code, start);
        push(&mut code, 0);
        code.push(CALLDATACOPY);
        push(&mut code, 0);
        code.extend([0xa0 + topics, 0x00]); // LOGn, STOP
        code
    };
    const DISPATCH: usize = 4 * 11 + 1;
    let mut runtime = Vec::new();
    let mut target = DISPATCH;
    for topics in 1..=4 {
        push(&mut runtime, 0);
        runtime.push(CALLDATALOAD);
        push(&mut runtime, 0xf8);
        runtime.push(0x1c); // SHR: the first byte
        push(&mut runtime, topics);
        runtime.push(0x14); // EQ
        push(&mut runtime, target as u8);
        target += body(topics).len();
        runtime.push(0x57); // JUMPI
    }
    runtime.push(0x00);
    // PUSH1 CALLDATALOAD(1) PUSH1 SHR PUSH1 EQ PUSH1 JUMPI = 2+1+2+1+2+1+2+1
    let shift = runtime.len() - DISPATCH;
    for i in 0..4 {
        runtime[12 * i + 10] += shift as u8;
    }
    (1..=4).for_each(|topics| runtime.extend(body(topics)));
    // Copy the runtime behind these 12 bytes to memory and return it.
    let length = runtime.len() as u8;
    let mut creation = vec![0x60, length, 0x60, 0x0c, 0x60, 0x00, 0x39];
    creation.extend([0x60, length, 0x60, 0x00, 0xf3]);
    creation.extend(runtime);
    creation
}
