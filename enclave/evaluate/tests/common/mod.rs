//! The spend-limit example as a request, shared by the integration tests.

#![allow(clippy::unwrap_used, dead_code)]

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use alloy_primitives::{Address, B256, keccak256};
use newton_evaluate::{
    DataInput, EvaluateRequest, PolicyInput, RULES_VERSION_1, SecretBytes, TaskContext,
    intent::WireIntent,
};

pub type Artifacts = HashMap<B256, Arc<[u8]>>;

pub const NOW: u64 = 1_764_000_000;
pub const ENTRYPOINT: &str = "spend_limit.allow";

pub fn example(file: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/examples/spend-limit")
        .join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn add(artifacts: &mut Artifacts, bytes: impl Into<Arc<[u8]>>) -> B256 {
    let bytes = bytes.into();
    let hash = keccak256(&bytes);
    artifacts.insert(hash, bytes);
    hash
}

pub fn intent(file: &str) -> newton_evaluate::Intent {
    WireIntent::from_json(&example(file)).unwrap().intent
}

/// The example with its small payment, no statement and no secrets.
pub fn spend_limit() -> (EvaluateRequest, Artifacts) {
    let mut artifacts = Artifacts::new();
    let client = Address::repeat_byte(0xc1);
    let template_id = B256::repeat_byte(0x70);
    let request = EvaluateRequest {
        task: TaskContext {
            task_id: B256::repeat_byte(0x01),
            rules_version: RULES_VERSION_1,
            reference_block: 100,
            reference_timestamp: NOW,
        },
        intent: intent("intents/allow.json"),
        intent_signature: None,
        wasm_args: example("wasm_args.json"),
        policy: PolicyInput {
            client,
            rego: add(&mut artifacts, example("policy.rego")),
            entrypoint: ENTRYPOINT.to_owned(),
            params_schema: Some(add(&mut artifacts, example("params.schema.json"))),
            params: example("params.json"),
            data_template_refs: vec![template_id],
        },
        data: vec![DataInput {
            client,
            instance_id: B256::repeat_byte(0xd1),
            template_id,
            wasm: add(&mut artifacts, example("spend-ledger.wasm")),
            params_schema: Some(add(&mut artifacts, example("component.params.schema.json"))),
            secrets_schema: Some(add(
                &mut artifacts,
                example("component.secrets.schema.json"),
            )),
            params: example("component.params.json"),
            secrets: None,
        }],
        explain: false,
    };
    (request, artifacts)
}

pub fn secrets() -> SecretBytes {
    SecretBytes::new(example("component.secrets.json"))
}

/// A request with one bare policy and one component under the pack's own output.
pub fn bare(rego: &str, entrypoint: &str, components: &[Vec<u8>]) -> (EvaluateRequest, Artifacts) {
    let (mut request, mut artifacts) = spend_limit();
    request.policy.rego = add(&mut artifacts, rego.as_bytes());
    request.policy.entrypoint = entrypoint.to_owned();
    request.policy.params_schema = None;
    request.policy.params = Vec::new();
    request.policy.data_template_refs.clear();
    request.data.clear();
    for (index, component) in components.iter().enumerate() {
        let number = u8::try_from(index).unwrap() + 1;
        request
            .policy
            .data_template_refs
            .push(B256::repeat_byte(number));
        request.data.push(DataInput {
            client: request.policy.client,
            instance_id: B256::repeat_byte(0xa0 + number),
            template_id: B256::repeat_byte(number),
            wasm: add(&mut artifacts, component.as_slice()),
            params_schema: None,
            secrets_schema: None,
            params: Vec::new(),
            secrets: None,
        });
    }
    (request, artifacts)
}
