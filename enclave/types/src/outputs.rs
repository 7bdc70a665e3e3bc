//! What an operator signs about its run of a data component, and how a set of those is bound (`docs/protocol.md` §5).

use alloy_primitives::{B256, keccak256};
use alloy_sol_types::{SolStruct, SolValue, sol};

use crate::signing::{Scope, domain};

sol! {
    /// One operator's output of one data component in one round. No contract verifies it, only enclaves.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct PolicyDataOutput {
        bytes32 taskId;
        uint32 round;
        bytes32 dataInstanceId;
        bytes32 wasmArgsHash;
        bytes32 secretsLeafHash;
        bytes output;
        bytes32 transcriptHash;
    }

    /// A signed output in a set of them: whose, which, and the signature over it.
    #[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
    struct Contribution {
        bytes32 blsKeyHash;
        bytes32 digest;
        bytes32 signatureHash;
    }
}

/// Digest of an output; `scope.contract` is the TaskManager.
pub fn policy_data_output_digest(scope: Scope, output: &PolicyDataOutput) -> B256 {
    output.eip712_signing_hash(&domain("Newton Policy Data", scope))
}

/// What stands as `transcriptHash` in the binding of a merged output: binds the whole set, in whatever order it came.
pub fn contributions_hash(mut contributions: Vec<Contribution>) -> B256 {
    contributions.sort_unstable();
    let tag = keccak256("newton.merged-outputs.v1");
    keccak256((tag, contributions).abi_encode_params())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloy_primitives::{Address, Bytes};
    use serde_json::{Value, json};

    fn word(name: &str) -> B256 {
        keccak256(format!("newton outputs vectors v1/{name}"))
    }

    fn output(i: u32) -> PolicyDataOutput {
        let n = |s: &str| word(&format!("{s}{i}"));
        PolicyDataOutput {
            taskId: n("task"),
            round: i,
            dataInstanceId: n("instance"),
            wasmArgsHash: keccak256("{}"),
            secretsLeafHash: if i == 0 { crate::ABSENT } else { n("leaf") },
            output: match i {
                0 => Bytes::from_static(br#"{"price":"1.5"}"#),
                1 => Bytes::from_static(br#""DataProviderError""#),
                _ => Bytes::copy_from_slice(&vec![b'1'; 40 * i as usize]),
            },
            transcriptHash: n("transcript"),
        }
    }

    /// `tests/vectors/outputs.json`; `NEWTON_UPDATE_VECTORS=1` writes it anew.
    #[test]
    fn vectors() {
        let scope = Scope {
            chain_id: 31_337,
            contract: Address::repeat_byte(0x7a),
        };
        let digests: Vec<B256> = (0..4)
            .map(|i| policy_data_output_digest(scope, &output(i)))
            .collect();
        let set: Vec<Contribution> = digests
            .iter()
            .enumerate()
            .map(|(i, digest)| Contribution {
                blsKeyHash: word(&format!("key{i}")),
                digest: *digest,
                signatureHash: word(&format!("signature{i}")),
            })
            .collect();
        let computed = json!({
            "domain": { "name": "Newton Policy Data", "version": "1", "chainId": scope.chain_id, "verifyingContract": scope.contract },
            "type": PolicyDataOutput::eip712_encode_type(),
            "outputs": (0..4).map(|i| json!({
                "encoded": Bytes::from(output(i).abi_encode()), "digest": digests[i as usize],
            })).collect::<Vec<_>>(),
            "contributions": set.iter().map(|c| json!({
                "blsKeyHash": c.blsKeyHash, "digest": c.digest, "signatureHash": c.signatureHash,
            })).collect::<Vec<_>>(),
            "hashes": (0..=4).map(|n| contributions_hash(set[..n].to_vec())).collect::<Vec<_>>(),
        });
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/vectors/outputs.json"
        );
        if std::env::var_os("NEWTON_UPDATE_VECTORS").is_some() {
            let text = serde_json::to_string_pretty(&computed).unwrap();
            std::fs::write(path, text + "\n").unwrap();
        }
        let kept: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(kept, computed);
    }

    #[test]
    fn the_type_string_is_that_of_the_protocol() {
        let protocol = include_str!("../../../docs/protocol.md");
        assert!(protocol.contains(PolicyDataOutput::eip712_encode_type().as_ref()));
    }

    #[test]
    fn order_changes_nothing_and_every_part_counts() {
        let one = |n: u8| Contribution {
            blsKeyHash: B256::repeat_byte(n),
            digest: B256::repeat_byte(n + 1),
            signatureHash: B256::repeat_byte(n + 2),
        };
        let base = contributions_hash(vec![one(1), one(2), one(3)]);
        assert_eq!(base, contributions_hash(vec![one(3), one(1), one(2)]));
        assert_ne!(base, contributions_hash(vec![one(1), one(2)]));
        for change in [
            Contribution {
                blsKeyHash: B256::ZERO,
                ..one(1)
            },
            Contribution {
                digest: B256::ZERO,
                ..one(1)
            },
            Contribution {
                signatureHash: B256::ZERO,
                ..one(1)
            },
        ] {
            assert_ne!(base, contributions_hash(vec![change, one(2), one(3)]));
        }
    }
}
