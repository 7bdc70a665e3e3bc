//! A shim whose enclave is a sleeping process; the test itself plays the guest.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

use alloy_primitives::Address;
use newton_relay::Connector;
use newton_relay::control::{ControlHandler, ControlOptions, Parent, find_parent};
use newton_shim::{Allow, BackendKind, Limits, ProcessConfig, Shim, ShimConfig};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

pub const CONSENSUS: &str = "# measured\n[consensus]\n";
pub const LOCAL: &str = "[local] # \u{e4} text that is no manifest: the shim does not look\n";

pub struct Host {
    pub shim: Shim,
    pub dir: TempDir,
}

pub fn config(dir: &Path) -> ShimConfig {
    std::fs::write(dir.join("consensus.toml"), CONSENSUS).unwrap();
    std::fs::write(dir.join("local.toml"), LOCAL).unwrap();
    ShimConfig {
        backend: BackendKind::Process,
        operator: Address::repeat_byte(0xaa),
        consensus_manifest: dir.join("consensus.toml"),
        local_manifest: dir.join("local.toml"),
        page_file: dir.join("pages"),
        state_dir: dir.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        allow: Allow::default(),
        gas: None,
        limits: Limits {
            stop_seconds: 2,
            ..Limits::default()
        },
        qemu: None,
        process: Some(ProcessConfig {
            appliance: "/bin/sleep".into(),
            args: vec!["1000".into()],
            env: vec![],
        }),
        nitro: None,
    }
}

pub async fn start(change: impl FnOnce(&mut ShimConfig)) -> Host {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    Host {
        shim: Shim::start(config).await.unwrap(),
        dir,
    }
}

impl Host {
    pub fn guest(&self) -> Connector {
        Connector::Unix {
            dir: self.dir.path().to_owned(),
        }
    }

    pub async fn parent(&self) -> Parent {
        let guest = self.guest();
        blocking(move || {
            find_parent(
                &[guest],
                &ControlOptions::default(),
                Duration::from_secs(10),
            )
            .unwrap()
        })
        .await
    }
}

/// Runs the guest's blocking code while the shim goes on.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Waits until something holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

#[derive(Default)]
pub struct Appliance {
    pub told_to_stop: AtomicBool,
}

impl ControlHandler for Appliance {
    fn status(&self) -> String {
        "{\"sequence_no\":7}".to_owned()
    }
    fn shutdown(&self) {
        self.told_to_stop.store(true, Ordering::SeqCst);
    }
}
