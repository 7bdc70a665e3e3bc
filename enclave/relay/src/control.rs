//! The control channel (host port 7000): manifest, transactions for the gas payer, logs, metrics, status.
//!
//! Frames of at most [`MAX_BODY`] bytes both ways, each `u8 kind, fields`, integers little-endian, bytes and text with a
//! `u32` length before them. The guest speaks first.
//!
//! | kind | guest to host | fields |
//! |---|---|---|
//! | 0 | Hello | `u16` version |
//! | 1 | Submit | `u64` id, `u64` chain id, 20-byte address, `u64` gas limit, calldata |
//! | 2 | Log | `u8` level (0 error … 4 trace), line |
//! | 3 | Metrics | text (Prometheus) |
//! | 4 | Status | `u64` id of the request, 0 if unasked, JSON text |
//!
//! | kind | host to guest | fields |
//! |---|---|---|
//! | 0 | Welcome | consensus TOML, local TOML, 20-byte operator address: the answer to Hello |
//! | 1 | Refused | `u16` code, text: the other answer to Hello |
//! | 2 | Submitted | `u64` id, 32-byte transaction hash |
//! | 3 | SubmitFailed | `u64` id, `u16` code, text |
//! | 4 | StatusRequest | `u64` id, not 0 |
//! | 5 | Shutdown | |

mod client;

pub use client::{
    ControlClient, ControlError, ControlHandler, ControlOptions, Parent, find_parent,
};

use crate::wire::{Put, Reader};
use crate::{HostError, WireError};

/// Version of the control protocol.
pub const VERSION: u16 = 1;
/// Longest body of a frame.
pub const MAX_BODY: usize = MAX_CALLDATA + 1024;
/// Longest manifest: both texts together, in bytes.
pub const MAX_MANIFEST: usize = 256 * 1024;
/// Longest calldata of a transaction.
pub const MAX_CALLDATA: usize = 512 * 1024;
/// Longest log line.
pub const MAX_LOG_LINE: usize = 4 * 1024;
/// Longest metrics text.
pub const MAX_METRICS: usize = 256 * 1024;
/// Longest status text.
pub const MAX_STATUS: usize = 64 * 1024;

/// What the host configures at boot. Untrusted until the appliance has parsed and measured it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The `[consensus]` part, TOML.
    pub consensus: String,
    /// The `[local]` part, TOML.
    pub local: String,
    /// The operator's address.
    pub operator: [u8; 20],
}

/// How grave a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something failed.
    Error = 0,
    /// Something is odd.
    Warn = 1,
    /// Something happened.
    Info = 2,
    /// For developers.
    Debug = 3,
    /// For developers, in bulk.
    Trace = 4,
}

impl Level {
    const ALL: [Self; 5] = [
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];
}

/// A transaction for the host's gas payer. The host chooses nonce and fees; `value` is always zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Which chain.
    pub chain_id: u64,
    /// The contract called.
    pub to: [u8; 20],
    /// Calldata, at most [`MAX_CALLDATA`] bytes.
    pub calldata: Vec<u8>,
    /// Gas limit.
    pub gas_limit: u64,
}

/// What the guest sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToHost {
    /// The first message of a connection.
    Hello {
        /// [`VERSION`] of the guest.
        version: u16,
    },
    /// Asks the gas payer to send a transaction.
    Submit {
        /// Names the answer.
        id: u64,
        /// What to send.
        transaction: Transaction,
    },
    /// A log line, redacted already.
    Log {
        /// How grave.
        level: Level,
        /// One line, at most [`MAX_LOG_LINE`] bytes.
        line: String,
    },
    /// Metrics in Prometheus' text form; replaces the text before.
    Metrics {
        /// At most [`MAX_METRICS`] bytes.
        text: String,
    },
    /// The appliance's status.
    Status {
        /// The request's id, 0 if unasked.
        id: u64,
        /// JSON, at most [`MAX_STATUS`] bytes.
        json: String,
    },
}

/// What the host sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToGuest {
    /// The answer to Hello.
    Welcome(Manifest),
    /// The other answer to Hello; the host closes after it.
    Refused(HostError),
    /// The transaction was sent.
    Submitted {
        /// Of the request.
        id: u64,
        /// The transaction's hash, as the host reports it.
        transaction_hash: [u8; 32],
    },
    /// The transaction was not sent.
    SubmitFailed {
        /// Of the request.
        id: u64,
        /// Why.
        error: HostError,
    },
    /// Asks for a [`ToHost::Status`] with this id.
    StatusRequest {
        /// Not 0.
        id: u64,
    },
    /// Asks the appliance to stop in order.
    Shutdown,
}

impl ToHost {
    /// The frame's body.
    ///
    /// # Errors
    /// [`WireError::TooLong`] naming the field.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut body = Vec::new();
        match self {
            Self::Hello { version } => {
                body.put(&[0]);
                body.put(&version.to_le_bytes());
            }
            Self::Submit { id, transaction } => {
                body.put(&[1]);
                body.put(&id.to_le_bytes());
                body.put(&transaction.chain_id.to_le_bytes());
                body.put(&transaction.to);
                body.put(&transaction.gas_limit.to_le_bytes());
                body.put_bytes("calldata", MAX_CALLDATA, &transaction.calldata)?;
            }
            Self::Log { level, line } => {
                body.put(&[2, *level as u8]);
                body.put_bytes("log line", MAX_LOG_LINE, line.as_bytes())?;
            }
            Self::Metrics { text } => {
                body.put(&[3]);
                body.put_bytes("metrics", MAX_METRICS, text.as_bytes())?;
            }
            Self::Status { id, json } => {
                body.put(&[4]);
                body.put(&id.to_le_bytes());
                body.put_bytes("status", MAX_STATUS, json.as_bytes())?;
            }
        }
        Ok(body)
    }

    /// Decodes a frame's body.
    ///
    /// # Errors
    /// [`WireError`] naming the field.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("control message", body);
        let message = match reader.u8()? {
            0 => Self::Hello {
                version: reader.u16()?,
            },
            1 => {
                let id = reader.u64()?;
                let chain_id = reader.u64()?;
                let to = reader.array()?;
                let gas_limit = reader.u64()?;
                let calldata = reader.bytes("calldata", MAX_CALLDATA)?.to_vec();
                Self::Submit {
                    id,
                    transaction: Transaction {
                        chain_id,
                        to,
                        calldata,
                        gas_limit,
                    },
                }
            }
            2 => {
                let level = reader.u8()?;
                let Some(level) = Level::ALL.into_iter().find(|l| *l as u8 == level) else {
                    return Err(WireError::UnknownKind {
                        what: "log level",
                        kind: level.into(),
                    });
                };
                Self::Log {
                    level,
                    line: reader.text("log line", MAX_LOG_LINE)?,
                }
            }
            3 => Self::Metrics {
                text: reader.text("metrics", MAX_METRICS)?,
            },
            4 => Self::Status {
                id: reader.u64()?,
                json: reader.text("status", MAX_STATUS)?,
            },
            kind => {
                return Err(WireError::UnknownKind {
                    what: "control message",
                    kind: kind.into(),
                });
            }
        };
        reader.end()?;
        Ok(message)
    }
}

impl ToGuest {
    /// The frame's body.
    ///
    /// # Errors
    /// [`WireError::TooLong`] naming the field; [`WireError::Invalid`] for a status request without an id.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut body = Vec::new();
        match self {
            Self::Welcome(manifest) => {
                manifest.check()?;
                body.put(&[0]);
                body.put_bytes("manifest", MAX_MANIFEST, manifest.consensus.as_bytes())?;
                body.put_bytes("manifest", MAX_MANIFEST, manifest.local.as_bytes())?;
                body.put(&manifest.operator);
            }
            Self::Refused(error) => {
                body.put(&[1]);
                body.put_host_error(error);
            }
            Self::Submitted {
                id,
                transaction_hash,
            } => {
                body.put(&[2]);
                body.put(&id.to_le_bytes());
                body.put(transaction_hash);
            }
            Self::SubmitFailed { id, error } => {
                body.put(&[3]);
                body.put(&id.to_le_bytes());
                body.put_host_error(error);
            }
            Self::StatusRequest { id } => {
                check_status_id(*id)?;
                body.put(&[4]);
                body.put(&id.to_le_bytes());
            }
            Self::Shutdown => body.put(&[5]),
        }
        Ok(body)
    }

    /// Decodes a frame's body.
    ///
    /// # Errors
    /// [`WireError`] naming the field.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("control message", body);
        let message = match reader.u8()? {
            0 => {
                let consensus = reader.text("manifest", MAX_MANIFEST)?;
                let local = reader.text("manifest", MAX_MANIFEST)?;
                let manifest = Manifest {
                    consensus,
                    local,
                    operator: reader.array()?,
                };
                manifest.check()?;
                Self::Welcome(manifest)
            }
            1 => Self::Refused(reader.host_error()?),
            2 => Self::Submitted {
                id: reader.u64()?,
                transaction_hash: reader.array()?,
            },
            3 => Self::SubmitFailed {
                id: reader.u64()?,
                error: reader.host_error()?,
            },
            4 => {
                let id = reader.u64()?;
                check_status_id(id)?;
                Self::StatusRequest { id }
            }
            5 => Self::Shutdown,
            kind => {
                return Err(WireError::UnknownKind {
                    what: "control message",
                    kind: kind.into(),
                });
            }
        };
        reader.end()?;
        Ok(message)
    }
}

impl Manifest {
    fn check(&self) -> Result<(), WireError> {
        let got = self.consensus.len() + self.local.len();
        if got > MAX_MANIFEST {
            return Err(WireError::TooLong {
                what: "manifest",
                limit: MAX_MANIFEST,
                got,
            });
        }
        Ok(())
    }
}

fn check_status_id(id: u64) -> Result<(), WireError> {
    if id == 0 {
        return Err(WireError::Invalid {
            what: "status request",
            why: "id 0 stands for unasked",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ErrorCode;

    fn manifest() -> Manifest {
        Manifest {
            consensus: "a = 1".into(),
            local: "b = 2".into(),
            operator: [9; 20],
        }
    }

    #[test]
    fn messages_round_trip_and_no_truncation_passes() {
        let transaction = Transaction {
            chain_id: 31337,
            to: [4; 20],
            calldata: vec![1, 2, 3],
            gas_limit: 500_000,
        };
        let to_host = [
            ToHost::Hello { version: VERSION },
            ToHost::Submit { id: 4, transaction },
            ToHost::Log {
                level: Level::Warn,
                line: "slow".into(),
            },
            ToHost::Metrics {
                text: "a 1\n".into(),
            },
            ToHost::Status {
                id: 0,
                json: "{}".into(),
            },
        ];
        for message in to_host {
            let body = message.encode().unwrap();
            assert_eq!(ToHost::decode(&body).unwrap(), message);
            assert!(
                (0..body.len()).all(|cut| ToHost::decode(&body[..cut]).is_err()),
                "{message:?}"
            );
            assert!(ToHost::decode(&[&body[..], &[0]].concat()).is_err());
        }
        let error = HostError::new(ErrorCode::Reverted, "BacklogFull");
        let to_guest = [
            ToGuest::Welcome(manifest()),
            ToGuest::Refused(error.clone()),
            ToGuest::Submitted {
                id: 4,
                transaction_hash: [7; 32],
            },
            ToGuest::SubmitFailed { id: 4, error },
            ToGuest::StatusRequest { id: 1 },
            ToGuest::Shutdown,
        ];
        for message in to_guest {
            let body = message.encode().unwrap();
            assert_eq!(ToGuest::decode(&body).unwrap(), message);
            assert!(
                (0..body.len()).all(|cut| ToGuest::decode(&body[..cut]).is_err()),
                "{message:?}"
            );
        }
    }

    #[test]
    fn limits_hold_in_both_directions() {
        let half = "x".repeat(MAX_MANIFEST / 2 + 1);
        let big = Manifest {
            consensus: half.clone(),
            local: half.clone(),
            operator: [0; 20],
        };
        assert!(matches!(
            ToGuest::Welcome(big).encode(),
            Err(WireError::TooLong {
                what: "manifest",
                ..
            })
        ));
        let mut body = vec![0u8];
        body.put_bytes("", usize::MAX, half.as_bytes()).unwrap();
        body.put_bytes("", usize::MAX, half.as_bytes()).unwrap();
        body.put(&[0; 20]);
        assert!(matches!(
            ToGuest::decode(&body),
            Err(WireError::TooLong {
                what: "manifest",
                ..
            })
        ));
        let line = "x".repeat(MAX_LOG_LINE + 1);
        assert!(
            ToHost::Log {
                level: Level::Info,
                line
            }
            .encode()
            .is_err()
        );
        let calldata = vec![0; MAX_CALLDATA];
        let transaction = Transaction {
            chain_id: 1,
            to: [0; 20],
            calldata,
            gas_limit: 1,
        };
        assert!(
            ToHost::Submit { id: 1, transaction }
                .encode()
                .unwrap()
                .len()
                <= MAX_BODY
        );
        assert!(matches!(
            ToGuest::decode(&[9]),
            Err(WireError::UnknownKind { kind: 9, .. })
        ));
        assert!(ToGuest::decode(&[4, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
