//! Bearer keys, of which the enclave holds hashes only.

use std::sync::Arc;

use newton_types::manifest::{ApiKey, Permission, Rate};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::rate::Bucket;

/// The bearer keys that open something, with their buckets.
#[derive(Clone)]
pub struct KeyRing {
    keys: Arc<[(ApiKey, Bucket)]>,
    open: Arc<Bucket>,
}

/// Who makes a call.
pub struct Caller<'a> {
    /// What it may do.
    pub permissions: Permissions,
    /// What it may make of it.
    pub bucket: &'a Bucket,
}

impl KeyRing {
    /// A ring of the manifest's `local.api_keys`. `key_rate` is for keys without a rate of their own, `open_rate` for everyone without a
    /// known key, together.
    pub fn new(keys: Vec<ApiKey>, key_rate: Rate, open_rate: Rate) -> Self {
        let keys = keys
            .into_iter()
            .map(|key| {
                let bucket = Bucket::new(key.rate.unwrap_or(key_rate));
                (key, bucket)
            })
            .collect();
        Self {
            keys,
            open: Arc::new(Bucket::new(open_rate)),
        }
    }

    /// Who an `Authorization` header stands for; nobody in particular when it is absent, malformed or unknown.
    pub fn caller(&self, authorization: Option<&str>) -> Caller<'_> {
        let mut caller = Caller {
            permissions: Permissions::default(),
            bucket: &self.open,
        };
        let Some(key) = authorization.and_then(|h| h.strip_prefix("Bearer ")) else {
            return caller;
        };
        let digest = Sha256::digest(key.trim().as_bytes());
        // Every entry is compared, so that time tells nothing about which one matched.
        for (entry, bucket) in self.keys.iter() {
            if bool::from(entry.sha256.as_slice().ct_eq(digest.as_slice())) {
                caller.permissions.read |= entry.permissions.contains(&Permission::RpcRead);
                caller.permissions.write |= entry.permissions.contains(&Permission::RpcWrite);
                caller.bucket = bucket;
            }
        }
        caller
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
        let rate = Rate {
            per_second: 1,
            burst: 1,
        };
        let key = ApiKey {
            sha256: B256::from_slice(&Sha256::digest(b"secret")),
            permissions: vec![Permission::RpcWrite],
            rate: None,
        };
        let ring = KeyRing::new(vec![key], rate, rate);
        let write = Permissions {
            read: false,
            write: true,
        };
        assert_eq!(ring.caller(Some("Bearer secret")).permissions, write);
        for other in [
            None,
            Some("Bearer Secret"),
            Some("Basic secret"),
            Some("Bearer "),
        ] {
            assert_eq!(ring.caller(other).permissions, Permissions::default());
            // They share one bucket, and leave the key's alone.
            let _ = ring.caller(other).bucket.take();
        }
        assert!(ring.caller(None).bucket.take().is_err());
        assert!(ring.caller(Some("Bearer secret")).bucket.take().is_ok());
        assert!(ring.caller(Some("Bearer secret")).bucket.take().is_err());
    }
}
