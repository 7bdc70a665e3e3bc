//! A chain with the contracts, and one transaction at least for everything that changes a row.
#![allow(clippy::unwrap_used)]

use alloy::network::TransactionBuilder;
use alloy::providers::{DynProvider, Provider};
use alloy::rpc::types::TransactionRequest;
use alloy_primitives::aliases::U96;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolEvent, SolStruct, SolValue};
use newton_contracts::abi;
use newton_contracts::deploy::{Addresses, DeployConfig, deploy};
use serde_json::json;

use crate::support::{self, Bls, Chain, domain};

mod recovery;

alloy::sol! {
    #[sol(rpc)]
    interface IOwned {
        event OwnershipTransferStarted(address indexed previousOwner, address indexed newOwner);
        event OwnershipTransferred(address indexed previousOwner, address indexed newOwner);
        event Upgraded(address indexed implementation);
        event Paused(address account);
        event Unpaused(address account);
        function owner() external view returns (address);
        function pendingOwner() external view returns (address);
        function paused() external view returns (bool);
        function transferOwnership(address newOwner) external;
        function acceptOwnership() external;
        function renounceOwnership() external;
        function upgradeToAndCall(address implementation, bytes data) external payable;
    }
}

pub struct World {
    pub chain: Chain,
    pub a: Addresses,
    owner: Address,
    /// Operators' owners and the names of their keys in the latest set.
    members: Vec<(Address, &'static str)>,
    accounts: Vec<Address>,
    policy: B256,
    data_template: B256,
}

const PCRS: [[u8; 48]; 3] = [[1; 48], [2; 48], [3; 48]];

pub fn image(number: u8) -> B256 {
    keccak256([number; 48])
}

/// Calls borrow their contract; a test has few of them.
fn leaked<T>(contract: T) -> &'static T {
    Box::leak(Box::new(contract))
}

fn artifact(text: &str) -> abi::ArtifactRef {
    abi::ArtifactRef {
        artifactHash: keccak256(text),
        byteLength: text.len() as u32,
    }
}

fn da_refs(count: usize) -> Vec<Bytes> {
    vec![Bytes::from_static(b"where"); count]
}

impl World {
    pub async fn start() -> Self {
        // Finality two blocks behind the head.
        let chain = Chain::start_with(&["--slots-in-an-epoch", "1"]).await;
        let accounts = chain.provider.get_accounts().await.unwrap();
        let mut config = DeployConfig::for_chain(&support::config_dir(), 31337).unwrap();
        // An exit waits for all of them, and the test mines every block.
        let p = &mut config.parameters;
        (p.max_expire_after, p.response_window) = (100, 30);
        (p.max_set_age, p.challenge_window) = (40, 30);
        let owner = accounts[0];
        let deployed = deploy(&chain.provider, owner, &config, &support::out_dir()).await;
        Self {
            chain,
            a: deployed.unwrap().addresses,
            owner,
            members: Vec::new(),
            accounts,
            policy: B256::ZERO,
            data_template: B256::ZERO,
        }
    }

    /// The contracts that enclaves follow, by the names of their artifacts.
    pub fn followed(&self) -> [(&'static str, Address); 8] {
        [
            ("EnclaveVersionRegistry", self.a.enclave_version_registry),
            ("OperatorRegistry", self.a.operator_registry),
            ("KeyRegistry", self.a.key_registry),
            ("StateCommitRegistry", self.a.state_commit_registry),
            ("PolicyClientRegistry", self.a.policy_client_registry),
            ("PolicyRegistry", self.a.policy_registry),
            ("PolicyDataRegistry", self.a.policy_data_registry),
            ("TaskManager", self.a.task_manager),
        ]
    }

    /// Those that can be paused.
    pub fn pausable(&self) -> [Address; 4] {
        [
            self.a.operator_registry,
            self.a.policy_registry,
            self.a.policy_data_registry,
            self.a.task_manager,
        ]
    }

    pub fn accounts(&self) -> &[Address] {
        &self.accounts
    }

    fn client(&self) -> Address {
        self.accounts[5]
    }

    fn author(&self) -> Address {
        self.accounts[6]
    }

    fn delegate(&self) -> Address {
        self.accounts[7]
    }

    fn other(&self) -> Address {
        self.accounts[8]
    }

    pub fn operators(
        &self,
    ) -> &'static abi::IOperatorRegistry::IOperatorRegistryInstance<DynProvider> {
        leaked(abi::IOperatorRegistry::new(
            self.a.operator_registry,
            self.chain.provider.clone(),
        ))
    }

    pub fn versions(
        &self,
    ) -> &'static abi::IEnclaveVersionRegistry::IEnclaveVersionRegistryInstance<DynProvider> {
        leaked(abi::IEnclaveVersionRegistry::new(
            self.a.enclave_version_registry,
            self.chain.provider.clone(),
        ))
    }

    pub fn commits_(
        &self,
    ) -> &'static abi::IStateCommitRegistry::IStateCommitRegistryInstance<DynProvider> {
        leaked(abi::IStateCommitRegistry::new(
            self.a.state_commit_registry,
            self.chain.provider.clone(),
        ))
    }

    pub fn keys(&self) -> &'static abi::IKeyRegistry::IKeyRegistryInstance<DynProvider> {
        leaked(abi::IKeyRegistry::new(
            self.a.key_registry,
            self.chain.provider.clone(),
        ))
    }

    pub fn policies(&self) -> &'static abi::IPolicyRegistry::IPolicyRegistryInstance<DynProvider> {
        leaked(abi::IPolicyRegistry::new(
            self.a.policy_registry,
            self.chain.provider.clone(),
        ))
    }

    pub fn data(
        &self,
    ) -> &'static abi::IPolicyDataRegistry::IPolicyDataRegistryInstance<DynProvider> {
        leaked(abi::IPolicyDataRegistry::new(
            self.a.policy_data_registry,
            self.chain.provider.clone(),
        ))
    }

    pub fn clients(
        &self,
    ) -> &'static abi::IPolicyClientRegistry::IPolicyClientRegistryInstance<DynProvider> {
        leaked(abi::IPolicyClientRegistry::new(
            self.a.policy_client_registry,
            self.chain.provider.clone(),
        ))
    }

    pub fn task_manager(&self) -> &'static abi::ITaskManager::ITaskManagerInstance<DynProvider> {
        leaked(abi::ITaskManager::new(
            self.a.task_manager,
            self.chain.provider.clone(),
        ))
    }

    pub fn owned(&self, at: Address) -> &'static IOwned::IOwnedInstance<DynProvider> {
        leaked(IOwned::new(at, self.chain.provider.clone()))
    }

    pub async fn pass(&self, seconds: u64) {
        self.chain.rpc("evm_increaseTime", json!([seconds])).await;
        self.chain.mine(1).await;
    }

    pub async fn images_and_configurations(&mut self) {
        let (versions, owner) = (self.versions(), self.owner);
        for (number, label) in [(1, "one"), (2, "two"), (3, "three")] {
            let [pcr1, pcr2] = [PCRS[1], PCRS[2]].map(|p| Bytes::from(p.to_vec()));
            let pcr0 = Bytes::from(vec![number; 48]);
            let call =
                versions.proposeVersion(pcr0, pcr1, pcr2, keccak256(label), label.to_owned());
            self.chain.send("proposeVersion", call.from(owner)).await;
        }
        for (name, approved) in [("config", true), ("withdrawn", true), ("withdrawn", false)] {
            let call = versions.approveConfig(keccak256(name), approved);
            self.chain.send("approveConfig", call.from(owner)).await;
        }
        let call = versions.deprecateVersion(image(3), 4);
        self.chain.send("deprecateVersion", call.from(owner)).await;
        let from = self.chain.number().await + 8;
        let call = versions.scheduleRulesVersion(2, from);
        self.chain
            .send("scheduleRulesVersion", call.from(owner))
            .await;
        let call = versions.setEmergencyRole(self.other());
        self.chain.send("setEmergencyRole", call.from(owner)).await;
        self.chain.mine(2).await;
    }

    pub async fn operators_join(&mut self) {
        for (index, weight) in [(1, 100), (2, 100), (3, 50), (4, 30)] {
            let call = self
                .operators()
                .allowOperator(self.accounts[index], U96::from(weight));
            self.chain
                .send("allowOperator", call.from(self.owner))
                .await;
        }
        for (index, key, number) in [(1, "a", 1), (2, "b", 1), (3, "c", 2), (4, "d", 1)] {
            self.admit(self.accounts[index], key, number).await;
        }
        // A new boot in the former one's place.
        self.admit(self.accounts[2], "b again", 1).await;
        // Approved and never used.
        let unused = self
            .admission(self.other(), &Bls::from_name("unused"), 1)
            .await;
        let call = self.operators().approveAdmission(unused);
        self.chain
            .send("approveAdmission", call.from(self.owner))
            .await;
    }

    pub async fn key_epochs(&mut self) {
        for number in [1, 2] {
            let epoch = abi::KeyEpoch {
                mskCommitment: keccak256("msk"),
                keyEpoch: number,
                secretsPublicKey: keccak256([number as u8, 1]),
                privacyPublicKey: keccak256([number as u8, 2]),
            };
            let digest = self
                .keys()
                .keyEpochDigest(epoch.clone())
                .call()
                .await
                .unwrap();
            let call = self
                .keys()
                .publishKeyEpoch(epoch, self.certificate(digest).await);
            self.chain
                .send("publishKeyEpoch", call.from(self.author()))
                .await;
        }
        let call = self.keys().setMinKeyEpoch(2);
        self.chain
            .send("setMinKeyEpoch", call.from(self.owner))
            .await;
    }

    pub async fn clients_and_lists(&mut self) {
        let (client, delegate, other) = (self.client(), self.delegate(), self.other());
        let call = self.clients().registerClient(client, client);
        self.chain.send("registerClient", call.from(client)).await;
        for (account, allowed) in [(delegate, true), (other, true), (other, false)] {
            let call = self.clients().setDeployer(client, account, allowed);
            self.chain.send("setDeployer", call.from(client)).await;
        }
        for at in [self.a.policy_registry, self.a.policy_data_registry] {
            let guard = leaked(abi::IAllowlistGuard::new(at, self.chain.provider.clone()));
            let from = self.owner;
            for (account, allowed) in [(self.author(), true), (other, true), (other, false)] {
                let call = guard.setTemplateAuthor(account, allowed);
                self.chain.send("setTemplateAuthor", call.from(from)).await;
            }
            for (account, allowed) in [(delegate, true), (other, true), (other, false)] {
                let call = guard.setInstanceDeployer(account, allowed);
                self.chain
                    .send("setInstanceDeployer", call.from(from))
                    .await;
            }
            let call = guard.setTemplateRegistrationPermissionless(false);
            self.chain.send("templates listed", call.from(from)).await;
            let call = guard.setInstanceDeploymentPermissionless(false);
            self.chain.send("instances listed", call.from(from)).await;
        }
    }

    pub async fn templates_and_instances(&mut self) {
        let (client, author, delegate) = (self.client(), self.author(), self.delegate());
        let (data, policies) = (self.data(), self.policies());
        let (schema, secrets) = (artifact("params schema"), artifact("secrets schema"));
        let call = data
            .registerTemplate(
                artifact("wasm"),
                schema.clone(),
                secrets.clone(),
                da_refs(3),
            )
            .from(author);
        self.data_template = call.call().await.unwrap();
        self.chain.send("registerTemplate (data)", call).await;
        let mut instances = Vec::new();
        for (expire, current) in [(100, true), (90, false)] {
            let call = data
                .deployInstance(client, self.data_template, "{}".into(), expire, current)
                .from(delegate);
            instances.push(call.call().await.unwrap());
            self.chain.send("deployInstance (data)", call).await;
        }
        let call = data.setCurrent(client, instances[1]);
        self.chain
            .send("setCurrent (data)", call.from(client))
            .await;
        for (poster, text) in [(client, "envelope"), (delegate, "another envelope")] {
            let call = data.setSecrets(instances[1], artifact(text), "where".into());
            self.chain.send("setSecrets", call.from(poster)).await;
        }
        let call = data.supplyArtifact(6, keccak256("wasm"), 4, "elsewhere".into());
        self.chain
            .send("supplyArtifact (data)", call.from(author))
            .await;

        let call = policies
            .registerTemplate(
                artifact("rego"),
                schema,
                "vault.allow".into(),
                vec![self.data_template],
                da_refs(2),
            )
            .from(author);
        let template = call.call().await.unwrap();
        self.chain.send("registerTemplate", call).await;
        let mut instances = Vec::new();
        for (expire, current) in [(80, true), (70, false)] {
            let call = policies
                .deployInstance(client, template, "{\"limit\":1}".into(), expire, current)
                .from(delegate);
            instances.push(call.call().await.unwrap());
            self.chain.send("deployInstance", call).await;
        }
        self.policy = instances[1];
        let call = policies.setCurrent(client, instances[1]);
        self.chain.send("setCurrent", call.from(client)).await;
        let call = policies.supplyArtifact(4, keccak256("rego"), 4, "elsewhere".into());
        self.chain.send("supplyArtifact", call.from(author)).await;
        self.chain.mine(1).await;
    }

    pub async fn tasks(&mut self) {
        let tasks = self.task_manager();
        for value in [7, 8] {
            let intent = abi::Intent {
                from: self.client(),
                to: self.author(),
                value: U256::from(value),
                data: Bytes::from_static(&[0xa9, 0x05, 0x9c, 0xbb]),
                chainId: U256::from(31_337),
                functionSignature: Bytes::from_static(b"transfer(address,uint256)"),
            };
            let call = tasks.createTask(self.client(), intent, "{}".into(), 0);
            let receipt = self
                .chain
                .send("createTask", call.from(self.author()))
                .await;
            let created =
                abi::ITaskManager::TaskCreated::decode_log(&receipt.logs()[0].inner).unwrap();
            if value == 8 {
                self.answer(created.taskId, created.task.clone()).await;
            }
        }
    }

    async fn answer(&self, id: B256, task: abi::Task) {
        let tasks = self.task_manager();
        let policy = self.policies().instances(self.policy).call().await.unwrap();
        let template = policy.templateId;
        let row = self.policies().templates(template).call().await.unwrap();
        let instance = self.data().instances(task.dataInstanceIds[0]);
        let instance = instance.call().await.unwrap();
        let attestation = abi::PolicyAttestation {
            taskId: id,
            policyInstanceId: task.policyInstanceId,
            policyTemplateId: template,
            regoHash: row.rego.artifactHash,
            paramsSchemaHash: row.paramsSchema.artifactHash,
            paramsHash: policy.paramsHash,
            referenceBlock: task.referenceBlock,
            expirationBlock: task.referenceBlock + 70,
            stateSequenceNo: task.stateSequenceNo,
            stateRoot: task.stateRoot,
            rulesVersion: task.rulesVersion,
            intentHash: task.intentHash,
            wasmArgsHash: task.wasmArgsHash,
            evaluationResultHash: keccak256("true"),
            data: vec![abi::PolicyDataBinding {
                dataInstanceId: task.dataInstanceIds[0],
                dataTemplateId: self.data_template,
                wasmHash: keccak256("wasm"),
                paramsSchemaHash: keccak256("params schema"),
                secretsSchemaHash: keccak256("secrets schema"),
                paramsHash: instance.paramsHash,
                secretsLeafHash: B256::ZERO,
                outputHash: B256::ZERO,
                transcriptHash: B256::ZERO,
            }],
        };
        let digest = attestation.eip712_signing_hash(&domain(
            "Newton Policy Attestation",
            31_337,
            self.a.task_manager,
        ));
        let certificate = self.certificate(digest).await;
        let call = tasks.respondToTask(id, task, attestation, certificate);
        self.chain
            .send("respondToTask", call.from(self.author()))
            .await;
    }

    pub async fn commits(&mut self) {
        for (root, settled) in [("root 1", 31), ("root 2", 0)] {
            self.pass(10).await;
            let commit = self.commit(root, settled).await;
            let digest = self.digest(&commit).await;
            let certificate = self.certificate(digest).await;
            let call = self
                .commits_()
                .commitStateRoot(commit, certificate, da_refs(1));
            self.chain
                .send("commitStateRoot", call.from(self.author()))
                .await;
        }
        let entry = abi::SkipUnavailable {
            blockNumber: self.chain.number().await,
            txIndex: 0,
            logIndex: 3,
            item: 1,
        };
        let digest = self.commits_().skipDigest(entry.clone()).call().await;
        let certificate = self.certificate(digest.unwrap()).await;
        let call = self.commits_().skipUnavailable(entry, certificate);
        self.chain
            .send("skipUnavailable", call.from(self.author()))
            .await;
    }

    pub async fn new_parameters(&mut self) {
        let mut next = self.commits_().parameters().call().await.unwrap();
        next.cadence += 3;
        next.maxSetAge += 1;
        let call = self.commits_().setParameters(next);
        self.chain
            .send("setParameters", call.from(self.owner))
            .await;
    }

    /// All members sign two commits for one number, and pay.
    pub async fn punishment(&mut self) {
        let commit = self.commit("root 3", 0).await;
        let mut other = commit.clone();
        other.newStateRoot = keccak256("another root 3");
        let (digest, other_digest) = (self.digest(&commit).await, self.digest(&other).await);
        let arguments = (
            commit,
            self.certificate(digest).await,
            other,
            self.certificate(other_digest).await,
            U256::from(64),
        );
        // The one of two functions of this name that is about commits; the bindings do not have it.
        let path = support::out_dir().join("ChallengeVerifier.sol/ChallengeVerifier.json");
        let artifact: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let (_, selector) = artifact["methodIdentifiers"]
            .as_object()
            .unwrap()
            .iter()
            .find(|(signature, _)| signature.starts_with("challengeEquivocation((uint64"))
            .unwrap();
        let mut data = alloy_primitives::hex::decode(selector.as_str().unwrap()).unwrap();
        data.extend(arguments.abi_encode_params());
        let request = TransactionRequest::default()
            .with_from(self.author())
            .with_to(self.a.challenge_verifier)
            .with_input(data);
        let sent = self.chain.provider.send_transaction(request).await.unwrap();
        assert!(sent.get_receipt().await.unwrap().status());
        self.chain.mine(1).await;
        let first = self.operators().operators(self.accounts[1]).call().await;
        assert_eq!(first.unwrap().weight, U96::from(90));
        // The sets do not know yet, then some of them do.
        let call = self
            .operators()
            .reweigh(self.accounts[1..3].to_vec(), self.aggregate());
        self.chain.send("reweigh", call.from(self.author())).await;
        self.chain.mine(1).await;
    }

    pub async fn revocation(&mut self) {
        let call = self.versions().revokeVersion(image(2));
        self.chain
            .send("revokeVersion", call.from(self.other()))
            .await;
        self.chain.mine(1).await;
        let gone = self.accounts[3];
        let aggregate = self.aggregate();
        let key = self.leave(gone).public_key();
        let call = self.operators().prune(vec![gone], key, aggregate);
        self.chain.send("prune", call.from(self.author())).await;
        self.chain.mine(1).await;
    }

    pub async fn operators_leave(&mut self) {
        // For good.
        let gone = self.accounts[4];
        let aggregate = self.aggregate();
        let key = self.leave(gone).public_key();
        let call = self.operators().requestExit(key, aggregate);
        self.chain.send("requestExit", call.from(gone)).await;
        self.pass(601).await;
        let liable = self.operators().liableThrough(gone).call().await.unwrap();
        let left = liable.saturating_sub(self.chain.number().await);
        assert!(left > 100, "{left}");
        self.chain.mine(left).await;
        let call = self.operators().completeExit();
        self.chain.send("completeExit", call.from(gone)).await;
        // A boot is lost, and the next one comes in its place.
        let lost = self.accounts[1];
        let aggregate = self.aggregate();
        let key = self.leave(lost).public_key();
        let call = self.operators().retireAdmission(key, aggregate);
        self.chain.send("retireAdmission", call.from(lost)).await;
        self.chain.mine(1).await;
        self.admit(lost, "a again", 1).await;
        // One that asked to leave and still waits.
        let leaving = self.accounts[2];
        let aggregate = self.aggregate();
        let key = self.leave(leaving).public_key();
        let call = self.operators().requestExit(key, aggregate);
        self.chain.send("requestExit", call.from(leaving)).await;
        let call = self.operators().allowOperator(lost, U96::from(7));
        self.chain
            .send("allowOperator", call.from(self.owner))
            .await;
    }

    pub async fn pauses(&mut self) {
        let pauser = self.accounts[9];
        for (index, at) in self.pausable().into_iter().enumerate() {
            let contract = leaked(abi::IPausableByRole::new(at, self.chain.provider.clone()));
            let call = contract.setPauser(pauser);
            self.chain.send("setPauser", call.from(self.owner)).await;
            let call = contract.pause();
            self.chain.send("pause", call.from(pauser)).await;
            let call = contract.unpause();
            self.chain.send("unpause", call.from(self.owner)).await;
            if index % 2 == 0 {
                let call = contract.pause();
                self.chain.send("pause", call.from(self.owner)).await;
            }
        }
    }

    pub async fn owners_and_upgrades(&mut self) {
        let slot = crate::rows::IMPLEMENTATION_SLOT;
        for (index, (_, at)) in self.followed().into_iter().enumerate() {
            let contract = self.owned(at);
            let implementation = self.chain.provider.get_storage_at(at, slot.into()).await;
            let implementation = Address::from_word(implementation.unwrap().into());
            let call = contract.upgradeToAndCall(implementation, Bytes::new());
            self.chain
                .send("upgradeToAndCall", call.from(self.owner))
                .await;
            let call = contract.transferOwnership(self.other());
            self.chain
                .send("transferOwnership", call.from(self.owner))
                .await;
            let call = contract.acceptOwnership();
            self.chain
                .send("acceptOwnership", call.from(self.other()))
                .await;
            let call = contract.transferOwnership(self.accounts[index]);
            self.chain
                .send("transferOwnership", call.from(self.other()))
                .await;
        }
    }

    pub async fn nobody_owns(&mut self) {
        for (_, at) in self.followed() {
            let call = self.owned(at).renounceOwnership();
            self.chain
                .send("renounceOwnership", call.from(self.other()))
                .await;
        }
    }

    async fn admission(&self, operator: Address, key: &Bls, number: u8) -> abi::EnclaveAdmission {
        abi::EnclaveAdmission {
            operator,
            blsKeyHash: key.key_hash(),
            tlsKeyHash: keccak256(key.public_key()),
            bootId: keccak256(key.key_hash()),
            pcr0Hash: image(number),
            configHash: keccak256("config"),
            docHash: keccak256("document"),
            validUntil: self.chain.timestamp().await + 86_400,
        }
    }

    /// Admits a boot: the first by the owner's word, others by the members' certificate.
    async fn admit(&mut self, operator: Address, name: &'static str, number: u8) {
        let (operators, key) = (self.operators(), Bls::from_name(name));
        let admission = self.admission(operator, &key, number).await;
        let certificate = if self.members.is_empty() {
            let call = operators.approveAdmission(admission.clone());
            self.chain
                .send("approveAdmission", call.from(self.owner))
                .await;
            support::no_certificate()
        } else {
            let digest = operators.admissionDigest(admission.clone());
            self.certificate(digest.call().await.unwrap()).await
        };
        let message = keccak256(
            (
                operator,
                U256::from(31_337),
                self.a.operator_registry,
                key.key_hash(),
            )
                .abi_encode_params(),
        );
        let (public, possession) = (key.public_key(), key.possession(message));
        let (document, aggregate) = (Bytes::from_static(b"document"), self.aggregate());
        let row = operators.operators(operator).call().await.unwrap();
        if row.owner.is_zero() {
            let call = operators.registerOperator(
                public,
                possession,
                admission,
                document,
                aggregate,
                certificate,
            );
            self.chain
                .send("registerOperator", call.from(operator))
                .await;
        } else {
            let former = match self.members.iter().any(|(m, _)| *m == operator) {
                true => self.leave(operator).public_key(),
                false => Bytes::new(),
            };
            let call = operators.readmit(
                public,
                possession,
                admission,
                document,
                aggregate,
                former,
                certificate,
            );
            self.chain.send("readmit", call.from(self.author())).await;
        }
        self.members.push((operator, name));
        self.chain.mine(1).await;
    }

    /// Takes an operator out of the list here and returns its key.
    fn leave(&mut self, operator: Address) -> Bls {
        let at = self.members.iter().position(|(m, _)| *m == operator);
        Bls::from_name(self.members.remove(at.unwrap()).1)
    }

    fn member_keys(&self) -> Vec<Bls> {
        self.members
            .iter()
            .map(|(_, name)| Bls::from_name(name))
            .collect()
    }

    fn aggregate(&self) -> Bytes {
        support::aggregate_key(&self.member_keys())
    }

    async fn certificate(&self, digest: B256) -> abi::Certificate {
        let set = self.operators().latestSetId().call().await.unwrap();
        support::certificate(&self.member_keys(), set, digest)
    }

    async fn commit(&self, root: &str, settled: u64) -> abi::StateCommit {
        let commits = self.commits_();
        let boundary = self.chain.number().await - 1;
        let rules = self.versions().rulesVersionAt(boundary).call().await;
        abi::StateCommit {
            sequenceNo: commits.getSequenceNo().call().await.unwrap() + 1,
            prevStateRoot: commits.getStateRoot().call().await.unwrap(),
            newStateRoot: keccak256(root),
            boundaryBlock: boundary,
            boundaryTimestamp: self.chain.timestamp_of(boundary).await,
            deltaHash: keccak256("delta"),
            rulesVersion: rules.unwrap(),
            drainedBlock: boundary - 1,
            drainedTx: 2,
            drainedLog: 3,
            drainedItem: 4,
            settledBytes: settled,
        }
    }

    async fn digest(&self, commit: &abi::StateCommit) -> B256 {
        let call = self.commits_().commitDigest(commit.clone());
        call.call().await.unwrap()
    }
}
