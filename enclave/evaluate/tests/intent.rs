//! The wire intent: what is accepted, and the typed error for everything else.

#![allow(clippy::unwrap_used)]

mod common;

use alloy_primitives::U256;
use newton_evaluate::{
    Json,
    intent::{IntentError, WireIntent},
};

fn wire(
    change: impl Fn(&mut std::collections::BTreeMap<String, Json>),
) -> Result<WireIntent, IntentError> {
    let Json::Object(mut members) = Json::parse(&common::example("intents/allow.json")).unwrap()
    else {
        panic!("not an object")
    };
    change(&mut members);
    WireIntent::from_value(&Json::Object(members))
}

fn set(field: &str, value: &str) -> Result<WireIntent, IntentError> {
    wire(|members| drop(members.insert(field.to_owned(), Json::string(value))))
}

fn input(signature: &str, data: &str) -> Result<Json, IntentError> {
    wire(|members| {
        members.insert(
            "function_signature".to_owned(),
            Json::string(format!("0x{}", hex::encode(signature))),
        );
        members.insert("data".to_owned(), Json::string(data));
    })
    .unwrap()
    .intent
    .rego_input(None)
}

#[test]
fn quantities_hold_256_bits() {
    let max = set("value", &format!("0x{}", "f".repeat(64))).unwrap();
    assert_eq!(max.intent.value, U256::MAX);
    assert_eq!(set("value", "0x0").unwrap().intent.value, U256::ZERO);
    for bad in [
        "0x",
        "1",
        "",
        "0x1_0",
        "0xg",
        &format!("0x1{}", "0".repeat(64)),
    ] {
        let error = set("value", bad).unwrap_err();
        assert!(
            matches!(&error, IntentError::InvalidField { field, .. } if field == "value"),
            "{bad}: {error}"
        );
    }
}

#[test]
fn fields_are_named_in_errors() {
    for (field, bad) in [
        ("from", "0x00"),
        ("to", "f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
        ("data", "0x0"),
        ("data", "00"),
    ] {
        let error = set(field, bad).unwrap_err();
        assert!(
            matches!(&error, IntentError::InvalidField { field: named, .. } if named == field),
            "{error}"
        );
    }
    let missing = wire(|members| drop(members.remove("to"))).unwrap_err();
    assert_eq!(
        missing,
        IntentError::MissingField {
            field: "to".to_owned()
        }
    );
    assert_eq!(
        set("chainId", "0x1").unwrap_err(),
        IntentError::UnknownField {
            field: "chainId".to_owned()
        }
    );
    assert!(matches!(
        set("data", &format!("0x{}", "00".repeat(200_000))),
        Err(IntentError::TooLong { .. })
    ));
    assert!(matches!(
        WireIntent::from_json(b"[]"),
        Err(IntentError::NotAnObject { .. })
    ));
    assert!(matches!(
        WireIntent::from_json(b"{"),
        Err(IntentError::NotJson(_))
    ));
    assert_eq!(
        set("intent_signature", "0x0102").unwrap().intent_signature,
        Some(vec![1, 2])
    );
}

#[test]
fn signature_and_calldata_must_agree() {
    assert!(matches!(
        input("approve(address,uint256)", "0xa9059cbb"),
        Err(IntentError::SelectorMismatch { .. })
    ));
    assert!(matches!(
        input("transfer(address,uint256)", "0xa9059cbb"),
        Err(IntentError::CalldataUndecodable { .. })
    ));
    assert!(matches!(
        input("transfer(address,uint256)", "0xa905"),
        Err(IntentError::SelectorMismatch { .. })
    ));
    assert!(matches!(
        input("transfer(address,", "0xa9059cbb"),
        Err(IntentError::SignatureInvalid { .. })
    ));
    assert!(matches!(
        input("", "0xa9059cbb"),
        Err(IntentError::SignatureMissing { data_length: 4 })
    ));
    let plain = input("", "0x").unwrap();
    let members = plain.as_object().unwrap();
    assert_eq!(members["function"], Json::Null);
    assert_eq!(
        members["decoded_function_arguments"],
        Json::Array(Vec::new())
    );
}

#[test]
fn arguments_keep_every_digit_and_nest() {
    // f((uint256,int8)[],bool,bytes,string,bytes4) with [(2^256-1,-1)], true, 0x0102, "hé", 0xdeadbeef; encoded by eth_abi's rules.
    let signature = "f((uint256,int8)[] pairs, bool flag, bytes raw, string text, bytes4 tag)";
    let function = alloy_json_abi::Function::parse(signature).unwrap();
    let word = |text: &str| format!("{text:0>64}");
    let data = [
        format!("0x{}", hex::encode(function.selector())),
        word("a0"),
        word("1"),
        word("100"),
        word("140"),
        format!("{:0<64}", "deadbeef"),
        word("1"),
        "f".repeat(64),
        "f".repeat(64),
        word("2"),
        format!("{:0<64}", "0102"),
        word("3"),
        format!("{:0<64}", "68c3a9"),
    ]
    .concat();
    let input = input(signature, &data).unwrap();
    let arguments = &input.as_object().unwrap()["decoded_function_arguments"];
    assert_eq!(
        String::from_utf8(arguments.canonical()).unwrap(),
        "[[[\"115792089237316195423570985008687907853269984665640564039457584007913129639935\",\"-1\"]],true,\"0x0102\",\"hé\",\"0xdeadbeef\"]"
    );
}
