//! Built-ins that the engine must not answer itself: those that lose digits, those that look at a clock, and those whose
//! answer is no function of their arguments.

use anyhow::bail;
use regorus::{Engine, Value};

use super::value;
use crate::json::Json;

/// Built-ins that exist in OPA or the engine and are never reproducible.
pub(super) const IMPURE: [&str; 6] = [
    "http.send",
    "net.lookup_ip_addr",
    "opa.runtime",
    "rand.intn",
    "rego.parse_module",
    "uuid.rfc4122",
];

/// Built-ins the engine answers through us.
pub(super) const OURS: [&str; 4] = ["json.marshal", "json.unmarshal", "time.now_ns", "to_number"];

/// Replaces the built-ins that do not depend on the task.
pub(super) fn shadow(engine: &mut Engine) -> anyhow::Result<()> {
    engine.add_extension(
        "to_number".to_owned(),
        1,
        Box::new(|arguments: Vec<Value>| to_number(&arguments)),
    )?;
    engine.add_extension(
        "json.unmarshal".to_owned(),
        1,
        Box::new(|arguments: Vec<Value>| unmarshal(&arguments)),
    )?;
    engine.add_extension(
        "json.marshal".to_owned(),
        1,
        Box::new(|arguments: Vec<Value>| marshal(&arguments)),
    )?;
    // The ingest check refuses these by name; this holds even where a name is only formed at run time.
    for (name, arguments) in [
        ("http.send", 1),
        ("opa.runtime", 0),
        ("rand.intn", 2),
        ("uuid.rfc4122", 1),
    ] {
        engine.add_extension(
            name.to_owned(),
            arguments,
            Box::new(move |_: Vec<Value>| {
                bail!("{name} is not allowed: its answer is not reproducible")
            }),
        )?;
    }
    Ok(())
}

/// Has `time.now_ns()` answer the reference block's time.
pub(super) fn pin_clock(engine: &mut Engine, seconds: u64) -> anyhow::Result<()> {
    let now = u128::from(seconds) * 1_000_000_000;
    engine.add_extension(
        "time.now_ns".to_owned(),
        0,
        Box::new(move |_: Vec<Value>| Ok(Value::from(now))),
    )
}

fn to_number(arguments: &[Value]) -> anyhow::Result<Value> {
    match arguments {
        [Value::Null] | [Value::Bool(false)] => Ok(Value::from(0u64)),
        [Value::Bool(true)] => Ok(Value::from(1u64)),
        [number @ Value::Number(_)] => Ok(number.clone()),
        [Value::String(text)] => match Json::parse(text.as_bytes()) {
            Ok(number @ (Json::Int(_) | Json::Fraction(_))) => Ok(value::to_rego(&number)?),
            _ => bail!("could not parse string as number"),
        },
        _ => bail!("`to_number` expects bool/number/string/null argument."),
    }
}

fn unmarshal(arguments: &[Value]) -> anyhow::Result<Value> {
    match arguments {
        [Value::String(text)] => Ok(value::to_rego(&Json::parse(text.as_bytes())?)?),
        _ => bail!("`json.unmarshal` expects string argument."),
    }
}

fn marshal(arguments: &[Value]) -> anyhow::Result<Value> {
    match arguments {
        [argument] => Ok(Value::from(String::from_utf8(
            value::from_rego(argument)?.canonical(),
        )?)),
        _ => bail!("`json.marshal` expects one argument."),
    }
}
