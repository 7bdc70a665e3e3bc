//! Rego by `regorus`: interpreter, strict built-in errors (design 4.6).
//!
//! Sources are Rego v1. What is no Rego v1 and is the older language, with bodies without `if`, is read as that (see `dialect`).

mod builtins;
mod check;
mod dialect;
pub mod testing;
mod text;
mod value;

use std::{num::NonZeroU32, time::Duration};

use regorus::{Engine, LimitError, Value, unstable::Module, utils::limits::ExecutionTimerConfig};

use crate::{
    error::{ArtifactError, EvaluateError, Stage},
    json::Json,
};

/// Bytes of one Rego source.
pub const MAX_REGO_BYTES: usize = 1 << 20;

const SOURCE_NAME: &str = "policy.rego";

/// The ingest check of Rego: it parses and analyses, the entrypoint is a rule, and every call is to a function that exists here
/// and whose answer depends on its arguments alone.
///
/// # Errors
/// [`ArtifactError`]; every reason follows from the bytes.
pub fn check_rego(source: &[u8], entrypoint: &str) -> Result<(), ArtifactError> {
    Policy::prepare(source, entrypoint).map(drop)
}

/// The ingest check of Rego that was supplied on its own, for no particular template: as [`check_rego`], with some rule that could be an
/// entrypoint. Whether a template's own is there shows when it is evaluated.
///
/// # Errors
/// [`ArtifactError`]; every reason follows from the bytes.
pub fn check_supplied_rego(source: &[u8]) -> Result<(), ArtifactError> {
    prepare(source, check::any_entrypoint).map(drop)
}

/// The entrypoint of authors who name none: `allow` of the module's package. `None` when the source does not begin with a package, or
/// its name is not written with dots.
#[must_use]
pub fn default_entrypoint(source: &str) -> Option<String> {
    let first = source
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .find(|line| !line.is_empty())?;
    let (keyword, package) = first.split_once(char::is_whitespace)?;
    let package = package.trim().trim_end_matches(';');
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    (keyword == "package" && !package.is_empty() && package.chars().all(plain))
        .then(|| format!("{package}.allow"))
}

/// A parsed policy with its entrypoint, ready to be evaluated many times.
pub struct Policy {
    engine: Engine,
    entrypoint: String,
    rule_path: String,
}

/// What a policy sees.
pub struct RegoInput<'a> {
    /// `input`
    pub input: &'a Json,
    /// `data.params`
    pub params: &'a Json,
    /// `data.wasm`, and `data.data` by its older name
    pub wasm: &'a Json,
    /// What `time.now_ns()` answers.
    pub now_seconds: u64,
    /// Wall clock allowed.
    pub wall: Duration,
}

impl Policy {
    /// Parses, analyses and checks.
    ///
    /// # Errors
    /// [`ArtifactError`] for anything [`check_rego`] refuses.
    pub fn prepare(source: &[u8], entrypoint: &str) -> Result<Self, ArtifactError> {
        let (engine, rule_path) = prepare(source, |module| check::entrypoint(module, entrypoint))?;
        Ok(Self {
            engine,
            entrypoint: entrypoint.to_owned(),
            rule_path,
        })
    }

    /// Evaluates the entrypoint.
    ///
    /// # Errors
    /// [`EvaluateError::RegoFailed`], [`EvaluateError::RegoUndefined`], [`EvaluateError::ResultNotRepresentable`] (final), or an
    /// abstention when a machine limit was reached.
    pub fn evaluate(&self, input: &RegoInput<'_>) -> Result<Json, EvaluateError> {
        let mut engine = self.engine.clone();
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: input.wall,
            check_interval: NonZeroU32::new(64).unwrap_or(NonZeroU32::MIN),
        });
        let failed = |error: &anyhow::Error| classify(error, input.wall);
        builtins::pin_clock(&mut engine, input.now_seconds).map_err(|error| failed(&error))?;
        let wasm = value::to_rego(input.wasm)?;
        let mut data = Value::new_object();
        let members = data.as_object_mut().map_err(|error| failed(&error))?;
        members.insert("params".into(), value::to_rego(input.params)?);
        members.insert("data".into(), wasm.clone());
        members.insert("wasm".into(), wasm);
        engine.add_data(data).map_err(|error| failed(&error))?;
        engine.set_input(value::to_rego(input.input)?);
        let result = engine
            .eval_rule(self.rule_path.clone())
            .map_err(|error| failed(&error))?;
        if result == Value::Undefined {
            return Err(EvaluateError::RegoUndefined {
                entrypoint: self.entrypoint.clone(),
            });
        }
        value::from_rego(&result)
    }
}

/// A checked and analysed source, and the path of the rule that `entrypoint` finds in it.
fn prepare(
    source: &[u8],
    entrypoint: impl FnOnce(&Module) -> Result<String, ArtifactError>,
) -> Result<(Engine, String), ArtifactError> {
    if source.len() > MAX_REGO_BYTES {
        return Err(ArtifactError::TooLarge {
            got: source.len() as u64,
            limit: MAX_REGO_BYTES as u64,
        });
    }
    let source = std::str::from_utf8(source).map_err(|error| ArtifactError::NotUtf8 {
        valid_up_to: error.valid_up_to() as u64,
    })?;
    let invalid = |error: anyhow::Error| ArtifactError::InvalidRego {
        reason: format!("{error:#}"),
    };
    text::nesting(source)?;
    let mut engine = dialect::engine();
    dialect::add(&mut engine, SOURCE_NAME, source)?;
    let rule_path =
        {
            let module = engine.get_modules().first().cloned().ok_or_else(|| {
                ArtifactError::InvalidRego {
                    reason: "the source holds no module".to_owned(),
                }
            })?;
            check::calls(&module)?;
            entrypoint(&module)?
        };
    builtins::shadow(&mut engine).map_err(invalid)?;
    // Analysis (scheduling, unsafe variables, conflicts of declarations) happens on first use: have it happen now.
    engine
        .clone()
        .compile_with_entrypoint(&rule_path.as_str().into())
        .map_err(invalid)?;
    Ok((engine, rule_path))
}

fn classify(error: &anyhow::Error, wall: Duration) -> EvaluateError {
    match error
        .chain()
        .find_map(|cause| cause.downcast_ref::<LimitError>())
    {
        Some(LimitError::TimeLimitExceeded { .. }) => EvaluateError::WallClockExceeded {
            stage: Stage::Rego,
            limit_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        },
        Some(LimitError::MemoryLimitExceeded { .. }) => {
            EvaluateError::OutOfMemory { stage: Stage::Rego }
        }
        Some(LimitError::RegexSizeLimitExceeded { .. }) | None => EvaluateError::RegoFailed {
            reason: format!("{error:#}").chars().take(1_024).collect(),
        },
    }
}
