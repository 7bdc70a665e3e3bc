//! Writes the inputs that fuzzing starts from: `cargo test -p newton-fuzz --test seeds -- --ignored`.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use alloy_sol_types::SolEvent;
use newton_artifacts::{DaBlob, DaRef, encode_payload};
use newton_relay::disk::{Reply, Request, Run, SlotRange, VERSION, encode_reply, encode_request};
use newton_relay::{ErrorCode, HostError, write_frame};
use newton_types::{ABSENT, Address, B256, Bytes, abi};
use serde_json::json;

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

#[test]
#[ignore = "writes into the source tree"]
fn seeds() {
    certificates();
    events();
    frames();
    answers();
    // One of each change to a page file, before and after it is opened.
    for mode in 0..2u8 {
        for what in 0..6u8 {
            let change = [mode, what, 5, 9, 0, 1, 2];
            write("pages", &format!("change-{what}-{mode}"), &change);
        }
    }
    write("pages", "many-changes", &(0..=120u8).collect::<Vec<_>>());
    for change in 0..10u8 {
        let leaves = [7, 3, 31, 1, 8, 0, 2, 9, 31, 1, 5, 4, 4, 4, 31, 0, 0, 0];
        let mut input = vec![6, 2, 1];
        input.extend(leaves);
        input.extend([change, 1, 3]);
        write("proofs", &format!("change-{change}"), &input);
    }
    peers();
}

/// Honest answers, and one of each change to them.
fn peers() {
    write("snapshot", "honest", &newton_fuzz::honest_snapshot());
    write("delta", "honest", &newton_fuzz::honest_deltas());
    write("votes", "honest", &newton_fuzz::honest_votes());
    for change in 0..9u8 {
        write(
            "snapshot",
            &format!("change-{change}"),
            &[3, 1, change, 1, 2],
        );
        write("delta", &format!("change-{change}"), &[1, change, 1, 2]);
        let votes = [0, 0, 0, 7, 0, 0, 1, 1, 0, 7, 0, 0, 2, 2, 0, change, 5, 1];
        write("votes", &format!("change-{change}"), &votes);
    }
    for sequence in 0..4u8 {
        write("snapshot", &format!("commit-{sequence}"), &[sequence, 3]);
    }
    write("delta", "commit", &[2]);
    // Another one's key, another one's signature, another digest, a stranger.
    for (name, vote) in [
        ("key", [0, 1, 0]),
        ("digest", [0, 0, 1]),
        ("claimed", [0, 0, 2]),
        ("stranger", [3, 3, 0]),
    ] {
        let vote = [vote[0], vote[1], vote[2], 7, 0, 0];
        write("votes", name, &vote);
    }
}

fn certificates() {
    for (name, payload) in [("short", vec![1; 3]), ("long", vec![2; 200])] {
        let certificate = newton_da_store::certify(&payload, 77).unwrap().to_bytes();
        write("certificate", name, &certificate);
        write(
            "certificate",
            &format!("{name}-payload"),
            &encode_payload(&payload).unwrap(),
        );
        let blob = DaBlob {
            certificate: certificate.into(),
            length: payload.len() as u32,
        };
        let reference = DaRef::new(vec![blob; 2]).unwrap().encode();
        write("certificate", &format!("{name}-reference"), &reference);
    }
}

fn events() {
    let artifact = abi::ArtifactRef {
        artifactHash: B256::repeat_byte(3),
        byteLength: 5,
    };
    let log = |contract: u8, name: &str, event: alloy_sol_types::private::LogData| {
        let mut bytes = vec![contract, event.topics().len() as u8];
        for topic in event.topics() {
            bytes.extend_from_slice(topic.as_slice());
        }
        bytes.extend_from_slice(&event.data);
        write("events", name, &bytes);
    };
    let template = abi::IPolicyRegistry::PolicyTemplateRegistered {
        policyTemplateId: B256::repeat_byte(1),
        author: Address::repeat_byte(2),
        rego: artifact,
        paramsSchema: abi::ArtifactRef {
            artifactHash: ABSENT,
            byteLength: 0,
        },
        entrypoint: "a.b".into(),
        dataTemplateRefs: vec![B256::repeat_byte(4)],
        daRefs: vec![Bytes::from_static(b"ref")],
    };
    log(5, "template", template.encode_log_data());
    let commit = abi::IStateCommitRegistry::StateCommitted {
        deltaDaRefs: vec![Bytes::from_static(b"ref")],
        ..Default::default()
    };
    log(3, "commit", commit.encode_log_data());
    let parameters = abi::IStateCommitRegistry::ConsensusParametersSet::default();
    log(3, "parameters", parameters.encode_log_data());
    let secrets = abi::IPolicyDataRegistry::SecretsSet::default();
    log(6, "secrets", secrets.encode_log_data());
    let task = abi::ITaskManager::TaskCreated::default();
    log(7, "task", task.encode_log_data());
    let admitted = abi::IOperatorRegistry::OperatorAdmitted::default();
    log(1, "admitted", admitted.encode_log_data());
    let version = abi::IEnclaveVersionRegistry::VersionProposed {
        pcrs: vec![7; 144].into(),
        ..Default::default()
    };
    log(0, "version", version.encode_log_data());
}

fn frames() {
    let data = [7; 32];
    let requests = [
        Request::Hello {
            version: VERSION,
            slot_bytes: 16,
        },
        Request::Read {
            ranges: vec![SlotRange { first: 3, count: 2 }],
        },
        Request::Write {
            runs: vec![Run {
                first: 3,
                data: &data,
            }],
        },
        Request::Flush,
        Request::Len,
        Request::SetLen { slots: 9 },
    ];
    let mut stream = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        let body = encode_request(i as u64, request, 16).unwrap();
        write_frame(&mut stream, &body, 1 << 16).unwrap();
        write("frames", &format!("request-{i}"), &body);
    }
    let failed = Reply::Failed(HostError::new(ErrorCode::NoSpace, "full"));
    for (i, reply) in [Reply::Done, Reply::Data(&data), Reply::Len(7), failed]
        .iter()
        .enumerate()
    {
        let body = encode_reply(i as u64, reply).unwrap();
        write_frame(&mut stream, &body, 1 << 16).unwrap();
        write("frames", &format!("reply-{i}"), &body);
    }
    write("frames", "stream", &stream);
}

fn answers() {
    let hash = B256::with_last_byte;
    let header = |n: u8| {
        json!({
            "number": format!("{n:#x}"), "hash": hash(n), "parentHash": hash(n - 1),
            "timestamp": format!("{n:#x}"),
        })
    };
    let answer = |id: u8, result: serde_json::Value| json!({"id": id, "result": result});
    let headers: Vec<_> = (0..3).map(|i| answer(i, header(5 + i))).collect();
    let headers = json!(headers).to_string();
    let log = json!({
        "address": Address::repeat_byte(0xa2), "topics": [B256::repeat_byte(9)], "data": "0x01",
        "blockHash": hash(6), "blockNumber": "0x6", "transactionIndex": "0x0", "logIndex": "0x1",
    });
    let logs = answer(0, json!([log])).to_string();
    let finalized = answer(0, header(7)).to_string();
    let joined = |parts: &[&str]| parts.join("\0").into_bytes();
    write("rpc", "headers-logs", &joined(&[&headers, &logs]));
    write("rpc", "logs", logs.as_bytes());
    write(
        "rpc",
        "follower",
        &joined(&[&finalized, &headers, &logs, &finalized]),
    );
    write(
        "rpc",
        "word",
        answer(0, json!(hash(3))).to_string().as_bytes(),
    );
    write(
        "rpc",
        "error",
        br#"{"id":0,"error":{"code":-32000,"message":"no"}}"#,
    );
}
