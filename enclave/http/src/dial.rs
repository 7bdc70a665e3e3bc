//! Where byte pipes come from.

use std::{fmt, future::Future, io, pin::Pin, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A boxed, sendable future, so that [`Dialer`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Anything that reads and writes bytes; implemented for all such types.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> ByteStream for T {}

/// An owned byte pipe.
pub type BoxStream = Box<dyn ByteStream>;

/// What a connection is for; the host's allow-list is kept per class (design 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DialClass {
    /// A chain's JSON-RPC endpoint.
    Rpc,
    /// A data-availability proxy.
    Da,
    /// The key management service.
    Kms,
    /// Another appliance.
    Peer,
    /// Any public address on port 443, for policy data providers.
    Public,
}

impl fmt::Display for DialClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rpc => "rpc",
            Self::Da => "da",
            Self::Kms => "kms",
            Self::Peer => "peer",
            Self::Public => "public",
        })
    }
}

/// Opens byte pipes to hosts by name.
///
/// Nothing about the pipe is trusted: who answers is proven by TLS, or what comes back is proven by its content.
pub trait Dialer: Send + Sync {
    /// Connects to `host:port`. The future may be dropped at any time, which gives the connection up.
    fn dial<'a>(
        &'a self,
        class: DialClass,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<BoxStream>>;
}

impl<D: Dialer + ?Sized> Dialer for Arc<D> {
    fn dial<'a>(
        &'a self,
        class: DialClass,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        (**self).dial(class, host, port)
    }
}

/// Dials directly over TCP: for programs outside the enclave and for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDialer;

impl Dialer for TcpDialer {
    fn dial<'a>(
        &'a self,
        _class: DialClass,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }
}
