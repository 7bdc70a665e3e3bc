//! A sealed snapshot in the place of a commit.

use alloy_primitives::{B256, Bytes, keccak256};
use newton_contracts::abi;

use super::World;

const WHERE: Bytes = Bytes::from_static(b"where the sealed bytes are");

impl World {
    /// Three proposals: one is withdrawn, one adopted, one left.
    pub async fn recovery(&mut self) {
        let contract = self.commits_();
        self.pass(10).await;
        let snapshot = self.sealed("restored").await;
        let withdrawn = self.sealed("never").await;
        for proposed in [&snapshot, &withdrawn, &self.sealed("left").await] {
            let call = contract.proposeSnapshot(proposed.clone());
            self.chain
                .send("proposeSnapshot", call.from(self.owner))
                .await;
        }
        let digest = contract.snapshotDigest(withdrawn).call().await.unwrap();
        let call = contract.cancelSnapshot(digest);
        self.chain
            .send("cancelSnapshot", call.from(self.owner))
            .await;
        let digest = contract.snapshotDigest(snapshot.clone());
        let certificate = self.certificate(digest.call().await.unwrap()).await;
        let call = contract.adoptSnapshot(snapshot, certificate, WHERE);
        self.chain
            .send("adoptSnapshot", call.from(self.author()))
            .await;
    }

    async fn sealed(&self, root: &str) -> abi::SealedSnapshot {
        // The queue stands where it stood.
        let drained = self.commits_().drainedThrough().call().await.unwrap();
        abi::SealedSnapshot {
            commit: abi::StateCommit {
                deltaHash: B256::ZERO,
                drainedBlock: drained.blockNumber,
                drainedTx: drained.txIndex,
                drainedLog: drained.logIndex,
                drainedItem: drained.item,
                ..self.commit(root, 0).await
            },
            snapshotHash: keccak256(root),
            snapshotLength: 7,
            daRefHash: keccak256(WHERE),
        }
    }
}
