//! Why policies run on the interpreter and not on the register VM of the same library: the two do not agree (docs/decisions.md).
//!
//! Where this test fails, the library has changed and the decision deserves another look.

#![allow(clippy::unwrap_used)]

use regorus::{Engine, Value, languages::rego::compiler::Compiler, rvm::RegoVM};

const ENTRYPOINT: &str = "data.p.allow";

fn engine(rules: &str, input: &str) -> Engine {
    let mut engine = Engine::new();
    engine.set_rego_v0(false);
    engine.set_strict_builtin_errors(true);
    let source = format!("package p\n\nimport rego.v1\n\n{rules}\n");
    engine.add_policy("policy.rego".to_owned(), source).unwrap();
    engine.set_input_json(input).unwrap();
    engine
}

fn interpreted(rules: &str, input: &str) -> Result<Value, String> {
    engine(rules, input)
        .eval_rule(ENTRYPOINT.to_owned())
        .map_err(|error| error.to_string())
}

fn by_vm(rules: &str, input: &str) -> Result<Value, String> {
    let compiled = engine(rules, input)
        .compile_with_entrypoint(&ENTRYPOINT.into())
        .map_err(|error| error.to_string())?;
    let program = Compiler::compile_from_policy(&compiled, &[ENTRYPOINT])
        .map_err(|error| error.to_string())?;
    let mut vm = RegoVM::new();
    vm.load_program(program);
    vm.set_data(Value::new_object()).unwrap();
    vm.set_input(Value::from_json_str(input).unwrap());
    vm.set_strict_builtin_errors(true);
    vm.execute_entry_point_by_name(ENTRYPOINT)
        .map_err(|error| error.to_string())
}

const TRUE: Result<Value, String> = Ok(Value::Bool(true));

#[test]
fn the_vm_turns_a_refusal_into_an_approval() {
    for rules in [
        // Two values for one rule: an error, as in OPA; for the VM the rule is undefined.
        "default allow := false\nallow if not risk\nrisk := 1 if input.amount > 0\nrisk := 2 if input.amount > 5",
        // The same of a function.
        "default allow := false\nallow if not f(input.amount)\nf(x) := 1 if x > 0\nf(x) := 2 if x > 5",
        // A built-in that is given the wrong type, under `not`.
        "default allow := false\nallow if not blocked\nblocked if lower(input.amount) == \"a\"",
    ] {
        let input = r#"{"amount":7}"#;
        assert!(interpreted(rules, input).is_err(), "{rules}");
        assert_eq!(by_vm(rules, input), TRUE, "{rules}");
    }
}

#[test]
fn the_vm_compares_otherwise_and_knows_no_with() {
    let compared = "allow := input.amount < \"a\"";
    let input = r#"{"amount":7}"#;
    assert_eq!(interpreted(compared, input), TRUE);
    assert_eq!(by_vm(compared, input), Ok(Value::Undefined));
    let replaced = "allow if base == 1 with input.amount as 1\nbase := input.amount";
    assert_eq!(interpreted(replaced, input), TRUE);
    assert!(by_vm(replaced, input).unwrap_err().contains("`with`"));
}

#[test]
fn elsewhere_they_agree() {
    for rules in [
        "allow if input.amount < 10",
        "default allow := false\nallow if count(deny) == 0\ndeny contains \"big\" if input.amount > 10",
        "allow := {x | some x in [3, 1, input.amount]}",
        "allow := 100000000000000000001 + input.amount",
    ] {
        for input in [r#"{"amount":7}"#, r#"{"amount":11}"#, "{}"] {
            assert_eq!(
                interpreted(rules, input),
                by_vm(rules, input),
                "{rules} {input}"
            );
        }
    }
}
