//! A registered operator whose peers reach something else than an enclave at its address: what it answers is never what they
//! should hear, and what it signs it signs with its real key.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use alloy::{
    primitives::{Bytes, keccak256},
    sol_types::SolValue,
};
use anyhow::{Context, Result};
use newton_api::{
    Call, Handler, KeyRing, Limits, RpcError, Server,
    client::{Client, ClientError, Pin as Keys},
    tls_acceptor,
};
use newton_contracts::abi::StateCommit;
use newton_keys::TlsIdentity;
use newton_types::{
    abi,
    manifest::Rate,
    rpc::ErrorName,
    signing::{self, Scope},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener, task::JoinHandle};

use crate::{World, challenge::Dishonest, network::Vote};

/// What the peers of the impostor meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It signs a commit with another root.
    OtherRoot,
    /// It names the right commit and shows a signature over another one.
    Forged,
    /// It shows its own signature as that of the honest operator.
    Impersonating,
    /// Answers have another form than they should.
    Misshapen,
    /// It takes connections and never answers.
    Withholding,
    /// It speaks no TLS.
    Noise,
}

/// The impostor. Dropping it ends it.
pub struct Impostor {
    /// The operator.
    pub dishonest: Dishonest,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    /// The newest other commit that it signed, with its vote.
    wrong: Mutex<Option<(StateCommit, Vote)>>,
    honest: Client,
    scope: Scope,
    dishonest: Dishonest,
}

impl Impostor {
    /// Takes the place of operator `index` of a world, with the keys of `dishonest`. What it twists it takes from the world's own
    /// enclave.
    ///
    /// # Errors
    /// If the place is taken.
    pub async fn start(world: &World, index: usize, dishonest: Dishonest) -> Result<Self> {
        let listener = TcpListener::bind(world.address(index)).await?;
        let tls = TlsIdentity::generate(&["enclave.newton"]).context("TLS key")?;
        let acceptor = tls_acceptor(
            tls.certificate_der().to_vec(),
            tls.private_key_pkcs8_der().to_vec(),
        )?;
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Behaviour::Withholding),
            wrong: Mutex::default(),
            honest: Client::new(world.shim.api_address().to_string(), Keys::Learn),
            scope: Scope {
                chain_id: crate::chain::CHAIN_ID,
                contract: world.chain.contracts.state_commit_registry,
            },
            dishonest: dishonest.clone(),
        });
        let rate = Rate {
            per_second: 1_000,
            burst: 1_000,
        };
        let server = Server::new(
            acceptor,
            KeyRing::new(Vec::new(), rate, rate),
            Arc::new(Answers(shared.clone())),
            Limits::default(),
        );
        let view = shared.clone();
        let server = tokio::spawn(async move {
            // Kept open without a word.
            let mut silent = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                match view.behaviour() {
                    Behaviour::Withholding => silent.push(stream),
                    Behaviour::Noise => {
                        let _ = stream.write_all(&[0x16; 4096]).await;
                    }
                    _ => {
                        let server = server.clone();
                        tokio::spawn(async move { server.serve(stream).await });
                    }
                }
            }
        });
        Ok(Self {
            dishonest,
            shared,
            server,
        })
    }

    /// Behaves so from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self
            .shared
            .behaviour
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// The newest other commit that it has signed.
    pub fn wrong_commit(&self) -> Option<(StateCommit, Vote)> {
        self.shared
            .wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Answers(Arc<Shared>);

impl Handler for Answers {
    fn call(
        &self,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Value, RpcError>> + Send + '_>> {
        Box::pin(async move {
            match (self.0.behaviour(), call.method.as_str()) {
                (
                    Behaviour::OtherRoot | Behaviour::Forged | Behaviour::Impersonating,
                    "newt_getCommitVote",
                ) => self.0.vote(call.params.parse()?).await,
                _ => {
                    Ok(json!({ "commit": 1, "digest": "0x", "leaves": "none", "signature": null }))
                }
            }
        })
    }
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Asked {
    chain_id: u64,
    sequence_no: u64,
}

impl Shared {
    fn behaviour(&self) -> Behaviour {
        *self
            .behaviour
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What the honest operator says, twisted.
    async fn vote(&self, asked: Asked) -> Result<Value, RpcError> {
        let internal =
            |e: &dyn std::fmt::Display| RpcError::new(ErrorName::InternalError, e.to_string());
        let mut answer = match self.honest.call("newt_getCommitVote", json!(asked)).await {
            Ok(answer) => answer,
            Err(ClientError::Rpc(e)) => return Err(e),
            Err(e) => return Err(internal(&e)),
        };
        let honest: Bytes =
            serde_json::from_value(answer["commit"].clone()).map_err(|e| internal(&e))?;
        let mut wrong = abi::StateCommit::abi_decode(&honest).map_err(|e| internal(&e))?;
        wrong.newStateRoot = keccak256("a root of its own");
        let vote = self
            .dishonest
            .sign(signing::state_commit_digest(self.scope, &wrong));
        answer["signature"] = json!(vote.signature);
        if self.behaviour() == Behaviour::Impersonating {
            return Ok(answer);
        }
        answer["bls_public_key"] = json!(vote.bls_public_key);
        if self.behaviour() == Behaviour::OtherRoot {
            answer["commit"] = json!(Bytes::from(wrong.abi_encode()));
            answer["digest"] = json!(vote.digest);
            let commit = StateCommit::abi_decode(&wrong.abi_encode()).map_err(|e| internal(&e))?;
            *self.wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some((commit, vote));
        }
        Ok(answer)
    }
}
