//! The host's side of the transports: used by the shim.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use vsock::VsockStream;

use crate::{Acceptor, Stream};

/// How the host reaches a guest and is reached by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A Nitro enclave: AF_VSOCK both ways.
    Nitro {
        /// The enclave's CID.
        cid: u32,
    },
    /// QEMU with `vhost-device-vsock`: Unix sockets `<uds>` (host to guest) and `<uds>_<port>` (guest to host).
    Qemu {
        /// The daemon's `uds-path`.
        uds: PathBuf,
    },
    /// A plain process: Unix sockets `<dir>/host_<port>` and `<dir>/guest_<port>`.
    Process {
        /// The folder of the sockets.
        dir: PathBuf,
    },
}

/// Longest wait for the answer to `CONNECT`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer line of `vhost-device-vsock`.
const MAX_ANSWER: usize = 64;

impl Backend {
    /// Listens for connections of the guest to a host port.
    ///
    /// # Errors
    /// The system's error.
    pub fn listen(&self, port: u32) -> io::Result<Acceptor> {
        match self {
            Self::Nitro { .. } => Acceptor::vsock(port),
            Self::Qemu { uds } => {
                let mut path = uds.clone().into_os_string();
                path.push(format!("_{port}"));
                Acceptor::unix(&PathBuf::from(path))
            }
            Self::Process { dir } => Acceptor::unix(&dir.join(format!("host_{port}"))),
        }
    }

    /// Connects to a port of the guest.
    ///
    /// # Errors
    /// The system's error; [`io::ErrorKind::ConnectionRefused`] if nobody listens there under QEMU.
    pub fn connect(&self, port: u32) -> io::Result<Stream> {
        match self {
            Self::Nitro { cid } => {
                VsockStream::connect_with_cid_port(*cid, port).map(Stream::Vsock)
            }
            Self::Qemu { uds } => connect_hybrid(UnixStream::connect(uds)?, port).map(Stream::Unix),
            Self::Process { dir } => {
                UnixStream::connect(dir.join(format!("guest_{port}"))).map(Stream::Unix)
            }
        }
    }
}

/// The hybrid vsock handshake: `CONNECT <port>\n`, answered by `OK <port>\n`.
fn connect_hybrid(mut stream: UnixStream, port: u32) -> io::Result<UnixStream> {
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut line = Vec::new();
    // Byte by byte: what follows the line belongs to the guest's stream.
    loop {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                format!("nobody listens on guest port {port}"),
            ));
        }
        if byte[0] == b'\n' {
            break;
        }
        line.push(byte[0]);
        if line.len() > MAX_ANSWER {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "answer to CONNECT is too long",
            ));
        }
    }
    if !line.starts_with(b"OK") {
        let text = crate::printable(&line, MAX_ANSWER);
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("answer to CONNECT: {text}"),
        ));
    }
    stream.set_read_timeout(None)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::Connector;

    #[test]
    fn hybrid_handshake_leaves_the_guests_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let uds = dir.path().join("vm.vsock");
        let daemon = UnixListener::bind(&uds).unwrap();
        let guest = thread::spawn(move || {
            let (mut stream, _) = daemon.accept().unwrap();
            let mut line = [0; 13];
            stream.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"CONNECT 7003\n");
            stream.write_all(b"OK 7003\nhello").unwrap();
            // The guest closes, then nobody listens.
            drop(stream);
            let (mut stream, _) = daemon.accept().unwrap();
            stream.read_exact(&mut line).unwrap();
        });
        let backend = Backend::Qemu { uds };
        let mut stream = backend.connect(7003).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"hello");
        assert_eq!(
            backend.connect(7003).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        guest.join().unwrap();
    }

    #[test]
    fn process_backend_meets_the_guests_connector() {
        let dir = tempfile::tempdir().unwrap();
        let backend = Backend::Process {
            dir: dir.path().to_owned(),
        };
        let connector = Connector::Unix {
            dir: dir.path().to_owned(),
        };
        let host = backend.listen(7001).unwrap();
        let guest = connector.accept_on(7003).unwrap();
        let mut up = connector.connect(7001).unwrap();
        let mut down = backend.connect(7003).unwrap();
        up.write_all(b"u").unwrap();
        down.write_all(b"d").unwrap();
        let mut byte = [0];
        host.accept().unwrap().read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"u");
        guest.accept().unwrap().read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"d");
    }
}
