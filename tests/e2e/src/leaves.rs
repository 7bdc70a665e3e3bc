//! Leaves, their proofs, and both verifiers: Rust's and the contract's.

use alloy::primitives::{B256, Bytes, keccak256};
use anyhow::{Context, Result, ensure};
use newton_contracts::abi::{IStateCommitRegistry, LeafProof as AbiProof};
use newton_types::{LeafKey, LeafProof, Namespace};
use serde::Deserialize;
use serde_json::json;

use crate::{admission::Chain, enclave::Enclave};

/// A leaf as the enclave gave it.
#[derive(Deserialize)]
pub struct Leaf {
    /// Its key.
    pub leaf_key: B256,
    /// keccak-256 of its bytes, zero if it is absent.
    pub value_hash: B256,
    /// Commit whose root it was proved in.
    pub sequence_no: u64,
    /// That root.
    pub state_root: B256,
    /// The proof.
    pub proof: LeafProof,
    /// The bytes of a public artifact.
    pub bytes: Option<Bytes>,
}

/// Fetches an artifact with its proof and believes nothing of it: the bytes hash to the leaf, and the proof leads to the
/// root that the chain holds, by this crate's verifier and by the contract's.
pub async fn fetch(
    chain: &Chain,
    enclave: &Enclave,
    namespace: Namespace,
    hash: B256,
) -> Result<Leaf> {
    let leaf: Leaf = enclave
        .call(
            "newt_getArtifact",
            json!({ "namespace": namespace as u8, "hash": hash }),
        )
        .await?;
    let bytes = leaf.bytes.as_ref().context("no bytes")?;
    ensure!(keccak256(bytes) == hash, "the bytes are not the artifact");
    ensure!(leaf.value_hash == hash, "the leaf holds another value");
    ensure!(
        leaf.leaf_key == LeafKey::artifact(namespace, hash).0,
        "the leaf is another one"
    );
    check(chain, &leaf).await?;
    Ok(leaf)
}

/// Fetches the proof that a leaf is **not** there, and checks it in both ways.
pub async fn fetch_absent(chain: &Chain, enclave: &Enclave, key: LeafKey) -> Result<Leaf> {
    let leaf: Leaf = enclave
        .call("newt_getStateProof", json!({ "leaf_key": key.0 }))
        .await?;
    ensure!(leaf.value_hash == B256::ZERO, "the leaf is there");
    ensure!(leaf.leaf_key == key.0, "the leaf is another one");
    check(chain, &leaf).await?;
    Ok(leaf)
}

/// Fetches the proof of a leaf at commit `sequence`, whether it was there or not, and checks it in both ways.
///
/// # Errors
/// If the enclave has no such version any more, or one of the verifiers refuses.
pub async fn fetch_at(
    chain: &Chain,
    enclave: &Enclave,
    key: LeafKey,
    sequence: u64,
) -> Result<Leaf> {
    let leaf: Leaf = enclave
        .call(
            "newt_getStateProof",
            json!({ "leaf_key": key.0, "sequence_no": sequence }),
        )
        .await?;
    ensure!(leaf.leaf_key == key.0, "the leaf is another one");
    ensure!(leaf.sequence_no == sequence, "the version is another one");
    check(chain, &leaf).await?;
    Ok(leaf)
}

/// Whether the contract takes a proof of `value_hash` at commit `sequence`, whatever it was made for.
///
/// # Errors
/// If the chain does not answer.
pub async fn holds(chain: &Chain, leaf: &Leaf, sequence: u64, value_hash: B256) -> Result<bool> {
    let registry =
        IStateCommitRegistry::new(chain.contracts.state_commit_registry, &chain.provider);
    let proof = AbiProof {
        siblings: leaf.proof.siblings.clone(),
        neighbourKey: leaf.proof.neighbour_key,
        neighbourValueHash: leaf.proof.neighbour_value_hash,
    };
    let call = registry.verifyLeaf(sequence, leaf.leaf_key, value_hash, proof);
    Ok(call.call().await?)
}

async fn check(chain: &Chain, leaf: &Leaf) -> Result<()> {
    let registry =
        IStateCommitRegistry::new(chain.contracts.state_commit_registry, &chain.provider);
    let committed = registry.commitAt(leaf.sequence_no).call().await?;
    ensure!(
        committed == leaf.state_root,
        "root {} of commit {} is not the chain's {}",
        leaf.state_root,
        leaf.sequence_no,
        committed
    );
    leaf.proof
        .verify(committed, LeafKey(leaf.leaf_key), leaf.value_hash)
        .context("the proof does not hold in Rust")?;
    let holds = holds(chain, leaf, leaf.sequence_no, leaf.value_hash).await?;
    ensure!(holds, "the contract does not accept the proof");
    Ok(())
}
