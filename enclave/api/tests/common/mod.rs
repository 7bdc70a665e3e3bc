//! A server over TCP and TLS whose handler does what the tests ask of it.
#![allow(clippy::unwrap_used, dead_code)]

use std::{
    future::Future,
    pin::Pin as BoxPin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use newton_api::{Call, Handler, KeyRing, Limits, RpcError, Server, tls_acceptor};
use newton_types::{
    B256,
    manifest::{ApiKey, Permission, Rate},
    rpc::ErrorName,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

/// Nothing that these tests do exceeds it.
pub const GENEROUS: Rate = Rate {
    per_second: 1_000_000,
    burst: 1_000_000,
};

#[derive(Default)]
pub struct Echo {
    pub inside: AtomicUsize,
    pub most: AtomicUsize,
}

/// Bytes of the answer to `big`.
///
/// More than the sockets of both sides hold, so that a caller who does not read is noticed.
pub const BIG: usize = 24 << 20;

impl Handler for Echo {
    fn call(
        &self,
        call: Call,
    ) -> BoxPin<Box<dyn Future<Output = Result<Value, RpcError>> + Send + '_>> {
        Box::pin(async move {
            match call.method.as_str() {
                "write" if !call.permissions.write => Err(RpcError::new(
                    ErrorName::Unauthorized,
                    "needs a key with RpcWrite",
                )),
                "write" => Ok(json!("written")),
                "slow" => {
                    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                    Ok(json!("slow"))
                }
                "work" => {
                    let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
                    self.most.fetch_max(inside, Ordering::SeqCst);
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    self.inside.fetch_sub(1, Ordering::SeqCst);
                    Ok(json!("worked"))
                }
                "big" => Ok(json!("x".repeat(BIG))),
                other => Err(RpcError::new(ErrorName::MethodNotFound, other)),
            }
        })
    }

    fn answer_bytes(&self, method: &str) -> usize {
        if method == "big" { 2 * BIG } else { 1 << 10 }
    }
}

pub struct Started {
    pub address: String,
    pub spki: B256,
    pub server: Server,
    pub handler: Arc<Echo>,
}

pub async fn start(limits: Limits) -> (String, B256) {
    let started = start_with(limits, GENEROUS, GENEROUS).await;
    (started.address, started.spki)
}

/// One bearer key, `key`, that may write.
pub async fn start_with(limits: Limits, key_rate: Rate, open_rate: Rate) -> Started {
    let key = rcgen::KeyPair::generate().unwrap();
    let spki = B256::from_slice(&Sha256::digest(
        rcgen::PublicKeyData::subject_public_key_info(&key),
    ));
    let certificate = rcgen::CertificateParams::new(vec!["enclave.newton".into()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let acceptor = tls_acceptor(certificate.der().to_vec(), key.serialize_der()).unwrap();
    let keys = vec![ApiKey {
        sha256: B256::from_slice(&Sha256::digest(b"key")),
        permissions: vec![Permission::RpcWrite],
        rate: None,
    }];
    let keys = KeyRing::new(keys, key_rate, open_rate);
    let handler = Arc::new(Echo::default());
    let server = Server::new(acceptor, keys, handler.clone(), limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepting = server.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = accepting.clone();
            tokio::spawn(async move { server.serve(stream).await });
        }
    });
    Started {
        address,
        spki,
        server,
        handler,
    }
}
