//! Where the appliance runs: behind traits, so that everything above is the same in the image and on a desk.

use std::{ops::RangeInclusive, sync::Arc};

use newton_attestation::{
    TrustedRoot,
    nsm::{DeviceNsm, Nsm},
};
use newton_evaluate::RULES_VERSION_1;
use newton_relay::{Connector, PARENT_CIDS};

/// Rules versions that the image implements.
const RULES: RangeInclusive<u32> = RULES_VERSION_1..=RULES_VERSION_1;

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
    /// Rules versions that are implemented (design 2.5).
    pub rules: RangeInclusive<u32>,
}

impl Platform {
    /// The machine's own security module and vsock; with the feature `process` and its folder in the environment, a
    /// security module in software and Unix sockets.
    pub fn detect() -> anyhow::Result<Self> {
        #[cfg(feature = "process")]
        if let Some(platform) = process::platform()? {
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
            rules: RULES,
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

    use super::{Platform, RULES};

    const MARKER: &str = "NEWTON-DEVELOPMENT-PROCESS-BACKEND";

    /// Names the folder with the host's sockets.
    const DIR: &str = "NEWTON_PROCESS_DIR";

    /// Seed of the development PKI; its root is known to everyone who has this source.
    pub const PKI_SEED: &[u8] = b"newton process backend";

    /// Which of its two images the process stands for: 1, or 2 with other measurements. The second one takes the next rules
    /// version, whose rules for content are those of the one before, so that networks can be led over an activation; it has
    /// no rules for evaluations under it, and refuses those by name.
    const IMAGE: &str = "NEWTON_PROCESS_IMAGE";

    pub(super) fn platform() -> anyhow::Result<Option<Platform>> {
        let Some(dir) = std::env::var_os(DIR) else {
            return Ok(None);
        };
        eprintln!("{MARKER}: keys and measurements are worth nothing");
        let image: u8 = match std::env::var(IMAGE).as_deref() {
            Err(_) | Ok("1") => 1,
            Ok("2") => 2,
            Ok(other) => anyhow::bail!("{IMAGE} is {other:?}, expected 1 or 2"),
        };
        let nsm = MockNsm::new(
            Pki::from_seed(PKI_SEED),
            "i-process-enc0",
            [0, 1, 2].map(|n| PcrValue([(image << 4) | n; 48])),
        );
        Ok(Some(Platform {
            root: nsm.pki().root(),
            nsm: Arc::new(nsm),
            parents: vec![Connector::Unix {
                dir: PathBuf::from(dir),
            }],
            name: "process (development)",
            rules: *RULES.start()..=RULES.end() + u32::from(image - 1),
        }))
    }
}
