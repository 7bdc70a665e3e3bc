//! Forge's artifacts: the creation code of a contract, and what stands on the chain afterwards.

use std::collections::BTreeMap;
use std::path::Path;

use alloy_primitives::{Address, Bytes, hex};
use serde::Deserialize;

use super::DeployError;

/// A compiled contract.
#[derive(Clone, Debug)]
pub struct Artifact {
    code: Bytes,
    runtime: Vec<u8>,
    /// Where the constructor puts its values: one list of places for each immutable.
    immutables: Vec<Vec<Place>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    bytecode: Bytecode,
    deployed_bytecode: Bytecode,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bytecode {
    object: String,
    #[serde(default)]
    immutable_references: BTreeMap<String, Vec<Place>>,
}

/// Bytes of an immutable in the code.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Place {
    start: usize,
    length: usize,
}

impl Artifact {
    /// Reads `dir/NAME.sol/NAME.json`, as `forge build` writes it.
    pub fn load(dir: &Path, name: &str) -> Result<Self, DeployError> {
        let path = dir.join(format!("{name}.sol")).join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).map_err(|source| DeployError::Read {
            path: path.clone(),
            source,
        })?;
        let file: File = serde_json::from_str(&text).map_err(|source| DeployError::Parse {
            path: path.clone(),
            source,
        })?;
        let decode = |object: &str| {
            // Unlinked code has placeholders that are not hexadecimal.
            let code =
                hex::decode(object).map_err(|_| "it is not hexadecimal, so perhaps not linked")?;
            if code.is_empty() {
                return Err("it is empty, as an interface's is");
            }
            Ok(code)
        };
        let no_code = |reason| DeployError::NoCode {
            path: path.clone(),
            reason,
        };
        let runtime = decode(&file.deployed_bytecode.object).map_err(no_code)?;
        let immutables: Vec<Vec<Place>> = file
            .deployed_bytecode
            .immutable_references
            .into_values()
            .collect();
        if immutables.iter().flatten().any(|p| {
            let end = p.start.checked_add(p.length);
            p.length != 32 || end.is_none_or(|end| end > runtime.len())
        }) {
            return Err(no_code("an immutable is not 32 bytes of it"));
        }
        Ok(Self {
            code: decode(&file.bytecode.object).map_err(no_code)?.into(),
            runtime,
            immutables,
        })
    }

    /// Creation code with the constructor's encoded arguments behind it.
    pub fn creation_code(&self, arguments: &[u8]) -> Bytes {
        [&self.code, arguments].concat().into()
    }

    /// Whether `code` is what the constructor leaves at `own` when called with these addresses: the compiler's code with
    /// each immutable the same wherever it stands, every argument among them, and no other address than these and `own`.
    /// The other immutables (EIP-712 names and hashes) follow from those.
    pub fn is_runtime(&self, code: &[u8], own: Address, arguments: &[u8]) -> bool {
        if code.len() != self.runtime.len() {
            return false;
        }
        let (mut theirs, mut ours) = (code.to_vec(), self.runtime.clone());
        let mut words: Vec<[u8; 32]> = Vec::new();
        for places in &self.immutables {
            let mut first: Option<[u8; 32]> = None;
            for place in places {
                let range = place.start..place.start + place.length;
                let mut word = [0; 32];
                word.copy_from_slice(&code[range.clone()]);
                if *first.get_or_insert(word) != word {
                    return false;
                }
                theirs[range.clone()].fill(0);
                ours[range].fill(0);
            }
            words.extend(first);
        }
        let allowed: Vec<&[u8]> = arguments.chunks(32).collect();
        let own = own.into_word();
        theirs == ours
            && allowed.iter().all(|a| words.iter().any(|w| w == a))
            && words
                .iter()
                .filter(|w| is_address(w))
                .all(|w| *w == own.0 || allowed.iter().any(|a| a == w))
    }
}

/// Whether a word reads as an address and not as a number, a short string or a hash.
fn is_address(word: &[u8; 32]) -> bool {
    word[..12].iter().all(|b| *b == 0) && word[12..20].iter().any(|b| *b != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(dir: &Path, text: &str) {
        std::fs::create_dir_all(dir.join("X.sol")).unwrap();
        std::fs::write(dir.join("X.sol/X.json"), text).unwrap();
    }

    #[test]
    fn bad_artifacts_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Artifact::load(dir.path(), "X"),
            Err(DeployError::Read { path, .. }) if path.ends_with("X.sol/X.json")
        ));
        write(dir.path(), "{");
        assert!(matches!(
            Artifact::load(dir.path(), "X"),
            Err(DeployError::Parse { .. })
        ));
        write(
            dir.path(),
            r#"{"bytecode":{"object":"0x60__$abc$__"},"deployedBytecode":{"object":"0x60"}}"#,
        );
        assert!(matches!(
            Artifact::load(dir.path(), "X"),
            Err(DeployError::NoCode { .. })
        ));
        write(
            dir.path(),
            r#"{"bytecode":{"object":"0x"},"deployedBytecode":{"object":"0x"}}"#,
        );
        assert!(matches!(
            Artifact::load(dir.path(), "X"),
            Err(DeployError::NoCode { .. })
        ));
        let outside = r#"{"bytecode":{"object":"0x6001"},"deployedBytecode":{"object":"0x6001",
            "immutableReferences":{"7":[{"start":0,"length":32}]}}}"#;
        write(dir.path(), outside);
        assert!(matches!(
            Artifact::load(dir.path(), "X"),
            Err(DeployError::NoCode { .. })
        ));
        write(
            dir.path(),
            r#"{"bytecode":{"object":"0x6001"},"deployedBytecode":{"object":"0x6001"}}"#,
        );
        let code = Artifact::load(dir.path(), "X").unwrap().creation_code(&[2]);
        assert_eq!(code, Bytes::from_static(&[0x60, 1, 2]));
    }

    #[test]
    fn code_is_compared_outside_of_immutables_and_addresses_within() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = format!("0xaa{}bb{}", "00".repeat(32), "00".repeat(64));
        let text = format!(
            r#"{{"bytecode":{{"object":"0x6001"}},"deployedBytecode":{{"object":"{runtime}","immutableReferences":
            {{"1":[{{"start":1,"length":32}},{{"start":34,"length":32}}],"2":[{{"start":66,"length":32}}]}}}}}}"#
        );
        write(dir.path(), &text);
        let artifact = Artifact::load(dir.path(), "X").unwrap();
        let (own, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let code = |first: Address, again: Address, second: [u8; 32]| {
            let parts: [&[u8]; 5] = [
                &[0xaa],
                first.into_word().as_slice(),
                &[0xbb],
                again.into_word().as_slice(),
                &second,
            ]
            .map(|p| &*p.to_vec().leak());
            parts.concat()
        };
        let argument = other.into_word();
        let is = |code: Vec<u8>| artifact.is_runtime(&code, own, argument.as_slice());
        assert!(is(code(other, other, own.into_word().0)));
        assert!(is(code(other, other, [7; 32])), "a hash");
        assert!(!is(code(other, own, [7; 32])), "two values of one");
        assert!(!is(code(own, own, [7; 32])), "the argument is missing");
        let third = Address::repeat_byte(3).into_word().0;
        assert!(!is(code(other, other, third)), "another address");
        let mut changed = code(other, other, [7; 32]);
        changed[0] = 0xab;
        assert!(!is(changed));
    }
}
