//! A task, a policy over a price, and operators with keys.
#![allow(clippy::unwrap_used, dead_code)]

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use alloy_sol_types::SolValue;
use newton_evaluate::{
    Evaluator, MachineLimits, SecretBytes,
    intent::WireIntent,
    transcript::{FetchError, HttpFetcher, HttpOutcome, HttpRequest, transcript_hash},
};
use newton_keys::bls::BlsKey;
use newton_rounds::{
    DataPart, OperatorOutputs, PolicyPart, Record, SignedOutput,
    record::{OperatorSet, RECORD_VERSION},
};
use newton_types::{ABSENT, Address, B256, Bytes, U256, abi, ids, keccak256, signing};

pub const PRICE_POLICY: &str = "package p\n\nimport rego.v1\n\ndefault allow := false\n\nallow if to_number(data.wasm.feed.price) <= 105\n";
const SCHEMA: &str = r#"{"type":"object","x-newton-consensus":{"/feed/price":"median"}}"#;

pub struct Operator {
    key: BlsKey,
}

impl Operator {
    pub fn new(seed: u8) -> Self {
        Self {
            key: BlsKey::generate(&[seed; 32]).unwrap(),
        }
    }

    pub fn key_hash(&self) -> B256 {
        B256::from(self.key.public_key().hash())
    }
}

pub struct World {
    pub evaluator: Evaluator,
    pub artifacts: HashMap<B256, Arc<[u8]>>,
    pub operators: Vec<Operator>,
    pub record: Record,
}

impl World {
    /// `operators` of weight one each.
    pub fn new(rego: &str, operators: u8) -> Self {
        Self::with_task(rego, operators, B256::repeat_byte(0x11))
    }

    pub fn with_task(rego: &str, operators: u8, task_id: B256) -> Self {
        let mut artifacts = HashMap::new();
        let rego = add(&mut artifacts, rego.as_bytes());
        let schema = add(&mut artifacts, SCHEMA.as_bytes());
        // Never run: outputs are brought.
        let wasm = keccak256("component");
        let client = Address::repeat_byte(0xc1);
        let data_template = ids::policy_data_template_id(wasm, schema, ABSENT);
        let template = ids::policy_template_id(rego, "p.allow", ABSENT, &[data_template]);
        let params_hash = ids::params_hash(50, &[]);
        let data_instance =
            ids::policy_data_instance_id(31_337, client, data_template, params_hash);
        let instance = ids::policy_instance_id(31_337, client, template, params_hash);
        let operators: Vec<Operator> = (1..=operators).map(Operator::new).collect();
        let record = Record {
            version: RECORD_VERSION,
            chain_id: 31_337,
            task_manager: Address::repeat_byte(0x7a),
            task_id,
            task: task(client, instance, vec![data_instance]).into(),
            intent: intent("intents/allow.json").abi_encode().into(),
            wasm_args: Bytes::from_static(b"{}"),
            intent_signature: None,
            policy: PolicyPart {
                client,
                template_id: template,
                rego_hash: rego,
                params_schema_hash: ABSENT,
                entrypoint: "p.allow".to_owned(),
                data_template_refs: vec![data_template],
                params: Bytes::new(),
                expire_after: 50,
            },
            data: vec![DataPart {
                client,
                instance_id: data_instance,
                template_id: data_template,
                wasm_hash: wasm,
                params_schema_hash: schema,
                secrets_schema_hash: ABSENT,
                params: Bytes::new(),
                expire_after: 50,
                secrets_leaf_hash: ABSENT,
                transcript: None,
            }],
            outputs: None,
            operator_set: Some(OperatorSet {
                members: operators
                    .iter()
                    .map(|o| (o.key_hash(), "1".to_owned()))
                    .collect(),
                total_weight: operators.len().to_string(),
            }),
            attestation: Bytes::new(),
        };
        Self {
            evaluator: Evaluator::new(MachineLimits::default()).unwrap(),
            artifacts,
            operators,
            record,
        }
    }

    pub fn instance(&self) -> B256 {
        self.record.data[0].instance_id
    }

    /// The first operators' outputs, one text each.
    pub fn outputs(&self, round: u32, texts: &[&str]) -> Vec<OperatorOutputs> {
        let pairs = self.operators.iter().zip(texts);
        pairs
            .map(|(operator, text)| self.signed_by(operator, round, text))
            .collect()
    }

    pub fn signed_by(&self, operator: &Operator, round: u32, text: &str) -> OperatorOutputs {
        let expected = self.record.expected(round).unwrap().unwrap();
        let output = Bytes::copy_from_slice(text.as_bytes());
        let transcript_hash = transcript_hash(&[]);
        let digest = expected
            .digest(self.instance(), &output, transcript_hash)
            .unwrap();
        OperatorOutputs {
            round,
            bls_public_key: operator.key.public_key().to_eip2537().to_vec().into(),
            outputs: vec![SignedOutput {
                policy_data_instance_id: self.instance(),
                output,
                transcript_hash,
                signature: operator.key.sign(&digest.0).to_eip2537().to_vec().into(),
            }],
        }
    }

    pub fn merged(&self, set: Vec<OperatorOutputs>) -> Record {
        Record {
            outputs: Some(set),
            ..self.record.clone()
        }
    }
}

/// The spend-limit example, whose component runs.
pub fn spend_limit() -> (World, Record, BTreeMap<B256, SecretBytes>) {
    let mut world = World::new("package p\n", 1);
    let artifacts = &mut world.artifacts;
    let record = &mut world.record;
    let data = &mut record.data[0];
    data.wasm_hash = add(artifacts, &example("spend-ledger.wasm"));
    data.params_schema_hash = add(artifacts, &example("component.params.schema.json"));
    data.secrets_schema_hash = add(artifacts, &example("component.secrets.schema.json"));
    data.params = example("component.params.json").into();
    record.policy.rego_hash = add(artifacts, &example("policy.rego"));
    record.policy.params_schema_hash = add(artifacts, &example("params.schema.json"));
    record.policy.params = example("params.json").into();
    record.policy.entrypoint = "spend_limit.allow".to_owned();
    record.wasm_args = example("wasm_args.json").into();
    let secrets = SecretBytes::new(example("component.secrets.json"));
    let secrets = BTreeMap::from([(data.instance_id, secrets)]);
    let record = record.clone();
    (world, record, secrets)
}

pub fn no_http() -> Arc<dyn HttpFetcher> {
    struct None;
    impl HttpFetcher for None {
        fn fetch(&self, _: &HttpRequest, _: u64) -> Result<HttpOutcome, FetchError> {
            Err(FetchError::absent())
        }
    }
    Arc::new(None)
}

fn task(client: Address, instance: B256, data: Vec<B256>) -> Vec<u8> {
    abi::Task {
        client,
        policyInstanceId: instance,
        dataInstanceIds: data,
        stateSequenceNo: 3,
        stateRoot: B256::repeat_byte(0x33),
        operatorSetId: 1,
        rulesVersion: 1,
        intentHash: signing::intent_hash(&intent("intents/allow.json")),
        wasmArgsHash: keccak256("{}"),
        referenceBlock: 100,
        referenceTimestamp: 1_764_000_000,
        nonce: 1,
        quorumBps: 6_667,
    }
    .abi_encode()
}

fn intent(file: &str) -> abi::Intent {
    let wire = WireIntent::from_json(&example(file)).unwrap().intent;
    abi::Intent {
        from: wire.from,
        to: wire.to,
        value: wire.value,
        data: wire.data.into(),
        chainId: U256::from(wire.chain_id),
        functionSignature: wire.function_signature.into(),
    }
}

fn add(artifacts: &mut HashMap<B256, Arc<[u8]>>, bytes: &[u8]) -> B256 {
    let hash = keccak256(bytes);
    artifacts.insert(hash, bytes.into());
    hash
}

fn example(file: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/examples/spend-limit")
        .join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
