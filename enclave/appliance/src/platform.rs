//! Where the appliance runs: behind traits, so that everything above is the same in the image and on a desk.

use std::sync::Arc;

use newton_attestation::{
    TrustedRoot,
    nsm::{DeviceNsm, Nsm, NsmError},
};
use newton_relay::{Connector, PARENT_CIDS};

/// The security module and the ways to the host.
pub struct Platform {
    /// The security module.
    pub nsm: Arc<dyn Nsm>,
    /// Under which addresses the parent may answer.
    pub parents: Vec<Connector>,
    /// Where the documents of other enclaves must end.
    pub root: TrustedRoot,
    /// For `newt_health`.
    pub name: &'static str,
}

impl Platform {
    /// The machine's own security module and vsock; with the feature `process` and its folder in the environment, a
    /// security module in software and Unix sockets.
    pub fn detect() -> Result<Self, NsmError> {
        #[cfg(feature = "process")]
        if let Some(platform) = process::platform() {
            return Ok(platform);
        }
        Ok(Self {
            nsm: Arc::new(DeviceNsm::open()?),
            parents: PARENT_CIDS
                .iter()
                .map(|cid| Connector::Vsock { cid: *cid })
                .collect(),
            root: TrustedRoot::aws_nitro_g1(),
            name: "nitro-enclave",
        })
    }
}

#[cfg(feature = "process")]
mod process {
    //! The development backend. The string below is what the image test looks for, to prove this module absent.

    use std::{path::PathBuf, sync::Arc};

    use newton_attestation::{
        PcrValue,
        nsm::mock::{MockNsm, Pki},
    };
    use newton_relay::Connector;

    use super::Platform;

    const MARKER: &str = "NEWTON-DEVELOPMENT-PROCESS-BACKEND";

    /// Names the folder with the host's sockets.
    const DIR: &str = "NEWTON_PROCESS_DIR";

    /// Seed of the development PKI; its root is known to everyone who has this source.
    pub const PKI_SEED: &[u8] = b"newton process backend";

    pub(super) fn platform() -> Option<Platform> {
        let dir = PathBuf::from(std::env::var_os(DIR)?);
        eprintln!("{MARKER}: keys and measurements are worth nothing");
        let measurement = |n: u8| PcrValue([n; 48]);
        let nsm = MockNsm::new(
            Pki::from_seed(PKI_SEED),
            "i-process-enc0",
            [measurement(0x10), measurement(0x11), measurement(0x12)],
        );
        Some(Platform {
            root: nsm.pki().root(),
            nsm: Arc::new(nsm),
            parents: vec![Connector::Unix { dir }],
            name: "process (development)",
        })
    }
}
