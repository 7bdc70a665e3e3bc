//! The relay between the enclave and its untrusted host (design 6.5, `docs/protocol.md` section 10).
//!
//! | service | port | who connects | form |
//! |---|---|---|---|
//! | [`control`] | 7000 | guest to host | frames both ways |
//! | [`disk`] | 7001 | guest to host | pipelined request and reply frames |
//! | [`dial`] | 7002 | guest to host | one frame each way, then raw bytes |
//! | listen | 7003 | host to guest | raw bytes of the accepted TCP connection, no header |
//!
//! Everything that arrives over these streams comes from a host that may lie. Each length is checked against the limit
//! of its field before anything is allocated, text is cut and stripped of control characters before it can reach a log,
//! and no reply is taken for an answer to a request that was not asked.
//!
//! The enclave uses [`Connector`], [`Acceptor`] and the clients; the shim uses the same frames and messages, and with
//! the feature `host` the transports of [`host`]. The feature `tokio` adds [`asynchronous`].

pub mod control;
pub mod dial;
pub mod disk;
mod error;
mod frame;
#[cfg(feature = "tokio")]
mod register;
mod transport;
mod wire;

#[cfg(feature = "tokio")]
pub mod asynchronous;
#[cfg(feature = "host")]
pub mod host;

pub use error::{ErrorCode, HostError, WireError, printable};
pub use frame::{HEADER_BYTES, Header, read_frame, write_frame};
pub use transport::{Acceptor, Connector, MAX_WRITE, Stream};

/// The vsock port numbers of every service.
pub mod ports {
    /// Host port of the control channel.
    pub const CONTROL: u32 = 7000;
    /// Host port of the page device.
    pub const DISK: u32 = 7001;
    /// Host port of the outbound dialler.
    pub const DIAL: u32 = 7002;
    /// Guest port that takes the TCP connections the host accepted.
    pub const LISTEN: u32 = 7003;
    /// Host port, always at CID 3, to which init sends [`HEARTBEAT_BYTE`] once (Nitro's boot protocol).
    pub const HEARTBEAT: u32 = 9000;
    /// The byte init sends to [`HEARTBEAT`].
    pub const HEARTBEAT_BYTE: u8 = 0xB7;
}

/// The CIDs under which the parent may answer: 3 on Nitro, 2 under `vhost-device-vsock`.
pub const PARENT_CIDS: [u32; 2] = [3, 2];
