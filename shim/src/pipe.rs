//! Two byte streams joined: bounded buffers, back-pressure, half-close, an idle limit.
//!
//! Half-close is passed on wherever the transport has it: Nitro's vsock and Unix sockets do. `vhost-device-vsock` 0.3 under QEMU does
//! not: the end of the guest's direction alone never arrives here, and the end of ours reaches the guest as the end of both. A
//! complete close arrives in either case. HTTP and TLS do not depend on it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::{Instant, sleep_until};

/// Bytes held for each direction of a connection.
const BUFFER: usize = 16 * 1024;

/// Copies both ways until each direction has ended, one has failed, or nothing has moved for `idle`. The end of a direction
/// is passed on; the other goes on. Nothing is read before what was read earlier has been taken.
pub(crate) async fn join<A, B>(a: A, b: B, idle: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (mut a_read, mut a_write) = split(a);
    let (mut b_read, mut b_write) = split(b);
    let clock = Clock {
        start: Instant::now(),
        last: AtomicU64::new(0),
    };
    let both = async {
        tokio::try_join!(
            copy(&mut a_read, &mut b_write, &clock),
            copy(&mut b_read, &mut a_write, &clock)
        )
        .map(|_| ())
    };
    tokio::select! {
        result = both => result,
        () = clock.idle_for(idle) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn copy<R, W>(from: &mut R, to: &mut W, clock: &Clock) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await?;
        clock.tick();
        if n == 0 {
            return to.shutdown().await;
        }
        let mut rest = &buffer[..n];
        while !rest.is_empty() {
            match to.write(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => rest = &rest[written..],
            }
            clock.tick();
        }
    }
}

/// When something last moved.
struct Clock {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

impl Clock {
    fn tick(&self) {
        // A connection does not last 2^64 ms.
        self.last
            .store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    async fn idle_for(&self, idle: Duration) {
        loop {
            let due = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + idle;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut left, a) = duplex(64);
        let (b, mut right) = duplex(64);
        let joined = tokio::spawn(join(a, b, Duration::from_secs(60)));
        left.write_all(b"question").await.unwrap();
        left.shutdown().await.unwrap();
        let mut got = String::new();
        right.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "question");
        // The left has said all it will; the right still answers.
        right.write_all(b"answer").await.unwrap();
        right.shutdown().await.unwrap();
        got.clear();
        left.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "answer");
        joined.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_stops_the_writer() {
        let (mut left, a) = duplex(1024);
        let (b, mut right) = duplex(1024);
        let joined = tokio::spawn(join(a, b, Duration::from_secs(60)));
        let mut taken = 0;
        while let Ok(n) =
            tokio::time::timeout(Duration::from_millis(200), left.write(&[1; 4096])).await
        {
            taken += n.unwrap();
        }
        assert!(taken <= 2 * 1024 + BUFFER, "{taken} bytes taken in");
        let mut drained = vec![0; taken];
        right.read_exact(&mut drained).await.unwrap();
        joined.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_end() {
        let (mut left, a) = duplex(64);
        let (b, _right) = duplex(64);
        let joined = tokio::spawn(join(a, b, Duration::from_secs(10)));
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            left.write_all(b"x").await.unwrap();
        }
        let before = Instant::now();
        assert_eq!(
            joined.await.unwrap().unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        assert!(before.elapsed() >= Duration::from_secs(9));
    }
}
