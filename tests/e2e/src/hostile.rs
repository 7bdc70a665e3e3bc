//! A peer that lies: it relays every call to a real enclave, and what it asks there and answers here goes through rules of the
//! test. Peers are told by their answers, not by their keys, so it needs no admission: it is a name in a local manifest.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use newton_api::{
    Call, Handler, KeyRing, Limits, RpcError, Server,
    client::{Client, ClientError, Pin as Key},
    tls_acceptor,
};
use newton_keys::TlsIdentity;
use newton_types::{manifest::Rate, rpc::ErrorName};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

/// An answer, or the error in its place.
pub type Answer = Result<Value, RpcError>;

type Ask = Arc<dyn Fn(&mut Value) + Send + Sync>;
type Change = Arc<dyn Fn(&Value, Answer) -> Answer + Send + Sync>;

/// A relay with rules. Dropping it ends it.
pub struct Hostile {
    address: SocketAddr,
    relay: Arc<Relay>,
    task: JoinHandle<()>,
}

struct Relay {
    to: Client,
    rules: Mutex<BTreeMap<String, Rule>>,
    asked: Mutex<Vec<(String, Value)>>,
}

#[derive(Clone, Default)]
struct Rule {
    ask: Option<Ask>,
    change: Option<Change>,
}

impl Hostile {
    /// A relay to the enclave at `to` that changes nothing yet.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let identity = TlsIdentity::generate(&["localhost"]).context("TLS key")?;
        let tls = tls_acceptor(
            identity.certificate_der().to_vec(),
            identity.private_key_pkcs8_der().to_vec(),
        )?;
        let relay = Arc::new(Relay {
            to: Client::new(to.to_string(), Key::Learn),
            rules: Mutex::default(),
            asked: Mutex::default(),
        });
        let any = Rate {
            per_second: 100_000,
            burst: 100_000,
        };
        let handler = Relaying(relay.clone());
        let keys = KeyRing::new(Vec::new(), any, any);
        let server = Server::new(tls, keys, Arc::new(handler), Limits::default());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        Ok(Self {
            address,
            relay,
            task,
        })
    }

    /// `host:port`, for a local manifest.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on the parameters of `method` go through `ask` before they are relayed.
    #[must_use]
    pub fn asking(self, method: &str, ask: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.relay
            .rule(method, |rule| rule.ask = Some(Arc::new(ask)));
        self
    }

    /// From now on answers of `method` go through `change`, which sees the parameters as they came.
    #[must_use]
    pub fn answering(
        self,
        method: &str,
        change: impl Fn(&Value, Answer) -> Answer + Send + Sync + 'static,
    ) -> Self {
        self.relay
            .rule(method, |rule| rule.change = Some(Arc::new(change)));
        self
    }

    /// From now on it relays as it is.
    pub fn be_honest(&self) {
        lock(&self.relay.rules).clear();
    }

    /// Parameters of every call of `method` so far, as they came.
    pub fn asked(&self, method: &str) -> Vec<Value> {
        lock(&self.relay.asked)
            .iter()
            .filter(|(name, _)| name == method)
            .map(|(_, params)| params.clone())
            .collect()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    fn rule(&self, method: &str, change: impl FnOnce(&mut Rule)) {
        change(lock(&self.rules).entry(method.to_owned()).or_default());
    }

    async fn relay(&self, call: Call) -> Answer {
        let came = Value::Object(call.params.members().clone());
        lock(&self.asked).push((call.method.clone(), came.clone()));
        let rule = lock(&self.rules)
            .get(&call.method)
            .cloned()
            .unwrap_or_default();
        let mut params = came.clone();
        if let Some(ask) = &rule.ask {
            ask(&mut params);
        }
        let answer = match self.to.call(&call.method, params).await {
            Ok(answer) => Ok(answer),
            Err(ClientError::Rpc(e)) => Err(e),
            Err(e) => Err(RpcError::new(ErrorName::InternalError, e.to_string())),
        };
        match &rule.change {
            Some(change) => change(&came, answer),
            None => answer,
        }
    }
}

struct Relaying(Arc<Relay>);

impl Handler for Relaying {
    fn call(&self, call: Call) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(self.0.relay(call))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
