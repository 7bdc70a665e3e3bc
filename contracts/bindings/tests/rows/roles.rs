//! Owners, pausers, lists and clients: enclaves drop these events, so a model of a few lines stands in.

use std::collections::BTreeMap;

use alloy::providers::Provider;
use alloy::rpc::types::Log;
use alloy_primitives::Address;
use newton_contracts::abi::{self, IAllowlistGuard as Guard, IPolicyClientRegistry as Clients};

use super::{IMPLEMENTATION_SLOT, of};
use crate::actions::{IOwned, World};

pub async fn compare(world: &World, logs: &[Log]) {
    for (name, at) in world.followed() {
        let own: Vec<Log> = logs.iter().filter(|l| l.address() == at).cloned().collect();
        owner(world, name, at, &own).await;
        if world.pausable().contains(&at) {
            pause(world, name, at, &own).await;
        }
    }
    for at in [world.a.policy_registry, world.a.policy_data_registry] {
        let own: Vec<Log> = logs.iter().filter(|l| l.address() == at).cloned().collect();
        lists(world, at, &own).await;
    }
    clients(world, logs).await;
    let role = of::<abi::IEnclaveVersionRegistry::EmergencyRoleSet>(logs);
    assert_eq!(
        world.versions().emergencyRole().call().await.unwrap(),
        role.last().unwrap().1.account
    );
}

async fn owner(world: &World, name: &str, at: Address, logs: &[Log]) {
    let contract = world.owned(at);
    let (mut owner, mut pending) = (Address::ZERO, Address::ZERO);
    let mut events: Vec<(Option<u64>, bool, Address)> = Vec::new();
    for (log, event) in of::<IOwned::OwnershipTransferStarted>(logs) {
        events.push((log.block_number, false, event.newOwner));
    }
    for (log, event) in of::<IOwned::OwnershipTransferred>(logs) {
        events.push((log.block_number, true, event.newOwner));
    }
    events.sort_by_key(|(block, ..)| *block);
    for (_, done, account) in events {
        if done {
            (owner, pending) = (account, Address::ZERO);
        } else {
            pending = account;
        }
    }
    assert_eq!(contract.owner().call().await.unwrap(), owner, "{name}");
    assert_eq!(
        contract.pendingOwner().call().await.unwrap(),
        pending,
        "{name}"
    );
    let slot = world
        .chain
        .provider
        .get_storage_at(at, IMPLEMENTATION_SLOT.into())
        .await
        .unwrap();
    let upgraded = of::<IOwned::Upgraded>(logs);
    assert_eq!(
        Address::from_word(slot.into()),
        upgraded.last().unwrap().1.implementation
    );
}

async fn pause(world: &World, name: &str, at: Address, logs: &[Log]) {
    let paused = of::<IOwned::Paused>(logs).len() - of::<IOwned::Unpaused>(logs).len();
    let got = world.owned(at).paused().call().await.unwrap();
    assert_eq!(usize::from(got), paused, "{name}");
    let set = of::<abi::IPausableByRole::PauserSet>(logs);
    let pauser = abi::IPausableByRole::new(at, &world.chain.provider);
    assert_eq!(
        pauser.pauser().call().await.unwrap(),
        set.last().map_or(Address::ZERO, |(_, e)| e.pauser),
        "{name}"
    );
}

async fn lists(world: &World, at: Address, logs: &[Log]) {
    let guard = Guard::new(at, &world.chain.provider);
    let templates = of::<Guard::TemplateRegistrationPermissionlessSet>(logs);
    assert_eq!(
        guard
            .templateRegistrationPermissionless()
            .call()
            .await
            .unwrap(),
        templates.last().unwrap().1.permissionless
    );
    let instances = of::<Guard::InstanceDeploymentPermissionlessSet>(logs);
    assert_eq!(
        guard
            .instanceDeploymentPermissionless()
            .call()
            .await
            .unwrap(),
        instances.last().unwrap().1.permissionless
    );
    let authors: BTreeMap<Address, bool> = of::<Guard::TemplateAuthorSet>(logs)
        .into_iter()
        .map(|(_, e)| (e.author, e.allowed))
        .collect();
    let deployers: BTreeMap<Address, bool> = of::<Guard::InstanceDeployerSet>(logs)
        .into_iter()
        .map(|(_, e)| (e.deployer, e.allowed))
        .collect();
    for account in world.accounts() {
        let listed = |map: &BTreeMap<Address, bool>| map.get(account).copied().unwrap_or(false);
        assert_eq!(
            guard.templateAuthors(*account).call().await.unwrap(),
            listed(&authors)
        );
        assert_eq!(
            guard.instanceDeployers(*account).call().await.unwrap(),
            listed(&deployers)
        );
    }
}

async fn clients(world: &World, logs: &[Log]) {
    let owners: BTreeMap<Address, Address> = of::<Clients::ClientRegistered>(logs)
        .into_iter()
        .map(|(_, e)| (e.client, e.owner))
        .collect();
    let deployers: BTreeMap<(Address, Address, Address), bool> =
        of::<Clients::ClientDeployerSet>(logs)
            .into_iter()
            .map(|(_, e)| ((e.client, e.owner, e.deployer), e.allowed))
            .collect();
    for client in world.accounts() {
        let owner = owners.get(client).copied().unwrap_or_default();
        assert_eq!(
            world.clients().ownerOf(*client).call().await.unwrap(),
            owner
        );
        for account in world.accounts() {
            let delegated = deployers.get(&(*client, owner, *account));
            let expected =
                !owner.is_zero() && (owner == *account || delegated.copied().unwrap_or(false));
            let got = world.clients().isAuthorized(*client, *account);
            assert_eq!(got.call().await.unwrap(), expected, "{client} {account}");
        }
    }
}
