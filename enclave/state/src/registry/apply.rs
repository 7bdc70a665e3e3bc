//! What an event does to the rows.

use alloy_sol_types::SolValue;
use newton_types::events::{ChainEvent, EventPosition, RegistryEvent};
use newton_types::ids;
use newton_types::{B256, Bytes};

use super::rows::*;
use super::{Kind, Registry, RowsMut, key, put};
use crate::StateError;

/// Applies one event. Errors mean that the contracts cannot have emitted it.
pub(crate) fn apply(rows: &mut impl RowsMut, event: &ChainEvent) -> Result<(), StateError> {
    let at = event.position;
    match &event.event {
        RegistryEvent::PolicyTemplateRegistered { .. }
        | RegistryEvent::PolicyDataTemplateRegistered { .. } => template(rows, at, &event.event),
        RegistryEvent::PolicyInstanceDeployed { .. }
        | RegistryEvent::PolicyDataInstanceDeployed { .. } => instance(rows, at, &event.event),
        RegistryEvent::CurrentPolicyInstanceSet { client, id } => {
            let pointer = Pointer {
                id: *id,
                set_at: at.block,
            };
            put(rows, key(Kind::CurrentPolicyInstance, client), &pointer)
        }
        RegistryEvent::CurrentPolicyDataInstanceSet {
            client,
            template_id,
            id,
        } => {
            let pointer = Pointer {
                id: *id,
                set_at: at.block,
            };
            let slot = [client.as_slice(), template_id.as_slice()].concat();
            put(rows, key(Kind::CurrentDataInstance, slot), &pointer)
        }
        RegistryEvent::ClientRegistered { client, owner } => {
            put(rows, key(Kind::ClientOwner, client), owner)
        }
        RegistryEvent::SecretsSet {
            instance_id,
            client,
            poster,
            by_owner,
            envelope,
            count,
            ..
        } => {
            let row = SecretsRow {
                client: *client,
                envelope: *envelope,
                poster: *poster,
                by_owner: *by_owner,
                count: *count,
                posted_at: at,
            };
            put(rows, key(Kind::Secrets, instance_id), &row)
        }
        RegistryEvent::TaskCreated { .. } | RegistryEvent::TaskResponded { .. } => {
            task(rows, at, &event.event)
        }
        RegistryEvent::OperatorAllowed { .. }
        | RegistryEvent::OperatorAdmitted { .. }
        | RegistryEvent::OperatorRemoved { .. }
        | RegistryEvent::OperatorSetChanged { .. }
        | RegistryEvent::OperatorSlashed { .. }
        | RegistryEvent::OperatorReweighed { .. }
        | RegistryEvent::SetsInvalidated { .. }
        | RegistryEvent::ExitRequested { .. }
        | RegistryEvent::ExitCompleted { .. } => operators(rows, at, &event.event),
        RegistryEvent::EntrySkipped { entry } => {
            put(rows, key(Kind::Skipped, entry.to_bytes()), &at)
        }
        // Commits and queue entries have tables of their own.
        // What an adopted snapshot means is for whoever applies finalized blocks.
        RegistryEvent::StateCommitted { .. }
        | RegistryEvent::SnapshotAdopted { .. }
        | RegistryEvent::ArtifactSupplied { .. } => Ok(()),
        other => governance(rows, at, other),
    }
}

fn malformed(position: EventPosition, reason: impl Into<String>) -> StateError {
    StateError::MalformedEvent {
        position,
        reason: reason.into(),
    }
}

/// Rows are write-once; contracts refuse a second registration.
fn put_new<T: serde::Serialize>(
    rows: &mut impl RowsMut,
    at: EventPosition,
    row_key: Vec<u8>,
    row: &T,
) -> Result<(), StateError> {
    if rows.raw(&row_key)?.is_some() {
        return Err(malformed(at, "registers a row that exists"));
    }
    put(rows, row_key, row)
}

fn template(
    rows: &mut impl RowsMut,
    at: EventPosition,
    event: &RegistryEvent,
) -> Result<(), StateError> {
    let check = |id: &B256, computed: B256| {
        if *id == computed {
            Ok(())
        } else {
            Err(malformed(
                at,
                format!("id {id} is not that of its content, {computed}"),
            ))
        }
    };
    match event {
        RegistryEvent::PolicyTemplateRegistered {
            id,
            author,
            rego,
            params_schema,
            entrypoint,
            data_template_refs,
            ..
        } => {
            let computed = ids::policy_template_id(
                rego.hash,
                entrypoint,
                params_schema.hash,
                data_template_refs,
            );
            check(id, computed)?;
            let row = PolicyTemplateRow {
                rego: *rego,
                params_schema: *params_schema,
                entrypoint: entrypoint.clone(),
                data_template_refs: data_template_refs.clone(),
                author: *author,
                registered_at: at.block,
            };
            put_new(rows, at, key(Kind::PolicyTemplate, id), &row)
        }
        RegistryEvent::PolicyDataTemplateRegistered {
            id,
            author,
            wasm,
            params_schema,
            secrets_schema,
            ..
        } => {
            let computed =
                ids::policy_data_template_id(wasm.hash, params_schema.hash, secrets_schema.hash);
            check(id, computed)?;
            let row = DataTemplateRow {
                wasm: *wasm,
                params_schema: *params_schema,
                secrets_schema: *secrets_schema,
                author: *author,
                registered_at: at.block,
            };
            put_new(rows, at, key(Kind::DataTemplate, id), &row)
        }
        _ => Ok(()),
    }
}

fn instance(
    rows: &mut impl RowsMut,
    at: EventPosition,
    event: &RegistryEvent,
) -> Result<(), StateError> {
    let (kind, id, row) = match event {
        RegistryEvent::PolicyInstanceDeployed {
            id,
            client,
            template_id,
            params,
            expire_after,
            deployer,
        } => (
            Kind::PolicyInstance,
            id,
            instance_row(at, *client, *template_id, params, *expire_after, *deployer),
        ),
        RegistryEvent::PolicyDataInstanceDeployed {
            id,
            client,
            template_id,
            params,
            expire_after,
            deployer,
        } => (
            Kind::DataInstance,
            id,
            instance_row(at, *client, *template_id, params, *expire_after, *deployer),
        ),
        _ => return Ok(()),
    };
    put_new(rows, at, key(kind, id), &row)
}

fn instance_row(
    at: EventPosition,
    client: newton_types::Address,
    template_id: B256,
    params: &Bytes,
    expire_after: u64,
    deployer: newton_types::Address,
) -> InstanceRow {
    InstanceRow {
        template_id,
        client,
        params_hash: ids::params_hash(expire_after, params),
        params: params.clone(),
        expire_after,
        deployer,
        registered_at: at.block,
    }
}

fn task(
    rows: &mut impl RowsMut,
    at: EventPosition,
    event: &RegistryEvent,
) -> Result<(), StateError> {
    match event {
        RegistryEvent::TaskCreated {
            task_id,
            task,
            intent,
            wasm_args,
        } => {
            let row = TaskRow {
                task: task.abi_encode().into(),
                intent: intent.abi_encode().into(),
                wasm_args: wasm_args.clone(),
                created_at: at,
                response_digest: None,
            };
            let by_block = [&at.block.to_be_bytes()[..], task_id.as_slice()].concat();
            put(rows, key(Kind::TaskByBlock, by_block), &())?;
            put_new(rows, at, key(Kind::Task, task_id), &row)
        }
        RegistryEvent::TaskResponded {
            task_id, digest, ..
        } => {
            // An answer to a task that is pruned already changes nothing that is still asked for.
            let Some(mut row) = Registry::new(rows).task(*task_id)? else {
                return Ok(());
            };
            row.response_digest = Some(*digest);
            put(rows, key(Kind::Task, task_id), &row)
        }
        _ => Ok(()),
    }
}

fn operators(
    rows: &mut impl RowsMut,
    at: EventPosition,
    event: &RegistryEvent,
) -> Result<(), StateError> {
    match event {
        RegistryEvent::OperatorAllowed { operator, weight } => {
            change_operator(rows, *operator, |row| row.allowed_weight = *weight)
        }
        RegistryEvent::OperatorAdmitted {
            operator,
            set_id,
            index,
            weight,
            via_certificate,
            bls_public_key,
            admission,
        } => {
            change_operator(rows, *operator, |row| {
                row.exited = false;
                row.latest_admission = Some(AdmissionRow {
                    bls_key_hash: admission.blsKeyHash,
                    tls_key_hash: admission.tlsKeyHash,
                    boot_id: admission.bootId,
                    pcr0_hash: admission.pcr0Hash,
                    config_hash: admission.configHash,
                    doc_hash: admission.docHash,
                    valid_until: admission.validUntil,
                    via_certificate: *via_certificate,
                    set_id: *set_id,
                    admitted_at: at.block,
                });
            })?;
            let member = MemberRow {
                index: *index,
                operator: *operator,
                bls_key_hash: admission.blsKeyHash,
                bls_public_key: bls_public_key.clone(),
                weight: *weight,
                tls_key_hash: admission.tlsKeyHash,
                valid_until: admission.validUntil,
            };
            change_set(rows, at, *set_id, |set| {
                // A new admission retires the operator's former key.
                set.members
                    .retain(|m| m.operator != *operator && m.index != *index);
                set.members.push(member);
                set.members.sort_by_key(|m| m.index);
            })
        }
        RegistryEvent::OperatorRemoved {
            operator, set_id, ..
        } => change_set(rows, at, *set_id, |set| {
            set.members.retain(|m| m.operator != *operator);
        }),
        RegistryEvent::OperatorSetChanged {
            set_id,
            aggregate_key_hash,
            total_weight,
            earliest_valid_until,
            aggregate_key,
        } => change_set(rows, at, *set_id, |set| {
            set.aggregate_key_hash = *aggregate_key_hash;
            set.total_weight = *total_weight;
            set.earliest_valid_until = *earliest_valid_until;
            set.aggregate_key = aggregate_key.clone();
        }),
        // Sets follow by events of their own.
        RegistryEvent::OperatorSlashed { .. } => Ok(()),
        RegistryEvent::OperatorReweighed {
            operator,
            set_id,
            weight,
            ..
        } => change_set(rows, at, *set_id, |set| {
            for member in &mut set.members {
                if member.operator == *operator {
                    member.weight = *weight;
                }
            }
        }),
        RegistryEvent::SetsInvalidated {
            first_clean_set_id, ..
        } => put(rows, key(Kind::FirstCleanSet, []), first_clean_set_id),
        RegistryEvent::ExitRequested { operator, exit_at } => {
            change_operator(rows, *operator, |row| {
                row.exit_requested_at = Some(*exit_at);
            })
        }
        RegistryEvent::ExitCompleted { operator } => change_operator(rows, *operator, |row| {
            row.exited = true;
            row.exit_requested_at = None;
        }),
        _ => Ok(()),
    }
}

fn change_operator(
    rows: &mut impl RowsMut,
    operator: newton_types::Address,
    change: impl FnOnce(&mut OperatorRow),
) -> Result<(), StateError> {
    let mut row = Registry::new(rows).operator(operator)?.unwrap_or_default();
    change(&mut row);
    put(rows, key(Kind::Operator, operator), &row)
}

/// Changes a set; its first event makes it a copy of the newest one. So the order of a set's events does not matter.
fn change_set(
    rows: &mut impl RowsMut,
    at: EventPosition,
    set_id: u64,
    change: impl FnOnce(&mut OperatorSetRow),
) -> Result<(), StateError> {
    let registry = Registry::new(rows);
    let latest = registry.latest_set_id()?;
    if latest.is_some_and(|latest| set_id < latest) {
        return Err(malformed(
            at,
            format!("changes operator set {set_id}, which is superseded"),
        ));
    }
    let mut set = match registry.operator_set(set_id)? {
        Some(set) => set,
        None => {
            let members = match latest {
                Some(latest) => registry.operator_set(latest)?.map(|s| s.members),
                None => None,
            };
            OperatorSetRow {
                set_id,
                members: members.unwrap_or_default(),
                aggregate_key_hash: B256::ZERO,
                aggregate_key: Bytes::new(),
                total_weight: 0,
                earliest_valid_until: 0,
                created_at: at.block,
            }
        }
    };
    change(&mut set);
    put(rows, key(Kind::LatestSet, []), &set_id)?;
    put(rows, key(Kind::OperatorSet, set_id.to_be_bytes()), &set)
}

fn governance(
    rows: &mut impl RowsMut,
    at: EventPosition,
    event: &RegistryEvent,
) -> Result<(), StateError> {
    match event {
        RegistryEvent::VersionProposed {
            pcr0_hash,
            pcr0,
            pcr1,
            pcr2,
            source_hash,
            label,
            active_from,
        } => {
            let row = VersionRow {
                pcr0: pcr0.clone(),
                pcr1: pcr1.clone(),
                pcr2: pcr2.clone(),
                source_hash: *source_hash,
                label: label.clone(),
                active_from: *active_from,
                deprecated_from: None,
                revoked_at: None,
            };
            put_new(rows, at, key(Kind::Version, pcr0_hash), &row)
        }
        RegistryEvent::VersionDeprecated {
            pcr0_hash,
            deprecated_from,
        } => change_version(rows, at, *pcr0_hash, |v| {
            v.deprecated_from = Some(*deprecated_from);
        }),
        RegistryEvent::VersionRevoked {
            pcr0_hash,
            revoked_at,
        } => change_version(rows, at, *pcr0_hash, |v| v.revoked_at = Some(*revoked_at)),
        RegistryEvent::ConfigApproved {
            config_hash,
            approved,
        } => append(
            rows,
            key(Kind::Config, config_hash),
            ConfigApproval {
                block: at.block,
                approved: *approved,
            },
        ),
        RegistryEvent::RulesVersionScheduled {
            rules_version,
            active_from,
        } => append(
            rows,
            key(Kind::Rules, []),
            ScheduledRules {
                rules_version: *rules_version,
                active_from: *active_from,
            },
        ),
        RegistryEvent::ConsensusParametersSet {
            parameters,
            active_from_timestamp,
        } => {
            if parameters.cadence == 0 {
                return Err(malformed(at, "sets a cadence of zero"));
            }
            append(
                rows,
                key(Kind::Parameters, []),
                ScheduledParameters {
                    parameters: *parameters,
                    active_from: *active_from_timestamp,
                },
            )
        }
        RegistryEvent::KeyEpochPublished {
            key_epoch,
            msk_commitment,
            secrets_public_key,
            privacy_public_key,
        } => {
            let row = KeyEpochRow {
                msk_commitment: *msk_commitment,
                secrets_public_key: *secrets_public_key,
                privacy_public_key: *privacy_public_key,
                published_at: at.block,
            };
            put(rows, key(Kind::LatestKeyEpoch, []), key_epoch)?;
            put_new(rows, at, key(Kind::KeyEpoch, key_epoch.to_be_bytes()), &row)
        }
        RegistryEvent::MinKeyEpochSet { min_key_epoch } => {
            append(rows, key(Kind::MinKeyEpoch, []), (at.block, *min_key_epoch))
        }
        // A kind that this image does not know cannot be skipped: another image may act on it.
        other => Err(malformed(at, format!("no rule applies {other:?}"))),
    }
}

fn change_version(
    rows: &mut impl RowsMut,
    at: EventPosition,
    pcr0_hash: B256,
    change: impl FnOnce(&mut VersionRow),
) -> Result<(), StateError> {
    let mut row = Registry::new(rows)
        .version(pcr0_hash)?
        .ok_or_else(|| malformed(at, format!("names the unknown version {pcr0_hash}")))?;
    change(&mut row);
    put(rows, key(Kind::Version, pcr0_hash), &row)
}

fn append<T: serde::Serialize + serde::de::DeserializeOwned>(
    rows: &mut impl RowsMut,
    row_key: Vec<u8>,
    item: T,
) -> Result<(), StateError> {
    let mut list: Vec<T> = match rows.raw(&row_key)? {
        Some(bytes) => crate::tables::decode("registry row", &bytes)?,
        None => Vec::new(),
    };
    list.push(item);
    put(rows, row_key, &list)
}
