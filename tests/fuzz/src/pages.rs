//! Page files that a host has changed.

use std::sync::{Arc, OnceLock};

use newton_pages::testing::MemoryDevice;
use newton_pages::{Options, PAGE_BYTES, PageError, PageKey, PageStore, StoreId};
use redb::StorageBackend;
use zeroize::Zeroizing;

const ID: StoreId = StoreId {
    operator: [1; 32],
    config: [2; 32],
};

fn open(device: &MemoryDevice) -> Result<PageStore, PageError> {
    let key = PageKey::new(Zeroizing::new([3; 32]));
    let options = Options {
        write_buffer_bytes: 1 << 20,
        page_cache_bytes: 0,
        node_cache_bytes: 0,
    };
    PageStore::open(Arc::new(device.clone()), &key, ID, options)
}

/// The file and the contents of some generations, from generation 2 on.
struct History {
    files: Vec<Vec<u8>>,
    contents: Vec<Vec<u8>>,
}

fn history() -> &'static History {
    static HISTORY: OnceLock<History> = OnceLock::new();
    HISTORY.get_or_init(|| {
        let device = MemoryDevice::default();
        let store = open(&device).unwrap();
        store.set_len(70 * PAGE_BYTES as u64).unwrap();
        let (mut files, mut contents) = (Vec::new(), Vec::new());
        for round in 0u8..4 {
            for page in (u64::from(round)..70).step_by(23) {
                let bytes = [0xc0 + round; PAGE_BYTES];
                store.write(page * PAGE_BYTES as u64, &bytes).unwrap();
            }
            store.sync_data().unwrap();
            files.push(device.bytes());
            contents.push(read(&store).unwrap());
        }
        History { files, contents }
    })
}

fn read(store: &PageStore) -> std::io::Result<Vec<u8>> {
    let mut out = vec![0; store.len()? as usize];
    for (page, out) in out.chunks_mut(PAGE_BYTES).enumerate() {
        store.read((page * PAGE_BYTES) as u64, out)?;
    }
    Ok(out)
}

/// First the bytes as a whole file: only an empty one, or one of four slots that creation can have left, becomes a store, any
/// other is left alone. Then as changes to a real file, six bytes each, made before it is opened or while it is open: what is
/// read is what some generation held, the newest one if the store was open already, or an error.
pub fn pages(input: &[u8]) {
    let raw = MemoryDevice::new(input.to_vec());
    match open(&raw) {
        Ok(store) => {
            let creatable = input.is_empty() || input.len() == 4 * PAGE_BYTES;
            assert!(store.created() && creatable);
        }
        Err(_) => assert_eq!(raw.bytes(), input),
    }

    let Some((&mode, changes)) = input.split_first() else {
        return;
    };
    let history = history();
    let newest = history.files.len() - 1;
    let device = MemoryDevice::new(history.files[newest].clone());
    let running = (mode % 2 == 1).then(|| open(&device).unwrap());
    device.tamper(|file| {
        for change in changes.chunks_exact(6).take(64) {
            alter(file, change, history);
        }
    });
    if let Some(store) = running {
        if let Ok(bytes) = read(&store) {
            assert!(bytes == history.contents[newest], "stale while running");
        }
        return;
    }
    let Ok(store) = open(&device) else { return };
    if store.created() {
        assert!(store.is_empty_store());
        return;
    }
    if let Ok(bytes) = read(&store) {
        let held = match store.generation() {
            // The first superblock, before anything was written, stands in a later file until it is written over.
            1 => &[],
            // Generation 2 is the first of the history.
            generation => history.contents[(generation - 2) as usize].as_slice(),
        };
        assert!(bytes == held, "not what it held");
    }
}

trait Empty {
    fn is_empty_store(&self) -> bool;
}

impl Empty for PageStore {
    fn is_empty_store(&self) -> bool {
        self.byte_len().is_ok_and(|len| len == 0)
    }
}

/// `u8 what, u8 slot, u16 where, u8 other slot or value, u8 generation`.
fn alter(file: &mut Vec<u8>, change: &[u8], history: &History) {
    let slots = file.len() / PAGE_BYTES;
    if slots == 0 {
        return;
    }
    let at = usize::from(change[1]) % slots * PAGE_BYTES;
    let offset = usize::from(u16::from_le_bytes([change[2], change[3]]));
    let old = &history.files[usize::from(change[5]) % history.files.len()];
    match change[0] % 6 {
        0 => file[at + offset % PAGE_BYTES] ^= change[4] | 1,
        1 => file.copy_within(
            at..at + PAGE_BYTES,
            usize::from(change[4]) % slots * PAGE_BYTES,
        ),
        2 => file[at..at + PAGE_BYTES].fill(0),
        3 => file.truncate(offset * 64),
        4 => file.extend_from_slice(&vec![change[4]; offset]),
        _ => {
            if let (Some(from), Some(to)) = (
                old.get(at..at + PAGE_BYTES),
                file.get_mut(at..at + PAGE_BYTES),
            ) {
                to.copy_from_slice(from);
            }
        }
    }
}
