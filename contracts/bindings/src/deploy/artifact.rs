//! Forge's artifacts: the creation code of a contract.

use std::path::Path;

use alloy_primitives::{Bytes, hex};
use serde::Deserialize;

use super::DeployError;

/// A compiled contract.
#[derive(Clone, Debug)]
pub struct Artifact {
    code: Bytes,
}

#[derive(Deserialize)]
struct File {
    bytecode: Bytecode,
}

#[derive(Deserialize)]
struct Bytecode {
    object: String,
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
        // Unlinked code has placeholders that are not hexadecimal.
        let code = hex::decode(&file.bytecode.object).map_err(|_| DeployError::NoCode {
            path: path.clone(),
            reason: "it is not hexadecimal, so perhaps not linked",
        })?;
        if code.is_empty() {
            return Err(DeployError::NoCode {
                path,
                reason: "it is empty, as an interface's is",
            });
        }
        Ok(Self { code: code.into() })
    }

    /// Creation code with the constructor's encoded arguments behind it.
    pub fn creation_code(&self, arguments: &[u8]) -> Bytes {
        [&self.code, arguments].concat().into()
    }
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
        write(dir.path(), r#"{"bytecode":{"object":"0x60__$abc$__"}}"#);
        assert!(matches!(
            Artifact::load(dir.path(), "X"),
            Err(DeployError::NoCode { .. })
        ));
        write(dir.path(), r#"{"bytecode":{"object":"0x"}}"#);
        assert!(matches!(
            Artifact::load(dir.path(), "X"),
            Err(DeployError::NoCode { .. })
        ));
        write(dir.path(), r#"{"bytecode":{"object":"0x6001"}}"#);
        let code = Artifact::load(dir.path(), "X").unwrap().creation_code(&[2]);
        assert_eq!(code, Bytes::from_static(&[0x60, 1, 2]));
    }
}
