//! What the logs make of the chain, held against the contracts' own answers.
#![allow(clippy::unwrap_used)]

mod network;
mod registries;
mod roles;

use std::sync::Arc;

use alloy::providers::Provider;
use alloy::rpc::types::{Filter, Log};
use alloy_primitives::{B256, b256};
use alloy_sol_types::SolEvent;
use newton_chain::{Follower, HttpTransport, RpcChainView, UnverifiedRpc};
use newton_http::{DialClass, HttpClient, TcpDialer};
use newton_state::{ChainConfig, StateStore};
use newton_types::events::Block;
use newton_types::manifest::{Consensus, ConsensusManifest, Contracts, Development, ShareHolders};
use redb::{Database, backends::InMemoryBackend};

use crate::actions::World;

/// Storage slot of a proxy's implementation (ERC-1967).
pub const IMPLEMENTATION_SLOT: B256 =
    b256!("360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc");

/// An enclave's view of the chain, from its first block on.
pub struct Replay {
    follower: Follower,
    store: StateStore,
    /// Every block, with the events that the decoder made.
    blocks: Vec<Block>,
}

impl Replay {
    pub async fn new(world: &World) -> Self {
        let manifest = ConsensusManifest {
            consensus: Consensus {
                network: "test".into(),
                authority_chain: 31_337,
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
        };
        let declared = UnverifiedRpc::declared_by(&manifest).unwrap();
        let client =
            HttpClient::new(Arc::new(TcpDialer), DialClass::Rpc, &world.chain.url).unwrap();
        let view = RpcChainView::connect(HttpTransport(client), 31_337, declared);
        let view = Arc::new(view.await.unwrap());
        let a = &world.a;
        let contracts = Contracts {
            enclave_version_registry: a.enclave_version_registry,
            operator_registry: a.operator_registry,
            key_registry: a.key_registry,
            state_commit_registry: a.state_commit_registry,
            policy_client_registry: a.policy_client_registry,
            policy_registry: a.policy_registry,
            policy_data_registry: a.policy_data_registry,
            task_manager: a.task_manager,
        };
        let config = ChainConfig {
            chain_id: 31_337,
            state_commit_registry: a.state_commit_registry,
            first_block: 0,
            deployment_block: world.commits_().deploymentBlock().call().await.unwrap(),
            deployment_block_hash: None,
        };
        let database = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .unwrap();
        Self {
            follower: Follower::new(view, contracts, 0, None),
            store: StateStore::open(Arc::new(database), config).unwrap(),
            blocks: Vec::new(),
        }
    }

    /// Follows to the newest transaction, then compares everything.
    pub async fn compare(&mut self, world: &World) {
        // What happens in a block counts from the next one on, and finality is two blocks behind.
        let last = world.chain.number().await;
        world.chain.mine(4).await;
        loop {
            let step = self.follower.finalized().await.unwrap();
            self.store.apply_finalized(&step.blocks).unwrap();
            self.follower.delivered(&step);
            self.blocks.extend(step.blocks.iter().cloned());
            if step.is_complete() {
                break;
            }
        }
        assert!(self.blocks.last().unwrap().header.number >= last);
        let snapshot = self.store.snapshot(None).unwrap();
        let registry = snapshot.registry();
        let logs = logs(world).await;
        registries::compare(world, &registry, &self.blocks).await;
        network::operators(world, &registry, &self.blocks).await;
        network::images_and_keys(world, &registry, &self.blocks).await;
        network::commits(world, &registry, &self.blocks, &logs).await;
        roles::compare(world, &logs).await;
    }
}

/// All logs of the followed contracts, for what an enclave has no use for.
async fn logs(world: &World) -> Vec<Log> {
    let addresses: Vec<_> = world.followed().iter().map(|(_, at)| *at).collect();
    let filter = Filter::new().from_block(0u64).address(addresses);
    world.chain.provider.get_logs(&filter).await.unwrap()
}

/// Those of one kind, in order.
fn of<E: SolEvent>(logs: &[Log]) -> Vec<(&Log, E)> {
    logs.iter()
        .filter(|log| log.topic0() == Some(&E::SIGNATURE_HASH))
        .map(|log| (log, E::decode_log(&log.inner).unwrap().data))
        .collect()
}
