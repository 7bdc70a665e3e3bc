//! Errors of a deployment.

use std::path::PathBuf;

use alloy::contract;
use alloy::providers::PendingTransactionError;
use alloy::transports::TransportError;
use alloy_primitives::{Address, B256};

/// Why a deployment stopped. Nothing is rolled back on the chain: the next attempt continues with what is there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeployError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{path} is not what is expected there: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The node cannot be asked at this URL, which is not repeated: it may hold a key.
    #[error("the node: {0}")]
    Node(#[from] newton_http::HttpError),
    /// An artifact has no creation code, or code that still needs a library.
    #[error("{path} has no complete creation code: {reason}")]
    NoCode {
        /// The artifact.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The node serves another chain than the configuration is for.
    #[error("the configuration is for chain {expected}, the node serves chain {got}")]
    WrongChain {
        /// Chain id of the configuration.
        expected: u64,
        /// Chain id of the node.
        got: u64,
    },
    /// A contract was not created.
    #[error("{name} was not created where its nonce says by transaction {transaction}")]
    CreationFailed {
        /// What was to be created.
        name: String,
        /// The transaction.
        transaction: B256,
    },
    /// A main network's configuration names no owner.
    #[error(
        "{name} (chain {chain_id}) is not a test network: its configuration must name an `owner`"
    )]
    NoOwner {
        /// The network.
        name: String,
        /// Its chain id.
        chain_id: u64,
    },
    /// The owner named for a main network is not a contract there.
    #[error("the owner {owner} has no code on chain {chain_id}, so it is not a Safe there")]
    OwnerWithoutCode {
        /// The owner.
        owner: Address,
        /// The chain.
        chain_id: u64,
    },
    /// The account has transactions that are not mined; which of them are creations of the set cannot be said yet.
    #[error(
        "{deployer} has {} transactions that are not mined: wait for them, or replace them, and start again", pending - mined
    )]
    Unmined {
        /// The account.
        deployer: Address,
        /// Transactions mined.
        mined: u64,
        /// Transactions sent.
        pending: u64,
    },
    /// The account has a history, and the beginning of this set is not in it.
    #[error(
        "{deployer} has sent {nonce} transactions, and none of the last {searched} created this set's first contract: use a \
         fresh account, or name the nonce at which the set begins"
    )]
    NothingFound {
        /// The account.
        deployer: Address,
        /// Its nonce.
        nonce: u64,
        /// How many were looked at.
        searched: u64,
    },
    /// The set is said to begin at a nonce that the account has not reached.
    #[error(
        "the set begins at nonce {first} of {deployer}, which is at {nonce}: is this its chain?"
    )]
    NonceBehind {
        /// The account.
        deployer: Address,
        /// First nonce of the set.
        first: u64,
        /// Nonce of the account.
        nonce: u64,
    },
    /// A nonce of the set was spent on something else.
    #[error(
        "nonce {nonce} of {deployer} did not create {name}: nothing is at {address}. This set cannot be completed; begin \
         another at a later nonce"
    )]
    NonceSpent {
        /// The account.
        deployer: Address,
        /// The nonce.
        nonce: u64,
        /// What should have been created.
        name: String,
        /// Where.
        address: Address,
    },
    /// Where a contract belongs there is other code.
    #[error("the code at {address} is not that of {name} as compiled here and wired into this set")]
    ForeignCode {
        /// What belongs there.
        name: String,
        /// Where.
        address: Address,
    },
    /// The run was told to stop early.
    #[error("stopped after {sent} transactions")]
    Stopped {
        /// Transactions sent.
        sent: usize,
    },
    /// The node no longer knows in which block the first contract was created.
    #[error(
        "the node does not know the state before block {block}, so the first creation's block cannot be found: keep the \
         addresses file, or ask an archive node"
    )]
    NoHistory {
        /// The oldest block that it knew.
        block: u64,
    },
    /// A block is gone while it was looked at.
    #[error("block {0} is gone: the chain was reorganised meanwhile, run this again")]
    BlockGone(u64),
    /// What was read back is not what was deployed.
    #[error("{contract}.{what} should be {expected} and is {got}")]
    ReadBack {
        /// The contract.
        contract: &'static str,
        /// What was asked.
        what: &'static str,
        /// What it should answer.
        expected: String,
        /// What it answered.
        got: String,
    },
    /// The node did not do what it was asked.
    #[error("the node refused: {0}")]
    Transport(#[from] TransportError),
    /// A transaction was not mined.
    #[error("a transaction was not mined: {0}")]
    Pending(#[from] PendingTransactionError),
    /// A contract did not answer.
    #[error("a contract did not answer: {0}")]
    Contract(#[from] contract::Error),
}
