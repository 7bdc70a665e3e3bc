//! What exists only once the master secret is here.

use std::{collections::BTreeMap, sync::Arc};

use newton_evaluate::worker::WorkerPool;
use newton_keys::MasterSecret;
use newton_types::{B256, abi};
use tokio::sync::Semaphore;

use crate::{appliance::SealedShares, engine::Engine, fetch::ComponentHttp, pools::Pools};

/// The key epoch this version derives its shared keys in; later ones come with their rotation by governance.
pub const KEY_EPOCH: u64 = 1;

/// The serving appliance.
pub struct Running {
    /// The master secret.
    pub master: MasterSecret,
    /// Its sealed shares, if it was made in this boot.
    pub shares: Option<SealedShares>,
    /// One engine per followed chain.
    pub chains: BTreeMap<u64, Arc<Engine>>,
    /// Keyless processes for tasks.
    pub workers: Arc<WorkerPool>,
    /// Their components' way out.
    pub http: ComponentHttp,
    /// All keyless processes, and the compiled components.
    pub pools: Pools,
    /// Simulations that may run at once: as many as they have workers.
    pub simulations: Arc<Semaphore>,
}

impl Running {
    /// The public face of the current key epoch.
    pub fn epoch(&self) -> abi::KeyEpoch {
        abi::KeyEpoch {
            mskCommitment: B256::from(self.master.commitment()),
            keyEpoch: KEY_EPOCH,
            secretsPublicKey: B256::from(self.master.secrets_key(KEY_EPOCH).public_key()),
            privacyPublicKey: B256::from(self.master.privacy_key(KEY_EPOCH).public_key()),
        }
    }
}
