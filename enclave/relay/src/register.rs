//! The one unsafe call of this crate: handing a socket to tokio's reactor.

#![allow(unsafe_code)]

use std::io;

use tokio::io::unix::AsyncFd;

use crate::{Acceptor, Stream};

/// Types that own their file descriptor for as long as they live.
///
/// Sealed by being private: implemented only below.
pub(crate) trait OwnsFd: std::os::fd::AsRawFd {}

impl OwnsFd for Stream {}
impl OwnsFd for Acceptor {}

/// Registers a socket with the current runtime's reactor.
pub(crate) fn register<T: OwnsFd>(socket: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `register` wants the descriptor that `as_raw_fd` names to be valid and open, and to stay the same, while the
    // `AsyncFd` holds the value. Both types own their descriptor (std's and vsock's sockets, closed on drop only), neither
    // can replace it through a shared reference, and `AsyncStream` and `AsyncAcceptor` never hand out a mutable one.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}
