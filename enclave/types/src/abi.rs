//! The contracts' structures, calls, events and errors, from the files that the Solidity side compiles too.
#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used)]

alloy_sol_types::sol!(
    #[sol(all_derives = true)]
    "../../contracts/src/interfaces/INewton.sol"
);
alloy_sol_types::sol!(
    #[sol(all_derives = true)]
    "../../contracts/src/interfaces/IGovernance.sol"
);
alloy_sol_types::sol!(
    #[sol(all_derives = true)]
    "../../contracts/src/interfaces/ISlasher.sol"
);
alloy_sol_types::sol!(
    #[sol(all_derives = true)]
    "../../contracts/src/interfaces/IResultVerifier.sol"
);
