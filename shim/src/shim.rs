//! The whole: services, enclave, and what may be done with them.

use crate::allow::AllowList;
use crate::backend::{self, Accelerator, KvmVerdict, Machine};
use crate::config::{BackendKind, ShimConfig};
use crate::control::{self, Control};
use crate::disk::{DiskService, PageFile};
use crate::gas::GasPayer;
use crate::{EnclaveState, ShimError, dial, listen, status};
use alloy_primitives::Address;
use newton_relay::asynchronous::AsyncAcceptor;
use newton_relay::{host, ports};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long an enclave under KVM may take to say hello before KVM counts as broken; it takes about a second.
const KVM_TIMEOUT: Duration = Duration::from_secs(10);

/// A running shim with its enclave. Dropping it kills the enclave (not under Nitro) and ends the services.
pub struct Shim {
    inner: Arc<Inner>,
    services: Mutex<Option<Services>>,
    /// Answers `newton-shim status`.
    _status: JoinSet<()>,
}

pub(crate) struct Inner {
    pub(crate) config: ShimConfig,
    pub(crate) control: Arc<Control>,
    pub(crate) gas: Option<Arc<GasPayer>>,
    pub(crate) api: SocketAddr,
    transport: host::Backend,
    allow: Arc<AllowList>,
    pages: Arc<PageFile>,
    listener: Arc<TcpListener>,
    /// Held while the enclave is started or stopped.
    changing: Mutex<()>,
    enclave: StdMutex<Enclave>,
    /// How the last enclave ended; `None` while one runs.
    exit: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct Enclave {
    machine: Option<Arc<Machine>>,
    boot: Option<Boot>,
}

/// A boot under way or done.
#[derive(Clone, Copy)]
struct Boot {
    started: Instant,
    /// Hellos before it.
    hellos: u64,
    took: Option<Duration>,
}

/// The services of the guest's ports; dropping them ends every connection.
struct Services {
    disk: DiskService,
    tasks: JoinSet<()>,
}

impl Shim {
    /// Opens everything, starts the services, then the enclave. Returns when the enclave is started, not when it is ready: see
    /// [`Shim::wait_ready`].
    ///
    /// # Errors
    /// [`ShimError`]; then nothing is left running.
    pub async fn start(config: ShimConfig) -> Result<Self, ShimError> {
        config.check()?;
        std::fs::create_dir_all(&config.state_dir)
            .map_err(ShimError::file("state folder", &config.state_dir))?;
        let listener =
            TcpListener::bind(config.listen)
                .await
                .map_err(|source| ShimError::Listen {
                    what: "the enclave's API",
                    source,
                })?;
        let api = listener.local_addr().map_err(|source| ShimError::Listen {
            what: "the enclave's API",
            source,
        })?;
        let gas = config
            .gas
            .as_ref()
            .map(GasPayer::new)
            .transpose()?
            .map(Arc::new);
        let inner = Arc::new(Inner {
            control: Arc::new(Control::new(&config, gas.clone())),
            gas,
            api,
            transport: config.transport()?,
            allow: Arc::new(AllowList::new(&config.allow)?),
            pages: Arc::new(PageFile::open(
                &config.page_file,
                config.limits.page_file_bytes,
            )?),
            listener: Arc::new(listener),
            changing: Mutex::default(),
            enclave: StdMutex::default(),
            exit: watch::Sender::new(None),
            config,
        });
        let path = inner.config.status_socket();
        let socket = status::listen(&path).map_err(ShimError::file("status socket", path))?;
        let mut asked = JoinSet::new();
        asked.spawn(status::serve(socket, Arc::downgrade(&inner)));
        let shim = Self {
            services: Mutex::new(Some(inner.serve()?)),
            inner,
            _status: asked,
        };
        match shim.inner.launch().await {
            Ok(()) => Ok(shim),
            Err(error) => {
                shim.stop().await;
                Err(error)
            }
        }
    }

    /// Where the enclave's API is reached from outside.
    pub fn api_address(&self) -> SocketAddr {
        self.inner.api
    }

    /// The gas payer's account.
    pub fn gas_address(&self) -> Option<Address> {
        self.inner.gas.as_ref().map(|gas| gas.address())
    }

    /// Waits until the enclave started last has said hello on the control channel; from start to hello.
    ///
    /// # Errors
    /// [`ShimError::Ended`], [`ShimError::NotReady`].
    pub async fn wait_ready(&self, patience: Duration) -> Result<Duration, ShimError> {
        self.inner.wait_ready(patience).await
    }

    /// From start to hello of the running enclave, in so far as it was asked for or has been waited for.
    pub fn boot_time(&self) -> Option<Duration> {
        self.inner.boot_time()
    }

    /// Ends the enclave at once, as a power cut would: SIGKILL, nothing flushed. The services go on.
    pub async fn kill_enclave(&self) {
        let _changing = self.inner.changing.lock().await;
        self.inner.kill().await;
    }

    /// Starts an enclave over the same page file, after killing one that still runs. The services go on.
    ///
    /// # Errors
    /// [`ShimError`].
    pub async fn restart_enclave(&self) -> Result<(), ShimError> {
        {
            let _changing = self.inner.changing.lock().await;
            self.inner.kill().await;
        }
        self.inner.launch().await
    }

    /// Ends the services and starts them anew, as a restart of the shim would, while the enclave runs on.
    ///
    /// # Errors
    /// [`ShimError::Listen`]; then no service runs.
    pub async fn restart_services(&self) -> Result<(), ShimError> {
        let mut services = self.services.lock().await;
        if let Some(services) = services.take() {
            services.end().await;
        }
        *services = Some(self.inner.serve()?);
        Ok(())
    }

    /// Waits until the enclave has ended, by itself or by [`Shim::kill_enclave`], and says how. At once if none runs.
    pub async fn wait_enclave_exit(&self) -> String {
        let mut exit = self.inner.exit.subscribe();
        match exit.wait_for(Option::is_some).await {
            Ok(how) => how.clone().unwrap_or_default(),
            // The sender lives as long as `self`.
            Err(_) => "the shim has ended".to_owned(),
        }
    }

    /// Stops the enclave in order, or at once if it takes longer than the configured time, then the services.
    pub async fn stop(self) {
        {
            let inner = &self.inner;
            let _changing = inner.changing.lock().await;
            let keep = inner.config.backend == BackendKind::Nitro
                && inner.config.nitro().is_ok_and(|n| n.keep_running);
            if !keep {
                inner.stop_in_order().await;
            }
        }
        if let Some(services) = self.services.lock().await.take() {
            services.end().await;
        }
        // Nobody asks a shim that has stopped.
        let _ = std::fs::remove_file(self.inner.config.status_socket());
    }

    /// The enclave's last status (its JSON).
    pub fn status(&self) -> Option<String> {
        self.inner.control.status().map(|(_, json)| json)
    }

    /// Asks the enclave for its status now.
    pub async fn request_status(&self, patience: Duration) -> Option<String> {
        self.inner.control.request_status(patience).await
    }

    /// The enclave's last metrics (Prometheus text).
    pub fn metrics(&self) -> String {
        self.inner.control.metrics()
    }

    /// The last 1,000 log lines of the enclave, oldest first, each with its level before it.
    pub fn log_lines(&self) -> Vec<String> {
        self.inner.control.log_lines()
    }

    /// What QEMU runs with.
    pub fn accelerator(&self) -> Option<Accelerator> {
        self.inner.accelerator()
    }
}

impl Inner {
    pub(crate) fn boot_time(&self) -> Option<Duration> {
        self.enclave().boot.and_then(|boot| boot.took)
    }

    pub(crate) fn accelerator(&self) -> Option<Accelerator> {
        self.enclave()
            .machine
            .as_ref()
            .and_then(|machine| machine.accelerator)
    }

    pub(crate) fn enclave_state(&self) -> EnclaveState {
        match (&self.enclave().machine, self.exit.borrow().clone()) {
            (None, _) => EnclaveState::Stopped,
            (Some(machine), _) if machine.is_running() => EnclaveState::Running,
            (Some(_), how) => EnclaveState::Ended(how.unwrap_or_default()),
        }
    }

    fn enclave(&self) -> MutexGuard<'_, Enclave> {
        // Every section leaves it whole.
        self.enclave.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) -> Result<Services, ShimError> {
        let on = |what, port| {
            let failed = move |source| ShimError::Listen { what, source };
            self.transport.listen(port).map_err(failed)
        };
        let waiting = |what, port| {
            AsyncAcceptor::new(on(what, port)?).map_err(|source| ShimError::Listen { what, source })
        };
        let limits = self.config.limits;
        let mut tasks = JoinSet::new();
        tasks.spawn(control::serve(
            waiting("control", ports::CONTROL)?,
            self.control.clone(),
        ));
        tasks.spawn(dial::serve(
            waiting("dial", ports::DIAL)?,
            self.allow.clone(),
            limits,
        ));
        tasks.spawn(listen::serve(
            self.listener.clone(),
            self.transport.clone(),
            limits,
        ));
        let disk =
            DiskService::start(on("disk", ports::DISK)?, self.pages.clone()).map_err(|source| {
                ShimError::Listen {
                    what: "disk",
                    source,
                }
            })?;
        Ok(Services { disk, tasks })
    }

    /// Starts the enclave; under QEMU finds out whether KVM boots it, if nobody knows yet.
    async fn launch(self: &Arc<Self>) -> Result<(), ShimError> {
        let _changing = self.changing.lock().await;
        let verdict = if self.config.backend == BackendKind::Qemu {
            KvmVerdict::pending(&self.config)
        } else {
            None
        };
        let Some(verdict) = verdict else {
            return self.boot(false).await;
        };
        if let Some(works) = verdict.known() {
            return self.boot(works).await;
        }
        tracing::info!("trying whether KVM boots the enclave, for up to {KVM_TIMEOUT:?}");
        let tried = match self.boot(true).await {
            Ok(()) => self.wait_ready(KVM_TIMEOUT).await.map(|_| ()),
            Err(error) => Err(error),
        };
        verdict.remember(tried.is_ok());
        if let Err(error) = tried {
            tracing::warn!(
                "KVM does not boot the enclave here, using software emulation (several times slower): {error}"
            );
            self.kill().await;
            self.boot(false).await?;
        }
        Ok(())
    }

    async fn boot(self: &Arc<Self>, kvm: bool) -> Result<(), ShimError> {
        let boot = Boot {
            started: Instant::now(),
            hellos: *self.control.hellos().borrow(),
            took: None,
        };
        let machine = Arc::new(backend::launch(&self.config, kvm).await?);
        let mut exit = machine.exit();
        {
            let mut enclave = self.enclave();
            enclave.machine = Some(machine.clone());
            enclave.boot = Some(boot);
        }
        self.exit.send_replace(None);
        // Weak, both: dropping the shim must drop the machine.
        let (inner, machine) = (Arc::downgrade(self), Arc::downgrade(&machine));
        tokio::spawn(async move {
            let how = exit
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|how| how.clone());
            let (Some(inner), Some(how)) = (inner.upgrade(), how) else {
                return;
            };
            // Only the enclave that is in place may say that there is none.
            let current = inner
                .enclave()
                .machine
                .as_ref()
                .is_some_and(|m| std::ptr::eq(Arc::as_ptr(m), machine.as_ptr()));
            if current {
                tracing::info!(how, "the enclave has ended");
                inner.exit.send_replace(Some(how));
            }
        });
        Ok(())
    }

    async fn wait_ready(&self, patience: Duration) -> Result<Duration, ShimError> {
        let (machine, boot) = {
            let enclave = self.enclave();
            (enclave.machine.clone(), enclave.boot)
        };
        let console = || backend::tail(&self.config.console());
        let (Some(machine), Some(boot)) = (machine, boot) else {
            return Err(ShimError::Ended {
                reason: "it was not started".to_owned(),
                console: console(),
            });
        };
        if let Some(took) = boot.took {
            return Ok(took);
        }
        let (mut hellos, mut exit) = (self.control.hellos(), machine.exit());
        let ready = async {
            tokio::select! {
                biased;
                _ = hellos.wait_for(|n| *n > boot.hellos) => Ok(boot.started.elapsed()),
                how = exit.wait_for(Option::is_some) => {
                    Err(how.ok().and_then(|how| how.clone()).unwrap_or_default())
                }
            }
        };
        match timeout(patience, ready).await {
            Ok(Ok(took)) => {
                if let Some(boot) = &mut self.enclave().boot {
                    boot.took = Some(took);
                }
                Ok(took)
            }
            Ok(Err(reason)) => Err(ShimError::Ended {
                reason,
                console: console(),
            }),
            Err(_) => Err(ShimError::NotReady {
                after: patience,
                console: console(),
            }),
        }
    }

    async fn kill(&self) {
        let machine = self.enclave().machine.clone();
        if let Some(machine) = machine {
            machine.kill().await;
            // The task that watches says so too; whoever waits must not depend on its turn.
            self.exit.send_if_modified(|how| {
                let news = how.is_none();
                if news {
                    *how = machine
                        .exit()
                        .borrow()
                        .clone()
                        .or_else(|| Some("killed".to_owned()));
                }
                news
            });
        }
    }

    async fn stop_in_order(&self) {
        let Some(machine) = self.enclave().machine.clone() else {
            return;
        };
        if machine.is_running() {
            if !self.control.shutdown() {
                machine.terminate();
            }
            let mut exit = machine.exit();
            let ended = timeout(self.config.limits.stop(), exit.wait_for(Option::is_some))
                .await
                .is_ok();
            if !ended {
                tracing::warn!("the enclave did not stop in time and is killed");
            }
        }
        self.kill().await;
    }
}

impl Services {
    async fn end(mut self) {
        self.tasks.shutdown().await;
        // Joins a thread that ends within its poll period or with the request it executes. A panic there has been printed.
        let _ = tokio::task::spawn_blocking(move || self.disk.stop()).await;
    }
}
