//! Tests of a policy's folder, on the evaluation crate of the enclave. `docs/authors.md` describes the folder.
//!
//! Two kinds: `policy_test.rego` holds rules named `test_…`, as `opa test` has them; `cases.json` is a table of intents and recorded outputs
//! with the decision each leads to, through schemas, decoding and merging. A case with `run` runs the components themselves
//! against recorded HTTP answers, where their WASM is at hand.

mod case;
mod folder;
mod recorded;

pub use case::{Report, Verdict, run_folder};
