//! The policy author's and the client's work: disperse artifacts, register templates, deploy instances, seal secrets.

use std::path::Path;

use alloy::primitives::{Address, B256, Bytes, keccak256};
use anyhow::{Context, Result};
use newton_artifacts::{DaBlob, DaRef, EigenDaProxy, MAX_PAYLOAD_BYTES};
use newton_contracts::abi::{
    ArtifactRef, IPolicyClientRegistry, IPolicyDataRegistry, IPolicyRegistry,
};
use newton_keys::hpke::{Envelope, EnvelopeContext};
use newton_types::{ABSENT, Namespace};

use crate::{
    admission::Chain,
    chain::{Spent, send, wait_blocks},
};

/// A policy with one data component, as it stands in a folder of `tests/examples/`.
pub struct Example {
    rego: Vec<u8>,
    entrypoint: String,
    params_schema: Vec<u8>,
    params: Vec<u8>,
    wasm: Vec<u8>,
    data_params_schema: Vec<u8>,
    data_params: Vec<u8>,
    secrets_schema: Vec<u8>,
    secrets: Vec<u8>,
}

impl Example {
    /// `tests/examples/spend-limit`.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn spend_limit(dir: &Path) -> Result<Self> {
        let wasm = dir.join("spend-ledger.wasm");
        Self::read(dir, "spend_limit.allow", &wasm)
    }

    /// An example whose component was built at `wasm` and asks the server at `url`.
    ///
    /// # Errors
    /// If a file cannot be read, or the component's params are no JSON object.
    pub fn asking(dir: &Path, entrypoint: &str, wasm: &Path, url: &str) -> Result<Self> {
        let mut example = Self::read(dir, entrypoint, wasm)?;
        let mut params: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&example.data_params).context("component.params.json")?;
        params.insert("url".to_owned(), url.into());
        example.data_params = serde_json::to_vec(&params)?;
        Ok(example)
    }

    fn read(dir: &Path, entrypoint: &str, wasm: &Path) -> Result<Self> {
        let read = |name: &str| {
            std::fs::read(dir.join(name)).with_context(|| format!("{}/{name}", dir.display()))
        };
        Ok(Self {
            rego: read("policy.rego")?,
            entrypoint: entrypoint.to_owned(),
            params_schema: read("params.schema.json")?,
            params: read("params.json")?,
            wasm: std::fs::read(wasm).with_context(|| wasm.display().to_string())?,
            data_params_schema: read("component.params.schema.json")?,
            data_params: read("component.params.json")?,
            secrets_schema: read("component.secrets.schema.json")?,
            secrets: read("component.secrets.json")?,
        })
    }
}

/// What the author and the client put on chain.
#[derive(Clone, Debug)]
pub struct Deployed {
    /// The client.
    pub client: Address,
    /// Policy template.
    pub policy_template: B256,
    /// Data template.
    pub data_template: B256,
    /// Policy instance.
    pub policy_instance: B256,
    /// Data instance.
    pub data_instance: B256,
    /// Hash of the Rego source, for proofs.
    pub rego: B256,
    /// The transactions, by what they did.
    pub spent: Vec<(&'static str, Spent)>,
}

/// Expiry of evaluations, in blocks.
const EXPIRE_AFTER: u64 = 50;

/// Puts an example on chain for a client: templates by the author, instances and secrets by the client.
pub async fn deploy(
    chain: &Chain,
    da: &EigenDaProxy,
    example: &Example,
    secrets_key: B256,
) -> Result<Deployed> {
    let accounts = &chain.accounts;
    let clients =
        IPolicyClientRegistry::new(chain.contracts.policy_client_registry, &chain.provider);
    let policies = IPolicyRegistry::new(chain.contracts.policy_registry, &chain.provider);
    let data = IPolicyDataRegistry::new(chain.contracts.policy_data_registry, &chain.provider);
    let client = accounts.client;
    let mut spent = Vec::new();

    let mut note = |what: &'static str, s: Spent| spent.push((what, s));
    note(
        "registerClient",
        send(
            "registerClient",
            client,
            clients.registerClient(client, client),
        )
        .await?,
    );

    let (wasm, wasm_da) = disperse(da, &example.wasm).await?;
    let (data_schema, data_schema_da) = disperse(da, &example.data_params_schema).await?;
    let (secrets_schema, secrets_schema_da) = disperse(da, &example.secrets_schema).await?;
    let data_template = newton_types::ids::policy_data_template_id(
        wasm.artifactHash,
        data_schema.artifactHash,
        secrets_schema.artifactHash,
    );
    note(
        "registerDataTemplate",
        send(
            "PolicyDataRegistry.registerTemplate",
            accounts.author,
            data.registerTemplate(
                wasm,
                data_schema,
                secrets_schema,
                vec![wasm_da, data_schema_da, secrets_schema_da],
            ),
        )
        .await?,
    );

    let (rego, rego_da) = disperse(da, &example.rego).await?;
    let (schema, schema_da) = disperse(da, &example.params_schema).await?;
    let rego_hash = rego.artifactHash;
    let policy_template = newton_types::ids::policy_template_id(
        rego_hash,
        &example.entrypoint,
        schema.artifactHash,
        &[data_template],
    );
    note(
        "registerPolicyTemplate",
        send(
            "PolicyRegistry.registerTemplate",
            accounts.author,
            policies.registerTemplate(
                rego,
                schema,
                example.entrypoint.clone(),
                vec![data_template],
                vec![rego_da, schema_da],
            ),
        )
        .await?,
    );
    wait_blocks(&chain.provider, 1).await?;

    let data_params = Bytes::from(example.data_params.clone());
    let data_instance = data
        .computeInstanceId(client, data_template, data_params.clone(), EXPIRE_AFTER)
        .call()
        .await?;
    note(
        "deployDataInstance",
        send(
            "PolicyDataRegistry.deployInstance",
            client,
            data.deployInstance(client, data_template, data_params, EXPIRE_AFTER, true),
        )
        .await?,
    );
    wait_blocks(&chain.provider, 1).await?;
    let params = Bytes::from(example.params.clone());
    let policy_instance = policies
        .computeInstanceId(client, policy_template, params.clone(), EXPIRE_AFTER)
        .call()
        .await?;
    note(
        "deployPolicyInstance",
        send(
            "PolicyRegistry.deployInstance",
            client,
            policies.deployInstance(client, policy_template, params, EXPIRE_AFTER, true),
        )
        .await?,
    );

    let context = EnvelopeContext {
        policy_client: client.into(),
        chain_id: crate::chain::CHAIN_ID,
    };
    let envelope = Envelope::seal(secrets_key.0, context, &example.secrets)
        .context("sealing the secrets")?
        .to_json();
    let (envelope, envelope_da) = disperse(da, envelope.as_bytes()).await?;
    note(
        "setSecrets",
        send(
            "setSecrets",
            client,
            data.setSecrets(data_instance, envelope, envelope_da),
        )
        .await?,
    );
    Ok(Deployed {
        client,
        policy_template,
        data_template,
        policy_instance,
        data_instance,
        rego: rego_hash,
        spent,
    })
}

/// Registers a template of one Rego source without params or data; gives back the source's hash.
pub async fn register_rego(
    chain: &Chain,
    da: &EigenDaProxy,
    source: &[u8],
    entrypoint: &str,
) -> Result<B256> {
    let policies = IPolicyRegistry::new(chain.contracts.policy_registry, &chain.provider);
    let (rego, reference) = disperse(da, source).await?;
    let hash = rego.artifactHash;
    let absent = ArtifactRef {
        artifactHash: ABSENT,
        byteLength: 0,
    };
    send(
        "PolicyRegistry.registerTemplate",
        chain.accounts.author,
        policies.registerTemplate(
            rego,
            absent,
            entrypoint.to_owned(),
            Vec::new(),
            vec![reference],
        ),
    )
    .await?;
    Ok(hash)
}

/// Supplies a Rego source for a template whose own reference is of no use.
///
/// # Errors
/// If it cannot be dispersed, or the contract refuses.
pub async fn supply_rego(chain: &Chain, da: &EigenDaProxy, source: &[u8]) -> Result<()> {
    let policies = IPolicyRegistry::new(chain.contracts.policy_registry, &chain.provider);
    let (rego, reference) = disperse(da, source).await?;
    send(
        "PolicyRegistry.supplyArtifact",
        chain.accounts.client,
        policies.supplyArtifact(
            Namespace::PolicyRego as u8,
            rego.artifactHash,
            rego.byteLength,
            reference,
        ),
    )
    .await?;
    Ok(())
}

async fn disperse(da: &EigenDaProxy, bytes: &[u8]) -> Result<(ArtifactRef, Bytes)> {
    let hash = keccak256(bytes);
    anyhow::ensure!(hash != ABSENT, "an artifact hashes to ABSENT");
    let mut blobs = Vec::new();
    for part in bytes.chunks(MAX_PAYLOAD_BYTES) {
        let certificate = da
            .put(part.to_vec())
            .await
            .context("dispersing an artifact")?;
        blobs.push(DaBlob {
            certificate: certificate.to_vec().into(),
            length: u32::try_from(part.len())?,
        });
    }
    let reference = DaRef::new(blobs).context("DA reference")?;
    let artifact = ArtifactRef {
        artifactHash: hash,
        byteLength: u32::try_from(bytes.len()).context("artifact too long")?,
    };
    Ok((artifact, Bytes::from(reference.encode())))
}
