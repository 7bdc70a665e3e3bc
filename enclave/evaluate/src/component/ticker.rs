//! Advances the engine's epoch while something runs, and sleeps otherwise.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use wasmtime::Engine;

/// Length of one epoch.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The clock thread; ends when this is dropped.
pub(super) struct Ticker {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: usize,
    stopped: bool,
}

impl Ticker {
    pub(super) fn start(engine: Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread_shared = Arc::clone(&shared);
        thread::Builder::new()
            .name("epoch".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                while thread_shared.wait_for_work() {
                    thread::sleep(TICK);
                    engine.increment_epoch();
                }
            })?;
        Ok(Self { shared })
    }

    /// Keeps the clock ticking until the guard is dropped.
    pub(super) fn run(&self) -> Running<'_> {
        self.shared.update(|state| state.running += 1);
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.update(|state| state.stopped = true);
    }
}

/// While this lives, epochs pass.
pub(super) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.update(|state| state.running -= 1);
    }
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut State)) {
        // The state is two plain fields; a panic while it was held cannot have left it half changed.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until something runs; `false` when it is time to end.
    fn wait_for_work(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self
            .changed
            .wait_while(state, |state| state.running == 0 && !state.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        !state.stopped
    }
}
