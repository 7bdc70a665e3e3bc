//! Devices for tests: one in memory that records what was written, and one that fails.

use std::collections::BTreeSet;
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
    /// Slots read that hold what they held when watching began, and slots written since.
    watched: Option<(BTreeSet<u64>, BTreeSet<u64>)>,
}

impl MemoryDevice {
    /// A device that holds `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                bytes,
                ..State::default()
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

    /// Watches from now on which slots are read that nobody wrote since: what follows depends on no other slot.
    pub fn watch(&self) {
        self.state().watched = Some((BTreeSet::new(), BTreeSet::new()));
    }

    /// The slots read since [`MemoryDevice::watch`] that were not written since.
    #[must_use]
    pub fn watched(&self) -> BTreeSet<u64> {
        self.state()
            .watched
            .as_ref()
            .map(|(read, _)| read.clone())
            .unwrap_or_default()
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
        if let (Some((_, written)), Operation::Write { slot, .. }) = (&mut self.watched, &operation)
        {
            written.insert(*slot);
        }
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
            if let Some((read, written)) = &mut state.watched {
                let slots = range.first..range.first + u64::from(range.count);
                read.extend(slots.filter(|slot| !written.contains(slot)));
            }
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

/// A file as a device, in this process: what the shim's disk service does, without the relay.
#[derive(Debug)]
pub struct FileDevice(std::fs::File);

impl FileDevice {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &std::path::Path) -> std::io::Result<Self> {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map(Self)
    }
}

fn wire(error: std::io::Error) -> DeviceError {
    newton_relay::WireError::from(error).into()
}

impl BlockDevice for FileDevice {
    fn slot_bytes(&self) -> usize {
        PAGE_BYTES
    }

    fn len_bytes(&self) -> Result<u64, DeviceError> {
        Ok(self.0.metadata().map_err(wire)?.len())
    }

    fn set_len(&self, slots: u64) -> Result<(), DeviceError> {
        self.0.set_len(slots * PAGE_BYTES as u64).map_err(wire)
    }

    fn read_slots(&self, ranges: &[SlotRange], out: &mut [u8]) -> Result<(), DeviceError> {
        use std::os::unix::fs::FileExt;
        let mut done = 0;
        for range in ranges {
            let len = range.count as usize * PAGE_BYTES;
            let out = out
                .get_mut(done..done + len)
                .ok_or(DeviceError::OutOfRange)?;
            match self.0.read_exact_at(out, range.first * PAGE_BYTES as u64) {
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(DeviceError::OutOfRange);
                }
                other => other.map_err(wire)?,
            }
            done += len;
        }
        Ok(())
    }

    fn write_slots(&self, runs: &[Run<'_>]) -> Result<(), DeviceError> {
        use std::os::unix::fs::FileExt;
        runs.iter().try_for_each(|run| {
            self.0
                .write_all_at(run.data, run.first * PAGE_BYTES as u64)
                .map_err(wire)
        })
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.0.sync_data().map_err(wire)
    }
}
