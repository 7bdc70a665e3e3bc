//! Tests that authors write in Rego, in the manner of `opa test`: rules named `test_…`, which hold or do not.
//!
//! They run on the engine that evaluates policies, with its strict errors and its clock, so that what passes on an author's desk is what
//! the enclave does. Only a tool uses this.

use std::num::NonZeroU32;

use regorus::{Value, utils::limits::ExecutionTimerConfig};

use super::{RegoInput, SOURCE_NAME, builtins, check, dialect, text, value};
use crate::{error::ArtifactError, json::Json};

const TESTS_NAME: &str = "policy_test.rego";
const PREFIX: &str = "test_";

/// What came of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The rule.
    pub name: String,
    /// `Err` says what it was instead of `true`.
    pub verdict: Result<(), String>,
}

/// Runs the test rules of `tests` beside a policy. What `given` holds is what a test finds that replaces nothing by `with`.
///
/// # Errors
/// [`ArtifactError`] when a source is none.
pub fn run(
    policy: &str,
    tests: &str,
    given: &RegoInput<'_>,
) -> Result<Vec<Outcome>, ArtifactError> {
    let invalid = |error: anyhow::Error| ArtifactError::InvalidRego {
        reason: format!("{error:#}"),
    };
    text::nesting(policy)?;
    text::nesting(tests)?;
    let mut engine = dialect::engine();
    dialect::add(&mut engine, SOURCE_NAME, policy)?;
    if let Some(module) = engine.get_modules().last() {
        check::calls(module)?;
    }
    dialect::add(&mut engine, TESTS_NAME, tests)?;
    let (package, rules) = engine
        .get_modules()
        .last()
        .map(|module| (check::package(module), check::rules(module)))
        .unwrap_or_default();
    builtins::shadow(&mut engine).map_err(invalid)?;
    builtins::pin_clock(&mut engine, given.now_seconds).map_err(invalid)?;
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: given.wall,
        check_interval: NonZeroU32::new(64).unwrap_or(NonZeroU32::MIN),
    });
    let convert = |json: &Json| {
        value::to_rego(json).map_err(|error| ArtifactError::InvalidRego {
            reason: error.to_string(),
        })
    };
    let wasm = convert(given.wasm)?;
    let mut data = Value::new_object();
    let members = data.as_object_mut().map_err(invalid)?;
    members.insert("params".into(), convert(given.params)?);
    members.insert("data".into(), wasm.clone());
    members.insert("wasm".into(), wasm);
    engine.add_data(data).map_err(invalid)?;
    engine.set_input(convert(given.input)?);
    Ok(rules
        .into_iter()
        .filter(|rule| rule.starts_with(PREFIX))
        .map(|name| {
            let verdict = match engine.clone().eval_rule(format!("data.{package}.{name}")) {
                Ok(Value::Bool(true)) => Ok(()),
                Ok(Value::Undefined) => Err("it does not hold".to_owned()),
                Ok(other) => Err(format!("it is {other}")),
                Err(error) => Err(format!("{error:#}")),
            };
            Outcome { name, verdict }
        })
        .collect())
}
