//! Payloads on disk, one file each, named by the keccak of their certificate.

use alloy_primitives::{B256, keccak256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder of payloads. A payload is there completely or not at all, also after a power cut.
#[derive(Debug)]
pub(crate) struct Storage {
    dir: PathBuf,
    unique: AtomicU64,
}

impl Storage {
    /// Opens or creates the folder; leftovers of interrupted writes are removed.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "partial") {
                fs::remove_file(path)?;
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            unique: AtomicU64::new(0),
        })
    }

    pub(crate) fn put(&self, certificate: &[u8], payload: &[u8]) -> io::Result<()> {
        let partial = self.dir.join(format!(
            "{}.partial",
            self.unique.fetch_add(1, Ordering::Relaxed)
        ));
        let mut file = File::create(&partial)?;
        file.write_all(payload)?;
        file.sync_all()?;
        fs::rename(&partial, self.path(certificate))?;
        File::open(&self.dir)?.sync_all()
    }

    pub(crate) fn read(&self, certificate: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(certificate)) {
            Ok(payload) => Ok(Some(payload)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes one payload; whether it was there.
    pub(crate) fn remove(&self, certificate: &[u8]) -> io::Result<bool> {
        match fs::remove_file(self.path(certificate)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn path(&self, certificate: &[u8]) -> PathBuf {
        let name: B256 = keccak256(certificate);
        self.dir.join(hex::encode(name))
    }
}
