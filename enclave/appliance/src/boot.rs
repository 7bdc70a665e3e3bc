//! From power-on to serving (docs/architecture.md, "One boot").

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use newton_api::{KeyRing, Limits, Server, tls_acceptor};
use newton_artifacts::EigenDaProxy;
use newton_attestation::nsm::{CONFIG_PCR, Nsm};
use newton_chain::{ChainError, ChainView, Follower, HttpTransport, RpcChainView, UnverifiedRpc};
use newton_http::{DialClass, HttpClient};
use newton_keys::{HpkeKey, MasterSecret, Purpose};
use newton_pages::{Options, PageKey, PageStore, RedbBackend, StoreId};
use newton_relay::{
    Connector,
    asynchronous::{AsyncAcceptor, AsyncStream},
    control::{ControlClient, ControlHandler, ControlOptions, find_parent},
    disk::{DiskClient, DiskOptions},
    ports,
};
use newton_state::{ChainConfig, StateStore, open_database};
use newton_types::{
    Address, ids, keccak256,
    manifest::{Chain, ConsensusManifest, LocalManifest},
};
use tokio::sync::{Notify, Semaphore};
use zeroize::Zeroizing;

use crate::{
    appliance::{Appliance, Parts},
    dialer::RelayDialer,
    engine::{self, Engine},
    fetch::ComponentHttp,
    gather,
    identity::Identity,
    logging, metrics, peers,
    platform::Platform,
    pools::Pools,
    readmit, rounds,
    rpc::{self, Methods},
    running::{RULES, Running},
    secret,
};

/// How long the parent may take to appear.
const PARENT_PATIENCE: Duration = Duration::from_secs(120);

/// Boots, serves, and returns when the host asks for an orderly stop.
pub async fn run() -> Result<()> {
    let platform = Platform::detect().context("the security module")?;
    let options = ControlOptions::default();
    let parents = platform.parents.clone();
    let search = options.clone();
    let parent =
        tokio::task::spawn_blocking(move || find_parent(&parents, &search, PARENT_PATIENCE))
            .await?
            .context("no parent")?;
    let connector = parent.connector.clone();
    let operator = Address::from(parent.manifest.operator);
    ensure!(!operator.is_zero(), "the operator's address is zero");
    let consensus = ConsensusManifest::parse(&parent.manifest.consensus)
        .context("the manifest's consensus part")?;
    let local = LocalManifest::parse(&parent.manifest.local, &consensus)
        .context("the manifest's local part")?;
    measure(platform.nsm.as_ref(), &consensus)?;

    let hooks = Arc::new(Hooks::default());
    let control = ControlClient::start(parent, options, hooks.clone());
    logging::forward(control.clone(), &local.local.log_level);
    let mut ikm = Zeroizing::new([0; 32]);
    platform.nsm.random(ikm.as_mut_slice())?;
    let app = Arc::new(Appliance::new(Parts {
        platform: platform.name,
        identity: Identity::new(platform.nsm.as_ref(), operator)?,
        nsm: platform.nsm,
        root: platform.root,
        consensus,
        local,
        control,
        ephemeral: HpkeKey::from_ikm(&ikm),
    }));
    let _ = hooks.app.set(app.clone());
    tracing::info!(
        boot_id = %app.identity.boot_id,
        config_hash = %app.config_hash,
        operator = %operator,
        "manifest measured"
    );
    serve(&app, &connector)?;
    tokio::spawn(metrics::export(app.clone()));
    tokio::spawn(start(app, connector));
    hooks.stop.notified().await;
    tracing::info!("the host asked for a stop");
    Ok(())
}

/// Extends and locks PCR16 with the consensus part, and checks that the module holds exactly that afterwards.
fn measure(nsm: &dyn Nsm, consensus: &ConsensusManifest) -> Result<()> {
    let before = nsm.describe_pcr(CONFIG_PCR).context("PCR16")?;
    ensure!(
        !before.locked && before.value.0 == [0; 48],
        "PCR16 was touched before this boot measured its manifest"
    );
    nsm.extend_pcr(CONFIG_PCR, &consensus.measurement())
        .context("extending PCR16")?;
    nsm.lock_pcr(CONFIG_PCR).context("locking PCR16")?;
    let after = nsm.describe_pcr(CONFIG_PCR).context("PCR16")?;
    ensure!(
        after.locked && after.value.0 == consensus.pcr16(),
        "PCR16 does not hold the manifest's measurement"
    );
    Ok(())
}

/// Serves JSON-RPC from the first moment, so that share holders and operators can ask who this is.
fn serve(app: &Arc<Appliance>, connector: &Connector) -> Result<()> {
    let tls = &app.identity.tls;
    let acceptor = tls_acceptor(
        tls.certificate_der().to_vec(),
        tls.private_key_pkcs8_der().to_vec(),
    )?;
    let server = Server::new(
        acceptor,
        KeyRing::new(
            app.local.local.api_keys.clone(),
            app.local.local.key_rate,
            app.local.local.open_rate,
        ),
        Arc::new(Methods(app.clone())),
        Limits::default(),
    );
    let _ = app.metrics.server.set(server.clone());
    let listener = AsyncAcceptor::new(connector.accept_on(ports::LISTEN).context("listen port")?)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok(stream) => {
                    let server = server.clone();
                    tokio::spawn(async move { server.serve::<AsyncStream>(stream).await });
                }
                Err(e) => {
                    tracing::warn!(error = %e, "listen port");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

/// Gets the secret, opens the state, starts the engines. A failure halts: it is shown, and nothing is signed.
async fn start(app: Arc<Appliance>, connector: Connector) {
    match open(&app, &connector).await {
        Ok(running) => {
            app.ready(running);
            tracing::info!("ready");
        }
        Err(e) => app.halt(&format!("{e:#}")),
    }
}

async fn open(app: &Arc<Appliance>, connector: &Connector) -> Result<Arc<Running>> {
    let [chain] = app.consensus.consensus.chains.as_slice() else {
        bail!("this version follows exactly one chain, the manifest names several");
    };
    let chain = chain.clone();
    let dialer = Arc::new(RelayDialer(connector.clone()));
    let view = patiently(|| chain_view(app, &chain, &dialer)).await?;
    let (master, shares) = patiently(|| secret::obtain(app, view.as_ref())).await?;
    app.opening();
    let wall = Duration::from_millis(app.local.local.evaluation_wall_ms);
    let http = ComponentHttp::new(dialer.clone(), &app.consensus.development(), wall)?;
    let state = {
        let (app, connector, chain) = (app.clone(), connector.clone(), chain.clone());
        let page_key = page_key(&master, app.operator());
        tokio::task::spawn_blocking(move || open_state(&app, connector, &chain, &page_key))
            .await??
    };
    let peers = peers::peers(&app.local.local.peers, dialer.clone());
    let pools = {
        let (app, state) = (app.clone(), state.clone());
        tokio::task::spawn_blocking(move || Pools::start(&app.local.local, state)).await??
    };
    let da = EigenDaProxy::new(dialer, &app.local.local.da_url).context("local.da_url")?;
    let next = state.next_block()?;
    let parent = state.finalized()?.map(|head| head.hash);
    let follower = Follower::new(view, chain.contracts, next, parent);
    tracing::info!(
        next_block = next,
        sequence = state.tip()?.sequence,
        "state opened"
    );
    let chain_id = chain.chain_id;
    let engine = Arc::new(
        Engine::new(
            app.clone(),
            chain,
            state,
            da,
            pools.tasks.clone(),
            pools.checks.clone(),
            master.commitment().into(),
        )
        .with_sources(peers.clone()),
    );
    tokio::spawn(engine::follow(engine.clone(), follower));
    tokio::spawn(engine::ingest(engine.clone()));
    for peer in peers.clone() {
        tokio::spawn(gather::gather(engine.clone(), peer));
    }
    let pause = Duration::from_millis(app.local.local.poll_ms);
    tokio::spawn(rounds::keep_records(engine.clone(), pause));
    let running = Arc::new(Running {
        master,
        shares,
        chains: BTreeMap::from([(chain_id, engine.clone())]),
        simulations: Arc::new(Semaphore::new(pools.simulations.workers())),
        workers: pools.tasks.clone(),
        pools,
        http,
    });
    if chain_id == app.authority().chain_id {
        tokio::spawn(readmit::readmit(
            app.clone(),
            running.clone(),
            engine,
            peers,
        ));
    }
    Ok(running)
}

/// The chain's view. This version has one that trusts the RPC, and only the measured development switch opens it.
async fn chain_view(
    app: &Appliance,
    chain: &Chain,
    dialer: &Arc<RelayDialer>,
) -> Result<Arc<dyn ChainView>> {
    let declared = UnverifiedRpc::declared_by(&app.consensus)
        .context("this version has no verified chain view")?;
    let url = app
        .local
        .local
        .rpc
        .iter()
        .find(|r| r.chain_id == chain.chain_id)
        .map(|r| r.url.as_str())
        .context("local.rpc")?;
    let client = HttpClient::new(dialer.clone(), DialClass::Rpc, url).context("local.rpc")?;
    let view = RpcChainView::connect(HttpTransport(client), chain.chain_id, declared).await?;
    Ok(Arc::new(view))
}

/// Asks again while the chain is out of reach; every other failure is final.
async fn patiently<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> Result<T> {
    loop {
        match attempt().await {
            Err(e)
                if e.downcast_ref::<ChainError>()
                    .is_some_and(ChainError::is_retryable) =>
            {
                tracing::warn!(error = format!("{e:#}"), "chain not in reach");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            other => return other,
        }
    }
}

fn page_key(master: &MasterSecret, operator: Address) -> PageKey {
    let purpose = Purpose::Pages {
        operator_id: ids::operator_id(operator).0,
    };
    PageKey::new(Zeroizing::new(*master.derive(&purpose).as_bytes()))
}

fn open_state(
    app: &Appliance,
    connector: Connector,
    chain: &Chain,
    key: &PageKey,
) -> Result<StateStore> {
    let device = DiskClient::connect(
        connector,
        newton_pages::SLOT_BYTES as u32,
        DiskOptions::default(),
    )
    .context("the host's page file")?;
    // The database keeps the pages it uses; what the page store needs is room to read ahead.
    let memory = app.local.local.page_cache_mib << 20;
    let ahead = memory / 64;
    let options = Options {
        page_cache_bytes: ahead,
        ..Options::default()
    };
    let pages = PageStore::open(Arc::new(device), key, store_id(app, chain), options)
        .context("opening the page file")?;
    tracing::info!(
        created = pages.created(),
        generation = pages.generation(),
        "page file opened"
    );
    let fault = pages.clone();
    let _ = app.metrics.pages.set(pages.clone());
    let backend = RedbBackend::new(pages).context("reading the page file")?;
    let opened = open_database(backend, memory - ahead)
        .and_then(|db| StateStore::open(Arc::new(db), config(chain)))
        .map(|state| state.implementing(RULES))
        .map_err(anyhow::Error::from);
    // redb hands on texts only; the page store knows which page it was.
    opened.map_err(|e| match fault.last_fault() {
        Some(cause) => e.context(cause.to_string()),
        None => e,
    })
}

/// What the page file is bound to beside the operator: the chain and its registry. Not the whole manifest, so that a new
/// share holder or endpoint does not orphan the file.
fn store_id(app: &Appliance, chain: &Chain) -> StoreId {
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
        operator: ids::operator_id(app.operator()).0,
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

/// What the host may ask over the control channel.
#[derive(Default)]
struct Hooks {
    app: std::sync::OnceLock<Arc<Appliance>>,
    stop: Notify,
}

impl ControlHandler for Hooks {
    fn status(&self) -> String {
        self.app.get().map_or_else(
            || r#"{"status":"starting"}"#.to_owned(),
            |app| rpc::status(app),
        )
    }

    fn shutdown(&self) {
        self.stop.notify_one();
    }
}
