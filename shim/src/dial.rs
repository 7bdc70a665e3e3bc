//! Outgoing TCP for the guest, to the allow-list only.

use crate::allow::AllowList;
use crate::config::Limits;
use crate::pipe;
use newton_relay::asynchronous::{AsyncAcceptor, AsyncStream, read_frame, write_frame};
use newton_relay::dial::{Class, MAX_BODY, Target, encode_answer};
use newton_relay::{ErrorCode, HostError, WireError};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Longest wait for the guest's header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections whose header has not come yet.
const MAX_UNANSWERED: usize = 64;

/// Accepts until it is dropped.
pub(crate) async fn serve(acceptor: AsyncAcceptor, allow: Arc<AllowList>, limits: Limits) {
    let dialler = Arc::new(Dialler {
        allow,
        all: Arc::new(Semaphore::new(limits.dial_connections)),
        public: Arc::new(Semaphore::new(limits.dial_connections / 2)),
        limits,
    });
    let unanswered = Arc::new(Semaphore::new(MAX_UNANSWERED));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let permit = unanswered
            .clone()
            .acquire_owned()
            .await
            .expect("semaphore open");
        while connections.try_join_next().is_some() {}
        let guest = match acceptor.accept().await {
            Ok(guest) => guest,
            Err(error) => {
                tracing::warn!(%error, "accepting a dial request failed");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let dialler = dialler.clone();
        connections.spawn(async move {
            if let Err(error) = dialler.handle(guest, permit).await {
                tracing::debug!(%error, "outgoing connection");
            }
        });
    }
}

struct Dialler {
    allow: Arc<AllowList>,
    limits: Limits,
    all: Arc<Semaphore>,
    public: Arc<Semaphore>,
}

/// Slots of one connection: of all, and of its class.
type Slots = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl Dialler {
    async fn handle(
        &self,
        mut guest: AsyncStream,
        unanswered: OwnedSemaphorePermit,
    ) -> Result<(), WireError> {
        let timed_out = |_| WireError::Io(std::io::ErrorKind::TimedOut.into());
        let header = timeout(HEADER_TIMEOUT, read_frame(&mut guest, MAX_BODY))
            .await
            .map_err(timed_out)??;
        let Some(header) = header else { return Ok(()) };
        let opened = match Target::decode(&header) {
            Ok(target) => self.open(&target).await,
            Err(error) => Err(HostError::new(ErrorCode::Malformed, &error.to_string())),
        };
        let (answer, outside) = match opened {
            Ok(opened) => (Ok(()), Some(opened)),
            Err(error) => {
                tracing::info!(%error, "dial refused");
                (Err(error), None)
            }
        };
        write_frame(&mut guest, &encode_answer(&answer), MAX_BODY).await?;
        drop(unanswered);
        if let Some((outside, _slots)) = outside {
            pipe::join(guest, outside, self.limits.idle()).await?;
        }
        Ok(())
    }

    async fn open(&self, target: &Target) -> Result<(TcpStream, Slots), HostError> {
        self.allow.check(target)?;
        let busy = |_| HostError::new(ErrorCode::Busy, "too many connections");
        let all = self.all.clone().try_acquire_owned().map_err(busy)?;
        let public = match target.class {
            Class::Public => Some(self.public.clone().try_acquire_owned().map_err(busy)?),
            _ => None,
        };
        let late = |_| HostError::new(ErrorCode::Timeout, "no connection in time");
        let stream = timeout(self.limits.connect(), self.connect(target))
            .await
            .map_err(late)??;
        Ok((stream, (all, public)))
    }

    async fn connect(&self, target: &Target) -> Result<TcpStream, HostError> {
        let unresolved = |e: std::io::Error| HostError::new(ErrorCode::NotFound, &e.to_string());
        let resolved = lookup_host((target.host(), target.port))
            .await
            .map_err(unresolved)?
            .collect();
        let mut last = None;
        for address in self.allow.addresses(target, resolved)? {
            match TcpStream::connect(address)
                .await
                .and_then(|s| s.set_nodelay(true).map(|()| s))
            {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        let text = last.map_or_else(String::new, |e| e.to_string());
        Err(HostError::new(ErrorCode::Unreachable, &text))
    }
}
