//! Rust bindings and deployment of the contracts.
//!
//! [`abi`] is generated from `contracts/src/interfaces/INewton.sol`, which all contracts implement, and the three files beside
//! it that have no imports. By default
//! this crate is types only (`alloy-sol-types`), so that the enclave can use it. The feature `deploy` adds
//! `Instance` types over a provider and the module `deploy`, which puts the whole set on a chain.

#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod abi {
    //! Structs, calls, events and errors of every contract, as `alloy` makes them from the Solidity interface.
    #[cfg(not(feature = "deploy"))]
    alloy_sol_types::sol!(
        #[sol(all_derives)]
        "../src/interfaces/INewton.sol"
    );
    #[cfg(feature = "deploy")]
    alloy::sol!(
        #[sol(rpc, all_derives)]
        "../src/interfaces/INewton.sol"
    );
    #[cfg(not(feature = "deploy"))]
    alloy_sol_types::sol!(
        #[sol(all_derives)]
        "../src/interfaces/IGovernance.sol"
    );
    #[cfg(feature = "deploy")]
    alloy::sol!(
        #[sol(rpc, all_derives)]
        "../src/interfaces/IGovernance.sol"
    );
    #[cfg(not(feature = "deploy"))]
    alloy_sol_types::sol!(
        #[sol(all_derives)]
        "../src/interfaces/ISlasher.sol"
    );
    #[cfg(feature = "deploy")]
    alloy::sol!(
        #[sol(rpc, all_derives)]
        "../src/interfaces/ISlasher.sol"
    );
    #[cfg(not(feature = "deploy"))]
    alloy_sol_types::sol!(
        #[sol(all_derives)]
        "../src/interfaces/IResultVerifier.sol"
    );
    #[cfg(feature = "deploy")]
    alloy::sol!(
        #[sol(rpc, all_derives)]
        "../src/interfaces/IResultVerifier.sol"
    );
}

#[cfg(feature = "deploy")]
pub mod deploy;

#[cfg(test)]
mod tests;
