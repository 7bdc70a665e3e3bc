//! A real anvil node and the accounts that act on it.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use alloy::{
    network::EthereumWallet,
    primitives::{Address, B256, U256},
    providers::{DynProvider, Provider, ProviderBuilder},
    signers::local::PrivateKeySigner,
};
use anyhow::{Context, Result, bail, ensure};

/// Chain id of the development chain.
pub const CHAIN_ID: u64 = 31_337;

/// A running anvil; killed on drop.
pub struct Anvil {
    child: Child,
    /// Base URL of its RPC.
    pub url: String,
}

impl Anvil {
    /// Starts anvil with finality two blocks behind its head and a block each second, and at once for a transaction.
    pub async fn start(binary: &Path, port: u16, log: &Path) -> Result<Self> {
        let log = std::fs::File::create(log).context("creating anvil's log")?;
        let child = Command::new(binary)
            .args(["--hardfork", "prague", "--slots-in-an-epoch", "1"])
            .args(["--block-time", "1", "--mixed-mining"])
            .args(["--chain-id", &CHAIN_ID.to_string()])
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let anvil = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        };
        let provider = ProviderBuilder::new().connect_http(anvil.url.parse()?);
        let deadline = Instant::now() + Duration::from_secs(20);
        while provider.get_chain_id().await.is_err() {
            if Instant::now() > deadline {
                bail!("anvil does not answer at {}", anvil.url);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(anvil)
    }
}

impl Anvil {
    /// Stops its process where it stands, or lets it go on: while it stands, nobody gets an answer.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn pause(&self, paused: bool) -> Result<()> {
        let signal = if paused { "-STOP" } else { "-CONT" };
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .context("kill")?;
        ensure!(status.success(), "kill {signal}: {status}");
        Ok(())
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The people of the demonstration, each with an account of anvil's published development mnemonic.
#[derive(Clone)]
pub struct Accounts {
    /// Deploys and owns the contracts.
    pub governance: Address,
    /// Owns the first operator.
    pub operator: Address,
    /// Keys of all operators' owners, the first one's first.
    pub operators: Vec<PrivateKeySigner>,
    /// Registers templates.
    pub author: Address,
    /// The application whose policy it is; claims itself.
    pub client: Address,
    /// Key of the client, which signs its owner's calls.
    pub client_key: PrivateKeySigner,
    /// Pays the shim's gas.
    pub gas_payer: PrivateKeySigner,
    wallet: EthereumWallet,
    /// Key of governance, for the deployment.
    pub governance_key: PrivateKeySigner,
}

/// Private keys 0 to 4 of anvil's published mnemonic ("test test … junk").
const KEYS: [&str; 5] = [
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
];

impl Accounts {
    /// The five accounts.
    pub fn development() -> Result<Self> {
        Self::with_operators(1)
    }

    /// The same with further operators, whose keys are made here and have no balance yet.
    pub fn with_operators(count: usize) -> Result<Self> {
        let keys: Vec<PrivateKeySigner> = KEYS
            .iter()
            .map(|k| k.parse())
            .collect::<Result<_, _>>()
            .context("parsing the development keys")?;
        let mut wallet = EthereumWallet::new(keys[0].clone());
        for key in &keys[1..4] {
            wallet.register_signer(key.clone());
        }
        let mut operators = vec![keys[1].clone()];
        while operators.len() < count {
            let key = PrivateKeySigner::random();
            wallet.register_signer(key.clone());
            operators.push(key);
        }
        Ok(Self {
            operators,
            governance: keys[0].address(),
            operator: keys[1].address(),
            author: keys[2].address(),
            client: keys[3].address(),
            client_key: keys[3].clone(),
            gas_payer: keys[4].clone(),
            wallet,
            governance_key: keys[0].clone(),
        })
    }

    /// A provider that signs for whoever a call is `from`.
    pub fn provider(&self, url: &str) -> Result<DynProvider> {
        let provider = ProviderBuilder::new()
            .wallet(self.wallet.clone())
            .connect_http(url.parse().context("RPC URL")?);
        provider
            .client()
            .set_poll_interval(Duration::from_millis(100));
        Ok(provider.erased())
    }
}

/// Gives an account ether of the development chain.
pub async fn fund(provider: &DynProvider, account: Address) -> Result<()> {
    let amount = U256::from(1_000_000_000_000_000_000_000u128);
    provider
        .client()
        .request::<_, ()>("anvil_setBalance", (account, amount))
        .await
        .context("anvil_setBalance")
}

/// What a transaction cost.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Spent {
    /// Transaction hash.
    pub tx: B256,
    /// Gas used.
    pub gas: u64,
    /// Block it is in.
    pub block: u64,
}

/// Sends a call, waits for its receipt and fails with the contract's own error.
pub async fn send<P: Provider, D: alloy::contract::CallDecoder>(
    what: &str,
    from: Address,
    call: alloy::contract::CallBuilder<P, D>,
) -> Result<Spent> {
    let call = call.from(from);
    let pending = call.send().await.map_err(|e| explain(what, &e))?;
    let receipt = pending
        .get_receipt()
        .await
        .with_context(|| format!("{what}: no receipt"))?;
    if !receipt.status() {
        bail!("{what}: transaction {} reverted", receipt.transaction_hash);
    }
    Ok(Spent {
        tx: receipt.transaction_hash,
        gas: receipt.gas_used,
        block: receipt.block_number.unwrap_or_default(),
    })
}

/// An error with the revert data decoded by selector, as far as a contract said anything.
pub fn explain(what: &str, error: &alloy::contract::Error) -> anyhow::Error {
    match error.as_revert_data() {
        Some(data) => anyhow::anyhow!("{what}: reverted with {data} ({error})"),
        None => anyhow::anyhow!("{what}: {error}"),
    }
}

/// Waits until the chain has mined `blocks` more blocks: what a block registers counts from the next one on.
pub async fn wait_blocks(provider: &DynProvider, blocks: u64) -> Result<u64> {
    let target = provider.get_block_number().await? + blocks;
    loop {
        let now = provider.get_block_number().await?;
        if now >= target {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
