//! Compiled components as bytes, so that a restart does not compile again (design 4.7).

#![allow(unsafe_code)]

use std::hash::{Hash, Hasher};

use alloy_primitives::{B256, keccak256};
use wasmtime::Engine;

use super::{CompileError, Compiled, Components, check_component};
use crate::error::{EvaluateError, Stage};

/// The compiled form of one component, from someone whose word is enough.
pub struct TrustedModule(Vec<u8>);

impl TrustedModule {
    /// Vouches for `bytes`.
    ///
    /// # Safety
    /// As [`Components::load`].
    #[must_use]
    pub const unsafe fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// What the parent process handed to its worker: it started the worker, and it may make it do anything at all.
    pub(crate) const fn from_parent(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// [`Components::fingerprint`] of this build.
///
/// # Errors
/// [`EvaluateError::Internal`] when this machine cannot run the engine.
pub fn fingerprint() -> Result<B256, EvaluateError> {
    let internal = |error: wasmtime::Error| EvaluateError::Internal {
        reason: format!("WASM engine: {error:#}"),
    };
    let engine = Engine::new(&super::config().map_err(internal)?).map_err(internal)?;
    Ok(fingerprint_of(&engine))
}

impl Components {
    /// Loads a module that was vouched for.
    ///
    /// # Errors
    /// When the bytes were made by another engine.
    pub fn adopt(&self, module: &TrustedModule) -> Result<Compiled, CompileError> {
        // SAFETY: whoever made the value has vouched for the bytes.
        unsafe { self.load(&module.0) }
    }

    /// Compiles a component to bytes for [`Self::load`].
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn precompile(&self, bytes: &[u8]) -> Result<Vec<u8>, CompileError> {
        check_component(bytes).map_err(CompileError::Refused)?;
        self.engine.precompile_component(bytes).map_err(|error| {
            CompileError::Failed(EvaluateError::Internal {
                reason: format!("{}: {error:#}", Stage::Compile),
            })
        })
    }

    /// Loads what [`Self::precompile`] made.
    ///
    /// # Safety
    /// `bytes` must be exactly what [`Self::precompile`] returned under the same [`Self::fingerprint`]: machine code is run as it is,
    /// and a flipped byte is not noticed. Take them only from storage that authenticates content (encrypted pages), never from the
    /// host and never on the word of a worker that has already run untrusted content.
    ///
    /// # Errors
    /// When the bytes were made by another engine.
    pub unsafe fn load(&self, bytes: &[u8]) -> Result<Compiled, CompileError> {
        // SAFETY: the caller vouches for the bytes.
        let component = unsafe { wasmtime::component::Component::deserialize(&self.engine, bytes) }
            .map_err(|error| {
                CompileError::Failed(EvaluateError::Internal {
                    reason: format!("precompiled component: {error:#}"),
                })
            })?;
        self.link(&component).map_err(CompileError::Refused)
    }

    /// Names engine version and settings; precompiled bytes are valid only under the fingerprint they were made under.
    #[must_use]
    pub fn fingerprint(&self) -> B256 {
        fingerprint_of(&self.engine)
    }
}

fn fingerprint_of(engine: &Engine) -> B256 {
    let mut collect = Collect(b"newton.engine-fingerprint.v1".to_vec());
    engine.precompile_compatibility_hash().hash(&mut collect);
    keccak256(&collect.0)
}

/// Keeps what is hashed, so that a cryptographic hash can be taken of it.
struct Collect(Vec<u8>);

impl Hasher for Collect {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0
            .extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }
}
