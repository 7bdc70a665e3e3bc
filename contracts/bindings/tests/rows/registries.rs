//! Templates, instances, pointers, envelopes, tasks.

use alloy_primitives::{B256, U256, keccak256};
use alloy_sol_types::SolValue;
use newton_contracts::abi;
use newton_state::Registry;
use newton_types::events::{Artifact, Block, RegistryEvent};

use crate::actions::World;

pub async fn compare(world: &World, registry: &Registry<'_>, blocks: &[Block]) {
    let mut tasks = 0;
    for event in blocks.iter().flat_map(|block| &block.events) {
        match &event.event {
            RegistryEvent::PolicyTemplateRegistered { id, .. } => {
                let row = registry.policy_template(*id).unwrap().unwrap();
                let got = world.policies().templates(*id).call().await.unwrap();
                let expected = abi::PolicyTemplate {
                    rego: reference(row.rego),
                    paramsSchema: reference(row.params_schema),
                    entrypoint: row.entrypoint,
                    dataTemplateRefs: row.data_template_refs,
                    author: row.author,
                    registeredAt: row.registered_at,
                };
                assert_eq!(got, expected);
            }
            RegistryEvent::PolicyDataTemplateRegistered { id, .. } => {
                let row = registry.data_template(*id).unwrap().unwrap();
                let got = world.data().templates(*id).call().await.unwrap();
                let expected = abi::PolicyDataTemplate {
                    wasm: reference(row.wasm),
                    paramsSchema: reference(row.params_schema),
                    secretsSchema: reference(row.secrets_schema),
                    author: row.author,
                    registeredAt: row.registered_at,
                };
                assert_eq!(got, expected);
            }
            RegistryEvent::PolicyInstanceDeployed { id, client, .. } => {
                let row = registry.policy_instance(*id).unwrap().unwrap();
                let got = world.policies().instances(*id).call().await.unwrap();
                let got = (got.templateId, got.client, got.paramsHash);
                assert_eq!(got, (row.template_id, row.client, row.params_hash));
                let got = world.policies().instances(*id).call().await.unwrap();
                assert_eq!(got.expireAfter, row.expire_after);
                assert_eq!(got.registeredAt, row.registered_at);
                let pointer = registry.current_policy_instance(*client).unwrap();
                let got = world.policies().currentPolicyInstance(*client).call().await;
                assert_eq!(got.unwrap(), pointer.map_or(B256::ZERO, |p| p.id));
                binding(world, registry, *client).await;
            }
            RegistryEvent::PolicyDataInstanceDeployed {
                id,
                client,
                template_id,
                ..
            } => {
                let row = registry.data_instance(*id).unwrap().unwrap();
                let got = world.data().instances(*id).call().await.unwrap();
                let expected = abi::PolicyDataInstance {
                    templateId: row.template_id,
                    client: row.client,
                    paramsHash: row.params_hash,
                    expireAfter: row.expire_after,
                    registeredAt: row.registered_at,
                };
                assert_eq!(got, expected);
                let slot = registry.current_data_instance(*client, *template_id);
                let got = world
                    .data()
                    .currentPolicyDataInstance(*client, *template_id);
                let got = got.call().await.unwrap();
                assert_eq!(got, slot.unwrap().map_or(B256::ZERO, |p| p.id));
                let secrets = registry.secrets(*id).unwrap();
                let got = world.data().secretsCount(*id).call().await.unwrap();
                assert_eq!(got, secrets.map_or(0, |row| row.count));
            }
            RegistryEvent::TaskCreated { task_id, .. } => {
                tasks += 1;
                task(world, registry, blocks, *task_id).await;
            }
            _ => {}
        }
    }
    let next = world.task_manager().nextNonce().call().await.unwrap();
    assert_eq!(next, tasks);
}

/// What the next task of a client would be made of.
async fn binding(world: &World, registry: &Registry<'_>, client: alloy_primitives::Address) {
    let current = registry.current_policy_instance(client).unwrap().unwrap();
    let instance = registry.policy_instance(current.id).unwrap().unwrap();
    let template = registry.policy_template(instance.template_id).unwrap();
    let (mut newest, mut data) = (instance.registered_at, Vec::new());
    for id in template.unwrap().data_template_refs {
        let slot = registry.current_data_instance(client, id).unwrap().unwrap();
        let row = registry.data_instance(slot.id).unwrap().unwrap();
        newest = newest.max(row.registered_at);
        data.push(slot.id);
    }
    let got = world
        .policies()
        .currentBinding(client)
        .call()
        .await
        .unwrap();
    assert_eq!(
        (got.policyInstanceId, got.newestRow, got.dataInstanceIds),
        (current.id, newest, data)
    );
}

async fn task(world: &World, registry: &Registry<'_>, blocks: &[Block], id: B256) {
    let row = registry.task(id).unwrap().unwrap();
    let task = row.task().unwrap();
    let got = world.task_manager().taskHashes(id).call().await.unwrap();
    assert_eq!(got, keccak256(task.abi_encode()));
    let intent = row.intent().unwrap();
    assert_eq!(intent.chainId, U256::from(31_337));
    assert_eq!(task.wasmArgsHash, keccak256(&row.wasm_args));

    let answer = blocks
        .iter()
        .flat_map(|block| &block.events)
        .find_map(|event| match &event.event {
            RegistryEvent::TaskResponded {
                task_id,
                digest,
                evaluation_result_hash,
                set_id,
            } if *task_id == id => Some((
                event.position.block,
                *digest,
                *evaluation_result_hash,
                *set_id,
            )),
            _ => None,
        });
    let response = world.task_manager().responses(id).call().await.unwrap();
    assert_eq!(row.response_digest, answer.map(|(_, digest, ..)| digest));
    let Some((block, digest, result, set)) = answer else {
        assert_eq!(response.respondedAt, 0);
        return;
    };
    // Not in the event: the least of the instances' lives, which the contract demands.
    let policy = registry.policy_instance(task.policyInstanceId).unwrap();
    let mut life = policy.unwrap().expire_after;
    for id in &task.dataInstanceIds {
        let instance = registry.data_instance(*id).unwrap().unwrap();
        life = life.min(instance.expire_after);
    }
    let expected = abi::TaskResponse {
        digest,
        respondedAt: block,
        expirationBlock: task.referenceBlock + life,
        setId: set,
        allowed: result == keccak256("true"),
    };
    assert_eq!(response, expected);
}

fn reference(artifact: Artifact) -> abi::ArtifactRef {
    abi::ArtifactRef {
        artifactHash: artifact.hash,
        byteLength: artifact.length,
    }
}
