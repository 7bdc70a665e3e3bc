//! Votes, as `newt_getCommitVote` and the methods like it answer them.

use alloy_sol_types::SolValue;
use newton_types::{B256, Bytes, abi, keccak256};
use serde::Deserialize;

/// A vote for a commit.
#[derive(Clone, Debug, Deserialize)]
pub struct CommitVote {
    /// ABI encoding of the commit.
    pub commit: Bytes,
    /// Its EIP-712 digest, as the peer says.
    pub digest: B256,
    /// Signature in EIP-2537 form.
    pub signature: Bytes,
    /// The signer's key in EIP-2537 form.
    pub bls_public_key: Bytes,
}

/// A vote on anything else.
#[derive(Clone, Debug, Deserialize)]
pub struct StatementVote {
    /// EIP-712 digest, as the peer says.
    pub digest: B256,
    /// Signature in EIP-2537 form.
    pub signature: Bytes,
    /// The signer's key in EIP-2537 form.
    pub bls_public_key: Bytes,
}

/// A vote on something else than was asked. No evidence yet, since a digest is only what the peer says; the signature over this
/// enclave's own digest is what counts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtherMatter {
    /// Another commit.
    #[error("the peer votes for another commit, root {}", .root.map_or_else(|| "unreadable".to_owned(), |root| root.to_string()))]
    Commit {
        /// Root of that commit, if it can be read.
        root: Option<B256>,
    },
    /// Another statement.
    #[error("the peer votes on another digest, {0}")]
    Digest(B256),
}

impl CommitVote {
    /// Hash of the signer's key, by which sets name their members.
    pub fn key(&self) -> B256 {
        keccak256(&self.bls_public_key)
    }

    /// The vote, if it says that it is on `digest`.
    ///
    /// # Errors
    /// [`OtherMatter::Commit`] if it is on another one.
    pub fn on(self, digest: B256) -> Result<StatementVote, OtherMatter> {
        if self.digest != digest {
            let root = abi::StateCommit::abi_decode(&self.commit)
                .ok()
                .map(|commit| commit.newStateRoot);
            return Err(OtherMatter::Commit { root });
        }
        Ok(StatementVote {
            digest,
            signature: self.signature,
            bls_public_key: self.bls_public_key,
        })
    }
}

impl StatementVote {
    /// The vote, if it says that it is on `digest`.
    ///
    /// # Errors
    /// [`OtherMatter::Digest`] if it is on another one.
    pub fn on(self, digest: B256) -> Result<Self, OtherMatter> {
        if self.digest == digest {
            Ok(self)
        } else {
            Err(OtherMatter::Digest(self.digest))
        }
    }

    /// Hash of the signer's key, by which sets name their members.
    pub fn key(&self) -> B256 {
        keccak256(&self.bls_public_key)
    }
}
