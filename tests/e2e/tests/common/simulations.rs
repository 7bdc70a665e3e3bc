//! Simulations and the check of envelopes: what authors and owners ask before anything is on chain.

use std::path::Path;

use alloy::{
    primitives::{Address, B256, Bytes},
    providers::Provider,
    signers::{SignerSync, local::PrivateKeySigner},
};
use newton_contracts::abi::{ArtifactRef, IPolicyDataRegistry, ITaskManager};
use newton_e2e::{
    World,
    chain::{CHAIN_ID, send},
    enclave::{Enclave, hex_0x},
    policy::Deployed,
    run::{self, Summary},
    tasks::{self, WireIntent},
};
use newton_keys::hpke::{Envelope, EnvelopeContext};
use newton_types::{
    rpc::ErrorName,
    signing::{self, OwnerCall, Scope},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{SPEND_LIMIT, name, say};

/// The example's policy, deployed, and who asks.
struct Desk<'a> {
    world: &'a World,
    enclave: Enclave,
    deployed: Deployed,
    rego: String,
    params: Value,
    secrets: Value,
}

/// What the simulations of the example answer, with and without its secrets, and who is refused.
pub async fn simulations(world: &World, project: &Path) {
    let example = project.join(SPEND_LIMIT);
    let mut summary = Summary::default();
    let (enclave, _) = run::admit(world, &mut summary, &say).await.unwrap();
    let deployed = run::deploy_policy(world, &enclave, &example, &mut summary, &say)
        .await
        .unwrap();
    let read = |name: &str| std::fs::read_to_string(example.join(name)).unwrap();
    let json = |name: &str| serde_json::from_str(&read(name)).unwrap();
    let desk = Desk {
        world,
        enclave,
        deployed,
        rego: read("policy.rego"),
        params: json("params.json"),
        secrets: json("component.secrets.json"),
    };
    let intent = |name: &str| json(&format!("intents/{name}.json"));
    desk.policy_without_secrets(&intent("allow")).await;
    desk.policy_with_secrets(&intent("needs-statement")).await;
    desk.wrong_policies(&intent("allow")).await;
    desk.exact_numbers(&intent("allow")).await;
    desk.one_component().await;
    desk.tasks(&intent("allow"), &example.join("intents/allow.json"))
        .await;
    desk.ordered_tasks(&intent("allow")).await;
    desk.envelopes().await;
    desk.strangers(&intent("allow")).await;
}

impl Desk<'_> {
    fn simulation(&self, intent: &Value) -> Value {
        json!({
            "policy_client": self.deployed.client,
            "policy": self.rego,
            "intent": intent,
            "policy_data": [{ "policy_data_instance_id": self.deployed.data_instance }],
            "policy_params": self.params,
        })
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        self.enclave.try_call(method, params).await.unwrap()
    }

    async fn refused(&self, method: &str, params: Value) -> newton_api::RpcError {
        match self.enclave.try_call(method, params).await {
            Err(newton_api::client::ClientError::Rpc(e)) => e,
            other => panic!("{method}: {other:?}"),
        }
    }

    async fn now(&self) -> u64 {
        let latest = alloy::eips::BlockNumberOrTag::Latest;
        let block = self.world.chain.provider.get_block_by_number(latest);
        block.await.unwrap().unwrap().header.timestamp
    }

    /// The parameters with the owner's signature over them.
    async fn signed(&self, method: &str, params: Value) -> Value {
        let deadline = self.now().await + 300;
        let key = &self.world.chain.accounts.client_key;
        self.signed_by(key, deadline, method, params)
    }

    fn signed_by(
        &self,
        key: &PrivateKeySigner,
        deadline: u64,
        method: &str,
        mut params: Value,
    ) -> Value {
        let call = OwnerCall {
            client: self.deployed.client,
            method: method.to_owned(),
            paramsHash: signing::params_hash(params.as_object().unwrap()),
            deadline,
        };
        let scope = Scope {
            chain_id: CHAIN_ID,
            contract: self.world.chain.contracts.policy_client_registry,
        };
        let digest = signing::owner_call_digest(scope, &call);
        let signature = key.sign_hash_sync(&digest).unwrap();
        params["owner_signature"] = json!({
            "deadline": deadline,
            "signature": hex_0x(&signature.as_bytes()),
        });
        params
    }

    /// `wasm_args` with a statement that the ledger's key authenticates.
    async fn statement(&self, account: &str, spent: &str) -> String {
        let issued_at = self.now().await - 10;
        let key = hex::decode(self.secrets["ledger_key"].as_str().unwrap()).unwrap();
        let mac = hmac_sha256(&key, format!("{account}|{spent}|{issued_at}").as_bytes());
        let args = json!({
            "statement": { "account": account, "spent": spent, "issued_at": issued_at },
            "mac": hex::encode(mac),
        });
        hex_0x(args.to_string().as_bytes())
    }

    async fn policy_without_secrets(&self, intent: &Value) {
        let answer = self
            .ask("newt_simulatePolicy", self.simulation(intent))
            .await;
        assert_eq!(answer["success"], true, "{answer}");
        let result = &answer["evaluation_result"];
        assert_eq!(result["result"], true, "{answer}");
        assert_eq!(result["entrypoint"], "spend_limit.allow");
        assert_eq!(result["expire_after"], 50);
        assert_eq!(result["parsed_intent"]["function"]["name"], "transfer");
        let seen = &result["policy_params_and_data"];
        assert_eq!(seen["params"], self.params);
        assert!(
            seen["wasm"]["spend_ledger"]["error"].is_string(),
            "{answer}"
        );
        let details = &answer["error_details"];
        assert_eq!(
            details["missing_secrets"],
            json!([self.deployed.data_instance])
        );
        let action = details["suggested_actions"][0].as_str().unwrap();
        assert!(action.contains("owner_signature"), "{action}");
    }

    /// A payment that only an authentic statement allows: it takes the stored key to tell.
    async fn policy_with_secrets(&self, intent: &Value) {
        const METHOD: &str = "newt_simulatePolicy";
        let account = intent["from"].as_str().unwrap().to_lowercase();
        let mut params = self.simulation(intent);
        params["policy_data"][0]["wasm_args"] = json!(self.statement(&account, "0").await);

        let blind = self.ask(METHOD, params.clone()).await;
        assert_eq!(blind["evaluation_result"]["result"], false, "{blind}");
        let signed = self.signed(METHOD, params.clone()).await;
        let seeing = self.ask(METHOD, signed.clone()).await;
        assert_eq!(seeing["evaluation_result"]["result"], true, "{seeing}");
        assert_eq!(seeing["error_details"], Value::Null);
        let key = self.secrets["ledger_key"].as_str().unwrap();
        assert!(!seeing.to_string().contains(key));

        // The caller's own secrets do as well.
        let mut inline = params.clone();
        inline["policy_data"][0]["secrets"] = self.secrets.clone();
        let seeing = self.ask(METHOD, inline).await;
        assert_eq!(seeing["evaluation_result"]["result"], true, "{seeing}");

        // Another call than the signed one, another signer, another method, and the wrong times.
        let mut changed = signed.clone();
        changed["policy_params"]["daily_limit"] = json!("1");
        let author = PrivateKeySigner::random();
        let key = &self.world.chain.accounts.client_key;
        let now = self.now().await;
        let stranger = self.signed_by(&author, now + 300, METHOD, params.clone());
        let elsewhere = self.signed("newt_simulateTask", params.clone()).await;
        let late = self.signed_by(key, now - 60, METHOD, params.clone());
        for wrong in [changed, stranger, elsewhere, late] {
            let error = self.refused(METHOD, wrong).await;
            assert_eq!(error.name, ErrorName::Unauthorized, "{error}");
        }
        let far = self.signed_by(key, now + 100_000, METHOD, params);
        let error = self.refused(METHOD, far).await;
        assert_eq!(error.name, ErrorName::InvalidParams);
        assert_eq!(error.data["field"], "owner_signature");
        say("stored secrets are used for the owner's signature and for nobody else");
    }

    async fn wrong_policies(&self, intent: &Value) {
        let good = self.simulation(intent);
        let with = |change: &dyn Fn(&mut Value)| {
            let mut params = good.clone();
            change(&mut params);
            params
        };
        let zero = format!("0x{}", "00".repeat(32));
        for (params, field) in [
            (
                with(&|p| p["policy"] = json!("package a\nallow := http.send({})")),
                "policy",
            ),
            (with(&|p| p["policy"] = json!("allow :=")), "entrypoint"),
            (
                with(&|p| p["entrypoint"] = json!("other.rule")),
                "entrypoint",
            ),
            (with(&|p| p["intent"]["to"] = json!("0x1")), "intent.to"),
            (with(&|p| p["policy_params"] = json!(7)), "policy_params"),
            (with(&|p| p["colour"] = json!("red")), "colour"),
            (
                with(&|p| p["policy_data"] = json!([{ "policy_data_address": zero }])),
                "policy_data_address",
            ),
            (
                with(&|p| p["policy_data"] = json!([p["policy_data"][0], p["policy_data"][0]])),
                "policy_data",
            ),
        ] {
            let error = self.refused("newt_simulatePolicy", params).await;
            assert_eq!(error.name, ErrorName::InvalidParams, "{error}");
            assert_eq!(error.data["field"], field, "{error}");
        }
        let unknown = with(&|p| p["policy_data"][0]["policy_data_instance_id"] = json!(zero));
        let error = self.refused("newt_simulatePolicy", unknown).await;
        assert_eq!(error.name, ErrorName::PolicyNotDeployedOnChain);

        // What follows from the content is an answer, not an error of the call.
        for (source, name) in [
            (
                "package a\n\nallow if input.value > 1",
                "PolicyResultUndefined",
            ),
            ("package a\n\nallow := 1 / 0", "PolicyEvaluationError"),
        ] {
            let params = with(&|p| p["policy"] = json!(source));
            let answer = self.ask("newt_simulatePolicy", params).await;
            assert_eq!(answer["success"], false, "{answer}");
            assert_eq!(answer["evaluation_result"], Value::Null);
            assert_eq!(answer["error_details"]["name"], name, "{answer}");
        }
    }

    /// A uint256 reaches Rego and comes back with every digit.
    async fn exact_numbers(&self, intent: &Value) {
        const MAX: &str =
            "115792089237316195423570985008687907853269984665640564039457584007913129639935";
        let mut params = self.simulation(intent);
        params["policy"] = json!(format!(
            "package big\n\nimport rego.v1\n\nallow if input.value == {MAX}\n\nallow if data.params.limit == 1"
        ));
        params["policy_data"] = json!([]);
        params["intent"]["value"] = json!(format!("0x{}", "ff".repeat(32)));
        params["policy_params"] = json!(format!(r#"{{"limit":{MAX}}}"#));
        let answer = self.ask("newt_simulatePolicy", params.clone()).await;
        assert_eq!(answer["evaluation_result"]["result"], true, "{answer}");
        let exact = &answer["evaluation_result_json"];
        for (member, text) in [
            ("parsed_intent", format!(r#""value":{MAX}"#)),
            ("params", format!(r#"{{"limit":{MAX}}}"#)),
        ] {
            assert!(exact[member].as_str().unwrap().contains(&text), "{exact}");
        }
        assert_eq!(answer["evaluation_result"]["expire_after"], Value::Null);
    }

    async fn one_component(&self) {
        const METHOD: &str = "newt_simulatePolicyData";
        let account = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";
        let args = self.statement(account, "5").await;
        let deployed = json!({
            "policy_client": self.deployed.client,
            "policy_data_instance_id": self.deployed.data_instance,
            "wasm_args": args,
        });
        let answer = self.ask(METHOD, deployed.clone()).await;
        let output = &answer["data_result"]["output"]["spend_ledger"];
        assert!(output["error"].is_string(), "{answer}");
        assert_ne!(answer["error_details"]["missing_secrets"], json!([]));

        let mut inline = deployed.clone();
        inline["secrets"] = self.secrets.clone();
        let answer = self.ask(METHOD, inline.clone()).await;
        let output = &answer["data_result"]["output"]["spend_ledger"];
        assert_eq!(output["spent"], "5", "{answer}");

        // As if the template were deployed with other params, which its schema may refuse.
        let mut template = inline.clone();
        template
            .as_object_mut()
            .unwrap()
            .remove("policy_data_instance_id");
        template["policy_data_template_id"] = json!(self.deployed.data_template);
        template["params"] = json!({ "max_age_seconds": 1 });
        let answer = self.ask(METHOD, template.clone()).await;
        let output = &answer["data_result"]["output"]["spend_ledger"];
        assert_eq!(output["error"], "the statement is too old", "{answer}");
        template["params"] = json!({ "max_age_seconds": 0 });
        let answer = self.ask(METHOD, template).await;
        assert_eq!(
            answer["error_details"]["violations"][0]["instance_path"],
            "/max_age_seconds"
        );

        // Secrets that break the schema are named by pointer, never by value.
        inline["secrets"] = json!({ "ledger_key": "hunter2" });
        let answer = self.ask(METHOD, inline).await;
        assert_eq!(answer["success"], false);
        assert_eq!(
            answer["error_details"]["violations"][0]["instance_path"],
            "/ledger_key"
        );
        assert!(!answer.to_string().contains("hunter2"), "{answer}");

        const STORED: &str = "newt_simulatePolicyDataWithClient";
        let error = self.refused(STORED, deployed.clone()).await;
        assert_eq!(error.name, ErrorName::Unauthorized);
        let signed = self.signed(STORED, deployed).await;
        let answer = self.ask(STORED, signed).await;
        let output = &answer["data_result"]["output"]["spend_ledger"];
        assert_eq!(output["spent"], "5", "{answer}");
        assert_eq!(answer["error_details"], Value::Null);
    }

    /// A simulated task gives what the task gives, and does not stand in its way.
    async fn tasks(&self, intent: &Value, file: &Path) {
        const METHOD: &str = "newt_simulateTask";
        let next = json!({ "policy_client": self.deployed.client, "intent": intent });
        let answer = self.ask(METHOD, next).await;
        assert_eq!(answer["evaluation_result"]["result"], true, "{answer}");
        assert_eq!(
            answer["policy_instance_id"],
            json!(self.deployed.policy_instance)
        );
        let error = self.refused(METHOD, json!({ "intent": intent })).await;
        assert_eq!(error.data["field"], "policy_client");

        let chain = &self.world.chain;
        let intent = WireIntent::load(file).unwrap();
        let answered = tasks::run(chain, &self.enclave, &intent, b"{}")
            .await
            .unwrap();
        let existing = json!({ "task_id": answered.task_id });
        let answer = self.ask(METHOD, existing.clone()).await;
        assert_eq!(answer["evaluation_result"]["result"], answered.result);
        assert_ne!(answer["error_details"], Value::Null, "no owner, no secrets");
        let signed = self.signed(METHOD, existing.clone()).await;
        let answer = self.ask(METHOD, signed).await;
        assert_eq!(answer["error_details"], Value::Null);
        let mut both = existing;
        both["wasm_args"] = json!("0x7b7d");
        let error = self.refused(METHOD, both).await;
        assert_eq!(error.data["field"], "wasm_args");
        let again = self.ask(
            "newt_evaluateAndSign",
            json!({ "task_id": answered.task_id }),
        );
        assert_eq!(again.await["digest"], json!(answered.digest));
    }

    async fn envelopes(&self) {
        const METHOD: &str = "newt_storeEncryptedSecrets";
        let client = self.deployed.client;
        let id = self.deployed.data_instance;
        let store = |client: Address, secrets: &Value| {
            json!({
                "policy_client": self.deployed.client,
                "policy_data_instance_id": id,
                "envelope": self.sealed(client, secrets),
            })
        };
        let good = store(client, &self.secrets);
        let error = self.refused(METHOD, good.clone()).await;
        assert_eq!(error.name, ErrorName::Unauthorized);

        let bad = store(client, &json!({ "ledger_key": "hunter2" }));
        let answer = self.ask(METHOD, self.signed(METHOD, bad).await).await;
        assert_eq!(answer["success"], false, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("/ledger_key"));
        assert!(!answer.to_string().contains("hunter2"), "{answer}");
        assert_eq!(answer["set_secrets"], Value::Null);
        assert_eq!(answer["schema"]["title"], "Spend ledger secrets");

        let foreign = store(Address::repeat_byte(7), &self.secrets);
        let answer = self.ask(METHOD, self.signed(METHOD, foreign).await).await;
        assert_eq!(answer["success"], false, "{answer}");
        let mut shapeless = good.clone();
        shapeless["envelope"] = json!("{}");
        let error = self.refused(METHOD, self.signed(METHOD, shapeless).await);
        assert_eq!(error.await.data["field"], "envelope");
        let mut former = good.clone();
        former["policy_data_address"] = json!(client);
        let error = self.refused(METHOD, self.signed(METHOD, former).await);
        assert_eq!(error.await.data["field"], "policy_data_address");

        let answer = self.ask(METHOD, self.signed(METHOD, good).await).await;
        assert_eq!(answer["success"], true, "{answer}");
        let before = self.metadata().await;
        assert_eq!(before["count"], 1, "nothing was stored by the call");
        self.set_secrets(&answer["set_secrets"]).await;
        run::wait_committed(self.world, &self.enclave, &self.deployed)
            .await
            .unwrap();
        let after = self.metadata().await;
        assert_eq!(after["count"], 2);
        assert_eq!(after["envelope_hash"], answer["data_ref_id"]);
        say("an envelope was checked and dispersed by the enclave, and counts since setSecrets");
    }

    fn sealed(&self, client: Address, secrets: &Value) -> String {
        let context = EnvelopeContext {
            policy_client: client.into(),
            chain_id: CHAIN_ID,
        };
        let key = self.enclave.attested.hpke_public_key.0;
        Envelope::seal(key, context, secrets.to_string().as_bytes())
            .unwrap()
            .to_json()
    }

    async fn metadata(&self) -> Value {
        let id = self.deployed.data_instance;
        self.ask(
            "newt_getSecretsMetadata",
            json!({ "policy_data_instance_id": id }),
        )
        .await
    }

    /// Sends what the enclave said to send, and waits until it has seen it.
    async fn set_secrets(&self, arguments: &Value) {
        let chain = &self.world.chain;
        let of = |member: &str| arguments[member].clone();
        let contract: Address = serde_json::from_value(of("contract")).unwrap();
        assert_eq!(contract, chain.contracts.policy_data_registry);
        let instance: B256 = serde_json::from_value(of("policy_data_instance_id")).unwrap();
        let envelope = ArtifactRef {
            artifactHash: serde_json::from_value(of("artifact_hash")).unwrap(),
            byteLength: serde_json::from_value(of("byte_length")).unwrap(),
        };
        let da_ref: Bytes = serde_json::from_value(of("da_ref")).unwrap();
        let registry = IPolicyDataRegistry::new(contract, &chain.provider);
        let call = registry.setSecrets(instance, envelope, da_ref);
        send("setSecrets", chain.accounts.client, call)
            .await
            .unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while self.metadata().await["count"] != 2 {
            assert!(
                std::time::Instant::now() < deadline,
                "the second envelope is not seen"
            );
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }

    async fn strangers(&self, intent: &Value) {
        let stranger = self
            .world
            .connect(std::time::Duration::from_secs(10))
            .await
            .unwrap()
            .with_bearer("wrong");
        for method in [
            "newt_simulatePolicy",
            "newt_simulatePolicyData",
            "newt_simulatePolicyDataWithClient",
            "newt_simulateTask",
            "newt_storeEncryptedSecrets",
        ] {
            let params = self.simulation(intent);
            let error = stranger.try_call(method, params).await.unwrap_err();
            assert_eq!(name(error), ErrorName::Unauthorized, "{method}");
        }
        let described = stranger.try_call("rpc.discover", json!({})).await.unwrap();
        assert!(described["methods"].as_array().unwrap().len() > 20);
    }

    /// The whole way of a task in one call, and in two.
    async fn ordered_tasks(&self, intent: &Value) {
        let order = |change: Value| {
            let mut order = json!({
                "policy_client": self.deployed.client, "intent": intent, "wasm_args": "0x7b7d",
            });
            for (name, value) in change.as_object().unwrap() {
                order[name] = value.clone();
            }
            order
        };
        let done = self.ask("newt_createTask", order(json!({}))).await;
        assert_eq!(done["status"], "success", "{done}");
        assert_eq!(done["task_response"]["result"], true);
        let id: B256 = serde_json::from_value(done["task_id"].clone()).unwrap();
        let chain = &self.world.chain;
        let manager = ITaskManager::new(chain.contracts.task_manager, &chain.provider);
        let stored = manager.responses(id).call().await.unwrap();
        assert!(stored.allowed);
        assert_eq!(json!(stored.digest), done["task_response"]["digest"]);

        let sent = self.ask("newt_sendTask", order(json!({}))).await;
        assert_eq!(sent["status"], "pending");
        let other: B256 = serde_json::from_value(sent["task_id"].clone()).unwrap();
        assert_ne!(other, id, "a task of its own");
        let patience = std::time::Duration::from_secs(60);
        let evaluated = tasks::evaluate(&self.enclave, other, patience)
            .await
            .unwrap();
        assert_eq!(evaluated.result, json!(true));

        for (change, field) in [
            (json!({ "timeout": 0 }), "timeout"),
            (
                json!({ "quorum_threshold_percentage": 66 }),
                "quorum_threshold_percentage",
            ),
            (json!({ "intent": {} }), "intent.from"),
        ] {
            let error = self.refused("newt_createTask", order(change)).await;
            assert_eq!(error.name, ErrorName::InvalidParams);
            assert_eq!(error.data["field"], field);
        }
        let nobody = order(json!({ "policy_client": format!("0x{}", "77".repeat(20)) }));
        let error = self.refused("newt_sendTask", nobody).await;
        assert_eq!(error.name, ErrorName::PolicyNotDeployedOnChain);
        say("tasks created, evaluated and answered in one call");
    }
}

/// RFC 2104 for keys of at most 64 bytes.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |byte: u8| block.map(|b| b ^ byte);
    let inner = Sha256::digest([&pad(0x36)[..], message].concat());
    Sha256::digest([&pad(0x5c)[..], &inner].concat()).to_vec()
}
