//! What runs the enclave.

mod nitro;
mod process;
mod qemu;

use crate::ShimError;
use crate::config::{BackendKind, ShimConfig};
use crate::spawn::Process;
use serde::Deserialize;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How QEMU executes the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// KVM if an enclave truly boots with it, else TCG.
    #[default]
    Auto,
    /// KVM, or fail.
    Kvm,
    /// Software.
    Tcg,
}

/// A running enclave. Dropping it kills it, but for a Nitro enclave, which is no child of the shim's.
pub(crate) struct Machine {
    kind: Kind,
    exit: watch::Receiver<Option<String>>,
    /// What QEMU runs with.
    pub(crate) accelerator: Option<Accelerator>,
}

enum Kind {
    /// The enclave's process, and one that it needs.
    Children(Process, Option<Process>),
    Nitro(nitro::Enclave),
}

impl Machine {
    /// How it ended, once it has.
    pub(crate) fn exit(&self) -> watch::Receiver<Option<String>> {
        self.exit.clone()
    }

    /// Ends it at once, as a power cut would, and waits until it is gone.
    pub(crate) async fn kill(&self) {
        match &self.kind {
            Kind::Children(enclave, helper) => {
                enclave.kill();
                gone(enclave).await;
                if let Some(helper) = helper {
                    helper.kill();
                    gone(helper).await;
                }
            }
            Kind::Nitro(enclave) => enclave.terminate().await,
        }
        let mut exit = self.exit();
        // The sender goes only after it has told.
        let _ = timeout(Duration::from_secs(5), exit.wait_for(Option::is_some)).await;
    }

    /// Asks it to end, beside the control channel: for a process a signal; a virtual machine has no such button.
    pub(crate) fn terminate(&self) {
        if let (Kind::Children(enclave, None), None) = (&self.kind, self.accelerator) {
            enclave.terminate();
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }
}

async fn gone(process: &Process) {
    // The reaper thread always tells.
    let _ = process.exit().wait_for(Option::is_some).await;
}

/// Starts the enclave. `kvm` decides where the configuration says `auto`.
pub(crate) async fn launch(config: &ShimConfig, kvm: bool) -> Result<Machine, ShimError> {
    match config.backend {
        BackendKind::Qemu => qemu::launch(config, kvm).await,
        BackendKind::Process => process::launch(config),
        BackendKind::Nitro => nitro::launch(config).await,
    }
}

pub(crate) use qemu::KvmVerdict;

/// Standard output and error into a file that starts empty; the one before is kept beside it.
fn console(path: &Path) -> Result<(Stdio, Stdio), ShimError> {
    let failed = |source| ShimError::File {
        what: "console log",
        path: path.to_owned(),
        source,
    };
    if path.exists() {
        std::fs::rename(path, path.with_extension("previous.log")).map_err(failed)?;
    }
    let file = File::create(path).map_err(failed)?;
    let second = file.try_clone().map_err(failed)?;
    Ok((file.into(), second.into()))
}

/// The last lines of a console, for an error.
pub(crate) fn tail(path: &Path) -> String {
    const BYTES: u64 = 2048;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|c| *c == '\n' || !c.is_control())
            .collect(),
        Err(_) => "(no console)".to_owned(),
    }
}
