//! From logs to events. Each contract may emit the events of its own interface and those of its base contracts; an event
//! that changes nothing an enclave derives is known and dropped, any other is refused: the image would be older than the
//! contracts.

use alloy_primitives::{Address, B256, keccak256};
use alloy_sol_types::SolEventInterface;
use newton_types::abi::{
    self, IEnclaveVersionRegistry::IEnclaveVersionRegistryEvents as Version,
    IKeyRegistry::IKeyRegistryEvents as Key,
    IOperatorRegistry::IOperatorRegistryEvents as Operator,
    IPolicyClientRegistry::IPolicyClientRegistryEvents as Client,
    IPolicyDataRegistry::IPolicyDataRegistryEvents as Data,
    IPolicyRegistry::IPolicyRegistryEvents as Policy, ISlasher::ISlasherEvents as Slasher,
    IStateCommitRegistry::IStateCommitRegistryEvents as Commit,
    ITaskManager::ITaskManagerEvents as Task,
};
use newton_types::events::{Artifact, ConsensusParameters, RegistryEvent};
use newton_types::manifest::Contracts;
use newton_types::{Namespace, QueueKey};

use crate::{ChainError, Log};

/// The contracts whose logs are followed.
pub fn addresses(contracts: &Contracts) -> Vec<Address> {
    vec![
        contracts.enclave_version_registry,
        contracts.operator_registry,
        contracts.key_registry,
        contracts.state_commit_registry,
        contracts.policy_client_registry,
        contracts.policy_registry,
        contracts.policy_data_registry,
        contracts.task_manager,
    ]
}

/// Decodes a log of one of the contracts. `None`: an event that changes nothing an enclave derives.
pub fn decode(contracts: &Contracts, log: &Log) -> Result<Option<RegistryEvent>, ChainError> {
    let topic = log.topics.first().copied().unwrap_or_default();
    if IGNORED
        .iter()
        .any(|signature| keccak256(signature) == topic)
    {
        return Ok(None);
    }
    let at = log.address;
    let decoded = if at == contracts.policy_registry {
        read::<Policy>(log, topic)?.map(policy)
    } else if at == contracts.policy_data_registry {
        read::<Data>(log, topic)?.map(data)
    } else if at == contracts.policy_client_registry {
        read::<Client>(log, topic)?.map(client)
    } else if at == contracts.state_commit_registry {
        read::<Commit>(log, topic)?.map(commit)
    } else if at == contracts.task_manager {
        read::<Task>(log, topic)?.map(task)
    } else if at == contracts.operator_registry {
        match read::<Operator>(log, topic)? {
            Some(event) => Some(operator(event)),
            None => read::<Slasher>(log, topic)?.map(slasher),
        }
    } else if at == contracts.enclave_version_registry {
        read::<Version>(log, topic)?.map(version)
    } else if at == contracts.key_registry {
        read::<Key>(log, topic)?.map(key)
    } else {
        None
    };
    match decoded {
        Some(Ok(event)) => Ok(event),
        Some(Err(reason)) => Err(malformed(log, topic, reason)),
        None => Err(ChainError::UnknownEvent {
            address: log.address,
            topic,
            position: log.position,
        }),
    }
}

/// Events of base contracts and of interfaces that only rule who may send transactions. Which contract emitted them does
/// not matter: they change nothing here.
const IGNORED: [&str; 17] = [
    // OpenZeppelin: proxies, initialisation, ownership, pausing, EIP-712.
    "Upgraded(address)",
    "AdminChanged(address,address)",
    "BeaconUpgraded(address)",
    "Initialized(uint64)",
    "OwnershipTransferStarted(address,address)",
    "OwnershipTransferred(address,address)",
    "Paused(address)",
    "Unpaused(address)",
    "EIP712DomainChanged()",
    // Ours: roles and allow-lists, delegations, bookkeeping.
    "PauserSet(address)",
    "TemplateRegistrationPermissionlessSet(bool)",
    "InstanceDeploymentPermissionlessSet(bool)",
    "TemplateAuthorSet(address,bool)",
    "InstanceDeployerSet(address,bool)",
    "ClientDeployerSet(address,address,address,bool)",
    "EmergencyRoleSet(address)",
    "BacklogRecorded(address,uint64,uint64)",
];

/// What a decoded event becomes, or why it cannot have been emitted.
type Decoded = Result<Option<RegistryEvent>, String>;

/// `None` if the interface has no event with this topic.
fn read<E: SolEventInterface>(log: &Log, topic: B256) -> Result<Option<E>, ChainError> {
    match E::decode_raw_log(&log.topics, &log.data) {
        Ok(event) => Ok(Some(event)),
        Err(alloy_sol_types::Error::InvalidLog { .. }) => Ok(None),
        Err(error) => Err(malformed(log, topic, error.to_string())),
    }
}

fn malformed(log: &Log, topic: B256, reason: String) -> ChainError {
    ChainError::MalformedEvent {
        address: log.address,
        topic,
        position: log.position,
        reason,
    }
}

fn policy(event: Policy) -> Decoded {
    Ok(Some(match event {
        Policy::PolicyTemplateRegistered(e) => RegistryEvent::PolicyTemplateRegistered {
            id: e.policyTemplateId,
            author: e.author,
            rego: artifact(&e.rego),
            params_schema: artifact(&e.paramsSchema),
            entrypoint: e.entrypoint,
            data_template_refs: e.dataTemplateRefs,
            da_refs: e.daRefs,
        },
        Policy::ArtifactSupplied(e) => supplied(
            e.namespace,
            e.artifactHash,
            e.byteLength,
            e.supplier,
            e.daRef,
        )?,
        Policy::PolicyInstanceDeployed(e) => RegistryEvent::PolicyInstanceDeployed {
            id: e.policyInstanceId,
            client: e.client,
            template_id: e.policyTemplateId,
            params: e.params,
            expire_after: e.expireAfter,
            deployer: e.deployer,
        },
        Policy::CurrentPolicyInstanceSet(e) => RegistryEvent::CurrentPolicyInstanceSet {
            client: e.client,
            id: e.policyInstanceId,
        },
    }))
}

fn data(event: Data) -> Decoded {
    Ok(Some(match event {
        Data::PolicyDataTemplateRegistered(e) => RegistryEvent::PolicyDataTemplateRegistered {
            id: e.policyDataTemplateId,
            author: e.author,
            wasm: artifact(&e.wasm),
            params_schema: artifact(&e.paramsSchema),
            secrets_schema: artifact(&e.secretsSchema),
            da_refs: e.daRefs,
        },
        Data::ArtifactSupplied(e) => supplied(
            e.namespace,
            e.artifactHash,
            e.byteLength,
            e.supplier,
            e.daRef,
        )?,
        Data::PolicyDataInstanceDeployed(e) => RegistryEvent::PolicyDataInstanceDeployed {
            id: e.policyDataInstanceId,
            client: e.client,
            template_id: e.policyDataTemplateId,
            params: e.params,
            expire_after: e.expireAfter,
            deployer: e.deployer,
        },
        Data::CurrentPolicyDataInstanceSet(e) => RegistryEvent::CurrentPolicyDataInstanceSet {
            client: e.client,
            template_id: e.policyDataTemplateId,
            id: e.policyDataInstanceId,
        },
        Data::SecretsSet(e) => RegistryEvent::SecretsSet {
            instance_id: e.policyDataInstanceId,
            client: e.client,
            poster: e.poster,
            by_owner: e.byOwner,
            envelope: artifact(&e.envelope),
            da_ref: e.daRef,
            count: e.count,
        },
    }))
}

fn client(event: Client) -> Decoded {
    Ok(match event {
        Client::ClientRegistered(e) => Some(RegistryEvent::ClientRegistered {
            client: e.client,
            owner: e.owner,
        }),
        Client::ClientDeployerSet(_) => None,
    })
}

fn supplied(
    namespace: u8,
    hash: B256,
    length: u32,
    supplier: Address,
    da_ref: newton_types::Bytes,
) -> Result<RegistryEvent, String> {
    let namespace = Namespace::try_from(namespace).map_err(|e| e.to_string())?;
    if !namespace.is_public() {
        return Err(format!("supplies content of namespace {namespace:?}"));
    }
    Ok(RegistryEvent::ArtifactSupplied {
        namespace,
        artifact: Artifact { hash, length },
        supplier,
        da_ref,
    })
}

fn commit(event: Commit) -> Decoded {
    Ok(Some(match event {
        Commit::StateCommitted(e) => {
            if e.sequenceNo != e.commit.sequenceNo || e.newStateRoot != e.commit.newStateRoot {
                return Err("topics and commit disagree".into());
            }
            RegistryEvent::StateCommitted {
                commit: e.commit,
                digest: e.digest,
                delta_da_refs: e.deltaDaRefs,
            }
        }
        Commit::ConsensusParametersSet(e) => RegistryEvent::ConsensusParametersSet {
            parameters: parameters(&e.parameters),
            active_from_timestamp: e.activeFromTimestamp,
        },
        Commit::EntrySkipped(e) => RegistryEvent::EntrySkipped {
            entry: QueueKey {
                block: e.blockNumber,
                tx: e.txIndex,
                log: e.logIndex,
                item: e.item,
            },
        },
        Commit::SnapshotAdopted(e) => {
            let commit = &e.snapshot.commit;
            if e.sequenceNo != commit.sequenceNo || e.newStateRoot != commit.newStateRoot {
                return Err("topics and snapshot disagree".into());
            }
            RegistryEvent::SnapshotAdopted {
                snapshot: e.snapshot,
                digest: e.digest,
                da_ref: e.daRef,
            }
        }
        // Nothing changes before a snapshot is adopted.
        Commit::SnapshotProposed(_) | Commit::SnapshotCancelled(_) | Commit::BacklogRecorded(_) => {
            return Ok(None);
        }
    }))
}

fn task(event: Task) -> Decoded {
    Ok(match event {
        Task::TaskCreated(e) => {
            if e.client != e.task.client {
                return Err("topics and task disagree".into());
            }
            Some(RegistryEvent::TaskCreated {
                task_id: e.taskId,
                task: e.task,
                intent: e.intent,
                wasm_args: e.wasmArgs,
            })
        }
        Task::TaskResponded(e) => Some(RegistryEvent::TaskResponded {
            task_id: e.taskId,
            digest: e.digest,
            evaluation_result_hash: e.evaluationResultHash,
            set_id: e.setId,
        }),
    })
}

fn operator(event: Operator) -> Decoded {
    Ok(Some(match event {
        Operator::OperatorAllowed(e) => RegistryEvent::OperatorAllowed {
            operator: e.operator,
            weight: e.weight.to(),
        },
        Operator::OperatorAdmitted(e) => {
            if e.operator != e.admission.operator {
                return Err("topics and admission disagree".into());
            }
            RegistryEvent::OperatorAdmitted {
                operator: e.operator,
                set_id: e.setId,
                index: e.index,
                weight: e.weight.to(),
                via_certificate: e.viaCertificate,
                bls_public_key: e.blsPublicKey,
                admission: e.admission,
            }
        }
        Operator::OperatorRemoved(e) => RegistryEvent::OperatorRemoved {
            operator: e.operator,
            set_id: e.setId,
            index: e.index,
            reason: e.reason,
        },
        Operator::OperatorSetChanged(e) => RegistryEvent::OperatorSetChanged {
            set_id: e.setId,
            aggregate_key_hash: e.aggregateKeyHash,
            total_weight: e.totalWeight.to(),
            earliest_valid_until: e.earliestValidUntil,
            aggregate_key: e.aggregateKey,
        },
        Operator::OperatorReweighed(e) => RegistryEvent::OperatorReweighed {
            operator: e.operator,
            set_id: e.setId,
            index: e.index,
            weight: e.weight.to(),
        },
        Operator::SetsInvalidated(e) => RegistryEvent::SetsInvalidated {
            first_clean_set_id: e.firstCleanSetId,
            pcr0_hash: e.pcr0Hash,
        },
        Operator::ExitRequested(e) => RegistryEvent::ExitRequested {
            operator: e.operator,
            exit_at: e.exitAt,
        },
        Operator::ExitCompleted(e) => RegistryEvent::ExitCompleted {
            operator: e.operator,
        },
        Operator::AdmissionApproved(_) => return Ok(None),
    }))
}

fn slasher(event: Slasher) -> Decoded {
    let Slasher::OperatorSlashed(e) = event;
    Ok(Some(RegistryEvent::OperatorSlashed {
        operator: e.operator,
        weight: e.weight.to(),
    }))
}

fn version(event: Version) -> Decoded {
    Ok(Some(match event {
        Version::VersionProposed(e) => {
            let [pcr0, pcr1, pcr2] = pcrs(&e.pcrs)?;
            RegistryEvent::VersionProposed {
                pcr0_hash: e.pcr0Hash,
                pcr0,
                pcr1,
                pcr2,
                source_hash: e.sourceHash,
                label: e.label,
                active_from: e.activeFrom,
            }
        }
        Version::VersionDeprecated(e) => RegistryEvent::VersionDeprecated {
            pcr0_hash: e.pcr0Hash,
            deprecated_from: e.deprecatedFrom,
        },
        Version::VersionRevoked(e) => RegistryEvent::VersionRevoked {
            pcr0_hash: e.pcr0Hash,
            revoked_at: e.revokedAt,
        },
        Version::ConfigApproved(e) => RegistryEvent::ConfigApproved {
            config_hash: e.configHash,
            approved: e.approved,
        },
        Version::RulesVersionScheduled(e) => RegistryEvent::RulesVersionScheduled {
            rules_version: e.rulesVersion,
            active_from: e.activeFrom,
        },
        Version::EmergencyRoleSet(_) => return Ok(None),
    }))
}

/// PCR0 ‖ PCR1 ‖ PCR2, 48 bytes each.
fn pcrs(bytes: &[u8]) -> Result<[newton_types::Bytes; 3], String> {
    if bytes.len() != 144 {
        return Err(format!("{} bytes of PCRs, expected 144", bytes.len()));
    }
    let pcr = |i: usize| newton_types::Bytes::copy_from_slice(&bytes[48 * i..48 * (i + 1)]);
    Ok([pcr(0), pcr(1), pcr(2)])
}

fn key(event: Key) -> Decoded {
    Ok(Some(match event {
        Key::KeyEpochPublished(e) => RegistryEvent::KeyEpochPublished {
            key_epoch: e.keyEpoch,
            msk_commitment: e.mskCommitment,
            secrets_public_key: e.secretsPublicKey,
            privacy_public_key: e.privacyPublicKey,
        },
        Key::MinKeyEpochSet(e) => RegistryEvent::MinKeyEpochSet {
            min_key_epoch: e.minKeyEpoch,
        },
    }))
}

fn artifact(a: &abi::ArtifactRef) -> Artifact {
    Artifact {
        hash: a.artifactHash,
        length: a.byteLength,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use alloy_sol_types::SolEvent;
    use newton_types::Bytes;
    use newton_types::events::EventPosition;

    use super::*;

    fn contracts() -> Contracts {
        let at = Address::repeat_byte;
        Contracts {
            enclave_version_registry: at(1),
            operator_registry: at(2),
            key_registry: at(3),
            state_commit_registry: at(4),
            policy_client_registry: at(5),
            policy_registry: at(6),
            policy_data_registry: at(7),
            task_manager: at(8),
        }
    }

    fn log(address: u8, topics: Vec<B256>, data: Bytes) -> Log {
        Log {
            address: Address::repeat_byte(address),
            topics,
            data,
            block_hash: B256::ZERO,
            position: EventPosition::default(),
        }
    }

    fn read_event(address: u8, event: &impl SolEvent) -> Result<Option<RegistryEvent>, ChainError> {
        let data = event.encode_log_data();
        decode(
            &contracts(),
            &log(address, data.topics().to_vec(), data.data),
        )
    }

    #[test]
    fn who_owns_a_client_is_followed() {
        let registered = abi::IPolicyClientRegistry::ClientRegistered {
            client: Address::repeat_byte(0xc1),
            owner: Address::repeat_byte(0x0e),
            claimedBy: Address::repeat_byte(0xc1),
        };
        assert_eq!(
            read_event(5, &registered).unwrap(),
            Some(RegistryEvent::ClientRegistered {
                client: registered.client,
                owner: registered.owner,
            })
        );
        // Only its own registry says so.
        let elsewhere = read_event(6, &registered).unwrap_err();
        assert!(matches!(elsewhere, ChainError::UnknownEvent { .. }));
    }

    /// Every event of every interface is either decoded or dropped on purpose at its contract: nothing that our own
    /// contracts emit can stop the follower.
    #[test]
    fn no_event_of_the_interface_is_unknown() {
        use newton_types::abi::{
            IAllowlistGuard::IAllowlistGuardEvents as Allow,
            IPausableByRole::IPausableByRoleEvents as Pause,
        };
        let of: [(u8, &[[u8; 32]]); 11] = [
            (1, Version::SELECTORS),
            (2, Operator::SELECTORS),
            (2, Slasher::SELECTORS),
            (3, Key::SELECTORS),
            (4, Commit::SELECTORS),
            (5, Client::SELECTORS),
            (6, Policy::SELECTORS),
            (7, Data::SELECTORS),
            (8, Task::SELECTORS),
            (6, Allow::SELECTORS),
            (8, Pause::SELECTORS),
        ];
        for (address, selectors) in of {
            assert!(!selectors.is_empty());
            for selector in selectors {
                // Without data most are malformed; that is not what this test asks.
                let result = decode(
                    &contracts(),
                    &log(address, vec![B256::from(*selector)], Bytes::new()),
                );
                let unknown = matches!(result, Err(ChainError::UnknownEvent { .. }));
                assert!(!unknown, "{address} {}", B256::from(*selector));
            }
        }
        let anonymous = decode(&contracts(), &log(6, vec![], Bytes::new()));
        assert!(matches!(anonymous, Err(ChainError::UnknownEvent { .. })));
    }

    #[test]
    fn fields_arrive_where_they_belong() {
        let b = B256::repeat_byte;
        let admitted = abi::IOperatorRegistry::OperatorAdmitted {
            operator: Address::repeat_byte(0x21),
            setId: 7,
            index: 3,
            weight: alloy_primitives::Uint::from(1_000_000_000_000_000_000_000u128),
            viaCertificate: true,
            blsPublicKey: vec![5; 256].into(),
            admission: abi::EnclaveAdmission {
                operator: Address::repeat_byte(0x21),
                bootId: b(9),
                validUntil: 77,
                ..Default::default()
            },
        };
        let Some(RegistryEvent::OperatorAdmitted {
            operator,
            set_id: 7,
            index: 3,
            weight: 1_000_000_000_000_000_000_000,
            via_certificate: true,
            bls_public_key,
            admission,
        }) = read_event(2, &admitted).unwrap()
        else {
            panic!("not as encoded");
        };
        assert_eq!(
            (operator, bls_public_key.len()),
            (Address::repeat_byte(0x21), 256)
        );
        assert_eq!(admission, admitted.admission);

        let slashed = abi::ISlasher::OperatorSlashed {
            operator: Address::repeat_byte(0x21),
            slashed: alloy_primitives::Uint::from(10u128),
            weight: alloy_primitives::Uint::from(90u128),
        };
        let event = read_event(2, &slashed).unwrap().unwrap();
        assert_eq!(
            event,
            RegistryEvent::OperatorSlashed {
                operator: Address::repeat_byte(0x21),
                weight: 90,
            }
        );
        let reweighed = abi::IOperatorRegistry::OperatorReweighed {
            operator: Address::repeat_byte(0x21),
            setId: 8,
            index: 3,
            weight: alloy_primitives::Uint::from(90u128),
        };
        assert_eq!(
            read_event(2, &reweighed).unwrap().unwrap(),
            RegistryEvent::OperatorReweighed {
                operator: Address::repeat_byte(0x21),
                set_id: 8,
                index: 3,
                weight: 90,
            }
        );
        let snapshot = abi::SealedSnapshot {
            commit: abi::StateCommit {
                sequenceNo: 5,
                newStateRoot: b(6),
                ..Default::default()
            },
            snapshotHash: b(7),
            snapshotLength: 8,
            daRefHash: b(9),
        };
        let mut adopted = abi::IStateCommitRegistry::SnapshotAdopted {
            sequenceNo: 5,
            newStateRoot: b(6),
            snapshot: snapshot.clone(),
            digest: b(10),
            daRef: vec![11].into(),
        };
        assert_eq!(
            read_event(4, &adopted).unwrap().unwrap(),
            RegistryEvent::SnapshotAdopted {
                snapshot,
                digest: b(10),
                da_ref: vec![11].into(),
            }
        );
        adopted.sequenceNo = 6;
        assert!(matches!(
            read_event(4, &adopted),
            Err(ChainError::MalformedEvent { .. })
        ));

        let proposed = abi::IEnclaveVersionRegistry::VersionProposed {
            pcr0Hash: b(1),
            pcrs: [[1u8; 48], [2; 48], [3; 48]].concat().into(),
            sourceHash: b(2),
            label: "v1".into(),
            activeFrom: 12,
        };
        let Some(RegistryEvent::VersionProposed {
            pcr1, active_from, ..
        }) = read_event(1, &proposed).unwrap()
        else {
            panic!("not as encoded");
        };
        assert_eq!((pcr1, active_from), (vec![2; 48].into(), 12));

        let data = abi::IPolicyDataRegistry::PolicyDataTemplateRegistered {
            policyDataTemplateId: b(1),
            author: Address::repeat_byte(2),
            wasm: reference(3),
            paramsSchema: reference(4),
            secretsSchema: reference(5),
            daRefs: vec![vec![1].into(), vec![2].into(), vec![3].into()],
        };
        let Some(RegistryEvent::PolicyDataTemplateRegistered {
            wasm,
            params_schema,
            secrets_schema,
            da_refs,
            ..
        }) = read_event(7, &data).unwrap()
        else {
            panic!("not as encoded");
        };
        let hashes = [wasm.hash, params_schema.hash, secrets_schema.hash];
        assert_eq!(hashes, [b(3), b(4), b(5)]);
        assert_eq!((wasm.length, da_refs.len()), (3, 3));
    }

    fn reference(i: u8) -> abi::ArtifactRef {
        abi::ArtifactRef {
            artifactHash: B256::repeat_byte(i),
            byteLength: i.into(),
        }
    }

    #[test]
    fn what_the_contracts_cannot_emit_is_malformed() {
        let malformed = |result| matches!(result, Err(ChainError::MalformedEvent { .. }));
        let supplied = |namespace| abi::IPolicyRegistry::ArtifactSupplied {
            namespace,
            artifactHash: B256::repeat_byte(1),
            supplier: Address::ZERO,
            byteLength: 1,
            daRef: Bytes::new(),
        };
        assert!(malformed(read_event(6, &supplied(9))));
        assert!(malformed(read_event(6, &supplied(3))));
        assert!(read_event(6, &supplied(4)).unwrap().is_some());
        let proposed = abi::IEnclaveVersionRegistry::VersionProposed {
            pcr0Hash: B256::ZERO,
            pcrs: vec![0; 143].into(),
            sourceHash: B256::ZERO,
            label: String::new(),
            activeFrom: 0,
        };
        assert!(malformed(read_event(1, &proposed)));
        let committed = abi::IStateCommitRegistry::StateCommitted {
            sequenceNo: 2,
            newStateRoot: B256::ZERO,
            commit: abi::StateCommit::default(),
            digest: B256::ZERO,
            deltaDaRefs: vec![],
        };
        assert!(malformed(read_event(4, &committed)));
    }
}
