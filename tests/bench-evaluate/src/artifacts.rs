//! The spend-limit example as requests.

use std::{collections::HashMap, path::Path, sync::Arc};

use alloy_primitives::{Address, B256, keccak256};
use anyhow::{Context, Result};
use newton_evaluate::{
    DataInput, EvaluateRequest, Intent, PolicyInput, RULES_VERSION_1, TaskContext,
    intent::WireIntent,
};

/// The example's files.
pub struct Example {
    pub artifacts: HashMap<B256, Arc<[u8]>>,
    pub rego: Vec<u8>,
    pub params: Vec<u8>,
    pub component: Vec<u8>,
    rego_hash: B256,
    params_schema: B256,
    wasm: B256,
    component_params: Vec<u8>,
    component_params_schema: B256,
    wasm_args: Vec<u8>,
    intent: Intent,
}

pub const ENTRYPOINT: &str = "spend_limit.allow";
pub const NOW: u64 = 1_764_000_000;

impl Example {
    /// Reads them.
    pub fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).with_context(|| path.display().to_string())
        };
        let mut artifacts = HashMap::new();
        let mut keep = |bytes: &[u8]| {
            let hash = keccak256(bytes);
            artifacts.insert(hash, Arc::from(bytes));
            hash
        };
        let (rego, component) = (read("policy.rego")?, read("spend-ledger.wasm")?);
        let rego_hash = keep(&rego);
        let wasm = keep(&component);
        let params_schema = keep(&read("params.schema.json")?);
        let component_params_schema = keep(&read("component.params.schema.json")?);
        Ok(Self {
            rego_hash,
            params_schema,
            wasm,
            component_params_schema,
            params: read("params.json")?,
            component_params: read("component.params.json")?,
            wasm_args: read("wasm_args.json")?,
            intent: WireIntent::from_json(&read("intents/allow.json")?)?.intent,
            rego,
            component,
            artifacts,
        })
    }

    /// Policy, schemas and one component.
    pub fn whole(&self) -> EvaluateRequest {
        let mut request = self.rego_only();
        let template_id = B256::repeat_byte(0x70);
        request.wasm_args.clone_from(&self.wasm_args);
        request.policy.params_schema = Some(self.params_schema);
        request.policy.data_template_refs = vec![template_id];
        request.data = vec![DataInput {
            client: request.policy.client,
            instance_id: B256::repeat_byte(0xd1),
            template_id,
            wasm: self.wasm,
            params_schema: Some(self.component_params_schema),
            secrets_schema: None,
            params: self.component_params.clone(),
            secrets: None,
        }];
        request
    }

    /// The policy alone.
    pub fn rego_only(&self) -> EvaluateRequest {
        EvaluateRequest {
            task: TaskContext {
                task_id: B256::repeat_byte(0x01),
                rules_version: RULES_VERSION_1,
                reference_block: 100,
                reference_timestamp: NOW,
            },
            intent: self.intent.clone(),
            intent_signature: None,
            wasm_args: Vec::new(),
            policy: PolicyInput {
                client: Address::repeat_byte(0xc1),
                rego: self.rego_hash,
                entrypoint: ENTRYPOINT.to_owned(),
                params_schema: None,
                params: self.params.clone(),
                data_template_refs: Vec::new(),
            },
            data: Vec::new(),
            explain: false,
        }
    }

    /// What the component is called with.
    pub fn component_input(&self) -> String {
        String::from_utf8_lossy(&self.wasm_args).into_owned()
    }
}
