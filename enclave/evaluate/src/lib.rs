//! Evaluation of policies: schema checks, WASM data components and Rego.
//!
//! Everything in this crate that touches bytes written by policy authors is meant to run in a [`worker`] process that
//! holds no keys. The same code runs in process for tools that have nothing to lose (a challenger, an author's desk) through
//! [`Evaluator`].
//!
//! | module | does |
//! |---|---|
//! | [`json`] | JSON values with exact integers, strict parser, RFC 8785 output |
//! | [`intent`] | wire intent to typed intent to Rego `input` |
//! | [`schema`] | draft 2020-12 validation with JSON pointers |
//! | [`rego`] | ingest check and strict interpretation |
//! | [`component`] | ingest check, compilation and deterministic runs of `newton:provider` components |
//! | [`evaluate`](mod@evaluate) | one evaluation in the order of design 4.2 |
//! | [`merge`](mod@merge) | what several operators' outputs amount to |
//! | [`worker`] | the worker processes, their pool and their wire |
//!
//! Design: parts 4 and 4b; wire forms: `docs/protocol.md` section 5.

pub mod component;
pub mod error;
pub mod evaluate;
pub mod intent;
pub mod json;
pub mod merge;
pub mod rego;
pub mod request;
pub mod rules;
pub mod schema;
pub mod transcript;
pub mod worker;

pub use error::{ArtifactError, EvaluateError, Finality, Subject, Violation};
pub use evaluate::{Concluded, Evaluator, MachineLimits, MergedData, Prepared, check_artifact};
pub use intent::Intent;
pub use json::Json;
pub use request::{
    ArtifactKind, ArtifactRef, ArtifactSource, DataInput, DataResult, Diagnostic, EvaluateRequest,
    Evaluation, PolicyInput, SecretBytes, Seen, Supply, TaskContext,
};
pub use rules::RULES_VERSION_1;
