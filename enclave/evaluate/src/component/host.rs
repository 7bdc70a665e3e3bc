//! What a running component is given: the store's data, `newton:provider`, and the linker.

use std::{fmt, sync::Arc};

use alloy_primitives::B256;
use wasmtime::{
    Engine, ResourceLimiter, StoreContextMut,
    component::{
        Component, ComponentType, InstancePre, Lift, Linker, Lower, ResourceTable,
        types::ComponentItem,
    },
};

use super::wasi;
use crate::{
    error::{ArtifactError, ComponentLimit},
    request::SecretBytes,
    rules::RuleLimits,
    transcript::{Exchange, FetchError, HttpFetcher, HttpRequest, HttpResponse},
};

/// What `secrets.get` answers when the client has stored none.
pub const NO_SECRETS: &str = "no secrets are stored for this data instance";

/// The data of one run's store.
pub(crate) struct Host {
    pub(super) limits: RuleLimits,
    pub(super) table: ResourceTable,
    pub(super) random: wasi::Random,
    pub(super) clock: wasi::Clock,
    pub(super) secrets: Option<SecretBytes>,
    pub(super) http: Option<Arc<dyn HttpFetcher>>,
    pub(super) exchanges: Vec<Exchange>,
    memory: u64,
    elements: u64,
}

impl Host {
    pub(super) fn new(
        limits: RuleLimits,
        seed: B256,
        now_seconds: u64,
        secrets: Option<SecretBytes>,
        http: Option<Arc<dyn HttpFetcher>>,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(wasi::MAX_POLLABLES);
        Self {
            limits,
            table,
            random: wasi::Random::new(seed),
            clock: wasi::Clock::new(now_seconds),
            secrets,
            http,
            exchanges: Vec::new(),
            memory: 0,
            elements: 0,
        }
    }
}

/// Why the host ended a run. Travels inside the engine's error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// A limit of the rules.
    Limit(ComponentLimit, u64),
    /// A function that is linked but never provided.
    Denied(String),
    /// The component ended itself.
    Exited(u8),
    /// HTTP was asked for and no authenticated answer came.
    HttpUnavailable(String),
    /// The machine has no memory left.
    OutOfMemory,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(limit, allowed) => write!(f, "{limit} limit of {allowed} exceeded"),
            Self::Denied(function) => write!(f, "{function} is not provided to data components"),
            Self::Exited(code) => write!(f, "the component exited with status {code}"),
            Self::HttpUnavailable(reason) => f.write_str(reason),
            Self::OutOfMemory => f.write_str("out of memory"),
        }
    }
}

impl std::error::Error for Stop {}

impl ResourceLimiter for Host {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self
            .memory
            .saturating_sub(current as u64)
            .saturating_add(desired as u64);
        if total > self.limits.memory_bytes {
            return Err(Stop::Limit(ComponentLimit::Memory, self.limits.memory_bytes).into());
        }
        self.memory = total;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // Within the rules and refused by the machine: a component must not see that and carry on with another answer.
        Err(Stop::OutOfMemory.into())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self
            .elements
            .saturating_sub(current as u64)
            .saturating_add(desired as u64);
        if total > self.limits.table_elements {
            return Err(
                Stop::Limit(ComponentLimit::TableElements, self.limits.table_elements).into(),
            );
        }
        self.elements = total;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(Stop::OutOfMemory.into())
    }

    fn instances(&self) -> usize {
        256
    }

    fn tables(&self) -> usize {
        256
    }

    fn memories(&self) -> usize {
        64
    }
}

/// Links a component against the host: everything that is provided is provided under the exact name imported, everything else
/// of WASI answers with [`Stop::Denied`] when called.
pub(super) fn link(
    engine: &Engine,
    component: &Component,
) -> Result<InstancePre<Host>, ArtifactError> {
    let mut linker = Linker::<Host>::new(engine);
    let result =
        define(engine, &mut linker, component).and_then(|()| linker.instantiate_pre(component));
    // The check at ingestion knows names, this knows types: an interface of the right name with other functions ends here.
    result.map_err(|error| ArtifactError::InvalidComponent {
        reason: format!("does not link: {error:#}"),
    })
}

fn define(
    engine: &Engine,
    linker: &mut Linker<Host>,
    component: &Component,
) -> wasmtime::Result<()> {
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else {
            continue;
        };
        let path = name.split('@').next().unwrap_or(name);
        let mut instance = linker.instance(name)?;
        for (item, export) in interface.exports(engine) {
            match export.ty {
                ComponentItem::Resource(_) => wasi::define_resource(&mut instance, item)?,
                ComponentItem::ComponentFunc(_) => {
                    let defined = match (path, item) {
                        ("newton:provider/http", "fetch") => {
                            instance.func_wrap("fetch", fetch).map(|()| true)?
                        }
                        ("newton:provider/secrets", "get") => {
                            instance.func_wrap("get", secrets).map(|()| true)?
                        }
                        _ => wasi::define_function(&mut instance, path, item)?,
                    };
                    if !defined {
                        let denied = format!("{name}#{item}");
                        instance.func_new(item, move |_, _, _, _| {
                            Err(Stop::Denied(denied.clone()).into())
                        })?;
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct WireRequest {
    url: String,
    method: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct WireResponse {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct WireSecrets {
    value: Vec<u8>,
}

fn fetch(
    mut store: StoreContextMut<'_, Host>,
    (request,): (WireRequest,),
) -> wasmtime::Result<(Result<WireResponse, String>,)> {
    let host = store.data_mut();
    let requests = host.exchanges.len() as u64;
    if requests >= u64::from(host.limits.http_requests) {
        return Err(Stop::Limit(
            ComponentLimit::HttpRequests,
            u64::from(host.limits.http_requests),
        )
        .into());
    }
    let request = HttpRequest {
        url: request.url,
        method: request.method,
        headers: request.headers,
        body: request.body,
    };
    let allowed = host.limits.http_body_bytes;
    if request.size() > allowed {
        return Err(Stop::Limit(ComponentLimit::HttpRequest, allowed).into());
    }
    let outcome = match &host.http {
        Some(fetcher) => fetcher.fetch(&request, allowed),
        None => Err(FetchError::absent()),
    };
    let outcome = outcome.map_err(|error| match error {
        FetchError::TooLarge => Stop::Limit(ComponentLimit::HttpResponse, allowed),
        FetchError::Unavailable { reason } => Stop::HttpUnavailable(reason),
    })?;
    if outcome
        .as_ref()
        .is_ok_and(|response| response.body.len() as u64 > allowed)
    {
        return Err(Stop::Limit(ComponentLimit::HttpResponse, allowed).into());
    }
    host.exchanges.push(Exchange::new(&request, &outcome));
    Ok((outcome.map(
        |HttpResponse {
             status,
             headers,
             body,
         }| WireResponse {
            status,
            headers,
            body,
        },
    ),))
}

#[allow(clippy::needless_pass_by_value, reason = "the linker's signature")]
fn secrets(
    store: StoreContextMut<'_, Host>,
    (): (),
) -> wasmtime::Result<(Result<WireSecrets, String>,)> {
    Ok((match &store.data().secrets {
        Some(secrets) => Ok(WireSecrets {
            value: secrets.expose().to_vec(),
        }),
        None => Err(NO_SECRETS.to_owned()),
    },))
}
