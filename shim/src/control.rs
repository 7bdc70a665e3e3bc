//! The control channel: manifest down, transactions, status, metrics and log lines up.

use crate::config::ShimConfig;
use crate::gas::GasPayer;
use newton_relay::asynchronous::{AsyncAcceptor, AsyncStream, read_frame, write_frame};
use newton_relay::control::{Level, MAX_BODY, Manifest, ToGuest, ToHost, VERSION};
use newton_relay::{ErrorCode, HostError, WireError, printable};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::split;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that have not said hello.
const MAX_STRANGERS: usize = 16;
/// Answers waiting for the guest to read.
const QUEUE: usize = 64;
/// Transactions being sent at once.
const MAX_SUBMISSIONS: usize = 32;
/// Log lines kept.
const MAX_LINES: usize = 1000;
/// Status requests waiting for an answer.
const MAX_WAITING: usize = 64;

/// What the channel has told, and the way back. Outlives connections, enclaves and restarts of the services.
pub(crate) struct Control {
    consensus: PathBuf,
    local: PathBuf,
    operator: [u8; 20],
    gas: Option<Arc<GasPayer>>,
    submissions: Arc<Semaphore>,
    /// Number of hellos so far.
    hellos: watch::Sender<u64>,
    state: Mutex<State>,
    next_id: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The connection that stands: how to write to it, and how to end it.
    current: Option<(mpsc::Sender<ToGuest>, AbortHandle)>,
    status: Option<(Instant, String)>,
    metrics: String,
    lines: VecDeque<String>,
    waiting: HashMap<u64, oneshot::Sender<String>>,
}

impl Control {
    pub(crate) fn new(config: &ShimConfig, gas: Option<Arc<GasPayer>>) -> Self {
        Self {
            consensus: config.consensus_manifest.clone(),
            local: config.local_manifest.clone(),
            operator: config.operator.into(),
            gas,
            submissions: Arc::new(Semaphore::new(MAX_SUBMISSIONS)),
            hellos: watch::Sender::new(0),
            state: Mutex::default(),
            next_id: AtomicU64::new(1),
        }
    }

    /// Counts hellos; changes when an enclave has booted or come back.
    pub(crate) fn hellos(&self) -> watch::Receiver<u64> {
        self.hellos.subscribe()
    }

    /// The last status the enclave told, and how old it is.
    pub(crate) fn status(&self) -> Option<(Duration, String)> {
        self.state()
            .status
            .as_ref()
            .map(|(at, json)| (at.elapsed(), json.clone()))
    }

    pub(crate) fn metrics(&self) -> String {
        self.state().metrics.clone()
    }

    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.state().lines.iter().cloned().collect()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.state()
            .current
            .as_ref()
            .is_some_and(|(queue, _)| !queue.is_closed())
    }

    /// Asks for a fresh status.
    pub(crate) async fn request_status(&self, patience: Duration) -> Option<String> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state();
            if state.waiting.len() >= MAX_WAITING {
                return None;
            }
            state.waiting.insert(id, sender);
        }
        let answer = if self.tell(ToGuest::StatusRequest { id }) {
            timeout(patience, receiver).await.ok().and_then(Result::ok)
        } else {
            None
        };
        self.state().waiting.remove(&id);
        answer
    }

    /// Asks the enclave to stop in order; false if nobody is there to ask.
    pub(crate) fn shutdown(&self) -> bool {
        self.tell(ToGuest::Shutdown)
    }

    fn tell(&self, message: ToGuest) -> bool {
        self.state()
            .current
            .as_ref()
            .is_some_and(|(queue, _)| queue.try_send(message).is_ok())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every section leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manifest(&self) -> Result<Manifest, HostError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| {
                tracing::error!(path = %path.display(), %error, "manifest cannot be read");
                HostError::new(ErrorCode::Io, "the host cannot read the manifest")
            })
        };
        Ok(Manifest {
            consensus: read(&self.consensus)?,
            local: read(&self.local)?,
            operator: self.operator,
        })
    }

    fn take(
        self: &Arc<Self>,
        message: ToHost,
        back: &mpsc::Sender<ToGuest>,
    ) -> Result<(), WireError> {
        match message {
            ToHost::Hello { .. } => {
                return Err(WireError::Invalid {
                    what: "control message",
                    why: "second hello",
                });
            }
            ToHost::Submit { id, transaction } => {
                let Ok(permit) = self.submissions.clone().try_acquire_owned() else {
                    let error = HostError::new(ErrorCode::Busy, "too many transactions at once");
                    // A guest that does not read its answers gets none.
                    let _ = back.try_send(ToGuest::SubmitFailed { id, error });
                    return Ok(());
                };
                let (control, back) = (self.clone(), back.clone());
                tokio::spawn(async move {
                    let sent = match &control.gas {
                        Some(gas) => gas.submit(&transaction).await,
                        None => Err(HostError::new(
                            ErrorCode::Rejected,
                            "this host has no gas payer",
                        )),
                    };
                    let answer = match sent {
                        Ok(hash) => ToGuest::Submitted {
                            id,
                            transaction_hash: hash.0,
                        },
                        Err(error) => {
                            tracing::warn!(chain = transaction.chain_id, %error, "transaction not sent");
                            ToGuest::SubmitFailed { id, error }
                        }
                    };
                    let _ = back.try_send(answer);
                    drop(permit);
                });
            }
            ToHost::Log { level, line } => self.log(level, &line),
            ToHost::Metrics { text } => self.state().metrics = text,
            ToHost::Status { id, json } => {
                let mut state = self.state();
                if let Some(waiting) = state.waiting.remove(&id) {
                    // The asker may have given up.
                    let _ = waiting.send(json.clone());
                }
                state.status = Some((Instant::now(), json));
            }
        }
        Ok(())
    }

    fn log(&self, level: Level, line: &str) {
        let line = printable(line.as_bytes(), line.len());
        match level {
            Level::Error => tracing::error!(target: "enclave", "{line}"),
            Level::Warn => tracing::warn!(target: "enclave", "{line}"),
            Level::Info => tracing::info!(target: "enclave", "{line}"),
            Level::Debug => tracing::debug!(target: "enclave", "{line}"),
            Level::Trace => tracing::trace!(target: "enclave", "{line}"),
        }
        let mut state = self.state();
        if state.lines.len() == MAX_LINES {
            state.lines.pop_front();
        }
        state.lines.push_back(format!("{level:?} {line}"));
    }
}

/// Accepts until it is dropped.
pub(crate) async fn serve(acceptor: AsyncAcceptor, control: Arc<Control>) {
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let permit = strangers
            .clone()
            .acquire_owned()
            .await
            .expect("semaphore open");
        while connections.try_join_next().is_some() {}
        let mut stream = match acceptor.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a control connection failed");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let control = control.clone();
        connections.spawn(async move {
            let result = match greet(&mut stream, &control).await {
                Ok(true) => {
                    drop(permit);
                    converse(stream, &control).await
                }
                other => other.map(|_| ()),
            };
            if let Err(error) = result {
                tracing::debug!(%error, "control connection ended");
            }
        });
    }
}

/// The hello; whether the guest was welcomed.
async fn greet(stream: &mut AsyncStream, control: &Control) -> Result<bool, WireError> {
    let timed_out = |_| WireError::Io(std::io::ErrorKind::TimedOut.into());
    let Some(body) = timeout(HELLO_TIMEOUT, read_frame(stream, MAX_BODY))
        .await
        .map_err(timed_out)??
    else {
        return Ok(false);
    };
    let answer = match ToHost::decode(&body) {
        Ok(ToHost::Hello { version: VERSION }) => control
            .manifest()
            .map_or_else(ToGuest::Refused, ToGuest::Welcome),
        Ok(ToHost::Hello { version }) => {
            let text = format!("control protocol {version}, expected {VERSION}");
            ToGuest::Refused(HostError::new(ErrorCode::Version, &text))
        }
        Ok(_) => ToGuest::Refused(HostError::new(
            ErrorCode::Malformed,
            "the first message must be hello",
        )),
        Err(error) => ToGuest::Refused(HostError::new(ErrorCode::Malformed, &error.to_string())),
    };
    let welcome = matches!(answer, ToGuest::Welcome(_));
    let body = match answer.encode() {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "the manifest cannot be sent");
            let refused = ToGuest::Refused(HostError::new(ErrorCode::Internal, &error.to_string()));
            write_frame(stream, &refused.encode()?, MAX_BODY).await?;
            return Ok(false);
        }
    };
    write_frame(stream, &body, MAX_BODY).await?;
    Ok(welcome)
}

/// Serves a welcomed guest. It replaces the connection before, if one still stands: an enclave has one control channel.
async fn converse(stream: AsyncStream, control: &Arc<Control>) -> Result<(), WireError> {
    let (mut reading, mut writing) = split(stream);
    let (back, mut queue) = mpsc::channel::<ToGuest>(QUEUE);
    let (ender, ended) = oneshot::channel::<()>();
    // A task that only waits: aborting it drops the sender, which ends this conversation from outside.
    let standing = tokio::spawn(async move {
        let _ender = ender;
        std::future::pending::<()>().await;
    });
    let handle = standing.abort_handle();
    if let Some((_, previous)) = control
        .state()
        .current
        .replace((back.clone(), handle.clone()))
    {
        previous.abort();
    }
    control.hellos.send_modify(|n| *n += 1);
    let read = async {
        while let Some(body) = read_frame(&mut reading, MAX_BODY).await? {
            control.take(ToHost::decode(&body)?, &back)?;
        }
        Ok(())
    };
    let write = async {
        while let Some(message) = queue.recv().await {
            write_frame(&mut writing, &message.encode()?, MAX_BODY).await?;
        }
        Ok(())
    };
    let result = tokio::select! {
        result = read => result,
        result = write => result,
        _ = ended => Ok(()),
    };
    handle.abort();
    result
}
