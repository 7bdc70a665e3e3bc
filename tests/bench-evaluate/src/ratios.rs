//! Evaluations in this process against the engines called directly, under the same settings.

use std::time::Duration;

use alloy_primitives::B256;
use anyhow::{Context, Result, ensure};
use newton_evaluate::{
    Json, RULES_VERSION_1,
    component::{self, Components, NO_SECRETS, Run},
    rego::{Policy, RegoInput},
    rules::RuleLimits,
};
use wasmtime::{
    Engine, Store, StoreContextMut,
    component::{Component, ComponentType, Linker, Lower},
};

use crate::{
    artifacts::{ENTRYPOINT, Example, NOW},
    sample::{Ratio, bare},
};

/// A Rego-only evaluation: the policy, from documents to a result. The engine is prepared once on both sides, cloned for each evaluation
/// (so that nothing of one reaches the next), given data and input as JSON text or as our values, and asked for the entrypoint.
pub fn rego(example: &Example, samples: usize) -> Result<Ratio> {
    let request = example.rego_only();
    let input = request.intent.rego_input(None)?;
    let params = Json::parse(&example.params)?;
    let wasm = Json::parse(b"{}")?;
    let policy = Policy::prepare(&example.rego, ENTRYPOINT)?;
    let ours = || -> Result<()> {
        let seen = policy.evaluate(&RegoInput {
            input: &input,
            params: &params,
            wasm: &wasm,
            now_seconds: NOW,
            wall: Duration::from_secs(5),
        })?;
        ensure!(seen == Json::Bool(true), "the example does not allow");
        Ok(())
    };

    let mut engine = regorus::Engine::new();
    engine.set_rego_v0(false);
    engine.set_strict_builtin_errors(true);
    engine.set_gather_prints(true);
    engine.add_policy(
        "policy.rego".to_owned(),
        std::str::from_utf8(&example.rego)?.to_owned(),
    )?;
    let input_text = String::from_utf8(input.canonical())?;
    let data_text = format!(
        r#"{{"params":{},"wasm":{{}}}}"#,
        std::str::from_utf8(&example.params)?
    );
    let rule = format!("data.{ENTRYPOINT}");
    // The first use analyses the policy; ours has done so as well.
    let theirs = || -> Result<()> {
        let mut engine = engine.clone();
        engine.add_data_json(&data_text)?;
        engine.set_input_json(&input_text)?;
        let value = engine.eval_rule(rule.clone())?;
        ensure!(
            value == regorus::Value::Bool(true),
            "the example does not allow"
        );
        Ok(())
    };
    Ratio::measure(samples, Some(1.1), ours, theirs)
}

/// What `secrets.get` gives.
#[derive(ComponentType, Lower)]
#[component(record)]
struct SecretResponse {
    value: Vec<u8>,
}

/// The one import that the component calls.
fn secrets(linker: &mut Linker<()>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut provider = linker.instance("newton:provider/secrets@0.2.0")?;
    provider.func_wrap("get", |_: StoreContextMut<'_, ()>, (): ()| {
        let answer: std::result::Result<SecretResponse, String> = Err(NO_SECRETS.to_owned());
        Ok((answer,))
    })
}

/// One run of the component, fuel, limits and a fresh instance on both sides; the bare engine links to a trap what is not called.
pub fn component(example: &Example, samples: usize) -> Result<Ratio> {
    let components = Components::new()?;
    let compiled = components.compile(&example.component)?;
    let limits = RuleLimits::of(RULES_VERSION_1).context("rules version 1")?;
    let input = example.component_input();
    let ours = || -> Result<()> {
        let run = components.run(
            &compiled,
            Run {
                instance_id: B256::repeat_byte(0xd1),
                task_id: B256::repeat_byte(1),
                now_seconds: NOW,
                input: &input,
                secrets: None,
                http: None,
                limits,
                wall: Duration::from_secs(10),
            },
        )?;
        ensure!(!run.output.is_empty(), "no output");
        Ok(())
    };

    let engine = bare(component::config().and_then(|config| Engine::new(&config)))?;
    let component = bare(Component::from_binary(&engine, &example.component))?;
    let mut linker = Linker::<()>::new(&engine);
    bare(linker.define_unknown_imports_as_traps(&component))?;
    bare(secrets(&mut linker))?;
    let pre = bare(linker.instantiate_pre(&component))?;
    let once = || -> wasmtime::Result<bool> {
        let mut store = Store::new(&engine, ());
        store.set_fuel(limits.fuel)?;
        store.set_epoch_deadline(1_000_000);
        let instance = pre.instantiate(&mut store)?;
        let run =
            instance.get_typed_func::<(&str,), (Result<String, String>,)>(&mut store, "run")?;
        let (output,) = run.call(&mut store, (&input,))?;
        Ok(output.is_ok())
    };
    let theirs = || -> Result<()> {
        ensure!(bare(once())?, "the component failed");
        Ok(())
    };
    Ratio::measure(samples, None, ours, theirs)
}
