//! A running deployment: chain, contracts, DA store, shim with its enclave.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use alloy::{
    eips::BlockNumberOrTag,
    primitives::{Address, B256},
    providers::Provider,
    signers::local::PrivateKeySigner,
};
use anyhow::{Context, Result};
use newton_artifacts::EigenDaProxy;
use newton_attestation::{PcrValue, TrustedRoot};
use newton_contracts::deploy::{DeployConfig, Deployment, deploy};
use newton_da_store::StoreHandle;
use newton_http::TcpDialer;
use newton_shim::{
    Allow, BackendKind, GasChain, GasConfig, KeySource, Limits, ProcessConfig, QemuConfig, Shim,
    ShimConfig,
};
use newton_types::manifest::{
    ApiKey, Chain as ManifestChain, Consensus, ConsensusManifest, Contracts, Development, Local,
    LocalManifest, ModuleCache, Permission, Rate, RpcEndpoint, ShareHolders as ManifestHolders,
};
use newton_xtask::{image::Image, setup::Qemu};
use sha2::{Digest, Sha256};

use crate::{
    admission::{Chain, ShareHolders},
    chain::{Accounts, Anvil, CHAIN_ID, fund},
    enclave::{Enclave, Trust},
};

/// What runs the enclave.
#[derive(Clone)]
pub enum Backend {
    /// The image under QEMU's nitro-enclave machine.
    Qemu {
        /// The built image.
        image: Box<Image>,
        /// QEMU.
        qemu: Qemu,
        /// The host's end of its vsock device.
        vhost_device_vsock: PathBuf,
    },
    /// The appliance as a process.
    Process {
        /// The program, built with the feature `process`.
        appliance: PathBuf,
        /// Which of the two images it stands for: they differ in their measurements and in the rules versions that they
        /// implement, up to 1 or up to 2.
        image: u8,
    },
}

/// What is special about the host of one operator's enclave.
#[derive(Clone, Default)]
pub struct Host {
    /// What runs the enclave, if it is not what runs the world's own.
    pub backend: Option<Backend>,
    /// The chain's RPC as this host shows it.
    pub rpc: Option<String>,
}

/// Programs and folders a world is made from.
#[derive(Clone)]
pub struct Paths {
    /// `anvil`.
    pub anvil: PathBuf,
    /// Artifacts of the compiled contracts.
    pub contracts_out: PathBuf,
    /// `contracts/config`.
    pub contracts_config: PathBuf,
}

/// How a world is set up.
#[derive(Clone)]
pub struct WorldOptions {
    /// Programs and folders.
    pub paths: Paths,
    /// What runs the enclave.
    pub backend: Backend,
    /// Folder for everything the world writes. Short: it holds sockets.
    pub folder: PathBuf,
    /// A real EigenDA proxy instead of the embedded store.
    pub da_url: Option<String>,
    /// Where the enclave's API is reached; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Length of a window in seconds.
    pub cadence: u64,
    /// Guest memory, MiB. What 384 MiB leave of it is one worker's.
    pub memory_mib: u32,
    /// Servers on loopback that components may reach.
    pub servers: Vec<HttpsServer>,
    /// Greatest life of an attestation, in blocks, if it is not the development chain's.
    pub max_expire_after: Option<u64>,
    /// Operators that may join. The first one's enclave is started with the world, the others by [`World::join`].
    pub operators: usize,
}

/// An HTTPS server of this machine. The measured manifest names its certificate, the shim's allow-list its address.
#[derive(Clone)]
pub struct HttpsServer {
    /// Where the shim connects to.
    pub address: SocketAddr,
    /// The certificate that vouches for it, PEM.
    pub certificate: String,
}

/// Everything that runs. Dropping it ends it.
pub struct World {
    /// The host relay with its enclave.
    pub shim: Shim,
    /// The chain from outside.
    pub chain: Chain,
    /// What was deployed.
    pub deployment: Deployment,
    /// A client of the DA store.
    pub da: EigenDaProxy,
    /// Holders of the master secret's shares.
    pub holders: ShareHolders,
    /// The manifest's measured part.
    pub manifest: ConsensusManifest,
    /// PCR0, PCR1, PCR2 that the enclave must show.
    pub pcrs: [PcrValue; 3],
    /// Bearer key with the permission to evaluate.
    pub api_key: String,
    /// The embedded DA store, if it is that.
    pub da_store: Option<StoreHandle>,
    options: WorldOptions,
    da_url: String,
    /// Where each operator's enclave is reached.
    seats: Vec<SocketAddr>,
    backend: Backend,
    folder: PathBuf,
    anvil: Anvil,
}

/// Another operator of a world: its own shim, enclave and page file. Dropping it ends it.
pub struct Member {
    /// Its place among the operators; the world's own is 0.
    pub index: usize,
    /// The host relay with its enclave.
    pub shim: Shim,
    /// Its owner.
    pub operator: Address,
    /// Bearer key with the permission to evaluate.
    pub api_key: String,
    folder: PathBuf,
    backend: Backend,
}

impl Member {
    /// Its page file, as the host sees it.
    pub fn page_file(&self) -> PathBuf {
        self.folder.join("pages")
    }

    /// The last lines of its enclave's log.
    pub fn console_tail(&self) -> String {
        tail(&self.shim)
    }
}

/// What one operator's shim is started with.
struct Seat<'a> {
    backend: &'a Backend,
    rpc: &'a str,
    folder: &'a Path,
    operator: Address,
    gas_payer: PrivateKeySigner,
    listen: SocketAddr,
    peers: Vec<String>,
    number: u64,
}

/// Seed of the process backend's development PKI (`enclave/appliance/src/platform.rs`).
const PROCESS_PKI_SEED: &[u8] = b"newton process backend";

impl World {
    /// Starts chain, contracts, DA store, and the shim, which boots the enclave. `progress` gets a sentence per step.
    pub async fn start(options: &WorldOptions, progress: &dyn Fn(&str)) -> Result<Self> {
        let folder = &options.folder;
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        progress("Starting anvil (hardfork prague, finality two blocks behind)");
        let anvil = Anvil::start(
            &options.paths.anvil,
            free_port()?,
            &folder.join("anvil.log"),
        )
        .await?;
        let accounts = Accounts::with_operators(options.operators)?;
        let provider = accounts.provider(&anvil.url)?;
        let seats = seats(options)?;

        progress("Deploying the contracts");
        let mut config = DeployConfig::for_chain(&options.paths.contracts_config, CHAIN_ID)?;
        config.parameters.cadence = options.cadence;
        if let Some(blocks) = options.max_expire_after {
            config.parameters.max_expire_after = blocks;
        }
        let deployment = deploy(
            &provider,
            accounts.governance,
            &config,
            &options.paths.contracts_out,
        )
        .await
        .context("deploying the contracts")?;

        let (da_url, da_store) = match &options.da_url {
            Some(url) => (url.clone(), None),
            None => {
                progress("Starting the embedded DA store");
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
                let store = newton_da_store::serve(listener, folder.join("da"))?;
                (store.url(), Some(store))
            }
        };
        let da = EigenDaProxy::new(Arc::new(TcpDialer), &da_url).context("DA URL")?;

        let contracts = contracts(&deployment);
        let holders = ShareHolders::generate(3, 2)?;
        let genesis = provider
            .get_block_by_number(BlockNumberOrTag::Number(deployment.genesis_block))
            .await?
            .context("the deployment's block is gone")?;
        let manifest = ConsensusManifest {
            consensus: Consensus {
                network: "development".to_owned(),
                authority_chain: CHAIN_ID,
                chains: vec![ManifestChain {
                    chain_id: CHAIN_ID,
                    first_block: deployment.deployment_block,
                    deployment_block: deployment.genesis_block,
                    deployment_block_hash: genesis.header.hash,
                    contracts,
                }],
                share_holders: ManifestHolders {
                    threshold: holders.threshold,
                    public_keys: holders.public_keys(),
                },
            },
            development: Some(Development {
                unverified_chain_view: true,
                accept_unsigned_documents: true,
                incomplete_da_checks: true,
                component_loopback: !options.servers.is_empty(),
                component_roots: options
                    .servers
                    .iter()
                    .map(|server| server.certificate.clone())
                    .collect(),
            }),
        };
        let api_key = random_key()?;
        let seat = Seat {
            backend: &options.backend,
            rpc: &anvil.url,
            folder,
            operator: accounts.operator,
            gas_payer: accounts.gas_payer.clone(),
            listen: seats[0],
            peers: peers(&seats, 0),
            number: 0,
        };
        let local = local_manifest(options, &seat, &da_url, &api_key);
        let consensus_text = toml::to_string(&manifest).context("manifest")?;
        // What the enclave will parse must be what is approved on chain.
        anyhow::ensure!(
            ConsensusManifest::parse(&consensus_text)? == manifest,
            "manifest text"
        );
        std::fs::write(folder.join("consensus.toml"), consensus_text)?;
        std::fs::write(folder.join("local.toml"), toml::to_string(&local)?)?;

        progress(match options.backend {
            Backend::Qemu { .. } => "Starting the shim, which boots the enclave image under QEMU",
            Backend::Process { .. } => "Starting the shim, which starts the appliance as a process",
        });
        let shim = Shim::start(shim_config(options, &seat, &da_url)?)
            .await
            .context("starting the shim")?;
        Ok(Self {
            shim,
            chain: Chain {
                provider,
                accounts,
                contracts,
            },
            deployment,
            da,
            holders,
            manifest,
            pcrs: pcrs(&options.backend)?,
            api_key,
            backend: options.backend.clone(),
            folder: folder.clone(),
            da_store,
            options: options.clone(),
            da_url,
            seats,
            anvil,
        })
    }

    /// Starts the shim and the enclave of operator `index`, on the same chain and under the same measured manifest.
    ///
    /// # Errors
    /// If there is no such operator, or its shim does not start.
    pub async fn join(&self, index: usize) -> Result<Member> {
        self.join_as(index, &Host::default()).await
    }

    /// The same on a host of its own kind. An operator whose shim was stopped comes back so, with its page file.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn join_as(&self, index: usize, host: &Host) -> Result<Member> {
        let folder = self.folder.join(format!("op{index}"));
        let peers = peers(&self.seats, index);
        self.seat(index, host, folder, self.seats[index], peers)
            .await
    }

    /// The same as [`Self::join`] where the enclave's peers are those at `peers` (`host:port`).
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn join_asking(&self, index: usize, peers: Vec<String>) -> Result<Member> {
        let folder = self.folder.join(format!("op{index}"));
        self.seat(index, &Host::default(), folder, self.seats[index], peers)
            .await
    }

    /// A second host that runs the enclave of `member` once more, over a copy of its page file.
    ///
    /// # Errors
    /// If the file cannot be copied, or the shim does not start.
    pub async fn run_twice(&self, member: &Member) -> Result<Member> {
        let folder = self.folder.join(format!("op{}b", member.index));
        std::fs::create_dir_all(&folder)?;
        std::fs::copy(member.page_file(), folder.join("pages")).context("the page file")?;
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let host = Host {
            backend: Some(member.backend.clone()),
            rpc: None,
        };
        let peers = peers(&self.seats, member.index);
        self.seat(member.index, &host, folder, listen, peers).await
    }

    async fn seat(
        &self,
        index: usize,
        host: &Host,
        folder: PathBuf,
        listen: SocketAddr,
        peers: Vec<String>,
    ) -> Result<Member> {
        let owner = self
            .chain
            .accounts
            .operators
            .get(index)
            .context("no such operator")?
            .address();
        std::fs::create_dir_all(&folder)?;
        let backend = host.backend.as_ref().unwrap_or(&self.backend);
        let gas_payer = PrivateKeySigner::random();
        for account in [owner, gas_payer.address()] {
            fund(&self.chain.provider, account).await?;
        }
        let seat = Seat {
            backend,
            rpc: host.rpc.as_deref().unwrap_or(&self.anvil.url),
            folder: &folder,
            operator: owner,
            gas_payer,
            listen,
            peers,
            number: index as u64,
        };
        let api_key = random_key()?;
        let local = local_manifest(&self.options, &seat, &self.da_url, &api_key);
        std::fs::copy(
            self.folder.join("consensus.toml"),
            folder.join("consensus.toml"),
        )?;
        std::fs::write(folder.join("local.toml"), toml::to_string(&local)?)?;
        let config = shim_config(&self.options, &seat, &self.da_url)?;
        let backend = backend.clone();
        let shim = Shim::start(config).await.context("starting the shim")?;
        Ok(Member {
            index,
            shim,
            operator: owner,
            api_key,
            folder,
            backend,
        })
    }

    /// Where an operator's enclave is, or would be, reached: what the others are told.
    pub fn address(&self, index: usize) -> SocketAddr {
        self.seats[index]
    }

    /// Connects to another operator's enclave as [`Self::connect`] does.
    pub async fn connect_to(&self, member: &Member, patience: Duration) -> Result<Enclave> {
        let trust = Trust {
            operator: member.operator,
            ..self.trust_in(&member.backend)?
        };
        let address = member.shim.api_address().to_string();
        let enclave = Enclave::connect(&address, &trust, patience)
            .await
            .with_context(|| member.console_tail())?;
        Ok(enclave.with_bearer(&member.api_key))
    }

    /// What a document of this world's enclave must say.
    ///
    /// # Errors
    /// If the image's measurements are none.
    pub fn trust(&self) -> Result<Trust> {
        self.trust_in(&self.backend)
    }

    fn trust_in(&self, backend: &Backend) -> Result<Trust> {
        let (root, accept_unsigned) = match backend {
            Backend::Qemu { .. } => (TrustedRoot::aws_nitro_g1(), true),
            Backend::Process { .. } => (process_root(), false),
        };
        Ok(Trust {
            root,
            accept_unsigned,
            pcrs: pcrs(backend)?,
            pcr16: PcrValue(self.manifest.pcr16()),
            operator: self.chain.accounts.operator,
        })
    }

    /// Connects to the enclave and verifies what it is, waiting until it answers.
    pub async fn connect(&self, patience: Duration) -> Result<Enclave> {
        let address = self.shim.api_address().to_string();
        let enclave = Enclave::connect(&address, &self.trust()?, patience)
            .await
            .with_context(|| self.console_tail())?;
        Ok(enclave.with_bearer(&self.api_key))
    }

    /// Artifacts of the compiled contracts.
    pub fn contracts_out(&self) -> &Path {
        &self.options.paths.contracts_out
    }

    /// The chain's RPC.
    pub fn rpc_url(&self) -> &str {
        &self.anvil.url
    }

    /// Stops the chain's node where it stands, or lets it go on.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn pause_chain(&self, paused: bool) -> Result<()> {
        self.anvil.pause(paused)
    }

    /// The page file, as the host sees it.
    pub fn page_file(&self) -> PathBuf {
        self.folder.join("pages")
    }

    /// `keccak256(PCR16)`.
    pub fn config_hash(&self) -> B256 {
        self.manifest.config_hash()
    }

    /// The last lines of the enclave's log, for an error's context.
    pub fn console_tail(&self) -> String {
        tail(&self.shim)
    }
}

fn tail(shim: &Shim) -> String {
    let lines = shim.log_lines();
    let from = lines.len().saturating_sub(15);
    format!(
        "the enclave's last log lines:\n{}",
        lines[from..].join("\n")
    )
}

/// An address for each operator, known before any of them starts: each is told of the others.
fn seats(options: &WorldOptions) -> Result<Vec<SocketAddr>> {
    let mut seats = vec![options.listen];
    if options.operators > 1 && options.listen.port() == 0 {
        seats[0].set_port(free_port()?);
    }
    while seats.len() < options.operators {
        seats.push(SocketAddr::from(([127, 0, 0, 1], free_port()?)));
    }
    Ok(seats)
}

fn peers(seats: &[SocketAddr], own: usize) -> Vec<String> {
    seats
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != own)
        .map(|(_, seat)| seat.to_string())
        .collect()
}

fn contracts(deployment: &Deployment) -> Contracts {
    let a = &deployment.addresses;
    Contracts {
        enclave_version_registry: a.enclave_version_registry,
        operator_registry: a.operator_registry,
        key_registry: a.key_registry,
        state_commit_registry: a.state_commit_registry,
        policy_client_registry: a.policy_client_registry,
        policy_registry: a.policy_registry,
        policy_data_registry: a.policy_data_registry,
        task_manager: a.task_manager,
    }
}

fn local_manifest(
    options: &WorldOptions,
    seat: &Seat<'_>,
    da: &str,
    api_key: &str,
) -> LocalManifest {
    // Emulated code is slower by a large factor; these bounds only ever abstain.
    let evaluation_wall_ms = match seat.backend {
        Backend::Qemu { .. } => 60_000,
        // An unoptimised build takes its time to compile components with a language's engine inside.
        Backend::Process { .. } if !options.servers.is_empty() => 40_000,
        Backend::Process { .. } => 10_000,
    };
    LocalManifest {
        local: Local {
            rpc: vec![RpcEndpoint {
                chain_id: CHAIN_ID,
                url: seat.rpc.to_owned(),
            }],
            da_url: da.to_owned(),
            api_keys: vec![ApiKey {
                sha256: B256::from_slice(&Sha256::digest(api_key.as_bytes())),
                permissions: vec![Permission::RpcRead, Permission::RpcWrite],
                rate: None,
            }],
            key_rate: Rate {
                per_second: 2_000,
                burst: 4_000,
            },
            open_rate: Rate {
                per_second: 1_000,
                burst: 2_000,
            },
            queue_per_worker: 32,
            module_cache: ModuleCache::Dev,
            log_level: "info".to_owned(),
            // No two at the same pace.
            poll_ms: 200 + 130 * seat.number,
            workers: 1,
            worker_mib: options.memory_mib.saturating_sub(384).into(),
            evaluation_wall_ms,
            page_cache_mib: 16,
            max_lag_seconds: 120,
            peers: seat.peers.clone(),
            skip_after_blocks: 30,
        },
    }
}

fn shim_config(options: &WorldOptions, seat: &Seat<'_>, da: &str) -> Result<ShimConfig> {
    let folder = seat.folder;
    let key_file = folder.join("gas.key");
    write_secret(&key_file, &hex::encode(seat.gas_payer.to_bytes()))?;
    let (backend, qemu, process) = match seat.backend {
        Backend::Qemu {
            image,
            qemu,
            vhost_device_vsock,
        } => {
            let qemu = QemuConfig {
                eif: image.eif.clone(),
                qemu: qemu.binary.clone(),
                firmware: qemu.firmware.clone(),
                vhost_device_vsock: vhost_device_vsock.clone(),
                memory_mib: options.memory_mib,
                cpus: 2,
                accelerator: newton_shim::Accelerator::Auto,
            };
            (BackendKind::Qemu, Some(qemu), None)
        }
        Backend::Process { appliance, image } => {
            let process = ProcessConfig {
                appliance: appliance.clone(),
                args: Vec::new(),
                env: vec![("NEWTON_PROCESS_IMAGE".to_owned(), image.to_string())],
            };
            (BackendKind::Process, None, Some(process))
        }
    };
    Ok(ShimConfig {
        backend,
        operator: seat.operator,
        consensus_manifest: folder.join("consensus.toml"),
        local_manifest: folder.join("local.toml"),
        page_file: folder.join("pages"),
        state_dir: folder.join("run"),
        listen: seat.listen,
        allow: Allow {
            peer: seat.peers.clone(),
            rpc: vec![authority(seat.rpc)?],
            da: vec![authority(da)?],
            public_hosts: options
                .servers
                .iter()
                .map(|server| server.address.to_string())
                .collect(),
            ..Allow::default()
        },
        gas: Some(GasConfig {
            key: KeySource::File(key_file),
            chains: vec![GasChain {
                chain_id: CHAIN_ID,
                url: seat.rpc.to_owned(),
            }],
            max_fee_per_gas: 500_000_000_000,
        }),
        limits: Limits::default(),
        qemu,
        process,
        nitro: None,
    })
}

/// PCR0, 1, 2 of what runs an enclave.
///
/// # Errors
/// If the image's measurements are none.
pub fn pcrs(backend: &Backend) -> Result<[PcrValue; 3]> {
    match backend {
        Backend::Qemu { image, .. } => {
            let parse = |text: String| -> Result<PcrValue> {
                text.parse().map_err(|e| anyhow::anyhow!("PCR: {e}"))
            };
            let m = &image.measurements;
            Ok([
                parse(m.pcr0.to_string())?,
                parse(m.pcr1.to_string())?,
                parse(m.pcr2.to_string())?,
            ])
        }
        Backend::Process { image, .. } => Ok([0, 1, 2].map(|n| PcrValue([(image << 4) | n; 48]))),
    }
}

fn process_root() -> TrustedRoot {
    newton_attestation::nsm::mock::Pki::from_seed(PROCESS_PKI_SEED).root()
}

/// `host:port` of a URL.
fn authority(url: &str) -> Result<String> {
    let rest = url
        .split_once("://")
        .with_context(|| format!("{url} is not a URL"))?
        .1;
    let host = rest.split('/').next().unwrap_or_default();
    let default_port = if url.starts_with("https") { 443 } else { 80 };
    Ok(if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:{default_port}")
    })
}

fn random_key() -> Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("randomness: {e}"))?;
    Ok(hex::encode(bytes))
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| path.display().to_string())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
