//! The dial service (host port 7002): outbound byte pipes to the host's allow-list. TLS ends inside the enclave.
//!
//! The guest connects and sends one frame, the host answers with one frame, then raw bytes flow both ways until each
//! side has closed its direction (half-close is kept).
//!
//! Header: `u16` version, `u8` class, `u16` port, `u32` length, host name (ASCII) or IP address.
//! Answer: `u8` 0 (connected) or `u8` 1, `u16` code, `u32` length, text. Integers are little-endian.

use std::time::Duration;

use crate::wire::{Put, Reader};
use crate::{Connector, HostError, Stream, WireError, ports, read_frame, write_frame};

/// Version of the dial protocol.
pub const VERSION: u16 = 1;
/// Longest body of the header and of the answer.
pub const MAX_BODY: usize = 1024;
/// Longest host name (RFC 1035).
pub const MAX_HOST: usize = 253;

/// What a connection is for; the host keeps one allow-list per class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// A chain's RPC endpoint.
    Rpc = 0,
    /// A DA store or proxy.
    Da = 1,
    /// A key management service.
    Kms = 2,
    /// Another enclave.
    Peer = 3,
    /// Any public address on port 443.
    Public = 4,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 5] = [Self::Rpc, Self::Da, Self::Kms, Self::Peer, Self::Public];

    /// The name used in the manifest and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            Self::Da => "da",
            Self::Kms => "kms",
            Self::Peer => "peer",
            Self::Public => "public",
        }
    }
}

/// Where to dial: the guest's header frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which allow-list applies.
    pub class: Class,
    host: String,
    /// TCP port, not zero.
    pub port: u16,
}

impl Target {
    /// A checked target.
    ///
    /// # Errors
    /// [`WireError::Invalid`] if the host is empty or has other bytes than letters, digits, `-`, `.`, `_`, `:`
    /// (a name or an IP address without brackets), or the port is zero; [`WireError::TooLong`] above 253 bytes.
    pub fn new(class: Class, host: &str, port: u16) -> Result<Self, WireError> {
        if host.len() > MAX_HOST {
            return Err(WireError::TooLong {
                what: "host name",
                limit: MAX_HOST,
                got: host.len(),
            });
        }
        if host.is_empty()
            || !host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b))
        {
            return Err(WireError::Invalid {
                what: "host name",
                why: "empty or with a byte no name or address has",
            });
        }
        if port == 0 {
            return Err(WireError::Invalid {
                what: "port",
                why: "zero",
            });
        }
        Ok(Self {
            class,
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// The host name in lower case, or an IP address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The header frame's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(9 + self.host.len());
        body.put(&VERSION.to_le_bytes());
        body.put(&[self.class as u8]);
        body.put(&self.port.to_le_bytes());
        body.put(&(self.host.len() as u32).to_le_bytes());
        body.put(self.host.as_bytes());
        body
    }

    /// Decodes a header frame's body.
    ///
    /// # Errors
    /// [`WireError`] naming the field; another version is [`WireError::UnknownKind`].
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("dial header", body);
        let version = reader.u16()?;
        if version != VERSION {
            return Err(WireError::UnknownKind {
                what: "dial version",
                kind: version.into(),
            });
        }
        let class = reader.u8()?;
        let Some(class) = Class::ALL.into_iter().find(|c| *c as u8 == class) else {
            return Err(WireError::UnknownKind {
                what: "dial class",
                kind: class.into(),
            });
        };
        let port = reader.u16()?;
        let host = reader.text("host name", MAX_HOST)?;
        reader.end()?;
        Self::new(class, &host, port)
    }
}

/// The host's answer frame: connected, or why not.
pub type Answer = Result<(), HostError>;

/// Encodes the answer frame's body.
#[must_use]
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    let mut body = Vec::new();
    match answer {
        Ok(()) => body.put(&[0]),
        Err(error) => {
            body.put(&[1]);
            body.put_host_error(error);
        }
    }
    body
}

/// Decodes the answer frame's body.
///
/// # Errors
/// [`WireError`] naming the field.
pub fn decode_answer(body: &[u8]) -> Result<Answer, WireError> {
    let mut reader = Reader::new("dial answer", body);
    let answer = match reader.u8()? {
        0 => Ok(()),
        1 => Err(reader.host_error()?),
        kind => {
            return Err(WireError::UnknownKind {
                what: "dial answer",
                kind: kind.into(),
            });
        }
    };
    reader.end()?;
    Ok(answer)
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The relay itself failed.
    #[error("dialling {class} {host}:{port}: {source}")]
    Relay {
        /// The class asked for.
        class: &'static str,
        /// The host asked for.
        host: String,
        /// The port asked for.
        port: u16,
        /// What went wrong.
        source: WireError,
    },
    /// The host refused or could not connect.
    #[error("dialling {class} {host}:{port}: {source}")]
    Refused {
        /// The class asked for.
        class: &'static str,
        /// The host asked for.
        host: String,
        /// The port asked for.
        port: u16,
        /// What the host says.
        source: HostError,
    },
}

/// Opens a byte pipe to `target` through the host. `timeout` bounds the host's answer; the stream that is returned has no
/// time limits.
///
/// # Errors
/// [`DialError`].
pub fn dial(
    connector: &Connector,
    target: &Target,
    timeout: Duration,
) -> Result<Stream, DialError> {
    let answer = open(connector, target, timeout);
    let (class, host, port) = (target.class.name(), target.host.clone(), target.port);
    match answer {
        Ok((stream, Ok(()))) => Ok(stream),
        Ok((_, Err(source))) => Err(DialError::Refused {
            class,
            host,
            port,
            source,
        }),
        Err(source) => Err(DialError::Relay {
            class,
            host,
            port,
            source,
        }),
    }
}

fn open(
    connector: &Connector,
    target: &Target,
    timeout: Duration,
) -> Result<(Stream, Answer), WireError> {
    let mut stream = connector.connect(ports::DIAL)?;
    stream.set_timeouts(Some(timeout))?;
    write_frame(&mut stream, &target.encode(), MAX_BODY)?;
    let Some(body) = read_frame(&mut stream, MAX_BODY)? else {
        return Err(WireError::Truncated {
            what: "frame",
            expected: crate::HEADER_BYTES,
            got: 0,
        });
    };
    let answer = decode_answer(&body)?;
    stream.set_timeouts(None)?;
    Ok((stream, answer))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::thread;

    use super::*;
    use crate::{Acceptor, ErrorCode};

    #[test]
    fn header_and_answer_round_trip() {
        for class in Class::ALL {
            let target = Target::new(class, "Rpc.Example.org", 443).unwrap();
            assert_eq!(target.host(), "rpc.example.org");
            let body = target.encode();
            assert_eq!(Target::decode(&body).unwrap(), target);
            for cut in 0..body.len() {
                assert!(Target::decode(&body[..cut]).is_err());
            }
        }
        let refused = Err(HostError::new(ErrorCode::NotAllowed, "not on the list"));
        for answer in [Ok(()), refused] {
            assert_eq!(decode_answer(&encode_answer(&answer)).unwrap(), answer);
        }
    }

    #[test]
    fn bad_targets_are_refused() {
        assert!(Target::new(Class::Da, "", 1).is_err());
        assert!(Target::new(Class::Da, "a b", 1).is_err());
        assert!(Target::new(Class::Da, "a\n", 1).is_err());
        assert!(Target::new(Class::Da, "a", 0).is_err());
        assert!(Target::new(Class::Da, &"a".repeat(254), 1).is_err());
        let mut body = Target::new(Class::Da, "a", 1).unwrap().encode();
        body[2] = 9;
        assert!(matches!(
            Target::decode(&body),
            Err(WireError::UnknownKind {
                what: "dial class",
                kind: 9
            })
        ));
    }

    #[test]
    fn bytes_flow_and_half_close_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let acceptor = Acceptor::unix(&dir.path().join("host_7002")).unwrap();
        let host = thread::spawn(move || {
            let mut stream = acceptor.accept().unwrap();
            let body = read_frame(&mut stream, MAX_BODY).unwrap().unwrap();
            let target = Target::decode(&body).unwrap();
            write_frame(&mut stream, &encode_answer(&Ok(())), MAX_BODY).unwrap();
            let mut sent = Vec::new();
            stream.read_to_end(&mut sent).unwrap();
            stream.write_all(&sent).unwrap();
            drop(stream);
            // A second connection is refused.
            let mut stream = acceptor.accept().unwrap();
            read_frame(&mut stream, MAX_BODY).unwrap().unwrap();
            let answer = Err(HostError::new(ErrorCode::NotAllowed, "no"));
            write_frame(&mut stream, &encode_answer(&answer), MAX_BODY).unwrap();
            target
        });
        let connector = Connector::Unix {
            dir: dir.path().to_owned(),
        };
        let target = Target::new(Class::Rpc, "localhost", 8545).unwrap();
        let mut stream = dial(&connector, &target, Duration::from_secs(5)).unwrap();
        let sent: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert_eq!(got, sent);
        let error = dial(&connector, &target, Duration::from_secs(5)).unwrap_err();
        assert!(
            matches!(&error, DialError::Refused { source, .. } if source.code() == ErrorCode::NotAllowed)
        );
        assert_eq!(host.join().unwrap(), target);
    }
}
