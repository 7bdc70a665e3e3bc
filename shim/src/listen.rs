//! TCP from outside to the guest's port 7003: raw bytes, no header.

use crate::config::Limits;
use crate::pipe;
use newton_relay::asynchronous::AsyncStream;
use newton_relay::{host, ports};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

/// Accepts until it is dropped. While every slot is taken, nothing is accepted and the kernel's queue fills.
pub(crate) async fn serve(listener: Arc<TcpListener>, guest: host::Backend, limits: Limits) {
    let slots = Arc::new(Semaphore::new(limits.listen_connections));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let slot = slots.clone().acquire_owned().await.expect("semaphore open");
        while connections.try_join_next().is_some() {}
        let outside = match listener.accept().await {
            Ok((outside, _)) => outside,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let guest = guest.clone();
        connections.spawn(async move {
            if let Err(error) = pass_on(outside, guest, limits).await {
                tracing::debug!(%error, "incoming connection");
            }
            drop(slot);
        });
    }
}

async fn pass_on(outside: TcpStream, guest: host::Backend, limits: Limits) -> io::Result<()> {
    outside.set_nodelay(true)?;
    let inside = connect(guest).await?;
    pipe::join(outside, inside, limits.idle()).await
}

/// Connects to the guest. Many connections at once can meet a full queue at the vsock daemon, so a refusal is tried again.
async fn connect(guest: host::Backend) -> io::Result<AsyncStream> {
    let mut pause = Duration::from_millis(50);
    loop {
        let backend = guest.clone();
        let result = spawn_blocking(move || backend.connect(ports::LISTEN))
            .await
            .map_err(io::Error::other)?;
        match result {
            Ok(stream) => return AsyncStream::new(stream),
            Err(_) if pause < Duration::from_millis(500) => sleep(pause).await,
            Err(error) => return Err(error),
        }
        pause *= 2;
    }
}
