//! What the outside asks an enclave, and believes only after checking.

use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256, Bytes};
use anyhow::{Context, Result, bail, ensure};
use newton_api::client::{Client, ClientError, Pin};
use newton_attestation::{
    PcrValue, TrustedRoot,
    binding::{Stage1, Stage2},
    verify::{Expect, PcrPolicy, Signed, Unsigned, Verifier},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// An enclave at a host's TCP address.
pub struct Enclave {
    client: Client,
    /// SHA-256 of its TLS key, as pinned.
    pub tls_key: B256,
    /// What its document said.
    pub attested: Attested,
}

/// A verified document and the keys that it binds.
#[derive(Clone)]
pub struct Attested {
    /// True for a document with a signature up to the trusted root; false for QEMU's emulated module.
    pub signed: bool,
    /// 1 without the master secret, 2 with it.
    pub stage: u8,
    /// 32 random bytes of the boot.
    pub boot_id: B256,
    /// HPKE key: ephemeral in stage 1, the secrets key in stage 2.
    pub hpke_public_key: B256,
    /// PCR0, 1, 2.
    pub pcrs: [PcrValue; 3],
}

#[derive(Deserialize)]
struct AttestationAnswer {
    document: Bytes,
    stage: u8,
    boot_id: B256,
    operator: Address,
    hpke_public_key: B256,
    bls_public_key: Bytes,
}

/// What a document must say beside its signature.
pub struct Trust {
    /// Where documents end: AWS's root, or a development root.
    pub root: TrustedRoot,
    /// Accept QEMU's unsigned documents.
    pub accept_unsigned: bool,
    /// PCR0, PCR1, PCR2 of the build.
    pub pcrs: [PcrValue; 3],
    /// PCR16 of the manifest.
    pub pcr16: PcrValue,
    /// The operator whose enclave it should be.
    pub operator: Address,
}

impl Enclave {
    /// Waits until something answers at `address`, then verifies what it is and pins its key.
    ///
    /// The first connection accepts any key; the document fetched over it must bind that very key, so a host in the
    /// middle would need a document of a genuine enclave over its own key.
    pub async fn connect(address: &str, trust: &Trust, patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience;
        let learning = Client::new(address, Pin::Learn);
        let nonce = random_nonce()?;
        let answer = loop {
            match learning
                .call("newt_getAttestation", json!({ "nonce": hex_0x(&nonce) }))
                .await
            {
                Ok(answer) => break answer,
                Err(ClientError::Rpc(e)) => return Err(e).context("newt_getAttestation"),
                Err(e) if Instant::now() > deadline => {
                    return Err(e).context("the enclave does not answer");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let tls_key = learning.seen_key().context("no TLS key seen")?;
        let answer: AttestationAnswer =
            serde_json::from_value(answer).context("newt_getAttestation's answer")?;
        let attested = verify(&answer, tls_key, &nonce, trust)?;
        Ok(Self {
            client: Client::new(address, Pin::Key(tls_key)),
            tls_key,
            attested,
        })
    }

    /// Sends `key` as bearer with every further call.
    #[must_use]
    pub fn with_bearer(mut self, key: &str) -> Self {
        self.client = self.client.clone().with_bearer(key);
        self
    }

    /// Calls a method over the pinned connection.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T> {
        let answer = self
            .client
            .call(method, params)
            .await
            .with_context(|| method.to_owned())?;
        serde_json::from_value(answer).with_context(|| format!("{method}'s answer"))
    }

    /// Calls a method and gives the error back as it is.
    pub async fn try_call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        self.client.call(method, params).await
    }
}

fn verify(
    answer: &AttestationAnswer,
    tls_key: B256,
    nonce: &[u8],
    trust: &Trust,
) -> Result<Attested> {
    ensure!(
        answer.operator == trust.operator,
        "the enclave is for operator {}, expected {}",
        answer.operator,
        trust.operator
    );
    let user_data = match answer.stage {
        1 => Stage1 {
            tls_spki_hash: tls_key.0,
            ephemeral_hpke_public_key: answer.hpke_public_key.0,
            boot_id: answer.boot_id.0,
            operator: answer.operator.into(),
        }
        .user_data(),
        2 => Stage2 {
            tls_spki_hash: tls_key.0,
            bls_public_key: answer
                .bls_public_key
                .as_ref()
                .try_into()
                .context("bls_public_key must have 96 bytes")?,
            hpke_public_key: answer.hpke_public_key.0,
            boot_id: answer.boot_id.0,
            operator: answer.operator.into(),
        }
        .user_data(),
        other => bail!("unknown attestation stage {other}"),
    };
    let [pcr0, pcr1, pcr2] = trust.pcrs;
    let verifier = Verifier {
        root: trust.root,
        policy: PcrPolicy::image(pcr0, pcr1, pcr2).with(16, trust.pcr16),
        max_age_ms: Some(300_000),
        unsigned: if trust.accept_unsigned {
            Unsigned::AcceptEmulated
        } else {
            Unsigned::Refuse
        },
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let verified = verifier
        .verify(
            &answer.document,
            now.as_millis() as u64,
            Expect::Exactly(nonce),
            Expect::Exactly(&user_data),
        )
        .context("the enclave's attestation document")?;
    Ok(Attested {
        signed: verified.signed == Signed::Signed,
        stage: answer.stage,
        boot_id: answer.boot_id,
        hpke_public_key: answer.hpke_public_key,
        pcrs: trust.pcrs,
    })
}

fn random_nonce() -> Result<[u8; 32]> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|e| anyhow::anyhow!("randomness: {e}"))?;
    Ok(nonce)
}

/// `0x` and hex digits.
pub fn hex_0x(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}
