//! Where the enclave may connect to.

use newton_relay::dial::{Class, Target};
use newton_relay::{ErrorCode, HostError};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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
        let allowed = match target.class {
            Class::Public => self.public && target.port == PUBLIC_PORT,
            class => self
                .entries
                .iter()
                .any(|(c, h, p)| *c == class && h == target.host() && *p == target.port),
        };
        if allowed {
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
        if target.class != Class::Public {
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
}

/// Whether an address is reached over the public internet: not the host's own, a private or a shared network, a link, a
/// group, a test or a reserved range (IANA special-purpose registries), nor a form of IPv6 that leads back to such an IPv4.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = a == 0
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && (18..20).contains(&b))
        // Multicast, reserved, broadcast.
        || a >= 224;
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        // NAT64 and 6to4 lead to the IPv4 address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(embedded(high, low)),
        [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        // Teredo, benchmarking, ORCHID and the other assignments of 2001::/23; documentation.
        [0x2001, second, ..] if second < 0x200 => false,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast is 2000::/3; everything else (mapped, unique local, link, group) is special.
        [first, ..] => first & 0xe000 == 0x2000,
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
    }

    #[test]
    fn special_ranges_are_not_public() {
        for ip in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "2606:4700::1111",
            "64:ff9b::8.8.8.8",
            "2001:4860:4860::8888",
        ] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }
}
