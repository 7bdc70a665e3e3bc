//! A node of its own for a test, and keys that sign.
#![allow(dead_code)]

use std::borrow::Cow;
use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use alloy::contract::{CallBuilder, CallDecoder, Error};
use alloy::network::Ethereum;
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::types::{TransactionReceipt, TransactionRequest};
use alloy_primitives::{Address, B256, Bytes, U256, address, keccak256};
use alloy_sol_types::{Eip712Domain, SolError};
use blst::min_sig::{AggregatePublicKey, AggregateSignature, PublicKey, SecretKey, Signature};
use newton_contracts::abi;

const SUITE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
const POSSESSION_SUITE: &[u8] = b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

pub fn config_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

pub fn out_dir() -> PathBuf {
    std::env::var_os("NEWTON_CONTRACTS_OUT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../out"),
        PathBuf::from,
    )
}

fn anvil() -> PathBuf {
    if let Some(path) = std::env::var_os("NEWTON_ANVIL") {
        return path.into();
    }
    let local = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node_modules/.bin/anvil");
    if local.exists() {
        local
    } else {
        "anvil".into()
    }
}

/// A node that lives as long as this value.
pub struct Chain {
    node: Child,
    pub provider: DynProvider,
    pub url: String,
}

impl Chain {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(options: &[&str]) -> Self {
        let program = anvil();
        let mut node = Command::new(&program)
            .args(["--hardfork", "prague", "--port", "0"])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
        let at = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned))
            .expect("anvil says where it listens");
        // Keep its pipe empty.
        std::thread::spawn(move || lines.for_each(drop));
        let url = format!("http://{at}");
        let provider = ProviderBuilder::new()
            .connect_http(url.parse().unwrap())
            .erased();
        Self {
            node,
            provider,
            url,
        }
    }

    /// Anvil's well-known unlocked accounts.
    pub fn accounts(&self) -> [Address; 5] {
        [
            address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
            address!("70997970C51812dc3A010C7d01b50e0d17dc79C8"),
            address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
            address!("90F79bf6EB2c4f870365E785982E1f101E93b906"),
            address!("15d34AAf54267DB7D7c367839AAf71A00a2C6A65"),
        ]
    }

    pub async fn send<P: Provider, D: CallDecoder>(
        &self,
        name: &str,
        call: CallBuilder<P, D, Ethereum>,
    ) -> TransactionReceipt {
        let receipt = call
            .send()
            .await
            .unwrap_or_else(|error| panic!("{name}: {error} {:?}", error.as_revert_data()))
            .get_receipt()
            .await
            .unwrap();
        println!("{name:<30} {:>9} gas", receipt.gas_used);
        assert!(receipt.status(), "{name} failed");
        receipt
    }

    pub async fn mine(&self, blocks: u64) {
        let _: serde_json::Value = self
            .provider
            .raw_request("anvil_mine".into(), [U256::from(blocks)])
            .await
            .unwrap();
    }

    pub async fn rpc(&self, method: &'static str, params: serde_json::Value) -> serde_json::Value {
        self.provider
            .raw_request(method.into(), params)
            .await
            .unwrap()
    }

    /// One transaction that creates nothing.
    pub async fn pay(&self, from: Address, to: Address) {
        let request = TransactionRequest::default()
            .from(from)
            .to(to)
            .value(U256::from(1));
        let sent = self.provider.send_transaction(request).await.unwrap();
        assert!(sent.get_receipt().await.unwrap().status());
    }

    pub async fn number(&self) -> u64 {
        self.provider.get_block_number().await.unwrap()
    }

    pub async fn timestamp(&self) -> u64 {
        self.timestamp_of(self.number().await).await
    }

    pub async fn timestamp_of(&self, block: u64) -> u64 {
        self.provider
            .get_block_by_number(block.into())
            .await
            .unwrap()
            .unwrap()
            .header
            .timestamp
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

/// The custom error a call was refused with.
pub fn revert_of<E: SolError + Debug>(error: &Error) -> E {
    error
        .as_decoded_error::<E>()
        .unwrap_or_else(|| panic!("another error than expected: {error}"))
}

pub fn domain(name: &'static str, chain_id: u64, contract: Address) -> Eip712Domain {
    Eip712Domain {
        name: Some(Cow::Borrowed(name)),
        version: Some(Cow::Borrowed("1")),
        chain_id: Some(U256::from(chain_id)),
        verifying_contract: Some(contract),
        salt: None,
    }
}

/// A BLS key.
pub struct Bls(SecretKey);

impl Bls {
    pub fn from_name(name: &str) -> Self {
        Self(SecretKey::key_gen(keccak256(name).as_slice(), &[]).unwrap())
    }

    pub fn public_key(&self) -> Bytes {
        g2(&self.0.sk_to_pk())
    }

    pub fn key_hash(&self) -> B256 {
        keccak256(self.public_key())
    }

    pub fn sign(&self, digest: B256) -> Bytes {
        g1(&self.0.sign(digest.as_slice(), SUITE, &[]))
    }

    pub fn possession(&self, message: B256) -> Bytes {
        g1(&self.0.sign(message.as_slice(), POSSESSION_SUITE, &[]))
    }
}

/// Sum of the keys; infinity if there are none.
pub fn aggregate_key(members: &[Bls]) -> Bytes {
    if members.is_empty() {
        return vec![0; 256].into();
    }
    let keys: Vec<PublicKey> = members.iter().map(|bls| bls.0.sk_to_pk()).collect();
    let keys: Vec<&PublicKey> = keys.iter().collect();
    g2(&AggregatePublicKey::aggregate(&keys, true)
        .unwrap()
        .to_public_key())
}

/// A certificate that all members signed.
pub fn certificate(members: &[Bls], set_id: u64, digest: B256) -> abi::Certificate {
    let signatures: Vec<Signature> = members
        .iter()
        .map(|bls| bls.0.sign(digest.as_slice(), SUITE, &[]))
        .collect();
    let signatures: Vec<&Signature> = signatures.iter().collect();
    abi::Certificate {
        signature: g1(&AggregateSignature::aggregate(&signatures, true)
            .unwrap()
            .to_signature()),
        setId: set_id,
        nonSignerBitmap: U256::ZERO,
        nonSignerKeys: Bytes::new(),
        aggregateKey: aggregate_key(members),
    }
}

pub fn no_certificate() -> abi::Certificate {
    abi::Certificate {
        signature: Bytes::new(),
        setId: 0,
        nonSignerBitmap: U256::ZERO,
        nonSignerKeys: Bytes::new(),
        aggregateKey: Bytes::new(),
    }
}

/// EIP-2537 pads each 48-byte coordinate to 64.
fn pad(coordinates: &[&[u8]]) -> Bytes {
    let mut out = Vec::new();
    for coordinate in coordinates {
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(coordinate);
    }
    out.into()
}

fn g1(signature: &Signature) -> Bytes {
    let raw = signature.serialize();
    pad(&[&raw[..48], &raw[48..]])
}

/// blst writes c1 before c0, EIP-2537 c0 before c1.
fn g2(key: &PublicKey) -> Bytes {
    let raw = key.serialize();
    pad(&[&raw[48..96], &raw[..48], &raw[144..], &raw[96..144]])
}
