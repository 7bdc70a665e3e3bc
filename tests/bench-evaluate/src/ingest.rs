//! What a component costs before its first run: the check at ingestion, and compilation.

use std::{collections::HashMap, path::Path, sync::Arc};

use alloy_primitives::{B256, keccak256};
use anyhow::{Context, Result, ensure};
use newton_evaluate::{
    ArtifactKind,
    component::{self, FEATURES},
    worker::{ModuleBudget, Modules, Verdict, WorkerPool},
};
use serde::Serialize;
use wasmparser::Validator;
use wasmtime::Engine;

use crate::{
    artifacts::Example,
    config,
    sample::{Ratio, bare},
};

/// Figures of one component.
#[derive(Debug, Serialize)]
pub struct Ingest {
    /// Which.
    pub name: &'static str,
    /// Its length.
    pub bytes: usize,
    /// The check in a worker, transport included, against validation in this process.
    pub check: Ratio,
    /// A process that compiles, its start and the transport included, against the bare engine in this process.
    pub compile: Ratio,
}

/// Small, medium and large.
pub fn all(example: &Example, large: Option<&Path>) -> Result<Vec<Ingest>> {
    let mut all = vec![
        one("Rust, 100 KiB", &example.component, 200, 10)?,
        one("generated, 1 MiB", &generated(1 << 20)?, 60, 3)?,
    ];
    if let Some(path) = large {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        all.push(one("JavaScript", &bytes, 10, 1)?);
    }
    Ok(all)
}

fn one(name: &'static str, bytes: &[u8], checks: usize, compilations: usize) -> Result<Ingest> {
    let pool = WorkerPool::spawn(config(1)?)?;
    let check = Ratio::measure(
        checks,
        Some(1.15),
        || -> Result<()> {
            let verdict = pool.check_artifact(ArtifactKind::PolicyDataWasm, bytes, None)?;
            ensure!(verdict == Verdict::Accept, "{verdict:?}");
            Ok(())
        },
        || -> Result<()> {
            Validator::new_with_features(FEATURES).validate_all(bytes)?;
            Ok(())
        },
    )?;
    let engine = bare(component::config().and_then(|config| Engine::new(&config)))?;
    let hash = keccak256(bytes);
    let source: HashMap<B256, Arc<[u8]>> = HashMap::from([(hash, Arc::from(bytes))]);
    let config = config(1)?;
    let compile = Ratio::measure(
        compilations,
        Some(1.1),
        || -> Result<()> {
            // A cache of its own for each, so that it is empty.
            let modules = Modules::new(config.clone(), 1, ModuleBudget::default(), None)?;
            modules.fetch(hash, &source)?;
            Ok(())
        },
        || -> Result<()> {
            bare(engine.precompile_component(bytes))?;
            Ok(())
        },
    )?;
    Ok(Ingest {
        name,
        bytes: bytes.len(),
        check,
        compile,
    })
}

/// A component of about so many bytes: functions that compute, as compilers emit them, and some text.
fn generated(bytes: usize) -> Result<Vec<u8>> {
    // 220 bytes of code each, found by trying.
    let functions = bytes / 220;
    let mut text = String::from(
        r#"(component (core module $m (memory (export "memory") 2)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))"#,
    );
    for n in 0..functions {
        text.push_str(&format!(
            "(func $f{n} (param $a i64) (param $p i32) (result i64) (local $x i64) (local $i i32)\n\
             (local.set $x (i64.add (local.get $a) (i64.const {n})))\n\
             (block $out (loop $again\n\
               (br_if $out (i32.ge_u (local.get $i) (i32.const {limit})))\n",
            limit = n % 97 + 1
        ));
        for step in 0..8 {
            text.push_str(&format!(
                "(local.set $x (i64.xor (i64.mul (local.get $x) (i64.const {})) (i64.load offset={} (local.get $p))))\n",
                n * 31 + step,
                step * 8
            ));
        }
        text.push_str(
            "(if (i64.eqz (local.get $x)) (then (local.set $x (i64.const 7))) (else (i64.store (local.get $p) (local.get $x))))\n\
             (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $again)))\n(local.get $x))\n",
        );
    }
    text.push_str(
        r#"(func (export "run") (param i32 i32) (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func (export "run") (param "input" string) (result (result string (error string)))
    (canon lift (core func $i "run") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"#,
    );
    wat::parse_str(&text).context("the generated component")
}
