//! Devices for tests: one in memory that records what was written, and one that fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use newton_relay::disk::{BlockDevice, DeviceError, Run, SlotRange};

use crate::PAGE_BYTES;

/// One operation that reached a [`MemoryDevice`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A slot was written.
    Write {
        /// Its number.
        slot: u64,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// The length was set.
    SetLen {
        /// In slots.
        slots: u64,
    },
    /// Everything before was put on stable storage.
    Flush,
}

/// A device in memory. Clones share it, so that a test can look at or change what the host holds.
#[derive(Clone, Default)]
pub struct MemoryDevice {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    log: Option<Vec<Operation>>,
    /// Operations that still work.
    fuel: Option<u64>,
}

impl MemoryDevice {
    /// A device that holds `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                bytes,
                log: None,
                fuel: None,
            })),
        }
    }

    /// All bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    /// Lets the host change its bytes.
    pub fn tamper(&self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.state().bytes);
    }

    /// Records operations from now on.
    pub fn record(&self) {
        self.state().log = Some(Vec::new());
    }

    /// The operations since [`MemoryDevice::record`], and records no more.
    #[must_use]
    pub fn recorded(&self) -> Vec<Operation> {
        self.state().log.take().unwrap_or_default()
    }

    /// Fails every operation after the next `operations` (slots written, lengths set, flushes, reads).
    pub fn fail_after(&self, operations: u64) {
        self.state().fuel = Some(operations);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn burn(&mut self) -> Result<(), DeviceError> {
        match &mut self.fuel {
            Some(0) => {
                Err(newton_relay::HostError::new(newton_relay::ErrorCode::Io, "no fuel").into())
            }
            Some(fuel) => {
                *fuel -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn apply(&mut self, operation: Operation) -> Result<(), DeviceError> {
        self.burn()?;
        apply(&mut self.bytes, &operation);
        if let Some(log) = &mut self.log {
            log.push(operation);
        }
        Ok(())
    }
}

/// Does to a file's bytes what the operation did.
pub fn apply(bytes: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Write { slot, data } => {
            let start = *slot as usize * PAGE_BYTES;
            if bytes.len() < start + data.len() {
                bytes.resize(start + data.len(), 0);
            }
            bytes[start..start + data.len()].copy_from_slice(data);
        }
        Operation::SetLen { slots } => bytes.resize(*slots as usize * PAGE_BYTES, 0),
        Operation::Flush => {}
    }
}

impl BlockDevice for MemoryDevice {
    fn slot_bytes(&self) -> usize {
        PAGE_BYTES
    }

    fn len_bytes(&self) -> Result<u64, DeviceError> {
        Ok(self.state().bytes.len() as u64)
    }

    fn set_len(&self, slots: u64) -> Result<(), DeviceError> {
        self.state().apply(Operation::SetLen { slots })
    }

    fn read_slots(&self, ranges: &[SlotRange], out: &mut [u8]) -> Result<(), DeviceError> {
        let mut state = self.state();
        state.burn()?;
        let mut rest = out;
        for range in ranges {
            let start = range.first as usize * PAGE_BYTES;
            let len = range.count as usize * PAGE_BYTES;
            let Some((here, more)) = std::mem::take(&mut rest).split_at_mut_checked(len) else {
                return Err(DeviceError::Length {
                    expected: len,
                    got: 0,
                });
            };
            here.copy_from_slice(
                state
                    .bytes
                    .get(start..start + len)
                    .ok_or(DeviceError::OutOfRange)?,
            );
            rest = more;
        }
        Ok(())
    }

    fn write_slots(&self, runs: &[Run<'_>]) -> Result<(), DeviceError> {
        let mut state = self.state();
        for run in runs {
            for (i, data) in run.data.chunks(PAGE_BYTES).enumerate() {
                state.apply(Operation::Write {
                    slot: run.first + i as u64,
                    data: data.to_vec(),
                })?;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.state().apply(Operation::Flush)
    }
}
