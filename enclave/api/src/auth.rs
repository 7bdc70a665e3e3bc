//! Bearer keys, of which the enclave holds hashes only.

use newton_types::manifest::{ApiKey, Permission};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The bearer keys that open something.
#[derive(Clone, Default)]
pub struct KeyRing {
    keys: Vec<ApiKey>,
}

impl KeyRing {
    /// A ring of the manifest's `local.api_keys`.
    pub fn new(keys: Vec<ApiKey>) -> Self {
        Self { keys }
    }

    /// What an `Authorization` header opens; nothing when it is absent, malformed or unknown.
    pub fn permissions(&self, authorization: Option<&str>) -> Permissions {
        let Some(key) = authorization.and_then(|h| h.strip_prefix("Bearer ")) else {
            return Permissions::default();
        };
        let digest = Sha256::digest(key.trim().as_bytes());
        let mut granted = Permissions::default();
        // Every entry is compared, so that time tells nothing about which one matched.
        for entry in &self.keys {
            if bool::from(entry.sha256.as_slice().ct_eq(digest.as_slice())) {
                granted.read |= entry.permissions.contains(&Permission::RpcRead);
                granted.write |= entry.permissions.contains(&Permission::RpcWrite);
            }
        }
        granted
    }
}

/// What the caller of one request may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Reads that are not open to all.
    pub read: bool,
    /// Evaluation and writes.
    pub write: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use newton_types::B256;

    #[test]
    fn a_key_opens_what_its_hash_is_listed_for() {
        let ring = KeyRing::new(vec![ApiKey {
            sha256: B256::from_slice(&Sha256::digest(b"secret")),
            permissions: vec![Permission::RpcWrite],
        }]);
        let write = Permissions {
            read: false,
            write: true,
        };
        assert_eq!(ring.permissions(Some("Bearer secret")), write);
        for other in [
            None,
            Some("Bearer Secret"),
            Some("Basic secret"),
            Some("Bearer "),
        ] {
            assert_eq!(ring.permissions(other), Permissions::default());
        }
    }
}
