//! Namespaces, leaf keys and proofs of the state tree (design 2.1, `docs/protocol.md` §2).

use alloy_primitives::{Address, B256, U256, b256, keccak256};
use alloy_sol_types::SolValue;
use serde::{Deserialize, Serialize};

/// Root of the empty tree and of every empty subtree: ASCII `SPARSE_MERKLE_PLACEHOLDER_HASH__`.
pub const EMPTY_ROOT: B256 =
    b256!("5350415253455f4d45524b4c455f504c414345484f4c4445525f484153485f5f");

/// First byte of a leaf key: what the leaf's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[serde(try_from = "u8", into = "u8")]
pub enum Namespace {
    /// Ciphertext of an identity's data.
    Identity = 0x01,
    /// Ciphertext of confidential entries.
    Confidential = 0x02,
    /// HPKE envelope of a policy-data instance's secrets.
    Secrets = 0x03,
    /// Rego source.
    PolicyRego = 0x04,
    /// JSON Schema of a policy's params.
    PolicyParamsSchema = 0x05,
    /// WASM component.
    PolicyDataWasm = 0x06,
    /// JSON Schema of a data template's params.
    PolicyDataParamsSchema = 0x07,
    /// JSON Schema of a data template's secrets.
    PolicyDataSecretsSchema = 0x08,
}

impl Namespace {
    /// Every namespace, ascending.
    pub const ALL: [Self; 8] = [
        Self::Identity,
        Self::Confidential,
        Self::Secrets,
        Self::PolicyRego,
        Self::PolicyParamsSchema,
        Self::PolicyDataWasm,
        Self::PolicyDataParamsSchema,
        Self::PolicyDataSecretsSchema,
    ];

    /// Whether the bytes are plaintext that anyone may read.
    pub fn is_public(self) -> bool {
        self >= Self::PolicyRego
    }
}

/// A byte that names no namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("namespace {0:#04x} is not one of 0x01..0x08")]
pub struct UnknownNamespace(pub u8);

impl TryFrom<u8> for Namespace {
    type Error = UnknownNamespace;
    fn try_from(byte: u8) -> Result<Self, UnknownNamespace> {
        Self::ALL
            .into_iter()
            .find(|n| *n as u8 == byte)
            .ok_or(UnknownNamespace(byte))
    }
}

impl From<Namespace> for u8 {
    fn from(n: Namespace) -> u8 {
        n as u8
    }
}

/// Key of a leaf: `namespace ‖ H[1..32]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeafKey(pub B256);

impl LeafKey {
    /// Key of an artifact's leaf (0x04–0x08).
    pub fn artifact(namespace: Namespace, artifact_hash: B256) -> Self {
        Self::with_namespace(namespace, artifact_hash)
    }

    /// Key of a data instance's secrets envelope (0x03).
    pub fn secrets(chain_id: u64, client: Address, policy_data_instance_id: B256) -> Self {
        let hash =
            keccak256((U256::from(chain_id), client, policy_data_instance_id).abi_encode_params());
        Self::with_namespace(Namespace::Secrets, hash)
    }

    /// The namespace in the key's first byte.
    pub fn namespace(&self) -> Result<Namespace, UnknownNamespace> {
        Namespace::try_from(self.0[0])
    }

    fn with_namespace(namespace: Namespace, mut hash: B256) -> Self {
        hash.0[0] = namespace as u8;
        Self(hash)
    }
}

/// Inclusion or non-inclusion proof of one leaf (`docs/protocol.md` §2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeafProof {
    /// Siblings from the leaf up to the root's children; at most 256.
    pub siblings: Vec<B256>,
    /// Key of the leaf that stands where ours would; zero when there is none.
    pub neighbour_key: B256,
    /// Value hash of that leaf; zero when there is none.
    pub neighbour_value_hash: B256,
}

/// Why a proof does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// More siblings than the key has bits.
    #[error("proof has {got} siblings, at most 256 are possible")]
    TooLong {
        /// Number of siblings.
        got: usize,
    },
    /// An inclusion proof that carries a neighbour.
    #[error("inclusion proof carries a neighbouring leaf")]
    UnexpectedNeighbour,
    /// The neighbour is the very leaf whose absence is claimed.
    #[error("neighbouring leaf has the key whose absence is claimed")]
    NeighbourIsKey,
    /// The neighbour does not lie on the key's path.
    #[error("neighbouring leaf shares {got} leading bits with the key, the path has {expected}")]
    NeighbourOffPath {
        /// Length of the path in bits.
        expected: usize,
        /// Bits shared.
        got: usize,
    },
    /// Only one of the neighbour's two fields is set.
    #[error("neighbouring leaf lacks its key or its value hash")]
    HalfNeighbour,
    /// The computed root is another one.
    #[error("proof leads to root {got}, expected {expected}")]
    WrongRoot {
        /// Root asked for.
        expected: B256,
        /// Root computed.
        got: B256,
    },
}

impl LeafProof {
    /// Checks that `key` has `value_hash` under `root`, or, with a zero `value_hash`, that it has no leaf.
    pub fn verify(&self, root: B256, key: LeafKey, value_hash: B256) -> Result<(), ProofError> {
        let n = self.siblings.len();
        if n > 256 {
            return Err(ProofError::TooLong { got: n });
        }
        let mut current = self.start(key, value_hash)?;
        for (i, sibling) in self.siblings.iter().enumerate() {
            let bit = n - 1 - i;
            let right = key.0[bit / 8] >> (7 - bit % 8) & 1 == 1;
            current = if right {
                node_hash(*sibling, current)
            } else {
                node_hash(current, *sibling)
            };
        }
        if current == root {
            Ok(())
        } else {
            Err(ProofError::WrongRoot {
                expected: root,
                got: current,
            })
        }
    }

    fn start(&self, key: LeafKey, value_hash: B256) -> Result<B256, ProofError> {
        let has_key = self.neighbour_key != B256::ZERO;
        let has_value = self.neighbour_value_hash != B256::ZERO;
        if value_hash != B256::ZERO {
            return if has_key || has_value {
                Err(ProofError::UnexpectedNeighbour)
            } else {
                Ok(leaf_hash(key, value_hash))
            };
        }
        match (has_key, has_value) {
            (false, false) => Ok(EMPTY_ROOT),
            (true, true) if self.neighbour_key == key.0 => Err(ProofError::NeighbourIsKey),
            (true, true) => {
                let got = common_prefix_bits(&self.neighbour_key, &key.0);
                if got < self.siblings.len() {
                    return Err(ProofError::NeighbourOffPath {
                        expected: self.siblings.len(),
                        got,
                    });
                }
                Ok(leaf_hash(
                    LeafKey(self.neighbour_key),
                    self.neighbour_value_hash,
                ))
            }
            _ => Err(ProofError::HalfNeighbour),
        }
    }
}

/// `keccak256("JMT::LeafNode" ‖ key ‖ valueHash)`.
pub fn leaf_hash(key: LeafKey, value_hash: B256) -> B256 {
    keccak256(
        [
            &b"JMT::LeafNode"[..],
            key.0.as_slice(),
            value_hash.as_slice(),
        ]
        .concat(),
    )
}

/// `keccak256("JMT::IntrnalNode" ‖ left ‖ right)`, spelt so in the jmt crate.
pub fn node_hash(left: B256, right: B256) -> B256 {
    keccak256([&b"JMT::IntrnalNode"[..], left.as_slice(), right.as_slice()].concat())
}

fn common_prefix_bits(a: &B256, b: &B256) -> usize {
    a.iter()
        .zip(b.iter())
        .position(|(x, y)| x != y)
        .map_or(256, |i| i * 8 + (a[i] ^ b[i]).leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_root_is_its_ascii_name() {
        assert_eq!(EMPTY_ROOT.as_slice(), b"SPARSE_MERKLE_PLACEHOLDER_HASH__");
    }

    #[test]
    fn a_lone_leaf_is_the_root() {
        let key = LeafKey::artifact(Namespace::PolicyRego, B256::repeat_byte(7));
        let value = B256::repeat_byte(8);
        let root = leaf_hash(key, value);
        let proof = LeafProof::default();
        assert_eq!(proof.verify(root, key, value), Ok(()));
        assert!(matches!(
            proof.verify(root, key, B256::repeat_byte(9)),
            Err(ProofError::WrongRoot { .. })
        ));
        let absent = LeafKey::artifact(Namespace::PolicyDataWasm, B256::repeat_byte(7));
        let proof = LeafProof {
            neighbour_key: key.0,
            neighbour_value_hash: value,
            ..LeafProof::default()
        };
        assert_eq!(proof.verify(root, absent, B256::ZERO), Ok(()));
        assert_eq!(
            proof.verify(root, key, B256::ZERO),
            Err(ProofError::NeighbourIsKey)
        );
    }

    #[test]
    fn a_neighbour_off_the_path_proves_nothing() {
        let key = LeafKey(B256::repeat_byte(0x80));
        let proof = LeafProof {
            siblings: vec![B256::repeat_byte(1)],
            neighbour_key: B256::repeat_byte(0x01),
            neighbour_value_hash: B256::repeat_byte(2),
        };
        assert_eq!(
            proof.verify(B256::ZERO, key, B256::ZERO),
            Err(ProofError::NeighbourOffPath {
                expected: 1,
                got: 0
            })
        );
    }

    #[test]
    fn namespaces_are_the_first_byte() {
        for n in Namespace::ALL {
            let key = LeafKey::artifact(n, B256::repeat_byte(0xff));
            assert_eq!(key.namespace(), Ok(n));
        }
        assert_eq!(Namespace::try_from(9), Err(UnknownNamespace(9)));
    }
}
