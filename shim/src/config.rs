//! The operator's configuration. `docs/operators.md` describes the file.

use crate::backend::Accelerator;
use crate::{Allow, ShimError};
use alloy_primitives::Address;
use newton_relay::{host, ports};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything the shim is told. Relative paths in a file are relative to the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimConfig {
    /// What runs the enclave.
    #[serde(default)]
    pub backend: BackendKind,
    /// The operator's address, passed on to the enclave.
    pub operator: Address,
    /// The manifest's measured part; passed on as text, read anew at every boot.
    pub consensus_manifest: PathBuf,
    /// The manifest's other part.
    pub local_manifest: PathBuf,
    /// The enclave's disk.
    pub page_file: PathBuf,
    /// Folder of sockets, console log and status; made if missing. Its path must be short (sockets: 107 bytes).
    pub state_dir: PathBuf,
    /// Where the enclave's API is reached from outside; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the enclave may connect to.
    #[serde(default)]
    pub allow: Allow,
    /// Who pays gas; without it the enclave's transactions are refused.
    pub gas: Option<GasConfig>,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// For the backend `qemu`.
    pub qemu: Option<QemuConfig>,
    /// For the backend `process`.
    pub process: Option<ProcessConfig>,
    /// For the backend `nitro`.
    pub nitro: Option<NitroConfig>,
}

/// What runs the enclave (design 1, deployment modes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// The EIF under `nitro-cli`.
    #[default]
    Nitro,
    /// The EIF under QEMU's `nitro-enclave` machine.
    Qemu,
    /// The appliance as a plain process, for development.
    Process,
}

/// The gas payer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GasConfig {
    /// Where its key is.
    pub key: KeySource,
    /// Chains it pays on.
    pub chains: Vec<GasChain>,
    /// Most it pays for a unit of gas, in wei. Default 500 gwei.
    #[serde(default = "default_max_fee")]
    pub max_fee_per_gas: u128,
}

/// Where a key is. The key itself never stands in the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySource {
    /// A file with 32 bytes in hex.
    File(PathBuf),
    /// An environment variable with the same.
    Env(String),
}

/// A chain's endpoint.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GasChain {
    /// Its id.
    pub chain_id: u64,
    /// `http` or `https`; may hold an API key and is never shown.
    pub url: String,
}

impl std::fmt::Debug for GasChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GasChain")
            .field("chain_id", &self.chain_id)
            .finish_non_exhaustive()
    }
}

/// Bounds on what the shim does for the enclave and the outside.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest page file in bytes. Default 64 GiB.
    pub page_file_bytes: u64,
    /// Outgoing connections at once; at most half of them of the class `public`.
    pub dial_connections: usize,
    /// Incoming connections at once; further ones wait in the kernel's queue.
    pub listen_connections: usize,
    /// Seconds after which a connection that moves nothing is closed.
    pub idle_seconds: u64,
    /// Seconds for resolving a name and connecting.
    pub connect_seconds: u64,
    /// Seconds an enclave gets to stop in order.
    pub stop_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            page_file_bytes: 64 << 30,
            dial_connections: 256,
            listen_connections: 256,
            idle_seconds: 600,
            connect_seconds: 10,
            stop_seconds: 10,
        }
    }
}

impl Limits {
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    pub(crate) fn connect(&self) -> Duration {
        Duration::from_secs(self.connect_seconds)
    }

    pub(crate) fn stop(&self) -> Duration {
        Duration::from_secs(self.stop_seconds)
    }
}

/// QEMU.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuConfig {
    /// The enclave image.
    pub eif: PathBuf,
    /// `qemu-system-x86_64` with the `nitro-enclave` machine.
    pub qemu: PathBuf,
    /// Folder with `qboot.rom` and `linuxboot_dma.bin`.
    pub firmware: PathBuf,
    /// `vhost-device-vsock`.
    pub vhost_device_vsock: PathBuf,
    /// Guest memory in MiB.
    #[serde(default = "default_memory")]
    pub memory_mib: u32,
    /// Virtual CPUs.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Hardware acceleration.
    #[serde(default)]
    pub accelerator: Accelerator,
}

/// A plain process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessConfig {
    /// The appliance, built with the feature `process`.
    pub appliance: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// More environment, beside `NEWTON_PROCESS_DIR` and nothing else.
    #[serde(default)]
    pub env: Vec<(String, String)>,
}

/// `nitro-cli`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NitroConfig {
    /// The enclave image.
    pub eif: PathBuf,
    /// The program.
    #[serde(default = "default_nitro_cli")]
    pub nitro_cli: PathBuf,
    /// Name of the enclave; a running one of this name is taken over.
    #[serde(default = "default_name")]
    pub name: String,
    /// Memory in MiB, at least four times the image.
    pub memory_mib: u32,
    /// Virtual CPUs, a multiple of two where the host has hyper-threads.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Its CID, 4 or higher.
    #[serde(default = "default_cid")]
    pub cid: u32,
    /// Leave the enclave running when the shim is told to stop. The next shim takes it over.
    #[serde(default)]
    pub keep_running: bool,
}

fn default_max_fee() -> u128 {
    500_000_000_000
}
fn default_memory() -> u32 {
    1024
}
fn default_cpus() -> u32 {
    2
}
fn default_nitro_cli() -> PathBuf {
    "nitro-cli".into()
}
fn default_name() -> String {
    "newton".into()
}
fn default_cid() -> u32 {
    16
}

/// Most bytes of a Unix socket's path.
const MAX_SOCKET_PATH: usize = 107;

impl ShimConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ShimError::File`], [`ShimError::Config`].
    pub fn load(path: &Path) -> Result<Self, ShimError> {
        let text = std::fs::read_to_string(path).map_err(ShimError::file("configuration", path))?;
        let mut config: Self = toml::from_str(&text).map_err(|e| ShimError::Config {
            path: path.display().to_string(),
            reason: e.to_string(),
        })?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        Ok(config)
    }

    /// Makes relative paths relative to `dir`; a program without a slash is left to the search path.
    fn resolve(&mut self, dir: &Path) {
        let mut paths = vec![
            &mut self.consensus_manifest,
            &mut self.local_manifest,
            &mut self.page_file,
            &mut self.state_dir,
        ];
        if let Some(GasConfig {
            key: KeySource::File(file),
            ..
        }) = &mut self.gas
        {
            paths.push(file);
        }
        let mut programs = Vec::new();
        if let Some(qemu) = &mut self.qemu {
            paths.extend([&mut qemu.eif, &mut qemu.firmware]);
            programs.extend([&mut qemu.qemu, &mut qemu.vhost_device_vsock]);
        }
        if let Some(process) = &mut self.process {
            programs.push(&mut process.appliance);
        }
        if let Some(nitro) = &mut self.nitro {
            paths.push(&mut nitro.eif);
            programs.push(&mut nitro.nitro_cli);
        }
        paths.extend(programs.into_iter().filter(|p| p.components().count() > 1));
        for path in paths {
            *path = dir.join(&*path);
        }
    }

    /// How the guest is reached.
    pub(crate) fn transport(&self) -> Result<host::Backend, ShimError> {
        let dir = self.state_dir.clone();
        Ok(match self.backend {
            BackendKind::Nitro => host::Backend::Nitro {
                cid: self.nitro()?.cid,
            },
            BackendKind::Qemu => host::Backend::Qemu {
                uds: dir.join("vm.vsock"),
            },
            BackendKind::Process => host::Backend::Process { dir },
        })
    }

    pub(crate) fn nitro(&self) -> Result<&NitroConfig, ShimError> {
        self.nitro.as_ref().ok_or_else(|| missing("nitro"))
    }

    pub(crate) fn qemu(&self) -> Result<&QemuConfig, ShimError> {
        self.qemu.as_ref().ok_or_else(|| missing("qemu"))
    }

    pub(crate) fn process(&self) -> Result<&ProcessConfig, ShimError> {
        self.process.as_ref().ok_or_else(|| missing("process"))
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.state_dir.join("console.log")
    }

    pub(crate) fn status_socket(&self) -> PathBuf {
        self.state_dir.join("status.sock")
    }

    pub(crate) fn check(&self) -> Result<(), ShimError> {
        let longest = self.state_dir.join(format!("vm.vsock_{}", ports::LISTEN));
        let got = longest.as_os_str().len();
        if got > MAX_SOCKET_PATH {
            return Err(ShimError::PathTooLong {
                path: self.state_dir.clone(),
                limit: MAX_SOCKET_PATH,
                got,
            });
        }
        for (field, value) in [
            ("limits.dial_connections", self.limits.dial_connections),
            ("limits.listen_connections", self.limits.listen_connections),
        ] {
            if !(2..=10_000).contains(&value) {
                let reason = format!("must be 2 to 10000, got {value}");
                return Err(ShimError::Config {
                    path: field.to_owned(),
                    reason,
                });
            }
        }
        if self.limits.idle_seconds == 0 || self.limits.connect_seconds == 0 {
            let reason = "idle_seconds and connect_seconds must be above zero".to_owned();
            return Err(ShimError::Config {
                path: "limits".to_owned(),
                reason,
            });
        }
        Ok(())
    }
}

fn missing(section: &'static str) -> ShimError {
    ShimError::Config {
        path: section.to_owned(),
        reason: "section is missing for the chosen backend".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FULL: &str = include_str!("../shim.example.toml");

    #[test]
    fn the_example_is_read_and_its_paths_are_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shim.toml");
        std::fs::write(&file, FULL).unwrap();
        let config = ShimConfig::load(&file).unwrap();
        assert_eq!(config.backend, BackendKind::Nitro);
        assert_eq!(config.consensus_manifest, dir.path().join("consensus.toml"));
        assert_eq!(config.page_file, Path::new("/var/lib/newton/pages"));
        assert_eq!(
            config.nitro.as_ref().unwrap().nitro_cli,
            Path::new("nitro-cli")
        );
        assert_eq!(config.limits.idle_seconds, 600);
        config.check().unwrap();
        let gas = config.gas.as_ref().unwrap();
        assert!(!format!("{config:?}").contains(&gas.chains[0].url));
    }

    #[test]
    fn mistakes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shim.toml");
        let error = |text: String| {
            std::fs::write(&file, text).unwrap();
            ShimConfig::load(&file).unwrap_err().to_string()
        };
        assert!(error(FULL.replace("page_file", "pagefile")).contains("pagefile"));
        assert!(error(FULL.replace("backend = \"nitro\"", "backend = \"xen\"")).contains("xen"));
        std::fs::write(&file, FULL).unwrap();
        let mut config = ShimConfig::load(&file).unwrap();
        config.qemu = None;
        config.backend = BackendKind::Qemu;
        assert!(config.qemu().unwrap_err().to_string().contains("qemu"));
        config.state_dir = "/".into();
        config.state_dir.push("x".repeat(100));
        assert!(matches!(
            config.check(),
            Err(ShimError::PathTooLong {
                limit: 107,
                got: 115,
                ..
            })
        ));
    }
}
