//! Numbers of the EVM's size in Rego: nothing that has an exact answer loses a digit.

#![allow(clippy::unwrap_used)]

mod common;

use std::str::FromStr;

use common::{Artifacts, bare};
use newton_evaluate::{EvaluateRequest, Evaluator, Json, MachineLimits};
use num_bigint::{BigInt, BigUint};
use num_traits::{One, Zero};
use proptest::prelude::*;

/// What policies do with amounts, and what it should give.
const RULES: &str = r#"package p

import rego.v1

a := data.params.a

b := data.params.b

as_text := to_number(data.params.a_text)

allow := {
	"sum": a + b,
	"sum_of": sum([a, b]),
	"difference": a - b,
	"distance": abs(a - b),
	"product": a * b,
	"share": (a * b) / b,
	"remainder": a % b,
	"less": a < b,
	"equal": a == b,
	"self": a == as_text,
	"next": a + 1 == a,
	"max": max([a, b]),
	"min": min({a, b}),
	"sorted": sort([a, b]),
	"decimal": format_int(a, 10),
	"hex": format_int(a, 16),
	"printed": sprintf("%d %v", [a, b]),
	"marshalled": json.unmarshal(json.marshal({"n": a})).n,
	"rounded": [round(a), floor(a), ceil(a)],
	"found": a in {b, a},
	"looked_up": {sprintf("%d", [a]): "here"}[data.params.a_text],
	"distinct": count({a, a + 1, b, b + 1}),
	"low_byte": bits.and(a, 255),
	"value": input.value,
}
"#;

struct Desk {
    evaluator: Evaluator,
    request: EvaluateRequest,
    artifacts: Artifacts,
}

impl Desk {
    fn new() -> Self {
        let (request, artifacts) = bare(RULES, "p.allow", &[]);
        Self {
            evaluator: Evaluator::new(MachineLimits::default()).unwrap(),
            request,
            artifacts,
        }
    }

    fn ask(&mut self, a: &BigUint, b: &BigUint) -> Json {
        self.request.policy.params = format!(r#"{{"a":{a},"a_text":"{a}","b":{b}}}"#).into_bytes();
        self.request.intent.value = a.to_string().parse().unwrap();
        let evaluation = self
            .evaluator
            .evaluate(&self.request, &self.artifacts, None)
            .unwrap();
        Json::parse(&evaluation.result).unwrap()
    }
}

fn expected(a: &BigUint, b: &BigUint) -> Json {
    let one = BigUint::one();
    let int = |n: &BigUint| Json::Int(BigInt::from(n.clone()));
    let difference = BigInt::from(a.clone()) - BigInt::from(b.clone());
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let distinct: std::collections::BTreeSet<BigUint> =
        [a.clone(), a + &one, b.clone(), b + &one].into();
    let members = [
        ("sum", int(&(a + b))),
        ("sum_of", int(&(a + b))),
        ("distance", int(&(high - low))),
        ("difference", Json::Int(difference)),
        ("product", int(&(a * b))),
        ("share", int(a)),
        ("remainder", int(&(a % b))),
        ("less", Json::Bool(a < b)),
        ("equal", Json::Bool(a == b)),
        ("self", Json::Bool(true)),
        ("next", Json::Bool(false)),
        ("max", int(high)),
        ("min", int(low)),
        ("sorted", Json::Array(vec![int(low), int(high)])),
        ("decimal", Json::string(a.to_string())),
        ("hex", Json::string(a.to_str_radix(16))),
        ("printed", Json::string(format!("{a} {b}"))),
        ("marshalled", int(a)),
        ("rounded", Json::Array(vec![int(a); 3])),
        ("found", Json::Bool(true)),
        ("looked_up", Json::string("here")),
        ("distinct", Json::int(distinct.len())),
        ("low_byte", int(&(a % BigUint::from(256u32)))),
        ("value", int(a)),
    ];
    Json::Object(
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

fn check(desk: &mut Desk, a: &BigUint, b: &BigUint) {
    assert_eq!(
        String::from_utf8(desk.ask(a, b).canonical()).unwrap(),
        String::from_utf8(expected(a, b).canonical()).unwrap()
    );
}

#[test]
fn amounts_at_the_edges() {
    let two = BigUint::from(2u32);
    let mut edges = vec![BigUint::zero()];
    for bits in [1, 31, 32, 53, 63, 64, 65, 128, 192, 255] {
        let power = two.pow(bits);
        edges.extend([&power - 1u32, power.clone(), &power + 1u32]);
    }
    edges.push(two.pow(256) - 1u32);
    edges.push(BigUint::from_str("18400000000000000001").unwrap());
    let mut desk = Desk::new();
    for a in &edges {
        for b in edges.iter().filter(|b| !b.is_zero()).step_by(5) {
            check(&mut desk, a, b);
        }
    }
}

#[test]
fn amounts_of_any_size() {
    let amount = || {
        (prop::collection::vec(any::<u8>(), 32), 0usize..=32)
            .prop_map(|(bytes, length)| BigUint::from_bytes_be(&bytes[..length]))
    };
    let desk = std::cell::RefCell::new(Desk::new());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&(amount(), amount()), |(a, b)| {
            let b = if b.is_zero() { BigUint::one() } else { b };
            check(&mut desk.borrow_mut(), &a, &b);
            Ok(())
        })
        .unwrap();
}

fn result(expression: &str) -> Result<String, String> {
    let rego = format!(
        "package p\nimport rego.v1\nmax := 115792089237316195423570985008687907853269984665640564039457584007913129639935\nallow := {expression}"
    );
    let (request, artifacts) = bare(&rego, "p.allow", &[]);
    let evaluator = Evaluator::new(MachineLimits::default()).unwrap();
    match evaluator.evaluate(&request, &artifacts, None) {
        Ok(evaluation) => Ok(String::from_utf8(evaluation.result).unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn what_has_no_exact_answer_is_the_nearest_binary64() {
    // Written in docs/authors.md: compare products, not quotients.
    assert_eq!(result("1 / 3 == 0.3333333333333333").unwrap(), "true");
    assert_eq!(
        result("max / 1000000000000000000").unwrap(),
        "115792089237316203707617735395386539918674240093853421928448"
    );
    assert_eq!(
        result("max / 5").unwrap(),
        "23158417847463239084714197001737581570653996933128112807891516801582625927987"
    );
    assert_eq!(
        result("12345678901234567890.5").unwrap(),
        "12345678901234567168"
    );
    for (refused, why) in [
        ("max / (max - max)", "divide by zero"),
        ("max % 0", "modulo by zero"),
        ("to_number(\"0x10\")", "could not parse"),
        ("to_number(\"1_000\")", "could not parse"),
        ("to_number(\"\")", "could not parse"),
    ] {
        let error = result(refused).unwrap_err();
        assert!(error.contains(why), "{refused}: {error}");
    }
}

#[test]
fn amounts_in_texts_are_read_exactly() {
    for (text, number) in [
        ("0", "0"),
        ("100000000000000000001", "100000000000000000001"),
        ("-18446744073709551617", "-18446744073709551617"),
        ("1e18", "1000000000000000000"),
        ("1.0", "1"),
        ("0.5", "0.5"),
    ] {
        assert_eq!(result(&format!("to_number(\"{text}\")")).unwrap(), number);
    }
}
