//! The page file and its service.
//!
//! One connection is served at a time, frames in the order they come. A new connection ends the one before and waits until
//! its last request is done: after an enclave was killed, nothing of it can reach the file any more once its successor
//! has been greeted.

use crate::ShimError;
use newton_relay::disk::{MAX_BODY, Reply, Request, VERSION, decode_request, encode_reply};
use newton_relay::{Acceptor, ErrorCode, HostError, Stream, WireError, read_frame, write_frame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A regular file of slots. Positioned reads and writes, `fdatasync` on flush.
#[derive(Debug)]
pub(crate) struct PageFile {
    file: File,
    max_bytes: u64,
    /// Set when a flush failed: the kernel may have dropped dirty pages then, and a later flush would claim that all is well.
    broken: AtomicBool,
}

impl PageFile {
    /// Opens or creates the file and locks it against another shim.
    pub(crate) fn open(path: &Path, max_bytes: u64) -> Result<Self, ShimError> {
        let failed = |source| ShimError::File {
            what: "page file",
            path: path.to_owned(),
            source,
        };
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            return Err(match error {
                rustix::io::Errno::WOULDBLOCK => ShimError::PageFileInUse {
                    path: path.to_owned(),
                },
                error => failed(error.into()),
            });
        }
        // The name itself must be on stable storage before anything that is flushed through it.
        let parent = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(failed)?;
        Ok(Self {
            file,
            max_bytes,
            broken: AtomicBool::new(false),
        })
    }

    fn execute<'b>(
        &self,
        request: &Request<'_>,
        slot: u64,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Reply<'b>, HostError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(HostError::new(
                ErrorCode::Io,
                "an earlier flush failed; the shim must be restarted",
            ));
        }
        match request {
            Request::Hello { .. } => Err(HostError::new(ErrorCode::Malformed, "second hello")),
            Request::Read { ranges } => {
                buffer.clear();
                for range in ranges {
                    let length = u64::from(range.count) * slot;
                    let start = self.place(range.first, length, slot, ErrorCode::OutOfRange)?;
                    let at = buffer.len();
                    // `decode_request` bounded the sum by the longest reply.
                    buffer.resize(at + length as usize, 0);
                    self.file
                        .read_exact_at(&mut buffer[at..], start)
                        .map_err(|e| host_error(&e))?;
                }
                Ok(Reply::Data(buffer))
            }
            Request::Write { runs } => {
                for run in runs {
                    let start =
                        self.place(run.first, run.data.len() as u64, slot, ErrorCode::NoSpace)?;
                    self.file
                        .write_all_at(run.data, start)
                        .map_err(|e| host_error(&e))?;
                }
                Ok(Reply::Done)
            }
            Request::Flush => match self.file.sync_data() {
                Ok(()) => Ok(Reply::Done),
                Err(error) => {
                    self.broken.store(true, Ordering::SeqCst);
                    tracing::error!(%error, "flushing the page file failed");
                    Err(host_error(&error))
                }
            },
            Request::Len => Ok(Reply::Len(
                self.file.metadata().map_err(|e| host_error(&e))?.len(),
            )),
            Request::SetLen { slots } => {
                let end = self.place(*slots, 0, slot, ErrorCode::NoSpace)?;
                self.file.set_len(end).map_err(|e| host_error(&e))?;
                Ok(Reply::Done)
            }
        }
    }

    /// Where slot `first` begins, for `length` bytes that must lie within the file's limit.
    fn place(&self, first: u64, length: u64, slot: u64, code: ErrorCode) -> Result<u64, HostError> {
        let start = first.checked_mul(slot);
        let start = start.filter(|s| {
            s.checked_add(length)
                .is_some_and(|end| end <= self.max_bytes)
        });
        start.ok_or_else(|| HostError::new(code, "beyond the page file's limit"))
    }
}

fn host_error(error: &io::Error) -> HostError {
    let code = match error.kind() {
        io::ErrorKind::UnexpectedEof => ErrorCode::OutOfRange,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorCode::NoSpace
        }
        _ => ErrorCode::Io,
    };
    HostError::new(code, &error.to_string())
}

/// The service: a thread that accepts, and one for the connection that stands.
pub(crate) struct DiskService {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DiskService {
    pub(crate) fn start(acceptor: Acceptor, file: Arc<PageFile>) -> io::Result<Self> {
        acceptor.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name("disk".into())
            .spawn(move || accept(&acceptor, &file, &stopped))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the connection that stands and waits for its last request.
    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for DiskService {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The connection that stands.
struct Current {
    stream: Stream,
    thread: JoinHandle<()>,
}

impl Current {
    fn end(self) {
        // It may have ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.thread.join();
    }
}

fn accept(acceptor: &Acceptor, file: &Arc<PageFile>, stop: &AtomicBool) {
    let mut current: Option<Current> = None;
    while !stop.load(Ordering::SeqCst) {
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        // Nothing, an interruption or an error alike: accept says which.
        let _ = poll(&mut [PollFd::new(acceptor, PollFlags::IN)], Some(&tick));
        let started = match acceptor.accept() {
            Ok(stream) => {
                if let Some(previous) = current.take() {
                    previous.end();
                }
                start(stream, file)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => Err(error),
        };
        match started {
            Ok(started) => current = Some(started),
            Err(error) => {
                tracing::warn!(%error, "accepting a disk connection failed");
                thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
    if let Some(current) = current {
        current.end();
    }
}

fn start(stream: Stream, file: &Arc<PageFile>) -> io::Result<Current> {
    stream.set_nonblocking(false)?;
    let mut clone = stream.try_clone()?;
    let file = file.clone();
    let thread = thread::Builder::new()
        .name("disk-connection".into())
        .spawn(move || {
            match serve(&mut clone, &file) {
                Ok(()) => {
                    tracing::debug!("disk connection ended");
                }
                Err(error) if error.is_disconnect() => {
                    tracing::debug!(%error, "disk connection ended");
                }
                Err(error) => {
                    tracing::warn!(%error, "disk connection broken off");
                }
            }
            // The other handle is still held; the guest must see the end.
            let _ = clone.shutdown(Shutdown::Both);
        })?;
    Ok(Current { stream, thread })
}

fn serve(stream: &mut Stream, file: &PageFile) -> Result<(), WireError> {
    let mut slot_bytes = None;
    let mut buffer = Vec::new();
    while let Some(body) = read_frame(stream, MAX_BODY)? {
        let (id, request) = decode_request(&body, slot_bytes.unwrap_or(1))?;
        let reply = match (&request, slot_bytes) {
            (
                Request::Hello {
                    version: VERSION,
                    slot_bytes: asked,
                },
                None,
            ) => {
                slot_bytes = Some(*asked);
                Ok(Reply::Done)
            }
            (Request::Hello { version, .. }, None) => Err(HostError::new(
                ErrorCode::Version,
                &format!("disk protocol {version}, expected {VERSION}"),
            )),
            (_, None) => Err(HostError::new(
                ErrorCode::Malformed,
                "the first request must be hello",
            )),
            (request, Some(slot)) => file.execute(request, u64::from(slot), &mut buffer),
        };
        let reply = reply.unwrap_or_else(Reply::Failed);
        write_frame(stream, &encode_reply(id, &reply)?, MAX_BODY)?;
    }
    Ok(())
}
