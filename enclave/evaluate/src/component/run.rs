//! One run of a component: a fresh instance, the limits of the rules, and what ended it.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{B256, keccak256};
use wasmtime::{Store, Trap};

use super::{
    Compiled, Components,
    host::{Host, Stop},
    ticker::TICK,
};
use crate::{
    error::{ComponentLimit, EvaluateError, Stage},
    request::SecretBytes,
    rules::RuleLimits,
    transcript::{Exchange, HttpFetcher},
};

/// How the engine words that a call copies too much: it has no public type. A test runs into the limit, so that an engine with
/// other words is noticed.
const COPIED_TOO_MUCH: &str = "too much data is being copied between the host and the guest";

/// What one run depends on.
pub struct Run<'a> {
    /// The data instance, for errors and the random seed.
    pub instance_id: B256,
    /// The task, for the random seed.
    pub task_id: B256,
    /// The pinned clock, seconds.
    pub now_seconds: u64,
    /// The string handed to `run`.
    pub input: &'a str,
    /// The opened secrets document.
    pub secrets: Option<SecretBytes>,
    /// Who performs HTTP.
    pub http: Option<Arc<dyn HttpFetcher>>,
    /// Limits of the rules.
    pub limits: RuleLimits,
    /// Wall clock allowed.
    pub wall: Duration,
}

/// What a component returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOutput {
    /// The string in `ok`.
    pub output: String,
    /// HTTP exchanges in order.
    pub exchanges: Vec<Exchange>,
    /// Fuel used.
    pub fuel_used: u64,
}

impl Components {
    /// Runs a component once.
    ///
    /// # Errors
    /// [`EvaluateError::DataProviderFailed`] and [`EvaluateError::ComponentLimitExceeded`] are final, the rest abstains.
    pub fn run(&self, component: &Compiled, run: Run<'_>) -> Result<RunOutput, EvaluateError> {
        let Run {
            instance_id,
            task_id,
            now_seconds,
            input,
            secrets,
            http,
            limits,
            wall,
        } = run;
        let host = Host::new(
            limits,
            seed(task_id, instance_id),
            now_seconds,
            secrets,
            http,
        );
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| host);
        store.set_hostcall_fuel(usize::try_from(limits.copied_bytes).unwrap_or(usize::MAX));
        let classify = |error: &wasmtime::Error| classify(error, instance_id, limits, wall);
        store
            .set_fuel(limits.fuel)
            .map_err(|error| classify(&error))?;
        let ticks = wall.as_millis().div_ceil(TICK.as_millis()) + 1;
        store.set_epoch_deadline(u64::try_from(ticks).unwrap_or(u64::MAX));
        let _ticking = self.ticker().run();

        let outcome = (|| {
            let instance = component.pre.instantiate(&mut store)?;
            // Owned strings: by the time the call returns, the component's post-return has freed what it returned, and the
            // boundary's limit holds for the copy.
            let function =
                instance.get_typed_func::<(&str,), (Result<String, String>,)>(&mut store, "run")?;
            let (result,) = function.call(&mut store, (input,))?;
            let (is_ok, text) = match result {
                Ok(text) => (true, text),
                Err(text) => (false, text),
            };
            if text.len() as u64 > limits.output_bytes {
                return Err(Stop::Limit(ComponentLimit::Output, limits.output_bytes).into());
            }
            Ok((is_ok, text))
        })();
        let fuel_used = limits
            .fuel
            .saturating_sub(store.get_fuel().unwrap_or_default());
        let (is_ok, text) = outcome.map_err(|error: wasmtime::Error| classify(&error))?;
        if !is_ok {
            return Err(EvaluateError::DataProviderFailed {
                instance: instance_id,
                reason: capped(&text),
            });
        }
        let exchanges = std::mem::take(&mut store.data_mut().exchanges);
        Ok(RunOutput {
            output: text,
            exchanges,
            fuel_used,
        })
    }
}

/// The random seed: keccak256("newton.component-random.v1" ‖ taskId ‖ dataInstanceId).
fn seed(task_id: B256, instance_id: B256) -> B256 {
    keccak256(
        [
            b"newton.component-random.v1".as_slice(),
            task_id.as_slice(),
            instance_id.as_slice(),
        ]
        .concat(),
    )
}

fn classify(
    error: &wasmtime::Error,
    instance: B256,
    limits: RuleLimits,
    wall: Duration,
) -> EvaluateError {
    let limit = |limit, allowed| EvaluateError::ComponentLimitExceeded {
        instance,
        limit,
        allowed,
    };
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::Limit(which, allowed) => limit(*which, *allowed),
            Stop::HttpUnavailable(reason) => EvaluateError::HttpUnavailable {
                instance,
                reason: capped(reason),
            },
            Stop::OutOfMemory => EvaluateError::OutOfMemory {
                stage: Stage::Component,
            },
            Stop::Denied(_) | Stop::Exited(_) => EvaluateError::DataProviderFailed {
                instance,
                reason: stop.to_string(),
            },
        };
    }
    if format!("{error:#}").contains(COPIED_TOO_MUCH) && error.downcast_ref::<Trap>().is_none() {
        return limit(ComponentLimit::Copied, limits.copied_bytes);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => limit(ComponentLimit::Fuel, limits.fuel),
        Some(Trap::Interrupt) => EvaluateError::WallClockExceeded {
            stage: Stage::Component,
            limit_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        },
        Some(Trap::StackOverflow) => EvaluateError::StackExhausted {
            stage: Stage::Component,
        },
        Some(
            trap @ (Trap::MemoryOutOfBounds
            | Trap::HeapMisaligned
            | Trap::TableOutOfBounds
            | Trap::IndirectCallToNull
            | Trap::BadSignature
            | Trap::IntegerOverflow
            | Trap::IntegerDivisionByZero
            | Trap::BadConversionToInteger
            | Trap::UnreachableCodeReached
            | Trap::NullReference
            | Trap::CannotEnterComponent
            | Trap::CannotLeaveComponent
            | Trap::InvalidChar
            | Trap::StringOutOfBounds
            | Trap::ListOutOfBounds),
        ) => EvaluateError::DataProviderFailed {
            instance,
            reason: capped(&trap.to_string()),
        },
        // What is not known to follow from the bytes alone must not be signed: an allocation that the machine refused at
        // instantiation looks like this too.
        Some(_) | None if error.is::<wasmtime::OutOfMemory>() => EvaluateError::OutOfMemory {
            stage: Stage::Component,
        },
        Some(_) | None => EvaluateError::Internal {
            reason: capped(&format!("{}: {error:#}", Stage::Component)),
        },
    }
}

fn capped(text: &str) -> String {
    text.chars().take(1_024).collect()
}
