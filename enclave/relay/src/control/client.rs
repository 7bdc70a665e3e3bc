//! The enclave's end of the control channel: a handle any thread may use, one thread that writes, one that reads and
//! connects again when the shim restarts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Level, MAX_BODY, MAX_LOG_LINE, Manifest, ToGuest, ToHost, Transaction, VERSION};
use crate::transport::backoff;
use crate::{Connector, HostError, Stream, WireError, ports, read_frame, write_frame};

/// What the appliance does when the host asks.
pub trait ControlHandler: Send + Sync + 'static {
    /// The appliance's status as JSON, without secrets; cut by the caller to `MAX_STATUS` is an error, so keep it short.
    fn status(&self) -> String;

    /// The host asks for an orderly stop.
    fn shutdown(&self);
}

/// How patient the client is.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// Longest wait for an answer to Hello.
    pub hello_timeout: Duration,
    /// Longest wait for the answer to a transaction.
    pub submit_timeout: Duration,
}

impl Default for ControlOptions {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(5),
            submit_timeout: Duration::from_secs(120),
        }
    }
}

/// Why a control request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The stream or the host's bytes are bad.
    #[error("control channel: {0}")]
    Wire(#[from] WireError),
    /// The host reports an error.
    #[error("control channel: {0}")]
    Host(#[from] HostError),
    /// The host answered out of protocol.
    #[error("control channel: expected {expected}, got {got}")]
    Unexpected {
        /// What was due.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// No answer within the limit.
    #[error("control channel: no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The connection broke before the answer; whether the host acted is not known.
    #[error("control channel: connection lost before the answer")]
    Disconnected,
    /// Too much is waiting for the host to read.
    #[error("control channel: the host does not keep up")]
    Busy,
}

/// A parent that answered.
#[derive(Debug)]
pub struct Parent {
    /// How to reach its other services.
    pub connector: Connector,
    /// What it sent at once.
    pub manifest: Manifest,
    stream: Stream,
}

/// Finds the parent: all candidates are asked at the same time and the first that answers Hello is taken, since a wrong
/// CID only fails after seconds. Tries again, with growing pauses, until the deadline.
///
/// # Errors
/// The last failure, once `patience` has passed. A host that refuses the version ends the search at once.
pub fn find_parent(
    candidates: &[Connector],
    options: &ControlOptions,
    patience: Duration,
) -> Result<Parent, ControlError> {
    let deadline = Instant::now() + patience;
    let (sender, receiver) = mpsc::channel();
    let found = Arc::new(AtomicBool::new(false));
    for connector in candidates {
        let (sender, found, options) = (sender.clone(), Arc::clone(&found), options.clone());
        let connector = connector.clone();
        thread::spawn(move || {
            for attempt in 0.. {
                let result = hello(&connector, &options);
                let retry = matches!(&result, Err(ControlError::Wire(e)) if e.is_disconnect());
                let result = result.map(|(stream, manifest)| Parent {
                    connector: connector.clone(),
                    manifest,
                    stream,
                });
                if sender.send(result).is_err()
                    || !retry
                    || found.load(Ordering::Relaxed)
                    || Instant::now() >= deadline
                {
                    return;
                }
                thread::sleep(backoff(attempt));
            }
        });
    }
    drop(sender);
    let mut last = ControlError::Timeout(patience);
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(parent)) => {
                found.store(true, Ordering::Relaxed);
                return Ok(parent);
            }
            Ok(Err(error @ ControlError::Host(_))) => {
                found.store(true, Ordering::Relaxed);
                return Err(error);
            }
            Ok(Err(error)) => last = error,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                found.store(true, Ordering::Relaxed);
                return Err(last);
            }
        }
    }
}

fn hello(
    connector: &Connector,
    options: &ControlOptions,
) -> Result<(Stream, Manifest), ControlError> {
    let mut stream = connector.connect(ports::CONTROL).map_err(WireError::from)?;
    stream
        .set_timeouts(Some(options.hello_timeout))
        .map_err(WireError::from)?;
    write_frame(
        &mut stream,
        &ToHost::Hello { version: VERSION }.encode()?,
        MAX_BODY,
    )?;
    let Some(body) = read_frame(&mut stream, MAX_BODY)? else {
        return Err(WireError::Truncated {
            what: "frame",
            expected: crate::HEADER_BYTES,
            got: 0,
        }
        .into());
    };
    stream.set_timeouts(None).map_err(WireError::from)?;
    match ToGuest::decode(&body)? {
        ToGuest::Welcome(manifest) => Ok((stream, manifest)),
        ToGuest::Refused(error) => Err(error.into()),
        other => Err(ControlError::Unexpected {
            expected: "Welcome",
            got: other.name(),
        }),
    }
}

/// A handle on the control channel; clones share it. Logs and metrics never wait for the host: what it does not take is
/// dropped and counted.
#[derive(Clone)]
pub struct ControlClient {
    shared: Arc<Shared>,
}

/// Who waits for the answer to which transaction.
type Pending = HashMap<u64, SyncSender<Result<[u8; 32], ControlError>>>;

struct Shared {
    queue: SyncSender<ToHost>,
    pending: Mutex<Pending>,
    current: Mutex<Option<Stream>>,
    connected: AtomicBool,
    closed: AtomicBool,
    next_id: AtomicU64,
    dropped: AtomicU64,
    submit_timeout: Duration,
}

/// Messages waiting for the host.
const QUEUE: usize = 256;
/// Transactions waiting for an answer.
const MAX_PENDING: usize = 64;

impl ControlClient {
    /// Takes the connection that [`find_parent`] made and keeps it up. When the host comes back after a restart, the
    /// manifest it sends then is **ignored**: configuration is fixed at boot.
    #[must_use]
    pub fn start(
        parent: Parent,
        options: ControlOptions,
        handler: Arc<dyn ControlHandler>,
    ) -> Self {
        let (queue, outbox) = mpsc::sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            queue,
            pending: Mutex::new(HashMap::new()),
            current: Mutex::new(None),
            connected: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
            dropped: AtomicU64::new(0),
            submit_timeout: options.submit_timeout,
        });
        shared.adopt(&parent.stream);
        let writer = Arc::clone(&shared);
        thread::spawn(move || writer.write_loop(&outbox));
        let reader = Arc::clone(&shared);
        thread::spawn(move || {
            reader.read_loop(parent.stream, &parent.connector, &options, handler.as_ref());
        });
        Self { shared }
    }

    /// Has the gas payer send a transaction and waits for its hash, which is the host's word: look for the transaction on
    /// chain.
    ///
    /// # Errors
    /// [`ControlError`]; after [`ControlError::Disconnected`] and [`ControlError::Timeout`] it may still have been sent.
    pub fn submit(&self, transaction: Transaction) -> Result<[u8; 32], ControlError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let message = ToHost::Submit { id, transaction };
        message.encode()?;
        let (sender, receiver) = mpsc::sync_channel(1);
        {
            let mut pending = self.shared.pending();
            if !self.is_connected() {
                return Err(ControlError::Disconnected);
            }
            if pending.len() >= MAX_PENDING {
                return Err(ControlError::Busy);
            }
            pending.insert(id, sender);
        }
        let answer = match self.shared.queue.try_send(message) {
            Ok(()) => match receiver.recv_timeout(self.shared.submit_timeout) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout) => {
                    Err(ControlError::Timeout(self.shared.submit_timeout))
                }
                Err(RecvTimeoutError::Disconnected) => Err(ControlError::Disconnected),
            },
            Err(TrySendError::Full(_)) => Err(ControlError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(ControlError::Disconnected),
        };
        self.shared.pending().remove(&id);
        answer
    }

    /// Sends a log line, cut to `MAX_LOG_LINE` bytes. It must be redacted already.
    pub fn log(&self, level: Level, line: &str) {
        let mut end = line.len().min(MAX_LOG_LINE);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        self.send(ToHost::Log {
            level,
            line: line[..end].to_owned(),
        });
    }

    /// Sends the metrics text.
    pub fn metrics(&self, text: String) {
        self.send(ToHost::Metrics { text });
    }

    /// Sends a status that was not asked for.
    pub fn status(&self, json: String) {
        self.send(ToHost::Status { id: 0, json });
    }

    /// How many messages were dropped because the host was away, did not keep up, or they broke a limit.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// True while a connection stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::SeqCst)
    }

    /// Closes the channel for good.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.disconnect();
    }

    fn send(&self, message: ToHost) {
        if self.shared.queue.try_send(message).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // A panic cannot leave the map half-changed: every section is one call.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> MutexGuard<'_, Option<Stream>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `stream` the one that is written to.
    fn adopt(&self, stream: &Stream) {
        let clone = stream.try_clone().ok();
        let up = clone.is_some();
        *self.current() = clone;
        self.connected.store(up, Ordering::SeqCst);
    }

    fn disconnect(&self) {
        self.connected.store(false, Ordering::SeqCst);
        if let Some(stream) = self.current().take() {
            // It may be gone already, which is what we want.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        for (_, waiting) in self.pending().drain() {
            // The waiter may have given up.
            let _ = waiting.try_send(Err(ControlError::Disconnected));
        }
    }

    fn write_loop(&self, outbox: &Receiver<ToHost>) {
        loop {
            let message = match outbox.recv_timeout(Duration::from_secs(1)) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) if !self.closed.load(Ordering::SeqCst) => continue,
                Err(_) => return,
            };
            // A clone, so that disconnecting never waits for a blocked write.
            let stream = self
                .current()
                .as_ref()
                .and_then(|stream| stream.try_clone().ok());
            let sent = match (stream, message.encode()) {
                (Some(mut stream), Ok(body)) => match write_frame(&mut stream, &body, MAX_BODY) {
                    Ok(()) => true,
                    Err(_) => {
                        self.disconnect();
                        false
                    }
                },
                _ => false,
            };
            if !sent {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn read_loop(
        &self,
        mut stream: Stream,
        connector: &Connector,
        options: &ControlOptions,
        handler: &dyn ControlHandler,
    ) {
        loop {
            // Any end is the same to us: connect again.
            while let Ok(Some(body)) = read_frame(&mut stream, MAX_BODY) {
                let Ok(message) = ToGuest::decode(&body) else {
                    break;
                };
                if !self.dispatch(message, handler) {
                    break;
                }
            }
            self.disconnect();
            let mut attempt = 0;
            stream = loop {
                if self.closed.load(Ordering::SeqCst) {
                    return;
                }
                match hello(connector, options) {
                    Ok((stream, _)) => break stream,
                    Err(_) => thread::sleep(backoff(attempt)),
                }
                attempt += 1;
            };
            self.adopt(&stream);
        }
    }

    /// False if the host broke the protocol.
    fn dispatch(&self, message: ToGuest, handler: &dyn ControlHandler) -> bool {
        let (id, answer) = match message {
            ToGuest::Submitted {
                id,
                transaction_hash,
            } => (id, Ok(transaction_hash)),
            ToGuest::SubmitFailed { id, error } => (id, Err(error.into())),
            ToGuest::StatusRequest { id } => {
                if self
                    .queue
                    .try_send(ToHost::Status {
                        id,
                        json: handler.status(),
                    })
                    .is_err()
                {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                return true;
            }
            ToGuest::Shutdown => {
                handler.shutdown();
                return true;
            }
            ToGuest::Welcome(_) | ToGuest::Refused(_) => return false,
        };
        // An answer nobody waits for (any more) is dropped.
        if let Some(waiting) = self.pending().remove(&id) {
            let _ = waiting.try_send(answer);
        }
        true
    }
}

impl ToGuest {
    /// The message's name, for errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "Welcome",
            Self::Refused(_) => "Refused",
            Self::Submitted { .. } => "Submitted",
            Self::SubmitFailed { .. } => "SubmitFailed",
            Self::StatusRequest { .. } => "StatusRequest",
            Self::Shutdown => "Shutdown",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Acceptor, ErrorCode};

    #[derive(Default)]
    struct Handler {
        stopped: AtomicBool,
    }

    impl ControlHandler for Handler {
        fn status(&self) -> String {
            r#"{"up":true}"#.into()
        }

        fn shutdown(&self) {
            self.stopped.store(true, Ordering::SeqCst);
        }
    }

    fn send(stream: &mut Stream, message: &ToGuest) {
        write_frame(stream, &message.encode().unwrap(), MAX_BODY).unwrap();
    }

    fn receive(stream: &mut Stream) -> ToHost {
        ToHost::decode(&read_frame(stream, MAX_BODY).unwrap().unwrap()).unwrap()
    }

    fn welcome(acceptor: &Acceptor) -> Stream {
        let mut stream = acceptor.accept().unwrap();
        assert_eq!(receive(&mut stream), ToHost::Hello { version: VERSION });
        let manifest = Manifest {
            consensus: "c".into(),
            local: "l".into(),
            operator: [1; 20],
        };
        send(&mut stream, &ToGuest::Welcome(manifest));
        stream
    }

    fn transaction() -> Transaction {
        Transaction {
            chain_id: 1,
            to: [2; 20],
            calldata: vec![3],
            gas_limit: 4,
        }
    }

    #[test]
    fn the_first_candidate_that_answers_is_taken_even_if_the_shim_comes_late() {
        let silent = tempfile::tempdir().unwrap();
        let real = tempfile::tempdir().unwrap();
        // Accepts into its backlog and never answers, as CID 3 does under vhost-device-vsock.
        let _silent = Acceptor::unix(&silent.path().join("host_7000")).unwrap();
        let path = real.path().join("host_7000");
        let host = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            let acceptor = Acceptor::unix(&path).unwrap();
            welcome(&acceptor)
        });
        let candidates = [&silent, &real].map(|dir| Connector::Unix {
            dir: dir.path().to_owned(),
        });
        let started = Instant::now();
        let parent = find_parent(
            &candidates,
            &ControlOptions::default(),
            Duration::from_secs(20),
        )
        .unwrap();
        assert!(
            started.elapsed() < Duration::from_secs(4),
            "waited for the silent one"
        );
        assert_eq!(parent.connector, candidates[1]);
        assert_eq!(parent.manifest.operator, [1; 20]);
        host.join().unwrap();
    }

    #[test]
    fn a_refusal_ends_the_search() {
        let dir = tempfile::tempdir().unwrap();
        let acceptor = Acceptor::unix(&dir.path().join("host_7000")).unwrap();
        let host = thread::spawn(move || {
            let mut stream = acceptor.accept().unwrap();
            receive(&mut stream);
            send(
                &mut stream,
                &ToGuest::Refused(HostError::new(ErrorCode::Version, "speaks 2")),
            );
        });
        let candidates = [Connector::Unix {
            dir: dir.path().to_owned(),
        }];
        let error = find_parent(
            &candidates,
            &ControlOptions::default(),
            Duration::from_secs(20),
        )
        .unwrap_err();
        assert!(matches!(error, ControlError::Host(e) if e.code() == ErrorCode::Version));
        host.join().unwrap();
    }

    #[test]
    fn requests_answers_and_a_restart_of_the_shim() {
        let dir = tempfile::tempdir().unwrap();
        let acceptor = Acceptor::unix(&dir.path().join("host_7000")).unwrap();
        let host = thread::spawn(move || {
            let mut stream = welcome(&acceptor);
            let ToHost::Submit { id, .. } = receive(&mut stream) else {
                panic!("expected Submit")
            };
            send(&mut stream, &ToGuest::StatusRequest { id: 77 });
            assert_eq!(
                receive(&mut stream),
                ToHost::Status {
                    id: 77,
                    json: r#"{"up":true}"#.into()
                }
            );
            // An answer nobody asked for, then the right one.
            send(
                &mut stream,
                &ToGuest::Submitted {
                    id: id + 100,
                    transaction_hash: [0; 32],
                },
            );
            send(
                &mut stream,
                &ToGuest::Submitted {
                    id,
                    transaction_hash: [5; 32],
                },
            );
            let ToHost::Submit { id, .. } = receive(&mut stream) else {
                panic!("expected Submit")
            };
            send(
                &mut stream,
                &ToGuest::SubmitFailed {
                    id,
                    error: HostError::new(ErrorCode::Reverted, "x"),
                },
            );
            // The shim dies with a transaction in flight, and comes back.
            let ToHost::Submit { .. } = receive(&mut stream) else {
                panic!("expected Submit")
            };
            drop(stream);
            let mut stream = welcome(&acceptor);
            let ToHost::Log { line, .. } = receive(&mut stream) else {
                panic!("expected Log")
            };
            send(&mut stream, &ToGuest::Shutdown);
            line
        });
        let candidates = [Connector::Unix {
            dir: dir.path().to_owned(),
        }];
        let options = ControlOptions::default();
        let parent = find_parent(&candidates, &options, Duration::from_secs(20)).unwrap();
        let handler = Arc::new(Handler::default());
        let client = ControlClient::start(parent, options, handler.clone());
        assert_eq!(client.submit(transaction()).unwrap(), [5; 32]);
        assert!(
            matches!(client.submit(transaction()), Err(ControlError::Host(e)) if e.code() == ErrorCode::Reverted)
        );
        assert!(matches!(
            client.submit(transaction()),
            Err(ControlError::Disconnected)
        ));
        while !client.is_connected() {
            thread::sleep(Duration::from_millis(10));
        }
        client.log(Level::Info, &"é".repeat(MAX_LOG_LINE));
        assert_eq!(host.join().unwrap().len(), MAX_LOG_LINE);
        while !handler.stopped.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
        }
        client.close();
    }

    #[test]
    fn logs_never_wait_for_a_host_that_does_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let acceptor = Acceptor::unix(&dir.path().join("host_7000")).unwrap();
        let host = thread::spawn(move || welcome(&acceptor));
        let candidates = [Connector::Unix {
            dir: dir.path().to_owned(),
        }];
        let parent = find_parent(
            &candidates,
            &ControlOptions::default(),
            Duration::from_secs(20),
        )
        .unwrap();
        let _stream = host.join().unwrap();
        let client = ControlClient::start(
            parent,
            ControlOptions::default(),
            Arc::new(Handler::default()),
        );
        let line = "x".repeat(MAX_LOG_LINE);
        for _ in 0..2000 {
            client.log(Level::Info, &line);
        }
        assert!(client.dropped() > 0);
        client.close();
    }
}
