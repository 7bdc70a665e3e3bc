//! The state in the host's page file: whose it is, and which files are refused (design 2.6).
//!
//! A file is bound to operator, chain and registry, which stand in it in clear, to the master secret by its key, and to the
//! deployment by what the state says of itself. A file of anything else is refused by name and left as it is. An older file of
//! the same is taken: replay brings it up to the chain before anything is signed, by keys that no file knows (design 5.4).

use std::{ops::RangeInclusive, sync::Arc};

use anyhow::{Context, Result};
use newton_keys::{MasterSecret, Purpose};
use newton_pages::{Options, PageError, PageKey, PageStore, RedbBackend, StoreId};
use newton_relay::disk::BlockDevice;
use newton_state::{ChainConfig, StateStore, open_database};
use newton_types::{Address, ids, keccak256, manifest::Chain};
use zeroize::Zeroizing;

/// An open page file.
pub struct Disk {
    /// Its pages.
    pub pages: PageStore,
    /// The state in them.
    pub state: StateStore,
}

/// Opens the state of `operator` on `chain` in the file behind `device`, or makes it if the file is empty. `cache_bytes` of pages are
/// kept in memory.
///
/// # Errors
/// If the file is another one's or was changed, with what it is instead; it is left as it is.
pub fn open(
    device: Arc<dyn BlockDevice>,
    operator: Address,
    master: &MasterSecret,
    chain: &Chain,
    cache_bytes: usize,
    rules: RangeInclusive<u32>,
) -> Result<Disk> {
    // The database keeps the pages it uses; what the page store needs is room to read ahead.
    let ahead = cache_bytes / 64;
    let options = Options {
        page_cache_bytes: ahead,
        ..Options::default()
    };
    let key = page_key(master, operator);
    let pages = PageStore::open(device, &key, store_id(operator, chain), options)
        .map_err(|e| refused(e, master))?;
    tracing::info!(
        created = pages.created(),
        generation = pages.generation(),
        "page file opened"
    );
    let backend = RedbBackend::new(pages.clone()).context("reading the page file")?;
    let opened = open_database(backend, cache_bytes - ahead)
        .and_then(|db| StateStore::open(Arc::new(db), config(chain)))
        .map(|state| state.implementing(rules))
        .map_err(anyhow::Error::from);
    // redb hands on texts only; the page store knows which page it was.
    let state = opened.map_err(|e| match pages.last_fault() {
        Some(cause) => e.context(cause.to_string()),
        None => e,
    })?;
    Ok(Disk { pages, state })
}

/// Says in the network's terms whose file it is.
fn refused(error: PageError, master: &MasterSecret) -> anyhow::Error {
    let whose = match &error {
        PageError::WrongStore { expected, got } if expected.operator != got.operator => {
            "the page file belongs to another operator".to_owned()
        }
        PageError::WrongStore { .. } => {
            "the page file belongs to another chain or state commit registry".to_owned()
        }
        PageError::WrongKey => format!(
            "the page file was made under another master secret than the one with commitment 0x{}",
            hex::encode(master.commitment())
        ),
        _ => "opening the page file".to_owned(),
    };
    anyhow::Error::new(error).context(whose)
}

fn page_key(master: &MasterSecret, operator: Address) -> PageKey {
    let purpose = Purpose::Pages {
        operator_id: ids::operator_id(operator).0,
    };
    PageKey::new(Zeroizing::new(*master.derive(&purpose).as_bytes()))
}

/// What the page file is bound to beside the operator: the chain and its registry. Not the whole manifest, so that a new
/// share holder or endpoint does not orphan the file.
fn store_id(operator: Address, chain: &Chain) -> StoreId {
    let registry = chain.contracts.state_commit_registry;
    let config = keccak256(
        [
            b"newton-page-store-v1".as_slice(),
            &chain.chain_id.to_be_bytes(),
            registry.as_slice(),
        ]
        .concat(),
    );
    StoreId {
        operator: ids::operator_id(operator).0,
        config: config.0,
    }
}

fn config(chain: &Chain) -> ChainConfig {
    ChainConfig {
        chain_id: chain.chain_id,
        state_commit_registry: chain.contracts.state_commit_registry,
        first_block: chain.first_block,
        deployment_block: chain.deployment_block,
        deployment_block_hash: Some(chain.deployment_block_hash),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use newton_pages::testing::MemoryDevice;
    use newton_types::{B256, manifest::Contracts};

    use super::*;

    const OPERATOR: Address = Address::repeat_byte(0x0b);

    fn chain() -> Chain {
        let at = Address::repeat_byte;
        Chain {
            chain_id: 31_337,
            first_block: 3,
            deployment_block: 9,
            deployment_block_hash: B256::repeat_byte(7),
            contracts: Contracts {
                enclave_version_registry: at(1),
                operator_registry: at(2),
                key_registry: at(3),
                state_commit_registry: at(4),
                policy_client_registry: at(5),
                policy_registry: at(6),
                policy_data_registry: at(7),
                task_manager: at(8),
            },
        }
    }

    fn secret(n: u8) -> MasterSecret {
        MasterSecret::take(&mut std::array::from_fn(|i| n ^ i as u8)).unwrap()
    }

    fn opened(
        device: &MemoryDevice,
        operator: Address,
        secret_no: u8,
        chain: &Chain,
    ) -> Result<Disk> {
        let device = Arc::new(device.clone());
        open(device, operator, &secret(secret_no), chain, 1 << 20, 1..=1)
    }

    #[test]
    fn a_file_of_another_operator_chain_or_secret_is_refused_by_name_and_left_alone() {
        let device = MemoryDevice::default();
        drop(opened(&device, OPERATOR, 1, &chain()).unwrap());
        let before = device.bytes();
        let with = |change: &dyn Fn(&mut Chain)| {
            let mut chain = chain();
            change(&mut chain);
            chain
        };
        let other = Address::repeat_byte(0x0c);
        let (id, registry) = (
            with(&|c| c.chain_id = 1),
            with(&|c| c.contracts.state_commit_registry = other),
        );
        let commitment = hex::encode(secret(2).commitment());
        for (operator, secret_no, chain, named) in [
            (other, 1, &chain(), "another operator"),
            (OPERATOR, 1, &id, "another chain"),
            (OPERATOR, 1, &registry, "another chain or state commit"),
            (OPERATOR, 2, &chain(), "another master secret"),
            (OPERATOR, 2, &chain(), commitment.as_str()),
            // Whose it is comes before what opens it.
            (other, 2, &chain(), "another operator"),
        ] {
            let error = opened(&device, operator, secret_no, chain).err().unwrap();
            let text = format!("{error:#}");
            assert!(text.contains("page file") && text.contains(named), "{text}");
            assert!(device.bytes() == before, "{named}: the file was changed");
        }
        assert!(
            !opened(&device, OPERATOR, 1, &chain())
                .unwrap()
                .pages
                .created()
        );
    }

    /// The same ids and secret on a chain that was started anew: only the deployment's block tells them apart.
    #[test]
    fn a_file_of_another_deployment_at_the_same_addresses_is_refused_by_name() {
        let device = MemoryDevice::default();
        drop(opened(&device, OPERATOR, 1, &chain()).unwrap());
        let (mut hash, mut block) = (chain(), chain());
        hash.deployment_block_hash = B256::repeat_byte(8);
        block.deployment_block = 10;
        for (chain, named) in [(hash, "deployment block hash"), (block, "deployment block")] {
            let error = opened(&device, OPERATOR, 1, &chain).err().unwrap();
            let text = format!("{error:#}");
            assert!(text.contains(named) && text.contains("runs with"), "{text}");
        }
        assert!(
            !opened(&device, OPERATOR, 1, &chain())
                .unwrap()
                .pages
                .created()
        );
    }
}
