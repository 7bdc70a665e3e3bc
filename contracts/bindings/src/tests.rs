//! The generated types are the ones docs/protocol.md writes down.
use super::abi;
use alloy_sol_types::SolStruct as _;

#[test]
fn eip712_types_are_those_of_the_protocol() {
    let protocol = include_str!("../../../docs/protocol.md");
    let types = [
        abi::StateCommit::eip712_encode_type(),
        abi::PolicyAttestation::eip712_encode_type(),
        abi::EnclaveAdmission::eip712_encode_type(),
        abi::KeyEpoch::eip712_encode_type(),
        abi::Intent::eip712_encode_type(),
    ];
    for wanted in types {
        assert!(
            protocol.contains(wanted.as_ref()),
            "not in docs/protocol.md: {wanted}"
        );
    }
}
