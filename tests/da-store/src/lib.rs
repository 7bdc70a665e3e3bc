//! A development data-availability store with the REST interface of EigenDA's proxy (design 11.1 and 11.4).
//!
//! | route | |
//! |---|---|
//! | `POST /put?commitment_mode=standard` | raw payload → certificate, `0x03 ‖ RLP` |
//! | `GET /get/0x<hex>?commitment_mode=standard[&return_encoded_payload=true]` | certificate → payload |
//! | `GET /health` | 200 |
//! | `GET /config` | limits, as JSON |
//! | `GET`, `PUT /dev/faults` | [`Faults`], as JSON |
//! | `POST /dev/lose` | forget the blob whose certificate (`0x…`) is the body |
//!
//! Payloads are kept in a folder and survive a restart. See [`certify`] for what its certificates prove. It is for development
//! and tests: no authentication, no retention limit, secrets that everybody knows.

mod bn254;
mod certify;
mod faults;
mod routes;
mod storage;

pub use certify::certify;
pub use faults::Faults;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use routes::Store;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// Connections at once; further ones wait.
const MAX_CONNECTIONS: usize = 64;

/// Reference block named by certificates where nothing else is asked for.
pub const DEFAULT_REFERENCE_BLOCK: u32 = 1;

/// A running store. Dropping the handle stops it.
#[derive(Debug)]
pub struct StoreHandle {
    address: SocketAddr,
    store: Arc<Store>,
    server: JoinHandle<()>,
}

/// Serves a folder on a listener, in a task of the current runtime.
///
/// # Errors
/// If the folder cannot be created or read.
pub fn serve(listener: TcpListener, dir: impl AsRef<Path>) -> io::Result<StoreHandle> {
    serve_at(listener, dir, DEFAULT_REFERENCE_BLOCK)
}

/// The same with the reference block that certificates name.
///
/// # Errors
/// If the folder cannot be created or read.
pub fn serve_at(
    listener: TcpListener,
    dir: impl AsRef<Path>,
    reference_block: u32,
) -> io::Result<StoreHandle> {
    let address = listener.local_addr()?;
    let store = Arc::new(Store::open(dir.as_ref(), reference_block)?);
    let server = tokio::spawn(accept(listener, store.clone()));
    Ok(StoreHandle {
        address,
        store,
        server,
    })
}

impl StoreHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets what it does wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.store.set_faults(faults);
    }

    /// Forgets a blob; whether it was there.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn lose(&self, certificate: &[u8]) -> io::Result<bool> {
        self.store.lose(certificate)
    }

    /// Stops it and closes its connections.
    pub async fn stop(mut self) {
        self.server.abort();
        // Aborted: the error says no more than that.
        let _ = (&mut self.server).await;
    }

    /// Runs until the listener fails.
    pub async fn join(mut self) {
        let _ = (&mut self.server).await;
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn accept(listener: TcpListener, store: Arc<Store>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped with this task, which ends every connection.
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let slot = slots.clone().acquire_owned().await.expect("semaphore open");
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                eprintln!("newton-da-store: accepting failed: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let store = store.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let store = store.clone();
                async move { Ok::<_, std::convert::Infallible>(store.answer(request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(60))
                .serve_connection(TokioIo::new(stream), service);
            // A client that breaks HTTP or goes away concerns nobody else.
            let _ = connection.await;
            drop(slot);
        });
    }
}
