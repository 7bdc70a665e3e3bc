//! WASM data components: ingest check, compilation and deterministic runs (design 4.4).
//!
//! Engine settings are fixed for rules version 1 and name everything that could differ between machines: the target with its
//! baseline features, NaN canonicalisation, deterministic relaxed SIMD, the accepted WASM features. Memories are reserved as
//! 4 GiB of address space each, which lets compiled code leave bounds checks to the MMU; only touched pages count, so workers
//! are limited by RLIMIT_DATA (private writable memory), not by RLIMIT_AS.

mod check;
mod host;
mod precompiled;
mod run;
mod ticker;
mod wasi;

use std::sync::Arc;

use wasmparser::WasmFeatures;
use wasmtime::{Config, Engine, OptLevel, component::InstancePre};

pub use check::check_component;
pub use host::NO_SECRETS;
pub use precompiled::{TrustedModule, fingerprint};
pub use run::{Run, RunOutput};

use crate::error::{ArtifactError, EvaluateError, Stage};
use host::Host;
use ticker::Ticker;

/// Bytes of one component: `maxArtifactBytes` (design 4b).
pub const MAX_COMPONENT_BYTES: usize = 24 << 20;

/// The target whose baseline features compiled code may use, whatever the machine has.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Native stack that WASM may use.
const MAX_WASM_STACK: usize = 1 << 20;

/// WASM features of rules version 1: what the component tool chains of Rust, JavaScript and Python emit.
/// Without `externref`, which needs a garbage collector that this engine is built without.
pub const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .difference(WasmFeatures::GC_TYPES)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::COMPONENT_MODEL);

/// The configured engine with its interruption clock.
pub struct Components {
    engine: Engine,
    ticker: Ticker,
}

/// A compiled component, linked and ready to be instantiated.
#[derive(Clone)]
pub struct Compiled {
    pre: InstancePre<Host>,
    size: usize,
}

impl Compiled {
    /// Bytes of its machine code image, for cache budgets.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }
}

impl Components {
    /// Starts an engine.
    ///
    /// # Errors
    /// [`EvaluateError::Internal`] when this machine cannot run the fixed target.
    pub fn new() -> Result<Self, EvaluateError> {
        let internal = |error: wasmtime::Error| EvaluateError::Internal {
            reason: format!("WASM engine: {error:#}"),
        };
        let engine = Engine::new(&config().map_err(internal)?).map_err(internal)?;
        let ticker = Ticker::start(engine.clone()).map_err(|error| EvaluateError::Internal {
            reason: format!("interruption clock: {error}"),
        })?;
        Ok(Self { engine, ticker })
    }

    /// Checks, compiles and links a component.
    ///
    /// # Errors
    /// [`CompileError::Refused`] when the bytes are at fault, as [`check_component`] says it; [`CompileError::Failed`] when the compiler
    /// fails on bytes that the check accepts, which says nothing about the bytes.
    pub fn compile(&self, bytes: &[u8]) -> Result<Compiled, CompileError> {
        check_component(bytes).map_err(CompileError::Refused)?;
        let component =
            wasmtime::component::Component::from_binary(&self.engine, bytes).map_err(|error| {
                CompileError::Failed(EvaluateError::Internal {
                    reason: format!("{}: {error:#}", Stage::Compile),
                })
            })?;
        self.link(&component).map_err(CompileError::Refused)
    }

    fn link(&self, component: &wasmtime::component::Component) -> Result<Compiled, ArtifactError> {
        let range = component.image_range();
        let size = range.end.addr().saturating_sub(range.start.addr());
        let pre = host::link(&self.engine, component)?;
        Ok(Compiled { pre, size })
    }

    fn ticker(&self) -> &Ticker {
        &self.ticker
    }
}

/// Why there is no compiled component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The bytes break a rule.
    #[error(transparent)]
    Refused(ArtifactError),
    /// The compiler failed; an abstention.
    #[error(transparent)]
    Failed(EvaluateError),
}

/// The engine's settings, all of them; public for measurements against a bare engine.
///
/// # Errors
/// When the engine was built without the fixed target.
pub fn config() -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config.target(TARGET)?;
    config.strategy(wasmtime::Strategy::Cranelift);
    config.cranelift_opt_level(OptLevel::Speed);
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    config.consume_fuel(true);
    config.epoch_interruption(true);
    config.max_wasm_stack(MAX_WASM_STACK);
    // Nothing below reaches a result; it saves memory and bytes of compiled code.
    config.wasm_backtrace_max_frames(None);
    config.generate_address_map(false);
    config.native_unwind_info(false);
    config.parallel_compilation(false);
    config.memory_init_cow(true);
    // Exactly the accepted features: the engine's defaults grow from version to version and with cargo features that another
    // crate of the workspace may turn on.
    config.wasm_features(FEATURES.complement(), false);
    config.wasm_features(FEATURES, true);
    Ok(config)
}

/// Shared ownership of a compiled component, as caches hold it.
pub type SharedCompiled = Arc<Compiled>;
