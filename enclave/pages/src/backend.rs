//! redb's side.

use std::io;

use redb::StorageBackend;

use crate::PageStore;
use crate::store::io_error;

impl StorageBackend for PageStore {
    fn len(&self) -> io::Result<u64> {
        self.with(|core| Ok(core.len())).map_err(io_error)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|core| core.read(offset, out)).map_err(io_error)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|core| core.set_len(len)).map_err(io_error)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|core| core.sync()).map_err(io_error)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|core| core.write(offset, data)).map_err(io_error)
    }
}
