//! Errors of a deployment.

use std::path::PathBuf;

use alloy::contract;
use alloy::providers::PendingTransactionError;
use alloy::transports::TransportError;
use alloy_primitives::{Address, B256};

/// Why a deployment stopped. Nothing is rolled back on the chain: a new attempt makes new contracts.
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
    /// A proxy is not where the other contracts look for it: something else sent from the deployer's account.
    #[error("the proxy of {contract} was expected at {expected} and is at {got}")]
    UnexpectedAddress {
        /// The contract.
        contract: &'static str,
        /// Where the others look for it.
        expected: Address,
        /// Where it is.
        got: Address,
    },
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
