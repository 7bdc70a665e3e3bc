//! Operators and their sets, images, keys, commits.

use std::collections::BTreeMap;

use alloy::rpc::types::Log;
use alloy_primitives::aliases::U96;
use alloy_primitives::{Address, B256, keccak256};
use newton_contracts::abi;
use newton_state::Registry;
use newton_types::QueueKey;
use newton_types::events::{Block, ConsensusParameters, RegistryEvent};

use super::of;
use crate::actions::World;

fn events(blocks: &[Block]) -> impl Iterator<Item = (u64, &RegistryEvent)> {
    let events = blocks.iter().flat_map(|block| &block.events);
    events.map(|event| (event.position.block, &event.event))
}

pub async fn operators(world: &World, registry: &Registry<'_>, blocks: &[Block]) {
    let contract = world.operators();
    let latest = registry.latest_set_id().unwrap().unwrap_or(0);
    assert_eq!(contract.latestSetId().call().await.unwrap(), latest);
    assert_eq!(contract.currentSetId().call().await.unwrap(), latest);
    assert_eq!(
        contract.firstCleanSetId().call().await.unwrap(),
        registry.first_clean_set_id().unwrap()
    );
    for id in 1..=latest {
        let set = registry.operator_set(id).unwrap().unwrap();
        assert_eq!(keccak256(&set.aggregate_key), set.aggregate_key_hash);
        let expected = abi::OperatorSet {
            setId: id,
            aggregateKeyHash: set.aggregate_key_hash,
            totalWeight: U96::from(set.total_weight),
            createdAtBlock: set.created_at,
            earliestValidUntil: set.earliest_valid_until,
            members: set
                .members
                .iter()
                .map(|m| abi::OperatorSetMember {
                    index: m.index,
                    operator: m.operator,
                    blsKeyHash: m.bls_key_hash,
                    weight: U96::from(m.weight),
                })
                .collect(),
        };
        assert_eq!(contract.operatorSet(id).call().await.unwrap(), expected);
    }

    let mut keys: BTreeMap<B256, Address> = BTreeMap::new();
    // The registry keeps no weight outside of sets.
    let mut weights: BTreeMap<Address, u128> = BTreeMap::new();
    for (_, event) in events(blocks) {
        match event {
            RegistryEvent::OperatorAdmitted {
                operator,
                weight,
                admission,
                ..
            } => {
                keys.insert(admission.blsKeyHash, *operator);
                weights.insert(*operator, *weight);
            }
            RegistryEvent::OperatorSlashed {
                operator, weight, ..
            } => {
                weights.insert(*operator, *weight);
            }
            _ => {}
        }
    }
    for (key, operator) in keys {
        assert_eq!(contract.operatorOfKey(key).call().await.unwrap(), operator);
    }
    for account in world.accounts() {
        let row = registry.operator(*account).unwrap().unwrap_or_default();
        let allowed = contract.allowedWeight(*account).call().await.unwrap();
        assert_eq!(allowed, U96::from(row.allowed_weight));
        let members = registry.operator_set(latest).unwrap();
        let member = members.is_some_and(|s| s.members.iter().any(|m| m.operator == *account));
        assert_eq!(contract.isMember(*account).call().await.unwrap(), member);
        let expected = match row.latest_admission {
            Some(admission) if !row.exited => abi::Operator {
                owner: *account,
                blsKeyHash: admission.bls_key_hash,
                weight: U96::from(weights[account]),
                pcr0Hash: admission.pcr0_hash,
                configHash: admission.config_hash,
                tlsKeyHash: admission.tls_key_hash,
                bootId: admission.boot_id,
                admittedAt: admission.admitted_at,
                validUntil: admission.valid_until,
                exitAt: row.exit_requested_at.unwrap_or(0),
            },
            _ => abi::Operator::default(),
        };
        assert_eq!(contract.operators(*account).call().await.unwrap(), expected);
    }
}

pub async fn images_and_keys(world: &World, registry: &Registry<'_>, blocks: &[Block]) {
    let versions = world.versions();
    let head = world.chain.number().await;
    for (block, event) in events(blocks) {
        match event {
            RegistryEvent::VersionProposed { pcr0_hash, .. } => {
                let row = registry.version(*pcr0_hash).unwrap().unwrap();
                let expected = abi::EnclaveVersion {
                    pcr0Hash: keccak256(&row.pcr0),
                    pcr1Hash: keccak256(&row.pcr1),
                    pcr2Hash: keccak256(&row.pcr2),
                    sourceHash: row.source_hash,
                    label: row.label,
                    proposedAt: block,
                    activeFrom: row.active_from,
                    deprecatedFrom: row.deprecated_from.unwrap_or(0),
                    revokedAt: row.revoked_at.unwrap_or(0),
                };
                let got = versions.versions(*pcr0_hash).call().await.unwrap();
                assert_eq!(got, expected);
                for at in 0..=head {
                    assert_eq!(
                        versions.wasActiveAt(*pcr0_hash, at).call().await.unwrap(),
                        registry.version_active_at(*pcr0_hash, at).unwrap(),
                        "block {at}"
                    );
                }
            }
            RegistryEvent::ConfigApproved { config_hash, .. } => assert_eq!(
                versions
                    .isApprovedConfig(*config_hash)
                    .call()
                    .await
                    .unwrap(),
                registry.config_approved_at(*config_hash, head).unwrap()
            ),
            _ => {}
        }
    }
    let schedule = registry.rules_schedule().unwrap();
    let last = versions.latestRulesVersion().call().await.unwrap();
    let expected = schedule.last().unwrap();
    assert_eq!(last.rulesVersion, expected.rules_version);
    assert_eq!(last.activeFrom, expected.active_from);
    for at in 0..=head + 20 {
        assert_eq!(
            versions.rulesVersionAt(at).call().await.unwrap(),
            registry.rules_version_at(at).unwrap(),
            "block {at}"
        );
    }

    let keys = world.keys();
    let latest = registry.latest_key_epoch().unwrap();
    assert_eq!(keys.keyEpoch().call().await.unwrap(), latest);
    assert_eq!(
        keys.minKeyEpoch().call().await.unwrap(),
        registry.min_key_epoch_at(head).unwrap()
    );
    for number in 1..=latest {
        let row = registry.key_epoch(number).unwrap().unwrap();
        let expected = abi::KeyEpoch {
            mskCommitment: row.msk_commitment,
            keyEpoch: number,
            secretsPublicKey: row.secrets_public_key,
            privacyPublicKey: row.privacy_public_key,
        };
        assert_eq!(keys.keysOf(number).call().await.unwrap(), expected);
        let commitment = keys.mskCommitment().call().await.unwrap();
        assert_eq!(commitment, row.msk_commitment);
    }
}

pub async fn commits(world: &World, registry: &Registry<'_>, blocks: &[Block], logs: &[Log]) {
    let contract = world.commits_();
    let mut accepted = Vec::new();
    let mut skipped: Vec<QueueKey> = Vec::new();
    for (block, event) in events(blocks) {
        match event {
            RegistryEvent::StateCommitted { commit, .. } => accepted.push((block, commit.clone())),
            RegistryEvent::SnapshotAdopted { snapshot, .. } => {
                accepted.push((block, snapshot.commit.clone()));
            }
            RegistryEvent::EntrySkipped { entry } => skipped.push(*entry),
            _ => {}
        }
    }
    let head = contract.latestCommit().call().await.unwrap();
    assert_eq!(head.sequenceNo, accepted.len() as u64);
    for (_, commit) in &accepted {
        let got = contract.commitAt(commit.sequenceNo).call().await.unwrap();
        assert_eq!(got, commit.newStateRoot);
    }
    if let Some((block, commit)) = accepted.last() {
        let expected = abi::CommitRecord {
            sequenceNo: commit.sequenceNo,
            stateRoot: commit.newStateRoot,
            boundaryBlock: commit.boundaryBlock,
            boundaryTimestamp: commit.boundaryTimestamp,
            rulesVersion: commit.rulesVersion,
            committedAt: *block,
        };
        assert_eq!(head, expected);
        let drained = contract.drainedThrough().call().await.unwrap();
        assert_eq!(
            (
                drained.blockNumber,
                drained.txIndex,
                drained.logIndex,
                drained.item
            ),
            (
                commit.drainedBlock,
                commit.drainedTx,
                commit.drainedLog,
                commit.drainedItem
            )
        );
        let in_force = contract.stateInForce().call().await.unwrap();
        assert_eq!(
            (in_force.sequenceNo, in_force.stateRoot),
            (commit.sequenceNo, commit.newStateRoot)
        );
    }
    // No view answers which entries were skipped: a second skip is refused before its certificate is looked at.
    for entry in skipped {
        assert!(registry.skipped(entry).unwrap().is_some());
        let again = abi::SkipUnavailable {
            blockNumber: entry.block,
            txIndex: entry.tx,
            logIndex: entry.log,
            item: entry.item,
        };
        let call = contract.skipUnavailable(again, crate::support::no_certificate());
        let error = call.call().await.map(drop).unwrap_err();
        let refused: abi::IStateCommitRegistry::EntryAlreadySkipped =
            crate::support::revert_of(&error);
        assert_eq!(refused.blockNumber, entry.block);
    }

    let now = world.chain.timestamp().await;
    let got = contract.parameters().call().await.unwrap();
    let expected = registry.parameters_at(now).unwrap().unwrap();
    assert_eq!(parameters(&got), expected);
    let pending = contract.pendingParameters().call().await.unwrap();
    match registry.parameters().unwrap().last() {
        Some(last) if last.active_from > now => {
            assert_eq!(pending.activeFromTimestamp, last.active_from);
            assert_eq!(parameters(&pending.next), last.parameters);
        }
        _ => assert_eq!(pending.activeFromTimestamp, 0),
    }
    backlog(world, &accepted, logs).await;
    snapshots(world, logs).await;
}

/// Which snapshots are proposed and neither withdrawn nor adopted.
async fn snapshots(world: &World, logs: &[Log]) {
    use abi::IStateCommitRegistry::{SnapshotAdopted, SnapshotCancelled, SnapshotProposed};
    let contract = world.commits_();
    let mut proposed = BTreeMap::new();
    for (_, event) in of::<SnapshotProposed>(logs) {
        let digest = contract.snapshotDigest(event.snapshot).call().await;
        assert_eq!(digest.unwrap(), event.digest);
        proposed.insert(event.digest, event.adoptableFrom);
    }
    for (_, event) in of::<SnapshotCancelled>(logs) {
        proposed.insert(event.digest, 0);
    }
    for (_, event) in of::<SnapshotAdopted>(logs) {
        proposed.insert(event.digest, 0);
    }
    for (digest, from) in proposed {
        let got = contract.proposedSnapshots(digest).call().await.unwrap();
        assert_eq!(got, from);
    }
}

/// The two sums, and each author's part that no commit has settled.
async fn backlog(world: &World, accepted: &[(u64, newton_types::abi::StateCommit)], logs: &[Log]) {
    let settled_by = |block: u64| -> u64 {
        accepted
            .iter()
            .filter(|(at, _)| *at < block)
            .map(|(_, commit)| commit.settledBytes)
            .sum()
    };
    let settled = settled_by(u64::MAX);
    let mut registered = 0;
    let mut authors: BTreeMap<Address, (u64, u64)> = BTreeMap::new();
    for (log, event) in of::<abi::IStateCommitRegistry::BacklogRecorded>(logs) {
        registered += event.length;
        assert_eq!(event.registeredBytes, registered);
        let (outstanding, through) = authors.entry(event.author).or_default();
        if settled_by(log.block_number.unwrap()) >= *through {
            *outstanding = 0;
        }
        (*outstanding, *through) = (*outstanding + event.length, registered);
    }
    let contract = world.commits_();
    let got = contract.backlog().call().await.unwrap();
    assert_eq!(
        (got.registeredBytes, got.settledBytes),
        (registered, settled)
    );
    for account in world.accounts() {
        let (outstanding, through) = authors.get(account).copied().unwrap_or_default();
        let expected = if settled >= through { 0 } else { outstanding };
        let got = contract.authorBacklog(*account).call().await.unwrap();
        assert_eq!(got, expected, "{account}");
    }
    for (_, event) in of::<abi::IOperatorRegistry::AdmissionApproved>(logs) {
        let used = of::<abi::IOperatorRegistry::OperatorAdmitted>(logs);
        let mut consumed = false;
        for (_, admitted) in used {
            let digest = world.operators().admissionDigest(admitted.admission);
            consumed |= digest.call().await.unwrap() == event.admissionDigest;
        }
        let got = world.operators().approvedAdmissions(event.admissionDigest);
        let expected = if consumed { 0 } else { event.executableAt };
        assert_eq!(got.call().await.unwrap(), expected);
    }
}

fn parameters(p: &abi::ConsensusParameters) -> ConsensusParameters {
    ConsensusParameters {
        genesis_time: p.genesisTime,
        cadence: p.cadence,
        max_commit_bytes: p.maxCommitBytes,
        max_artifact_bytes: p.maxArtifactBytes,
        max_expire_after: p.maxExpireAfter,
        quorum_bps: p.quorumBps,
        min_signers: p.minSigners,
        max_set_age: p.maxSetAge,
        max_defer_queue_bytes: p.maxDeferQueueBytes,
        author_quota_bytes: p.authorQuotaBytes,
        response_window: p.responseWindow,
        challenge_window: p.challengeWindow,
        skip_empty: p.skipEmpty,
    }
}
