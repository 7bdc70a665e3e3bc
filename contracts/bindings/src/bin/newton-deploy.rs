//! `newton-deploy`: puts the set of contracts on a chain, completes what was interrupted, verifies what is there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alloy::network::EthereumWallet;
use alloy::providers::{Provider, ProviderBuilder};
use alloy::rpc::client::RpcClient;
use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, hex};
use anyhow::{Context, Result, bail, ensure};
use clap::{ArgGroup, Parser};
use newton_contracts::deploy::{DeployConfig, Deployment, NodeTransport, Outcome, Plan};
use zeroize::Zeroizing;

/// Deploys the Newton contracts from a chain's configuration, or completes and verifies a deployment
///
/// Every address follows from the deployer and the nonce of its first creation, so a run that was interrupted is continued
/// by running the same command again, and a run that finds the set complete sends nothing. Use an account for nothing else.
#[derive(Parser)]
#[command(name = "newton-deploy", version)]
#[command(group(ArgGroup::new("configuration").required(true).args(["config", "config_dir"])))]
#[command(group(ArgGroup::new("account").required(true).args(["private_key_file", "private_key_env", "deployer"])))]
struct Arguments {
    /// The node, e.g. `https://node.example` or `http://127.0.0.1:8545`
    #[arg(long, value_name = "URL")]
    rpc: String,
    /// PEM file with a certificate that vouches for the node, beside the public ones
    #[arg(long, value_name = "FILE")]
    rpc_ca: Option<PathBuf>,
    /// The chain's configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of configurations named after chain ids; the node says which chain it serves
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Where the addresses are written; what an earlier run wrote there is verified
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What `forge build` made
    #[arg(long, value_name = "DIR", default_value = "contracts/out")]
    artifacts: PathBuf,
    /// File with the deployer's private key in hexadecimal, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,
    /// Name of the environment variable with the deployer's private key
    #[arg(long, value_name = "NAME")]
    private_key_env: Option<String>,
    /// The deployer's address, enough for a dry run
    #[arg(long, value_name = "ADDRESS", requires = "dry_run")]
    deployer: Option<Address>,
    /// Nonce at which the set begins, for a deployer that sent other transactions before
    #[arg(long, value_name = "NONCE")]
    first_nonce: Option<u64>,
    /// Print what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let node = NodeTransport::new(&arguments.rpc, arguments.rpc_ca.as_deref())?;
    let client = RpcClient::new(node, false);
    let (deployer, provider) = match &arguments.deployer {
        Some(deployer) => (
            *deployer,
            ProviderBuilder::new().connect_client(client).erased(),
        ),
        None => {
            let signer = signer(arguments)?;
            let address = signer.address();
            let wallet = EthereumWallet::from(signer);
            let provider = ProviderBuilder::new().wallet(wallet).connect_client(client);
            (address, provider.erased())
        }
    };
    let config = match (&arguments.config, &arguments.config_dir) {
        (Some(file), _) => DeployConfig::load(file)?,
        (None, Some(dir)) => DeployConfig::for_chain(dir, provider.get_chain_id().await?)?,
        (None, None) => bail!("no configuration"),
    };
    let former = former(&arguments.out)?;
    let first_nonce = first_nonce(arguments, former.as_ref(), deployer, &config)?;
    let plan = Plan::make(
        &provider,
        deployer,
        &config,
        &arguments.artifacts,
        first_nonce,
    )
    .await?;

    println!("{} (chain {})", config.name, config.chain_id);
    println!("deployer     {deployer}, first nonce {}", plan.first_nonce);
    println!("owner        {}", plan.owner);
    println!("on the chain {} of {}", plan.found, plan.steps.len());
    if arguments.dry_run {
        return dry_run(&plan, &provider).await;
    }
    let outcome = plan.execute(&provider, former.as_ref()).await?;
    report(&outcome, &plan);
    if former.as_ref() == Some(&outcome.deployment) {
        println!("{} says so already", arguments.out.display());
    } else {
        write(&arguments.out, &outcome.deployment)?;
        println!("written to {}", arguments.out.display());
    }
    Ok(())
}

/// The plan, as a table. Nothing is sent.
async fn dry_run(plan: &Plan, provider: &impl Provider) -> Result<()> {
    let balance = provider.get_balance(plan.deployer).await?;
    println!("balance      {balance} wei\n");
    println!(
        "{:>5}  {:<34} {:<42} {:>9} {:>10}",
        "nonce", "creates", "at", "initcode", "gas"
    );
    let estimates = plan.estimates(provider).await;
    for (index, (step, gas)) in plan.steps.iter().zip(&estimates).enumerate() {
        let gas = match gas {
            _ if index < plan.found => "done".to_owned(),
            Some(gas) => gas.to_string(),
            None => "?".to_owned(),
        };
        println!(
            "{:>5}  {:<34} {} {:>9} {:>10}",
            step.nonce,
            step.name,
            step.address,
            step.init_code.len(),
            gas
        );
    }
    let known: u64 = estimates.iter().flatten().sum();
    println!("\ngas where the node can tell: {known}; a proxy's once its implementation is there");
    println!("dry run: nothing was sent");
    Ok(())
}

fn report(outcome: &Outcome, plan: &Plan) {
    let deployment = &outcome.deployment;
    match outcome.sent {
        0 => println!("complete: nothing was sent"),
        sent => println!("sent         {sent} transactions"),
    }
    for change in &outcome.changes {
        println!("changed since the deployment: {change}");
    }
    println!(
        "blocks       {} first, {} genesis",
        deployment.deployment_block, deployment.genesis_block
    );
    if plan.owner == plan.deployer {
        println!(
            "The deployer owns the contracts. To hand them over it sends transferOwnership to each of the ten proxies, and \
             the new owner then sends acceptOwnership to each."
        );
    } else {
        println!(
            "The owner has owned every contract since its creation; the deployer never did, so acceptOwnership is not to be \
             sent. For a later transferOwnership the new owner sends it to each proxy."
        );
    }
}

fn signer(arguments: &Arguments) -> Result<PrivateKeySigner> {
    // Errors name where the key was to be, never what was there.
    let (text, source) = match (&arguments.private_key_file, &arguments.private_key_env) {
        (Some(file), _) => (key_file(file)?, file.display().to_string()),
        (None, Some(name)) => {
            let text = std::env::var(name).ok();
            let text = text.with_context(|| format!("the environment has no text in {name}"))?;
            (Zeroizing::new(text), name.clone())
        }
        (None, None) => bail!("no account"),
    };
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), key.as_mut())
        .ok()
        .and_then(|()| PrivateKeySigner::from_slice(key.as_ref()).ok())
        .with_context(|| format!("{source} does not hold a private key of 32 bytes in hexadecimal"))
}

fn key_file(path: &Path) -> Result<Zeroizing<String>> {
    use std::os::unix::fs::PermissionsExt;
    let name = || path.display().to_string();
    let mode = std::fs::metadata(path)
        .with_context(name)?
        .permissions()
        .mode();
    ensure!(
        mode & 0o077 == 0,
        "{} can be read by others (mode {:o}): take their rights away first",
        path.display(),
        mode & 0o777
    );
    let text = std::fs::read(path).map(Zeroizing::new).with_context(name)?;
    let text = std::str::from_utf8(&text).ok();
    let text = text.with_context(|| format!("{} is not text", path.display()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// What an earlier run wrote.
fn former(path: &Path) -> Result<Option<Deployment>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let read = serde_json::from_str(&text);
    read.map(Some)
        .with_context(|| format!("{} is not a deployment's file", path.display()))
}

/// Where the set begins, as far as it is known before the chain is asked.
fn first_nonce(
    arguments: &Arguments,
    former: Option<&Deployment>,
    deployer: Address,
    config: &DeployConfig,
) -> Result<Option<u64>> {
    let Some(former) = former else {
        return Ok(arguments.first_nonce);
    };
    let file = arguments.out.display();
    ensure!(
        former.chain_id == config.chain_id,
        "{file} is of chain {}, the configuration of {}",
        former.chain_id,
        config.chain_id
    );
    ensure!(
        former.deployer == deployer,
        "{file} is a deployment by {}, not by {deployer}",
        former.deployer
    );
    if let Some(given) = arguments.first_nonce {
        ensure!(
            given == former.first_nonce,
            "{file} begins at nonce {}, not {given}: another set needs another file",
            former.first_nonce
        );
    }
    Ok(Some(former.first_nonce))
}

/// Whoever reads the file sees the former one or the whole new one.
fn write(path: &Path, deployment: &Deployment) -> Result<()> {
    let mut text = serde_json::to_string_pretty(deployment)?;
    text.push('\n');
    let mut name = path
        .file_name()
        .with_context(|| format!("{} is not a file", path.display()))?
        .to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let save = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    save().with_context(|| format!("cannot write {}", path.display()))
}
