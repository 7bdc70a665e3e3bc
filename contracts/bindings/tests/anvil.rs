//! The whole set on a real node, with real signatures: deployment, admission, commit, task, answer.
//!
//! Needs `forge build` to have run (`NEWTON_CONTRACTS_OUT`, by default `contracts/out`) and anvil (`NEWTON_ANVIL`, else
//! `contracts/node_modules/.bin/anvil`, else `anvil` on the path).
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use alloy::providers::Provider;
use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolEvent, SolStruct, SolValue};
use newton_contracts::abi;
use newton_contracts::deploy::{DeployConfig, DeployError, deploy};
use support::{Bls, Chain, domain, revert_of};

#[tokio::test(flavor = "multi_thread")]
async fn from_deployment_to_an_answer_on_chain() {
    let chain = Chain::start().await;
    let [owner, first, second, client, author] = chain.accounts();
    let config = DeployConfig::for_chain(&support::config_dir(), 31337).unwrap();
    let deployment = deploy(&chain.provider, owner, &config, &support::out_dir())
        .await
        .unwrap();
    assert_eq!(deployment.steps.len(), 20);
    assert_eq!(deployment.owner, owner);
    for step in &deployment.steps {
        println!("{:<30} {:>9} gas", step.name, step.gas);
        assert!(
            step.gas < 16_777_216,
            "{} is above EIP-7825's limit",
            step.name
        );
    }
    let a = deployment.addresses;
    let p = &chain.provider;
    let versions = abi::IEnclaveVersionRegistry::new(a.enclave_version_registry, p);
    let operators = abi::IOperatorRegistry::new(a.operator_registry, p);
    let commits = abi::IStateCommitRegistry::new(a.state_commit_registry, p);
    let clients = abi::IPolicyClientRegistry::new(a.policy_client_registry, p);
    let data = abi::IPolicyDataRegistry::new(a.policy_data_registry, p);
    let policies = abi::IPolicyRegistry::new(a.policy_registry, p);
    let tasks = abi::ITaskManager::new(a.task_manager, p);
    let keys = abi::IKeyRegistry::new(a.key_registry, p);

    // Governance: image and configuration.
    let (pcr0, pcr1, pcr2) = ([1u8; 48], [2u8; 48], [3u8; 48]);
    let config_hash = keccak256("config");
    let call = versions.proposeVersion(
        pcr0.to_vec().into(),
        pcr1.to_vec().into(),
        pcr2.to_vec().into(),
        keccak256("source"),
        "v1".into(),
    );
    chain.send("proposeVersion", call.from(owner)).await;
    let call = versions.approveConfig(config_hash, true);
    chain.send("approveConfig", call.from(owner)).await;
    chain.mine(1).await;
    assert!(versions.isActive(keccak256(pcr0)).call().await.unwrap());

    // The first operator by the owner's word, the second by the first one's certificate.
    let scope = |name, contract| domain(name, deployment.chain_id, contract);
    let admissions = scope("Newton Enclave Admission", a.operator_registry);
    let document = Bytes::from(vec![0xd0; 4500]);
    let mut members: Vec<Bls> = Vec::new();
    for (operator, name) in [(first, "first"), (second, "second")] {
        let bls = Bls::from_name(name);
        let call = operators.allowOperator(operator, alloy_primitives::aliases::U96::from(100));
        chain.send("allowOperator", call.from(owner)).await;
        let admission = abi::EnclaveAdmission {
            operator,
            blsKeyHash: bls.key_hash(),
            tlsKeyHash: keccak256("tls"),
            bootId: keccak256(name),
            pcr0Hash: keccak256(pcr0),
            configHash: config_hash,
            docHash: keccak256(&document),
            validUntil: chain.timestamp().await + 86_400,
        };
        let digest = admission.eip712_signing_hash(&admissions);
        assert_eq!(
            digest,
            operators
                .admissionDigest(admission.clone())
                .call()
                .await
                .unwrap()
        );
        let certificate = if members.is_empty() {
            let call = operators.approveAdmission(admission.clone());
            chain.send("approveAdmission", call.from(owner)).await;
            support::no_certificate()
        } else {
            support::certificate(&members, 1, digest)
        };
        let message = keccak256(
            (
                operator,
                U256::from(deployment.chain_id),
                a.operator_registry,
                bls.key_hash(),
            )
                .abi_encode_params(),
        );
        let call = operators.registerOperator(
            bls.public_key(),
            bls.possession(message),
            admission,
            document.clone(),
            support::aggregate_key(&members),
            certificate,
        );
        let receipt = chain.send("registerOperator", call.from(operator)).await;
        let log = receipt
            .logs()
            .iter()
            .find_map(|log| abi::IOperatorRegistry::OperatorAdmitted::decode_log(&log.inner).ok());
        assert_eq!(log.unwrap().blsPublicKey, bls.public_key());
        members.push(bls);
        chain.mine(1).await;
    }
    let set = operators.operatorSet(2).call().await.unwrap();
    assert_eq!(
        set.aggregateKeyHash,
        keccak256(support::aggregate_key(&members))
    );
    assert_eq!(set.members.len(), 2);

    // The key epoch.
    let epoch = abi::KeyEpoch {
        mskCommitment: keccak256("msk"),
        keyEpoch: 1,
        secretsPublicKey: keccak256("secrets"),
        privacyPublicKey: keccak256("privacy"),
    };
    let digest = epoch.eip712_signing_hash(&scope("Newton Key Registry", a.key_registry));
    let call = keys.publishKeyEpoch(epoch, support::certificate(&members, 2, digest));
    chain.send("publishKeyEpoch", call.from(author)).await;
    assert_eq!(keys.keyEpoch().call().await.unwrap(), 1);

    // A client with a policy that needs one data instance.
    let call = clients.registerClient(client, client);
    chain.send("registerClient", call.from(client)).await;
    let artifact = |text: &str| abi::ArtifactRef {
        artifactHash: keccak256(text),
        byteLength: text.len() as u32,
    };
    let da_refs = |count| vec![Bytes::from(vec![0xda; 250]); count];
    let call = data.registerTemplate(
        artifact("wasm"),
        artifact("params schema"),
        artifact("secrets schema"),
        da_refs(3),
    );
    chain
        .send("registerTemplate (data)", call.from(author))
        .await;
    let data_template = data
        .computeTemplateId(
            keccak256("wasm"),
            keccak256("params schema"),
            keccak256("secrets schema"),
        )
        .call()
        .await
        .unwrap();
    let call = data.deployInstance(client, data_template, "{}".into(), 100, true);
    chain.send("deployInstance (data)", call.from(client)).await;
    let call = policies.registerTemplate(
        artifact("rego"),
        artifact("params schema"),
        "vault.allow".into(),
        vec![data_template],
        da_refs(2),
    );
    chain.send("registerTemplate", call.from(author)).await;
    let template = policies
        .computeTemplateId(
            keccak256("rego"),
            keccak256("params schema"),
            "vault.allow".into(),
            vec![data_template],
        )
        .call()
        .await
        .unwrap();
    let params = Bytes::from(vec![b' '; 256]);
    let call = policies.deployInstance(client, template, params.clone(), 100, true);
    chain
        .send("deployInstance, 256 bytes", call.from(client))
        .await;
    let instance = policies.currentPolicyInstance(client).call().await.unwrap();
    let row = policies.instances(instance).call().await.unwrap();
    assert_eq!((row.templateId, row.client), (template, client));
    assert_eq!(
        row.paramsHash,
        keccak256((100u64, params).abi_encode_params())
    );
    chain.mine(1).await;

    // A commit.
    let commit = abi::StateCommit {
        sequenceNo: 1,
        prevStateRoot: commits.getStateRoot().call().await.unwrap(),
        newStateRoot: keccak256("root 1"),
        boundaryBlock: chain.number().await - 1,
        boundaryTimestamp: chain.timestamp_of(chain.number().await - 1).await,
        deltaHash: keccak256("delta"),
        rulesVersion: 1,
        drainedBlock: chain.number().await - 1,
        drainedTx: 0,
        drainedLog: 1,
        drainedItem: 1,
        settledBytes: 31,
    };
    let digest = commit.eip712_signing_hash(&scope("Newton State Commit", a.state_commit_registry));
    assert_eq!(
        digest,
        commits.commitDigest(commit.clone()).call().await.unwrap()
    );
    let mut forged = support::certificate(&members, 2, digest);
    forged.signature = members[0].sign(digest);
    let call = commits.commitStateRoot(commit.clone(), forged, da_refs(1));
    let error = call.from(author).call().await.map(drop).unwrap_err();
    let refused: abi::ICertificateVerifier::InvalidSignature = revert_of(&error);
    assert_eq!(refused.digest, digest);
    let call = commits.commitStateRoot(
        commit.clone(),
        support::certificate(&members, 2, digest),
        da_refs(1),
    );
    let receipt = chain.send("commitStateRoot", call.from(author)).await;
    let event =
        abi::IStateCommitRegistry::StateCommitted::decode_log(&receipt.logs()[0].inner).unwrap();
    assert_eq!(event.digest, digest);
    assert_eq!(event.commit.abi_encode(), commit.abi_encode());
    assert_eq!(
        commits.getStateRoot().call().await.unwrap(),
        keccak256("root 1")
    );
    chain.mine(1).await;

    // A task and its answer.
    let intent = abi::Intent {
        from: client,
        to: author,
        value: U256::from(7),
        data: Bytes::from_static(&[0xa9, 0x05, 0x9c, 0xbb]),
        chainId: U256::from(deployment.chain_id),
        functionSignature: Bytes::from_static(b"transfer(address,uint256)"),
    };
    let call = tasks.createTask(client, intent.clone(), "{}".into(), 0);
    let receipt = chain.send("createTask", call.from(author)).await;
    let created = abi::ITaskManager::TaskCreated::decode_log(&receipt.logs()[0].inner).unwrap();
    let task = created.task.clone();
    assert_eq!(task.intentHash, intent.eip712_hash_struct());
    assert_eq!(
        (task.stateSequenceNo, task.stateRoot),
        (1, keccak256("root 1"))
    );
    assert_eq!(task.operatorSetId, 2);
    assert_eq!(
        tasks.taskHashes(created.taskId).call().await.unwrap(),
        keccak256(task.abi_encode())
    );
    let attestation = abi::PolicyAttestation {
        taskId: created.taskId,
        policyInstanceId: task.policyInstanceId,
        policyTemplateId: template,
        regoHash: keccak256("rego"),
        paramsSchemaHash: keccak256("params schema"),
        paramsHash: row.paramsHash,
        referenceBlock: task.referenceBlock,
        expirationBlock: task.referenceBlock + 100,
        stateSequenceNo: task.stateSequenceNo,
        stateRoot: task.stateRoot,
        rulesVersion: task.rulesVersion,
        intentHash: task.intentHash,
        wasmArgsHash: task.wasmArgsHash,
        evaluationResultHash: keccak256("true"),
        data: vec![abi::PolicyDataBinding {
            dataInstanceId: task.dataInstanceIds[0],
            dataTemplateId: data_template,
            wasmHash: keccak256("wasm"),
            paramsSchemaHash: keccak256("params schema"),
            secretsSchemaHash: keccak256("secrets schema"),
            paramsHash: B256::ZERO,
            secretsLeafHash: B256::ZERO,
            outputHash: B256::ZERO,
            transcriptHash: B256::ZERO,
        }],
    };
    let digest =
        attestation.eip712_signing_hash(&scope("Newton Policy Attestation", a.task_manager));
    let mut wrong = attestation.clone();
    wrong.stateRoot = B256::ZERO;
    let call = tasks.respondToTask(
        created.taskId,
        task.clone(),
        wrong,
        support::no_certificate(),
    );
    let error = call.from(author).call().await.map(drop).unwrap_err();
    let refused: abi::ITaskManager::TaskMismatch = revert_of(&error);
    assert!(refused.field.starts_with(b"stateRoot"));
    assert_eq!(
        (refused.expected, refused.got),
        (task.stateRoot, B256::ZERO)
    );
    let certificate = support::certificate(&members, 2, digest);
    let call = tasks.respondToTask(created.taskId, task, attestation, certificate);
    let receipt = chain.send("respondToTask", call.from(author)).await;
    let event = abi::ITaskManager::TaskResponded::decode_log(&receipt.logs()[0].inner).unwrap();
    assert_eq!(event.digest, digest);
    let response = tasks.responses(created.taskId).call().await.unwrap();
    assert!(response.allowed);
    assert_eq!(response.digest, digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chain_is_refused_before_anything_is_sent() {
    let chain = Chain::start().await;
    let [owner, ..] = chain.accounts();
    let config = DeployConfig::for_chain(&support::config_dir(), 1).unwrap();
    let error = deploy(&chain.provider, owner, &config, &support::out_dir())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            DeployError::WrongChain {
                expected: 1,
                got: 31337
            }
        ),
        "{error}"
    );
    assert_eq!(
        chain.provider.get_transaction_count(owner).await.unwrap(),
        0
    );
}
