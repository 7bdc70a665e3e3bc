#![allow(clippy::unwrap_used)]

use num_bigint::BigInt;
use proptest::prelude::*;

use super::*;

const MAX_UINT: &str =
    "115792089237316195423570985008687907853269984665640564039457584007913129639935";

fn signer(i: usize) -> B256 {
    B256::repeat_byte(u8::try_from(i + 1).unwrap())
}

fn consensus(fields: &[&str]) -> Consensus {
    let fields: Vec<String> = fields
        .iter()
        .map(|f| format!(r#""{f}":"median""#))
        .collect();
    let schema = format!(r#"{{"{KEYWORD}":{{{}}}}}"#, fields.join(","));
    Consensus::of_schema_bytes(schema.as_bytes()).unwrap()
}

fn outputs(texts: &[&str]) -> Outputs {
    let one = |(i, text): (usize, &&str)| {
        let output = Json::parse(text.as_bytes()).unwrap().canonical();
        (signer(i), WeightedOutput { weight: 1, output })
    };
    texts.iter().enumerate().map(one).collect()
}

fn of(total: u128) -> Quorum {
    Quorum {
        total_weight: total,
        bps: 6_667,
    }
}

fn text(merged: &Merged) -> String {
    match &merged.agreed {
        Agreed::Output(members) => {
            String::from_utf8(Json::Object(members.clone()).canonical()).unwrap()
        }
        Agreed::Error(error) => error.name().to_owned(),
    }
}

#[test]
fn equal_outputs_agree_and_others_are_named() {
    let set = outputs(&[r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":1}"#]);
    let merged = merge(&Consensus::default(), of(3), &set).unwrap();
    assert_eq!(text(&merged), r#"{"a":1}"#);
    let expected = Outlier {
        signer: signer(1),
        reason: OutlierReason::Differs,
    };
    assert_eq!(merged.outliers, [expected]);
}

#[test]
fn missing_operators_are_tolerated_down_to_the_quorum() {
    let same = |n| outputs(&vec![r#"{"a":1}"#; n]);
    let none = Consensus::default();
    assert!(merge(&none, of(3), &same(2)).is_ok());
    let split = NoConsensus::Split {
        weight: 2,
        total: 4,
    };
    assert_eq!(merge(&none, of(4), &same(2)).unwrap_err(), split);
    // A task may ask for more than two thirds.
    let strict = Quorum {
        total_weight: 4,
        bps: 7_501,
    };
    assert!(merge(&none, strict, &same(3)).is_err());
    assert!(merge(&none, strict, &same(4)).is_ok());
    assert!(merge(&none, of(0), &Outputs::new()).is_err());
}

#[test]
fn weight_counts_and_not_heads() {
    let mut set = outputs(&[r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":2}"#]);
    set.get_mut(&signer(0)).unwrap().weight = 10;
    let merged = merge(&Consensus::default(), of(12), &set).unwrap();
    assert_eq!(text(&merged), r#"{"a":1}"#);
    assert_eq!(merged.outliers.len(), 2);
}

#[test]
fn medians_are_exact_at_the_end_of_uint256() {
    let c = consensus(&["/p"]);
    let near = (MAX_UINT.parse::<BigInt>().unwrap() - 1u8).to_string();
    for quote in ["", "\""] {
        let one = |v: &str| format!(r#"{{"p":{quote}{v}{quote}}}"#);
        let all = [one(MAX_UINT), one(&near), one(MAX_UINT)];
        let set = outputs(&[&all[0], &all[1], &all[2]]);
        let merged = merge(&c, of(3), &set).unwrap();
        assert_eq!(text(&merged), one(MAX_UINT));
        assert!(merged.outliers.is_empty());
        // Two: the lower one, never a value that nobody reported.
        let set = outputs(&[&all[0], &all[1]]);
        assert_eq!(text(&merge(&c, of(3), &set).unwrap()), one(&near));
    }
}

#[test]
fn ten_percent_are_near_and_a_hair_more_is_not() {
    let c = consensus(&["/p"]);
    let set = outputs(&[
        r#"{"p":100}"#,
        r#"{"p":100}"#,
        r#"{"p":110}"#,
        r#"{"p":90}"#,
    ]);
    assert!(merge(&c, of(4), &set).unwrap().outliers.is_empty());
    let set = outputs(&[
        r#"{"p":"100"}"#,
        r#"{"p":"100"}"#,
        r#"{"p":"110.00000000000000000001"}"#,
    ]);
    let merged = merge(&c, of(3), &set).unwrap();
    let expected = Outlier {
        signer: signer(2),
        reason: OutlierReason::Field("/p".to_owned()),
    };
    assert_eq!(merged.outliers, [expected]);
    assert_eq!(text(&merged), r#"{"p":"100"}"#);
    // Negative numbers and zero.
    let set = outputs(&[r#"{"p":-100}"#, r#"{"p":-109}"#, r#"{"p":-111}"#]);
    let merged = merge(&c, of(3), &set).unwrap();
    assert_eq!(text(&merged), r#"{"p":-109}"#);
    let set = outputs(&[r#"{"p":0}"#, r#"{"p":0}"#, r#"{"p":1e-7}"#]);
    let merged = merge(&c, of(3), &set).unwrap();
    assert_eq!(
        (text(&merged).as_str(), merged.outliers.len()),
        (r#"{"p":0}"#, 1)
    );
}

#[test]
fn who_is_left_out_has_no_say_in_any_value() {
    let c = consensus(&["/p", "/q"]);
    let set = outputs(&[
        r#"{"p":100,"q":1}"#,
        r#"{"p":104,"q":1}"#,
        r#"{"p":102,"q":9}"#,
    ]);
    let merged = merge(&c, of(3), &set).unwrap();
    assert_eq!(text(&merged), r#"{"p":100,"q":1}"#);
    assert_eq!(merged.outliers[0].signer, signer(2));
    // Two outliers of three: nothing is left to agree on.
    let set = outputs(&[
        r#"{"p":100,"q":9}"#,
        r#"{"p":104,"q":1}"#,
        r#"{"p":900,"q":1}"#,
    ]);
    let error = merge(&c, of(3), &set).unwrap_err();
    let expected = NoConsensus::Spread {
        fields: vec!["/p".to_owned(), "/q".to_owned()],
        weight: 1,
        total: 3,
    };
    assert_eq!(error, expected);
}

#[test]
fn only_declared_numbers_may_differ() {
    let c = consensus(&["/a/0/p"]);
    let near = [
        r#"{"a":[{"p":1.5}],"s":"x"}"#,
        r#"{"a":[{"p":1.55}],"s":"x"}"#,
    ];
    let merged = merge(&c, of(3), &outputs(&near)).unwrap();
    assert_eq!(text(&merged), near[0]);
    for other in [
        r#"{"a":[{"p":1.5}],"s":"y"}"#,
        r#"{"a":[{"p":"1.5"}],"s":"x"}"#,
        r#"{"a":[{"p":null}],"s":"x"}"#,
        r#"{"a":[{}],"s":"x"}"#,
        r#"{"a":{"0":{"p":1.5}},"s":"x"}"#,
    ] {
        let error = merge(&c, of(3), &outputs(&[near[0], other])).unwrap_err();
        let split = NoConsensus::Split {
            weight: 1,
            total: 3,
        };
        assert_eq!(error, split, "{other}");
    }
    // A text that is no plain decimal is merged by equality.
    for odd in ["0x10", "01", "1e3", "", "-", "1.", " 1"] {
        let same = format!(r#"{{"a":[{{"p":"{odd}"}}]}}"#);
        let merged = merge(&c, of(2), &outputs(&[&same, &same])).unwrap();
        assert_eq!(text(&merged), same);
    }
}

#[test]
fn errors_merge_like_outputs() {
    let failed = r#""DataProviderError""#;
    let merged = merge(
        &Consensus::default(),
        of(3),
        &outputs(&[failed, failed, "{}"]),
    )
    .unwrap();
    assert_eq!(merged.agreed, Agreed::Error(DataError::DataProviderError));
    assert_eq!(merged.outliers.len(), 1);
    for error in DataError::ALL {
        assert_eq!(DataError::from_name(error.name()), Some(error));
    }
}

#[test]
fn what_no_enclave_signs_is_left_out() {
    let mut set = outputs(&["{}", "{}", "{}", "{}"]);
    let odd = [&b"{ }"[..], b"\"Invented\"", b"[]", b"nonsense"];
    for (i, bytes) in odd.iter().enumerate() {
        let output = bytes.to_vec();
        set.insert(signer(10 + i), WeightedOutput { weight: 0, output });
    }
    let merged = merge(&Consensus::default(), of(4), &set).unwrap();
    assert_eq!(merged.outliers.len(), odd.len());
    assert!(
        merged
            .outliers
            .iter()
            .all(|o| o.reason == OutlierReason::Malformed)
    );
}

#[test]
fn a_declaration_that_cannot_be_meant_is_refused_where_it_stands() {
    for (schema, place) in [
        (r#"{"x-newton-consensus":"median"}"#, "/x-newton-consensus"),
        (
            r#"{"x-newton-consensus":{"price":"median"}}"#,
            "/x-newton-consensus/price",
        ),
        (
            r#"{"x-newton-consensus":{"":"median"}}"#,
            "/x-newton-consensus/",
        ),
        (
            r#"{"x-newton-consensus":{"/a~2":"median"}}"#,
            "/x-newton-consensus/~1a~02",
        ),
        (
            r#"{"x-newton-consensus":{"/a":"mean"}}"#,
            "/x-newton-consensus/~1a",
        ),
    ] {
        match Consensus::of_schema_bytes(schema.as_bytes()).unwrap_err() {
            ArtifactError::InvalidSchema { pointer, .. } => assert_eq!(pointer, place),
            other => panic!("{other}"),
        }
        let kind = crate::ArtifactKind::PolicyDataParamsSchema;
        assert!(crate::check_artifact(kind, schema.as_bytes(), None).is_err());
    }
    assert_eq!(
        Consensus::of_schema_bytes(b"true").unwrap(),
        Consensus::default()
    );
}

use crate::ArtifactError;

proptest! {
    /// Whatever the values and weights, the order in which the outputs come changes nothing, the median is a reported value,
    /// and at least a quorum is within the tolerance of the first median.
    #[test]
    fn the_merge_does_not_depend_on_order(
        values in prop::collection::vec((900u32..1200, 1u32..20, any::<bool>()), 1..12),
        rotate in 0usize..12,
    ) {
        let c = consensus(&["/v"]);
        let entry = |(i, (value, weight, plain)): (usize, &(u32, u32, bool))| {
            let output = if *plain {
                format!(r#"{{"v":"{value}"}}"#)
            } else {
                format!(r#"{{"v":"{value}.0"}}"#)
            };
            (signer(i), WeightedOutput { weight: u128::from(*weight), output: output.into_bytes() })
        };
        let list: Vec<_> = values.iter().enumerate().map(entry).collect();
        let total = list.iter().map(|(_, o)| o.weight).sum();
        let first: Outputs = list.iter().cloned().collect();
        let mut turned = list.clone();
        turned.rotate_left(rotate % list.len());
        turned.reverse();
        let second: Outputs = turned.into_iter().collect();
        let a = merge(&c, of(total), &first);
        prop_assert_eq!(&a, &merge(&c, of(total), &second));
        if let Ok(merged) = a {
            let bytes = text(&merged).into_bytes();
            prop_assert!(list.iter().any(|(_, o)| o.output == bytes));
            let out: u128 = merged.outliers.iter().map(|o| first[&o.signer].weight).sum();
            prop_assert!(of(total).reached(total - out));
        }
    }

    /// Exact decimals order as the numbers do.
    #[test]
    fn decimals_order_as_integers_do(a in any::<i64>(), b in any::<i64>(), shift in 0u32..12) {
        let text = |n: i64| {
            let digits = format!("{:0>20}", n.unsigned_abs());
            let (whole, fraction) = digits.split_at(20 - shift as usize);
            let whole = whole.trim_start_matches('0');
            let whole = if whole.is_empty() { "0" } else { whole };
            let sign = if n < 0 { "-" } else { "" };
            if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
        };
        let decimal = |n: i64| Decimal::of(&Json::string(text(n))).unwrap();
        prop_assert_eq!(decimal(a).cmp(&decimal(b)), a.cmp(&b));
    }
}
