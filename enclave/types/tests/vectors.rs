//! `tests/vectors/ids.json`: every id and digest of `docs/protocol.md`, read from Solidity too.
//!
//! The file is compared with what this crate computes; `NEWTON_UPDATE_VECTORS=1` writes it anew (then look at the diff:
//! a changed vector is a changed protocol). Structures stand as their ABI encoding, so that the Solidity side decodes
//! them instead of spelling them out again.
#![allow(clippy::unwrap_used)]

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::SolValue;
use newton_types::{
    ABSENT, DeltaEntry, LeafKey, Namespace, QueueKey, abi, ids, queue, signing, signing::Scope,
};
use serde_json::{Value, json};

const SEED: &str = "newton vectors v1";

/// A reproducible 32-byte value per name.
fn word(name: &str) -> B256 {
    keccak256(format!("{SEED}/{name}"))
}

fn address(name: &str) -> Address {
    Address::from_slice(&word(name)[12..])
}

fn number(name: &str) -> u64 {
    u64::from_be_bytes(word(name)[..8].try_into().unwrap()) >> 16
}

fn short(name: &str) -> u32 {
    u32::from_be_bytes(word(name)[..4].try_into().unwrap()) >> 4
}

fn ids_vector(i: usize) -> Value {
    let n = |s: &str| format!("{s}{i}");
    let chain_id = number(&n("chain")) + 1;
    let client = address(&n("client"));
    let params = Bytes::copy_from_slice(&word(&n("params"))[..i * 7 % 33]);
    let expire_after = number(&n("expire")) + 1;
    let mut refs: Vec<B256> = (0..i % 4).map(|r| word(&n(&format!("ref{r}")))).collect();
    refs.sort();
    let entrypoint = format!("vault_{i}.allow");
    let schema = if i.is_multiple_of(2) {
        ABSENT
    } else {
        word(&n("schema"))
    };
    let data_template =
        ids::policy_data_template_id(word(&n("wasm")), schema, word(&n("secretsSchema")));
    let template = ids::policy_template_id(word(&n("rego")), &entrypoint, schema, &refs);
    let params_hash = ids::params_hash(expire_after, &params);
    let data_instance = ids::policy_data_instance_id(chain_id, client, data_template, params_hash);
    json!({
        "chainId": chain_id, "client": client, "expireAfter": expire_after, "params": params,
        "wasmHash": word(&n("wasm")), "paramsSchemaHash": schema, "secretsSchemaHash": word(&n("secretsSchema")),
        "regoHash": word(&n("rego")), "entrypoint": entrypoint, "dataTemplateRefs": refs,
        "policyDataTemplateId": data_template,
        "policyTemplateId": template,
        "paramsHash": params_hash,
        "policyInstanceId": ids::policy_instance_id(chain_id, client, template, params_hash),
        "policyDataInstanceId": data_instance,
        "regoLeafKey": LeafKey::artifact(Namespace::PolicyRego, word(&n("rego"))).0,
        "secretsLeafKey": LeafKey::secrets(chain_id, client, data_instance).0,
    })
}

fn state_commit(i: usize) -> abi::StateCommit {
    let n = |s: &str| format!("commit/{s}{i}");
    abi::StateCommit {
        sequenceNo: number(&n("seq")),
        prevStateRoot: word(&n("prev")),
        newStateRoot: word(&n("new")),
        boundaryBlock: number(&n("block")),
        boundaryTimestamp: number(&n("time")),
        deltaHash: word(&n("delta")),
        rulesVersion: short(&n("rules")),
        drainedBlock: number(&n("db")),
        drainedTx: short(&n("dt")),
        drainedLog: short(&n("dl")),
        drainedItem: short(&n("di")),
        settledBytes: number(&n("settled")),
    }
}

fn attestation(i: usize) -> abi::PolicyAttestation {
    let n = |s: &str| format!("attestation/{s}{i}");
    let binding = |b: usize| {
        let m = |s: &str| word(&n(&format!("binding{b}/{s}")));
        abi::PolicyDataBinding {
            dataInstanceId: m("instance"),
            dataTemplateId: m("template"),
            wasmHash: m("wasm"),
            paramsSchemaHash: m("schema"),
            secretsSchemaHash: ABSENT,
            paramsHash: m("params"),
            secretsLeafHash: ABSENT,
            outputHash: m("output"),
            transcriptHash: m("transcript"),
        }
    };
    abi::PolicyAttestation {
        taskId: word(&n("task")),
        policyInstanceId: word(&n("instance")),
        policyTemplateId: word(&n("template")),
        regoHash: word(&n("rego")),
        paramsSchemaHash: word(&n("schema")),
        paramsHash: word(&n("params")),
        referenceBlock: number(&n("reference")),
        expirationBlock: number(&n("expiration")),
        stateSequenceNo: number(&n("seq")),
        stateRoot: word(&n("root")),
        rulesVersion: short(&n("rules")),
        intentHash: word(&n("intent")),
        wasmArgsHash: word(&n("args")),
        evaluationResultHash: keccak256("true"),
        data: (0..i).map(binding).collect(),
    }
}

fn intent(i: usize) -> abi::Intent {
    let n = |s: &str| format!("intent/{s}{i}");
    abi::Intent {
        from: address(&n("from")),
        to: address(&n("to")),
        value: U256::from_be_bytes(word(&n("value")).0),
        data: Bytes::copy_from_slice(&word(&n("data"))[..i * 11 % 33]),
        chainId: U256::from(number(&n("chain"))),
        functionSignature: Bytes::from_static(b"transfer(address,uint256)"),
    }
}

fn task(i: usize) -> abi::Task {
    let n = |s: &str| format!("task/{s}{i}");
    abi::Task {
        client: address(&n("client")),
        policyInstanceId: word(&n("instance")),
        dataInstanceIds: (0..i).map(|d| word(&n(&format!("data{d}/")))).collect(),
        stateSequenceNo: number(&n("seq")),
        stateRoot: word(&n("root")),
        operatorSetId: number(&n("set")),
        rulesVersion: short(&n("rules")),
        intentHash: signing::intent_hash(&intent(i)),
        wasmArgsHash: keccak256("{}"),
        referenceBlock: number(&n("reference")),
        referenceTimestamp: number(&n("time")),
        nonce: number(&n("nonce")),
        quorumBps: 6667,
    }
}

fn task_id_vector(i: usize) -> Value {
    let n = |s: &str| format!("taskId/{s}{i}");
    let inputs = ids::TaskIdInputs {
        chain_id: number(&n("chain")),
        task_manager: address(&n("manager")),
        nonce: number(&n("nonce")),
        client: address(&n("client")),
        parent_block_hash: word(&n("parent")),
        intent_hash: word(&n("intent")),
        wasm_args_hash: word(&n("args")),
    };
    json!({
        "chainId": inputs.chain_id, "taskManager": inputs.task_manager, "nonce": inputs.nonce,
        "client": inputs.client, "parentBlockHash": inputs.parent_block_hash,
        "intentHash": inputs.intent_hash, "wasmArgsHash": inputs.wasm_args_hash,
        "taskId": ids::task_id(&inputs),
    })
}

fn delta_vector(i: usize) -> Value {
    let entries: Vec<DeltaEntry> = (0..i)
        .map(|e| {
            let n = |s: &str| format!("delta/{i}/{s}{e}");
            DeltaEntry {
                leaf_key: word(&n("key")),
                value_hash: word(&n("value")),
                length: short(&n("length")),
                key: QueueKey {
                    block: number(&n("block")),
                    tx: short(&n("tx")),
                    log: short(&n("log")),
                    item: short(&n("item")),
                },
            }
        })
        .collect();
    let encoded: Vec<abi::DeltaEntry> = entries
        .iter()
        .map(|e| abi::DeltaEntry {
            leafKey: e.leaf_key,
            valueHash: e.value_hash,
            length: e.length,
            blockNumber: e.key.block,
            txIndex: e.key.tx,
            logIndex: e.key.log,
            item: e.key.item,
        })
        .collect();
    json!({ "encoded": Bytes::from(encoded.abi_encode()), "hash": queue::delta_hash(&entries) })
}

fn vectors() -> Value {
    let scope = Scope {
        chain_id: 31_337,
        contract: address("verifying contract"),
    };
    let digest = |encoded: Vec<u8>, digest: B256| json!({ "encoded": Bytes::from(encoded), "digest": digest });
    let admission = abi::EnclaveAdmission {
        operator: address("operator"),
        blsKeyHash: word("bls"),
        tlsKeyHash: word("tls"),
        bootId: word("boot"),
        pcr0Hash: word("pcr0"),
        configHash: word("config"),
        docHash: word("doc"),
        validUntil: number("until"),
    };
    let epoch = abi::KeyEpoch {
        mskCommitment: word("msk"),
        keyEpoch: 1,
        secretsPublicKey: word("secrets"),
        privacyPublicKey: word("privacy"),
    };
    let outcome = |i: u8| abi::ResultOutcome {
        subject: i % 2 + 1,
        inputsHash: word(&format!("inputs{i}")),
        resultHash: word(&format!("result{i}")),
        correct: i >= 2,
        rulesVersion: short(&format!("rules{i}")),
    };
    let skip = |i: u8| abi::SkipUnavailable {
        blockNumber: number(&format!("skipped block{i}")),
        txIndex: short(&format!("skipped tx{i}")),
        logIndex: short(&format!("skipped log{i}")),
        item: i.into(),
    };
    let snapshot = |i: u8| abi::SealedSnapshot {
        commit: abi::StateCommit {
            deltaHash: B256::ZERO,
            ..state_commit(i.into())
        },
        snapshotHash: word(&format!("sealed{i}")),
        snapshotLength: number(&format!("sealed length{i}")),
        daRefHash: word(&format!("sealed reference{i}")),
    };
    json!({
        "absent": ABSENT,
        "scope": { "chainId": scope.chain_id, "verifyingContract": scope.contract },
        "ids": (0..8).map(ids_vector).collect::<Vec<_>>(),
        "taskIds": (0..4).map(task_id_vector).collect::<Vec<_>>(),
        "deltas": (0..4).map(delta_vector).collect::<Vec<_>>(),
        "intents": (0..4).map(|i| digest(intent(i).abi_encode(), signing::intent_hash(&intent(i)))).collect::<Vec<_>>(),
        "tasks": (0..4).map(|i| digest(task(i).abi_encode(), signing::task_hash(&task(i)))).collect::<Vec<_>>(),
        "stateCommits": (0..4).map(|i| digest(state_commit(i).abi_encode(), signing::state_commit_digest(scope, &state_commit(i)))).collect::<Vec<_>>(),
        "attestations": (0..4).map(|i| digest(attestation(i).abi_encode(), signing::policy_attestation_digest(scope, &attestation(i)))).collect::<Vec<_>>(),
        "admissions": [digest(admission.abi_encode(), signing::enclave_admission_digest(scope, &admission))],
        "skips": (0..4u8).map(|i| digest(skip(i).abi_encode(), signing::skip_unavailable_digest(scope, &skip(i)))).collect::<Vec<_>>(),
        "snapshots": (0..4u8).map(|i| digest(snapshot(i).abi_encode(), signing::sealed_snapshot_digest(scope, &snapshot(i)))).collect::<Vec<_>>(),
        "keyEpochs": [digest(epoch.abi_encode(), signing::key_epoch_digest(scope, &epoch))],
        "resultOutcomes": (0..4).map(|i| digest(outcome(i).abi_encode(), signing::result_outcome_digest(scope, &outcome(i)))).collect::<Vec<_>>(),
        "possession": {
            "owner": address("operator"), "blsKeyHash": word("bls"),
            "message": signing::proof_of_possession_message(scope, address("operator"), word("bls")),
        },
    })
}

#[test]
fn the_committed_vectors_are_what_this_crate_computes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/ids.json");
    let computed = serde_json::to_string_pretty(&vectors()).unwrap() + "\n";
    if std::env::var_os("NEWTON_UPDATE_VECTORS").is_some() {
        std::fs::write(path, &computed).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&committed).unwrap(),
        serde_json::from_str::<Value>(&computed).unwrap()
    );
}
