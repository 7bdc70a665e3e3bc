//! WASI p2, cut down to what cannot differ between machines (design 4.4).
//!
//! - Clocks: the wall clock stands at the reference block's timestamp. The monotonic clock starts there and advances only when a
//!   component sleeps, by exactly the time slept, so that event loops make progress without waiting.
//! - Random bytes: the stream keccak256(seed ‖ 0) ‖ keccak256(seed ‖ 1) ‖ …, counters as 8 bytes big-endian, cut to what is asked for;
//!   every request starts at a new counter. The "insecure" sources are the same stream.
//! - Environment and arguments are empty, standard input is closed, output is dropped, there are no directories.
//! - Everything else is linked and ends the run when it is called.

use alloy_primitives::{B256, keccak256};
use wasmtime::{
    StoreContextMut,
    component::{ComponentType, LinkerInstance, Lower, Resource, ResourceType},
};

use super::host::{Host, Stop};
use crate::error::ComponentLimit;

/// What `check-write` permits at once.
const WRITE_WINDOW: u64 = 64 << 10;
/// Pollables one component may hold at once.
pub(super) const MAX_POLLABLES: usize = 4_096;
/// Fuel taken for 32 random bytes.
const FUEL_PER_RANDOM_BLOCK: u64 = 1_000;

/// The seeded source.
pub(super) struct Random {
    seed: B256,
    counter: u64,
}

impl Random {
    pub(super) const fn new(seed: B256) -> Self {
        Self { seed, counter: 0 }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length.next_multiple_of(32));
        while bytes.len() < length {
            let mut block = [0; 40];
            block[..32].copy_from_slice(self.seed.as_slice());
            block[32..].copy_from_slice(&self.counter.to_be_bytes());
            bytes.extend_from_slice(keccak256(block).as_slice());
            self.counter += 1;
        }
        bytes.truncate(length);
        bytes
    }

    fn word(&mut self) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes(8));
        u64::from_be_bytes(word)
    }
}

/// The pinned clocks.
pub(super) struct Clock {
    seconds: u64,
    monotonic: u64,
}

impl Clock {
    pub(super) const fn new(seconds: u64) -> Self {
        Self {
            seconds,
            monotonic: seconds.saturating_mul(1_000_000_000),
        }
    }
}

struct IoError;
struct InputStream;
struct OutputStream;
struct TerminalInput;
struct TerminalOutput;
struct Descriptor;
struct Other;

/// Ready now, or at an instant of the monotonic clock.
struct Pollable {
    at: Option<u64>,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[allow(dead_code, reason = "the type needs the case, nothing here fails")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// Defines a resource type by its name. Names are unique over WASI's interfaces; where one interface uses another's resource it must be
/// the same type.
pub(super) fn define_resource(
    instance: &mut LinkerInstance<'_, Host>,
    name: &str,
) -> wasmtime::Result<()> {
    let ty = match name {
        "error" => ResourceType::host::<IoError>(),
        "pollable" => ResourceType::host::<Pollable>(),
        "input-stream" => ResourceType::host::<InputStream>(),
        "output-stream" => ResourceType::host::<OutputStream>(),
        "terminal-input" => ResourceType::host::<TerminalInput>(),
        "terminal-output" => ResourceType::host::<TerminalOutput>(),
        "descriptor" => ResourceType::host::<Descriptor>(),
        // Never made, so nothing can confuse them.
        _ => ResourceType::host::<Other>(),
    };
    let pollable = name == "pollable";
    instance.resource(name, ty, move |mut store, representation| {
        let table = &mut store.data_mut().table;
        if pollable {
            table.delete(Resource::<Pollable>::new_own(representation))?;
        }
        Ok(())
    })
}

/// Defines one function; `false` when it is not provided.
pub(super) fn define_function(
    instance: &mut LinkerInstance<'_, Host>,
    path: &str,
    name: &str,
) -> wasmtime::Result<bool> {
    match path {
        "wasi:io/error" | "wasi:io/poll" => poll(instance, name),
        "wasi:io/streams" => streams(instance, name),
        "wasi:clocks/monotonic-clock" | "wasi:clocks/wall-clock" => clocks(instance, path, name),
        "wasi:random/random" | "wasi:random/insecure" | "wasi:random/insecure-seed" => {
            random(instance, name)
        }
        "wasi:filesystem/preopens" if name == "get-directories" => {
            instance.func_wrap(name, |_: StoreContextMut<'_, Host>, (): ()| {
                Ok((Vec::<(Resource<Descriptor>, String)>::new(),))
            })?;
            Ok(true)
        }
        _ if path.starts_with("wasi:cli/") => cli(instance, name),
        _ => Ok(false),
    }
}

type Store<'a> = StoreContextMut<'a, Host>;

fn cli(instance: &mut LinkerInstance<'_, Host>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "get-environment" => {
            instance.func_wrap(name, |_: Store<'_>, (): ()| {
                Ok((Vec::<(String, String)>::new(),))
            })?;
        }
        "get-arguments" => {
            instance.func_wrap(name, |_: Store<'_>, (): ()| Ok((Vec::<String>::new(),)))?;
        }
        "initial-cwd" => instance.func_wrap(name, |_: Store<'_>, (): ()| Ok((None::<String>,)))?,
        "get-stdin" => {
            instance.func_wrap(name, |_: Store<'_>, (): ()| {
                Ok((Resource::<InputStream>::new_own(0),))
            })?;
        }
        "get-stdout" | "get-stderr" => {
            instance.func_wrap(name, |_: Store<'_>, (): ()| {
                Ok((Resource::<OutputStream>::new_own(0),))
            })?;
        }
        "get-terminal-stdin" => {
            instance.func_wrap(name, |_: Store<'_>, (): ()| {
                Ok((None::<Resource<TerminalInput>>,))
            })?;
        }
        "get-terminal-stdout" | "get-terminal-stderr" => {
            instance.func_wrap(name, |_: Store<'_>, (): ()| {
                Ok((None::<Resource<TerminalOutput>>,))
            })?;
        }
        "exit" => instance.func_wrap(name, |_: Store<'_>, (status,): (Result<(), ()>,)| {
            Err::<(), _>(Stop::Exited(u8::from(status.is_err())).into())
        })?,
        "exit-with-code" => instance.func_wrap(name, |_: Store<'_>, (status,): (u8,)| {
            Err::<(), _>(Stop::Exited(status).into())
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn poll(instance: &mut LinkerInstance<'_, Host>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "[method]error.to-debug-string" => {
            instance.func_wrap(name, |_: Store<'_>, (_,): (Resource<IoError>,)| {
                Ok((String::new(),))
            })?;
        }
        "[method]pollable.ready" => {
            instance.func_wrap(
                name,
                |mut store: Store<'_>, (pollable,): (Resource<Pollable>,)| {
                    let host = store.data_mut();
                    let at = host.table.get(&pollable)?.at;
                    Ok((at.is_none_or(|at| at <= host.clock.monotonic),))
                },
            )?;
        }
        "[method]pollable.block" => {
            instance.func_wrap(
                name,
                |mut store: Store<'_>, (pollable,): (Resource<Pollable>,)| {
                    let host = store.data_mut();
                    let at = host.table.get(&pollable)?.at;
                    host.clock.monotonic = host.clock.monotonic.max(at.unwrap_or(0));
                    Ok(())
                },
            )?;
        }
        "poll" => instance.func_wrap(
            name,
            |mut store: Store<'_>, (pollables,): (Vec<Resource<Pollable>>,)| {
                let host = store.data_mut();
                let mut instants = Vec::with_capacity(pollables.len());
                for pollable in &pollables {
                    instants.push(host.table.get(pollable)?.at.unwrap_or(0));
                }
                // Nothing else can become ready, so the earliest instant is where the wait ends. An empty list is a caller's error.
                let earliest = instants
                    .iter()
                    .min()
                    .copied()
                    .ok_or_else(|| Stop::Denied("poll of an empty list".to_owned()))?;
                host.clock.monotonic = host.clock.monotonic.max(earliest);
                let ready = (0u32..)
                    .zip(&instants)
                    .filter(|(_, at)| **at <= host.clock.monotonic);
                Ok((ready.map(|(index, _)| index).collect::<Vec<u32>>(),))
            },
        )?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn streams(instance: &mut LinkerInstance<'_, Host>, name: &str) -> wasmtime::Result<bool> {
    let subscribe = |mut store: Store<'_>| pollable(store.data_mut(), None);
    match name {
        "[method]input-stream.read" | "[method]input-stream.blocking-read" => {
            instance.func_wrap(
                name,
                |_: Store<'_>, (_, _): (Resource<InputStream>, u64)| {
                    Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
                },
            )?;
        }
        "[method]input-stream.skip" | "[method]input-stream.blocking-skip" => {
            instance.func_wrap(
                name,
                |_: Store<'_>, (_, _): (Resource<InputStream>, u64)| {
                    Ok((Err::<u64, _>(StreamError::Closed),))
                },
            )?;
        }
        "[method]input-stream.subscribe" => {
            instance.func_wrap(
                name,
                move |store: Store<'_>, (_,): (Resource<InputStream>,)| subscribe(store),
            )?;
        }
        "[method]output-stream.subscribe" => {
            instance.func_wrap(
                name,
                move |store: Store<'_>, (_,): (Resource<OutputStream>,)| subscribe(store),
            )?;
        }
        "[method]output-stream.check-write" => {
            instance.func_wrap(name, |_: Store<'_>, (_,): (Resource<OutputStream>,)| {
                Ok((Ok::<u64, StreamError>(WRITE_WINDOW),))
            })?;
        }
        "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush" => {
            instance.func_wrap(
                name,
                |_: Store<'_>, (_, _): (Resource<OutputStream>, Vec<u8>)| {
                    Ok((Ok::<(), StreamError>(()),))
                },
            )?;
        }
        "[method]output-stream.flush" | "[method]output-stream.blocking-flush" => {
            instance.func_wrap(name, |_: Store<'_>, (_,): (Resource<OutputStream>,)| {
                Ok((Ok::<(), StreamError>(()),))
            })?;
        }
        "[method]output-stream.write-zeroes"
        | "[method]output-stream.blocking-write-zeroes-and-flush" => {
            instance.func_wrap(
                name,
                |_: Store<'_>, (_, _): (Resource<OutputStream>, u64)| {
                    Ok((Ok::<(), StreamError>(()),))
                },
            )?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn pollable(host: &mut Host, at: Option<u64>) -> wasmtime::Result<(Resource<Pollable>,)> {
    // The table's only failure is its capacity.
    let full = |_| Stop::Denied(format!("a further pollable beyond {MAX_POLLABLES}"));
    Ok((host.table.push(Pollable { at }).map_err(full)?,))
}

fn clocks(
    instance: &mut LinkerInstance<'_, Host>,
    path: &str,
    name: &str,
) -> wasmtime::Result<bool> {
    match (path, name) {
        ("wasi:clocks/monotonic-clock", "now") => {
            instance.func_wrap(name, |store: Store<'_>, (): ()| {
                Ok((store.data().clock.monotonic,))
            })?;
        }
        ("wasi:clocks/monotonic-clock", "resolution") => {
            instance.func_wrap(name, |_: Store<'_>, (): ()| Ok((1u64,)))?;
        }
        ("wasi:clocks/monotonic-clock", "subscribe-instant") => {
            instance.func_wrap(name, |mut store: Store<'_>, (at,): (u64,)| {
                pollable(store.data_mut(), Some(at))
            })?;
        }
        ("wasi:clocks/monotonic-clock", "subscribe-duration") => {
            instance.func_wrap(name, |mut store: Store<'_>, (duration,): (u64,)| {
                let host = store.data_mut();
                let at = host.clock.monotonic.saturating_add(duration);
                pollable(host, Some(at))
            })?;
        }
        ("wasi:clocks/wall-clock", "now") => {
            instance.func_wrap(name, |store: Store<'_>, (): ()| {
                Ok((Datetime {
                    seconds: store.data().clock.seconds,
                    nanoseconds: 0,
                },))
            })?;
        }
        ("wasi:clocks/wall-clock", "resolution") => {
            instance.func_wrap(name, |_: Store<'_>, (): ()| {
                Ok((Datetime {
                    seconds: 1,
                    nanoseconds: 0,
                },))
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn random(instance: &mut LinkerInstance<'_, Host>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "get-random-bytes" | "get-insecure-random-bytes" => {
            instance.func_wrap(name, |mut store: Store<'_>, (length,): (u64,)| {
                let allowed = store.data().limits.random_bytes;
                if length > allowed {
                    return Err(Stop::Limit(ComponentLimit::Random, allowed).into());
                }
                // The host's work must be paid for in fuel, or a loop of calls would outlast any limit but the clock.
                let price = length.div_ceil(32) * FUEL_PER_RANDOM_BLOCK;
                let left = store.get_fuel()?.checked_sub(price);
                let fuel = store.data().limits.fuel;
                store.set_fuel(left.ok_or(Stop::Limit(ComponentLimit::Fuel, fuel))?)?;
                // Fits: bounded above by the limit of the rules.
                Ok((store.data_mut().random.bytes(usize::try_from(length)?),))
            })?;
        }
        "get-random-u64" | "get-insecure-random-u64" => {
            instance.func_wrap(name, |mut store: Store<'_>, (): ()| {
                Ok((store.data_mut().random.word(),))
            })?;
        }
        "insecure-seed" => instance.func_wrap(name, |mut store: Store<'_>, (): ()| {
            let random = &mut store.data_mut().random;
            Ok(((random.word(), random.word()),))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}
