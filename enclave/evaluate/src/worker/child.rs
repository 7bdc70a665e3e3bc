//! The child's side.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use alloy_primitives::B256;

use super::{
    Verdict, sandbox,
    wire::{self, CompileRefusal, FromChild, Receive, Reply},
};
use crate::{
    component::{CompileError, Components, TrustedModule},
    error::EvaluateError,
    evaluate::{Evaluator, check_artifact},
    json::Json,
    rego::{Policy, RegoInput},
    request::{ArtifactRef, ArtifactSource, Supply},
    schema::Schema,
    transcript::{FetchError, HttpFetcher, HttpOutcome, HttpRequest},
};

/// Entry of a worker process; never returns.
///
/// Call it first thing in `main` when the first argument is the configured one: it takes standard input for its socket and closes every
/// other descriptor.
pub fn worker_main() -> ! {
    // Panics quote values, and values may be secrets. Exit status and signal are all the parent learns.
    std::panic::set_hook(Box::new(|_| {}));
    let status =
        match start().and_then(|(channel, evaluator, cpu)| serve(&channel, &evaluator, cpu)) {
            Ok(()) => 0,
            Err(_) => 1,
        };
    std::process::exit(status)
}

type SharedChannel = Arc<Mutex<File>>;

fn start() -> io::Result<(SharedChannel, Evaluator, Duration)> {
    let mut channel = sandbox::take_channel()?;
    let limits = match wire::read(&mut channel)? {
        Receive::Hello(limits) => limits,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let started = sandbox::limit(&limits)
        .and_then(|()| Evaluator::new(limits.machine).map_err(io::Error::other))
        .and_then(|evaluator| rehearse().map(|()| evaluator))
        .and_then(|evaluator| sandbox::seal().map(|()| evaluator));
    match started {
        Ok(evaluator) => {
            wire::write(&mut channel, &FromChild::Ready, 0)?;
            let half = Duration::from_secs(limits.cpu_seconds / 2);
            Ok((Arc::new(Mutex::new(channel)), evaluator, half))
        }
        Err(error) => {
            wire::write(&mut channel, &FromChild::Failed(error.to_string()), 0)?;
            Err(error)
        }
    }
}

/// Goes once through every library with content of our own, so that whatever they set up on first use (tables, hash seeds, an open
/// random device where the C library is static) is there before the system calls for it are gone.
fn rehearse() -> io::Result<()> {
    let schema = br#"{"type":"object","properties":{"a":{"pattern":"^a$"},"b":{"format":"date-time"}},"uniqueItems":true}"#;
    let schema = Schema::compile(schema).map_err(io::Error::other)?;
    let document = Json::parse(br#"{"a":"b","b":"now"}"#).map_err(io::Error::other)?;
    let violations = schema.validate(&document).err().unwrap_or_default();
    let source = "package rehearsal\n\
        import rego.v1\n\
        seen contains regex.match(\"a+\", x) if some x in [\"a\", input.a]\n\
        seen contains time.clock([time.now_ns(), \"UTC\"])\n\
        seen contains glob.match(\"*.b\", [\".\"], json.marshal({\"a\": base64.encode(sprintf(\"%d\", [to_number(\"1\")]))}))";
    let policy = Policy::prepare(source.as_bytes(), "rehearsal.seen").map_err(io::Error::other)?;
    let input = RegoInput {
        input: &document,
        params: &document,
        wasm: &document,
        now_seconds: 0,
        wall: Duration::from_secs(60),
    };
    let seen = policy.evaluate(&input).map_err(io::Error::other)?;
    // Both steps have done what they do for anyone.
    if violations.len() != 2 || seen.canonical() != br#"[false,true,[0,0,0]]"# {
        return Err(io::Error::other("the rehearsal gave another result"));
    }
    Ok(())
}

fn serve(channel: &SharedChannel, evaluator: &Evaluator, cpu: Duration) -> io::Result<()> {
    let parent = Parent(Arc::clone(channel));
    let fetcher: Arc<dyn HttpFetcher> = Arc::new(Parent(Arc::clone(channel)));
    loop {
        let reply = match parent.receive() {
            Ok(Receive::Check {
                kind,
                length,
                entrypoint,
            }) => {
                let bytes = parent.receive_bytes(length)?;
                Reply::Checked(match check_artifact(kind, &bytes, entrypoint.as_deref()) {
                    Ok(()) => Verdict::Accept,
                    Err(reason) => Verdict::Reject(reason),
                })
            }
            Ok(Receive::Prewarm(wasm)) => Reply::Prewarmed(evaluator.prewarm(&wasm, &parent)),
            Ok(Receive::Evaluate(request, http)) => {
                Reply::Evaluated(evaluator.evaluate(&request, &parent, http.then_some(&fetcher)))
            }
            Ok(Receive::CheckSecrets {
                instance_id,
                schema,
                secrets,
            }) => Reply::SecretsChecked(evaluator.check_secrets(
                instance_id,
                schema.as_ref(),
                &secrets,
                &parent,
            )),
            Ok(Receive::Prepare(request, http)) => {
                Reply::Prepared(evaluator.prepare(&request, &parent, http.then_some(&fetcher)))
            }
            Ok(Receive::Conclude(request, quorum, outputs)) => {
                Reply::Concluded(evaluator.conclude(&request, quorum, &outputs, &parent))
            }
            Ok(Receive::Compile(length)) => {
                let bytes = parent.receive_bytes(length)?;
                // Whoever asks ends this process now, so that nothing else comes out of it.
                return parent.send_compiled(compile(evaluator.components(), &bytes));
            }
            Ok(
                Receive::Hello(_) | Receive::Artifact(_) | Receive::Http(_) | Receive::Module(_),
            ) => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            // The parent is gone, or has let go of this worker.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let retire = cpu_used() >= cpu;
        match parent.send(&FromChild::Done { reply, retire }) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                // Too large for a frame. The parent waits for an answer of the same kind, this one fits.
                let reason = error.to_string();
                let reply = Reply::Evaluated(Err(EvaluateError::Internal { reason }));
                parent.send(&FromChild::Done { reply, retire })?;
            }
            other => other?,
        }
    }
}

fn compile(components: &Components, bytes: &[u8]) -> Result<Vec<u8>, CompileRefusal> {
    components.precompile(bytes).map_err(|error| match error {
        CompileError::Refused(error) => CompileRefusal::Refused(error),
        CompileError::Failed(error) => CompileRefusal::Failed(error),
    })
}

fn cpu_used() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(used.tv_sec).unwrap_or_default(), 0)
}

/// The parent as a source of bytes and of HTTP.
struct Parent(SharedChannel);

impl Parent {
    fn receive(&self) -> io::Result<Receive> {
        wire::read(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn receive_bytes(&self, length: u64) -> io::Result<Vec<u8>> {
        wire::read_bytes(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            length,
        )
    }

    fn send(&self, message: &FromChild) -> io::Result<()> {
        wire::write(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            message,
            0,
        )
    }

    fn ask(&self, message: &FromChild) -> io::Result<Receive> {
        // One lock for both directions: an answer belongs to the question before it.
        let mut channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire::write(&mut *channel, message, 0)?;
        wire::read(&mut *channel)
    }

    fn ask_artifact(&self, artifact: B256) -> io::Result<Option<Vec<u8>>> {
        let mut channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire::write(&mut *channel, &FromChild::NeedArtifact(artifact), 0)?;
        match wire::read(&mut *channel)? {
            Receive::Artifact(Some(length)) => wire::read_bytes(&mut *channel, length).map(Some),
            Receive::Artifact(None) => Ok(None),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn ask_module(&self, component: B256) -> io::Result<Result<Vec<u8>, EvaluateError>> {
        let mut channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire::write(&mut *channel, &FromChild::NeedModule(component), 0)?;
        match wire::read(&mut *channel)? {
            Receive::Module(Ok(length)) => wire::read_bytes(&mut *channel, length).map(Ok),
            Receive::Module(Err(error)) => Ok(Err(error)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn send_compiled(&self, outcome: Result<Vec<u8>, CompileRefusal>) -> io::Result<()> {
        let (header, module) = match outcome {
            Ok(module) => (Ok(module.len() as u64), module),
            Err(refusal) => (Err(refusal), Vec::new()),
        };
        self.send(&FromChild::Compiled(header))?;
        wire::write_bytes(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            &module,
        )
    }
}

impl ArtifactSource for Parent {
    fn artifact(&self, artifact: &ArtifactRef) -> Option<Arc<[u8]>> {
        // A broken channel ends the process at its next read; until then the bytes are simply not there.
        self.ask_artifact(*artifact).ok().flatten().map(Into::into)
    }

    fn module(&self, artifact: &ArtifactRef) -> Supply {
        match self.ask_module(*artifact) {
            Ok(Ok(module)) => Supply::Module(TrustedModule::from_parent(module)),
            Ok(Err(error)) => Supply::None(error),
            Err(_) => Supply::None(EvaluateError::ArtifactUnavailable {
                artifact: *artifact,
            }),
        }
    }
}

impl HttpFetcher for Parent {
    fn fetch(&self, request: &HttpRequest, max_body: u64) -> Result<HttpOutcome, FetchError> {
        match self.ask(&FromChild::Http(request.clone(), max_body)) {
            Ok(Receive::Http(outcome)) => outcome,
            _ => Err(FetchError::absent()),
        }
    }
}
