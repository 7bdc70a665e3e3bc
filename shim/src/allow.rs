//! Where the enclave may connect to.

use newton_http::is_public;
use newton_relay::dial::{Class, Target};
use newton_relay::{ErrorCode, HostError};
use serde::Deserialize;
use std::net::SocketAddr;

/// The only port of the class `public`.
const PUBLIC_PORT: u16 = 443;

/// The allow-list: `host:port` per class, compared as text. Names are resolved by the host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Chains' endpoints.
    pub rpc: Vec<String>,
    /// DA proxies.
    pub da: Vec<String>,
    /// Key management services.
    pub kms: Vec<String>,
    /// Other enclaves.
    pub peer: Vec<String>,
    /// Whether any public address on port 443 may be reached (policies' data providers).
    pub public: bool,
    /// Further `host:port` of the class `public`, whatever their address: servers of the operator's own network, for
    /// development. The enclave asks for them only if its measured manifest names loopback as a development switch.
    pub public_hosts: Vec<String>,
}

/// An entry that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {entry:?} is not host:port")]
pub struct AllowError {
    /// The class.
    pub class: &'static str,
    /// The entry.
    pub entry: String,
}

/// The list in the form it is compared in.
#[derive(Debug)]
pub(crate) struct AllowList {
    entries: Vec<(Class, String, u16)>,
    public: bool,
}

impl AllowList {
    pub(crate) fn new(allow: &Allow) -> Result<Self, AllowError> {
        let classes = [
            (Class::Rpc, &allow.rpc),
            (Class::Da, &allow.da),
            (Class::Kms, &allow.kms),
            (Class::Peer, &allow.peer),
            (Class::Public, &allow.public_hosts),
        ];
        let mut entries = Vec::new();
        for (class, list) in classes {
            for entry in list {
                let error = || AllowError {
                    class: class.name(),
                    entry: entry.clone(),
                };
                let (host, port) = entry.rsplit_once(':').ok_or_else(error)?;
                let host = host
                    .strip_prefix('[')
                    .and_then(|h| h.strip_suffix(']'))
                    .unwrap_or(host);
                let port = port.parse().map_err(|_| error())?;
                let target = Target::new(class, host, port).map_err(|_| error())?;
                entries.push((class, target.host().to_owned(), port));
            }
        }
        Ok(Self {
            entries,
            public: allow.public,
        })
    }

    /// Whether a target may be tried at all, before its name is resolved.
    pub(crate) fn check(&self, target: &Target) -> Result<(), HostError> {
        let public = target.class == Class::Public && self.public && target.port == PUBLIC_PORT;
        if public || self.lists(target) {
            Ok(())
        } else {
            Err(HostError::new(
                ErrorCode::NotAllowed,
                "not on the allow-list",
            ))
        }
    }

    /// The addresses of a target that may be connected to. What was resolved is what is connected to, so a name cannot change
    /// its meaning in between.
    pub(crate) fn addresses(
        &self,
        target: &Target,
        resolved: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, HostError> {
        if resolved.is_empty() {
            return Err(HostError::new(ErrorCode::NotFound, "name has no address"));
        }
        if target.class != Class::Public || self.lists(target) {
            return Ok(resolved);
        }
        let public: Vec<_> = resolved.into_iter().filter(|a| is_public(a.ip())).collect();
        if public.is_empty() {
            return Err(HostError::new(
                ErrorCode::NotAllowed,
                "name has no public address",
            ));
        }
        Ok(public)
    }

    fn lists(&self, target: &Target) -> bool {
        self.entries
            .iter()
            .any(|(c, h, p)| *c == target.class && h == target.host() && *p == target.port)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn list() -> AllowList {
        let allow = Allow {
            rpc: vec!["RPC.example.org:443".into(), "[::1]:8545".into()],
            da: vec!["127.0.0.1:3100".into()],
            public: true,
            public_hosts: vec!["127.0.0.1:8443".into()],
            ..Allow::default()
        };
        AllowList::new(&allow).unwrap()
    }

    #[test]
    fn only_what_is_listed_in_its_class() {
        let list = list();
        let ok = |class, host, port| list.check(&Target::new(class, host, port).unwrap()).is_ok();
        assert!(ok(Class::Rpc, "rpc.EXAMPLE.org", 443));
        assert!(ok(Class::Rpc, "::1", 8545));
        assert!(ok(Class::Da, "127.0.0.1", 3100));
        assert!(!ok(Class::Da, "rpc.example.org", 443));
        assert!(!ok(Class::Rpc, "rpc.example.org", 80));
        assert!(!ok(Class::Rpc, "rpc.example.org.", 443));
        assert!(!ok(Class::Kms, "127.0.0.1", 3100));
        assert!(ok(Class::Public, "anything.example", 443));
        assert!(!ok(Class::Public, "anything.example", 80));
        assert!(ok(Class::Public, "127.0.0.1", 8443));
        assert!(!ok(Class::Da, "127.0.0.1", 8443));
        let none = AllowList::new(&Allow::default()).unwrap();
        assert!(
            none.check(&Target::new(Class::Public, "a", 443).unwrap())
                .is_err()
        );
    }

    #[test]
    fn bad_entries_are_named() {
        for entry in ["host", "host:", "host:70000", "host:0", ":1", "a b:1"] {
            let allow = Allow {
                peer: vec![entry.into()],
                ..Allow::default()
            };
            assert_eq!(
                AllowList::new(&allow).unwrap_err(),
                AllowError {
                    class: "peer",
                    entry: entry.into()
                }
            );
        }
    }

    #[test]
    fn public_names_must_have_public_addresses() {
        let list = list();
        let target = Target::new(Class::Public, "x", 443).unwrap();
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 443);
        let kept = list
            .addresses(&target, vec![at("10.0.0.1"), at("93.184.216.34")])
            .unwrap();
        assert_eq!(kept, [at("93.184.216.34")]);
        assert_eq!(
            list.addresses(&target, vec![at("169.254.169.254")])
                .unwrap_err()
                .code(),
            ErrorCode::NotAllowed
        );
        assert_eq!(
            list.addresses(&target, vec![]).unwrap_err().code(),
            ErrorCode::NotFound
        );
        let da = Target::new(Class::Da, "127.0.0.1", 3100).unwrap();
        assert!(list.addresses(&da, vec![at("127.0.0.1")]).is_ok());
        let listed = Target::new(Class::Public, "127.0.0.1", 8443).unwrap();
        assert!(list.addresses(&listed, vec![at("127.0.0.1")]).is_ok());
    }
}
