//! Relay streams for tokio, over [`AsyncFd`]: no second vsock crate.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::dial::{self, DialError, Target};
use crate::register::register;
use crate::{Acceptor, Connector, HEADER_BYTES, Header, Stream, WireError};

/// A [`Stream`] for tokio. Writes are cut as by [`Stream`]; `shutdown` closes the writing half.
#[derive(Debug)]
pub struct AsyncStream {
    inner: AsyncFd<Stream>,
}

impl AsyncStream {
    /// Hands a connected stream to the current runtime.
    ///
    /// # Errors
    /// The system's error. Panics outside a tokio runtime with I/O, as [`AsyncFd`] does.
    pub fn new(stream: Stream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            inner: register(stream)?,
        })
    }
}

impl AsyncRead for AsyncStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.inner.poll_read_ready(cx))?;
            let room = out.initialize_unfilled();
            if let Ok(result) = guard.try_io(|inner| inner.get_ref().read(room)) {
                let n = result?;
                out.advance(n);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for AsyncStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.inner.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|inner| inner.get_ref().write(bytes)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.inner.get_ref().shutdown(Shutdown::Write) {
            // The other side is gone: as closed as it gets.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

/// An [`Acceptor`] for tokio.
#[derive(Debug)]
pub struct AsyncAcceptor {
    inner: AsyncFd<Acceptor>,
}

impl AsyncAcceptor {
    /// Hands a listening socket to the current runtime.
    ///
    /// # Errors
    /// The system's error. Panics outside a tokio runtime with I/O, as [`AsyncFd`] does.
    pub fn new(acceptor: Acceptor) -> io::Result<Self> {
        acceptor.set_nonblocking(true)?;
        Ok(Self {
            inner: register(acceptor)?,
        })
    }

    /// Waits for the next connection. Safe to cancel.
    ///
    /// # Errors
    /// The system's error.
    pub async fn accept(&self) -> io::Result<AsyncStream> {
        loop {
            let mut guard = self.inner.readable().await?;
            if let Ok(result) = guard.try_io(|inner| inner.get_ref().accept()) {
                return AsyncStream::new(result?);
            }
        }
    }
}

/// [`dial::dial`] for tokio: the handshake runs on a blocking thread, since a vsock connect can wait for seconds.
///
/// # Errors
/// [`DialError`].
pub async fn dial(
    connector: &Connector,
    target: &Target,
    timeout: Duration,
) -> Result<AsyncStream, DialError> {
    let failed = |source: io::Error| DialError::Relay {
        class: target.class.name(),
        host: target.host().to_owned(),
        port: target.port,
        source: source.into(),
    };
    let (connector, owned) = (connector.clone(), target.clone());
    let stream = tokio::task::spawn_blocking(move || dial::dial(&connector, &owned, timeout))
        .await
        .map_err(|e| failed(io::Error::other(e)))??;
    AsyncStream::new(stream).map_err(failed)
}

/// [`crate::write_frame`] for tokio.
///
/// # Errors
/// As there.
pub async fn write_frame<W>(stream: &mut W, body: &[u8], limit: usize) -> Result<(), WireError>
where
    W: AsyncWrite + Unpin + ?Sized,
{
    let header = Header::of(body, limit)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).await?;
    Ok(())
}

/// [`crate::read_frame`] for tokio. Not safe to cancel.
///
/// # Errors
/// As there.
pub async fn read_frame<R>(stream: &mut R, limit: usize) -> Result<Option<Vec<u8>>, WireError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut bytes = [0; HEADER_BYTES];
    match read_full(stream, &mut bytes).await? {
        0 => return Ok(None),
        HEADER_BYTES => {}
        got => {
            return Err(WireError::Truncated {
                what: "frame",
                expected: HEADER_BYTES,
                got,
            });
        }
    }
    let header = Header::decode(bytes, limit)?;
    let mut body = vec![0; header.body_len()];
    let got = read_full(stream, &mut body).await?;
    body.truncate(got);
    header.verify(&body)?;
    Ok(Some(body))
}

async fn read_full<R: AsyncRead + Unpin + ?Sized>(
    stream: &mut R,
    out: &mut [u8],
) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match stream.read(&mut out[done..]).await? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dial::{Class, MAX_BODY, encode_answer};

    #[tokio::test]
    async fn dial_accept_echo_and_half_close() {
        let dir = tempfile::tempdir().unwrap();
        let acceptor =
            AsyncAcceptor::new(Acceptor::unix(&dir.path().join("host_7002")).unwrap()).unwrap();
        let connector = Connector::Unix {
            dir: dir.path().to_owned(),
        };
        let target = Target::new(Class::Da, "da", 80).unwrap();
        let host = async {
            let mut stream = acceptor.accept().await.unwrap();
            let header = read_frame(&mut stream, MAX_BODY).await.unwrap().unwrap();
            assert_eq!(Target::decode(&header).unwrap(), target);
            write_frame(&mut stream, &encode_answer(&Ok(())), MAX_BODY)
                .await
                .unwrap();
            let mut sent = Vec::new();
            stream.read_to_end(&mut sent).await.unwrap();
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let guest = async {
            let stream = dial(&connector, &target, Duration::from_secs(5))
                .await
                .unwrap();
            let (mut reading, mut writing) = tokio::io::split(stream);
            let data: Vec<u8> = (0..1_000_000u32).map(|i| (i / 3) as u8).collect();
            writing.write_all(&data).await.unwrap();
            writing.shutdown().await.unwrap();
            let mut got = Vec::new();
            reading.read_to_end(&mut got).await.unwrap();
            assert!(got == data);
        };
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(host, guest) })
            .await
            .unwrap();
    }
}
