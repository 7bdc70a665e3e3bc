//! Byte streams between guest and host: vsock, or Unix sockets where there is no vsock.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

/// Most bytes handed to the kernel in one write. Larger guest writes break `vhost-device-vsock` 0.3 silently.
pub const MAX_WRITE: usize = 16 * 1024;

/// How the guest reaches the host's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connector {
    /// AF_VSOCK to the parent's CID.
    Vsock {
        /// 3 on Nitro, 2 under `vhost-device-vsock`.
        cid: u32,
    },
    /// Unix sockets `<dir>/host_<port>` (process mode and tests).
    Unix {
        /// The folder of the sockets.
        dir: PathBuf,
    },
}

impl Connector {
    /// Connects to a port of the host.
    ///
    /// # Errors
    /// The system's error. Under `vhost-device-vsock` a port nobody listens on connects and then ends at once.
    pub fn connect(&self, port: u32) -> io::Result<Stream> {
        match self {
            Self::Vsock { cid } => {
                VsockStream::connect_with_cid_port(*cid, port).map(Stream::Vsock)
            }
            Self::Unix { dir } => {
                UnixStream::connect(dir.join(format!("host_{port}"))).map(Stream::Unix)
            }
        }
    }

    /// How connections that the host opens reach a port of this guest: AF_VSOCK on any CID, or `<dir>/guest_<port>`.
    ///
    /// # Errors
    /// The system's error.
    pub fn accept_on(&self, port: u32) -> io::Result<Acceptor> {
        match self {
            Self::Vsock { .. } => Acceptor::vsock(port),
            Self::Unix { dir } => Acceptor::unix(&dir.join(format!("guest_{port}"))),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Acceptor {
    /// AF_VSOCK.
    Vsock(VsockListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Acceptor {
    /// Listens on a vsock port, any CID.
    ///
    /// # Errors
    /// The system's error.
    pub fn vsock(port: u32) -> io::Result<Self> {
        VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port).map(Self::Vsock)
    }

    /// Listens on a Unix socket; a socket left there by an earlier run is replaced, any other file is not.
    ///
    /// # Errors
    /// The system's error.
    pub fn unix(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{} is no socket", path.display()),
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        UnixListener::bind(path).map(Self::Unix)
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The system's error.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Vsock(listener) => listener.accept().map(|(stream, _)| Stream::Vsock(stream)),
            Self::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// Makes [`Acceptor::accept`] return [`io::ErrorKind::WouldBlock`] instead of waiting.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Self::Vsock(listener) => listener.set_nonblocking(nonblocking),
            Self::Unix(listener) => listener.set_nonblocking(nonblocking),
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Vsock(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl AsRawFd for Acceptor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// A connected stream. One write takes at most [`MAX_WRITE`] bytes; use `write_all`.
#[derive(Debug)]
pub enum Stream {
    /// AF_VSOCK.
    Vsock(VsockStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// A second handle on the same connection.
    ///
    /// # Errors
    /// The system's error.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Vsock(stream) => stream.try_clone().map(Self::Vsock),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    /// Closes one direction or both.
    ///
    /// # Errors
    /// The system's error.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Vsock(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }

    /// Bounds every single read and write; `None` waits for ever.
    ///
    /// # Errors
    /// The system's error; a zero duration is refused.
    pub fn set_timeouts(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Vsock(stream) => stream
                .set_read_timeout(limit)
                .and_then(|()| stream.set_write_timeout(limit)),
            Self::Unix(stream) => stream
                .set_read_timeout(limit)
                .and_then(|()| stream.set_write_timeout(limit)),
        }
    }

    /// Makes reads and writes return [`io::ErrorKind::WouldBlock`] instead of waiting.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Self::Vsock(stream) => stream.set_nonblocking(nonblocking),
            Self::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Vsock(stream) => (&mut &*stream).read(out),
            Stream::Unix(stream) => (&mut &*stream).read(out),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(MAX_WRITE)];
        match self {
            Stream::Vsock(stream) => (&mut &*stream).write(piece),
            Stream::Unix(stream) => (&mut &*stream).write(piece),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        (&*self).read(out)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Vsock(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// The pause before attempt `attempt + 1`: 50 ms doubling up to 2 s, spread over ±25 % so that many clients of a host that
/// comes back do not meet.
pub(crate) fn backoff(attempt: u32) -> Duration {
    backoff_from(Duration::from_millis(50), attempt)
}

/// The same with another first pause.
pub(crate) fn backoff_from(first: Duration, attempt: u32) -> Duration {
    let base = first * (1 << attempt.min(6));
    let base = base.min(Duration::from_secs(2));
    // The hasher's per-instance keys are the only randomness this crate needs: nothing secret depends on it.
    let random = RandomState::new().build_hasher().finish() % 512;
    base * 3 / 4 + base * (random as u32) / 1024
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_write_never_exceeds_the_limit() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut a = Stream::Unix(a);
        assert_eq!(a.write(&[7; 40_000]).unwrap(), MAX_WRITE);
        drop(b);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let connector = Connector::Unix {
            dir: dir.path().to_owned(),
        };
        drop(connector.accept_on(7003).unwrap());
        drop(connector.accept_on(7003).unwrap());
        let file = dir.path().join("guest_9");
        fs::write(&file, b"data").unwrap();
        assert_eq!(
            connector.accept_on(9).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&file).unwrap(), b"data");
    }
}
