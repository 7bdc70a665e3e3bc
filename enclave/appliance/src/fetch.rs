//! HTTP of policies' components: through the host's dial service, TLS ended here (design 4.4).

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use newton_evaluate::transcript::{
    FetchError, HttpFetcher, HttpOutcome, HttpRequest, HttpResponse,
};
use newton_http::{
    Dialer, PublicClient, PublicError, PublicLimits, PublicRequest, TlsConfig, public_roots,
    tls_config,
};
use newton_types::manifest::Development;
use tokio::runtime::Handle;

/// What all components' requests have in common.
#[derive(Clone)]
pub struct ComponentHttp {
    dialer: Arc<dyn Dialer>,
    tls: Arc<TlsConfig>,
    limits: PublicLimits,
}

impl ComponentHttp {
    /// Mozilla's roots, and what the measured manifest adds for development. `timeout` bounds each request.
    ///
    /// # Errors
    /// If one of the manifest's roots is no certificate.
    pub fn new(
        dialer: Arc<dyn Dialer>,
        development: &Development,
        timeout: Duration,
    ) -> Result<Self> {
        let mut roots = public_roots();
        for (at, pem) in development.component_roots.iter().enumerate() {
            newton_http::add_root(&mut roots, pem)
                .with_context(|| format!("development.component_roots[{at}]"))?;
        }
        Ok(Self {
            dialer,
            tls: tls_config(roots),
            limits: PublicLimits {
                timeout,
                loopback: development.component_loopback,
            },
        })
    }

    /// The fetcher of one evaluation. It blocks: use it on threads that may, of the runtime this is called in.
    pub fn fetcher(&self) -> impl HttpFetcher + use<> {
        Fetcher {
            client: PublicClient::new(self.dialer.clone(), self.tls.clone(), self.limits),
            runtime: Handle::current(),
        }
    }
}

struct Fetcher {
    client: PublicClient,
    runtime: Handle,
}

impl HttpFetcher for Fetcher {
    fn fetch(&self, request: &HttpRequest, max_body: u64) -> Result<HttpOutcome, FetchError> {
        let public = PublicRequest {
            method: &request.method,
            url: &request.url,
            headers: &request.headers,
            body: request.body.as_deref(),
        };
        let limit = usize::try_from(max_body).unwrap_or(usize::MAX);
        match self.runtime.block_on(self.client.fetch(&public, limit)) {
            Ok(response) => Ok(Ok(HttpResponse {
                status: response.status,
                headers: response.headers,
                body: response.body,
            })),
            Err(PublicError::Refused(why)) => Ok(Err(why)),
            Err(PublicError::TooLarge { .. }) => Err(FetchError::TooLarge),
            Err(error) => Err(FetchError::Unavailable {
                reason: error.to_string(),
            }),
        }
    }
}
