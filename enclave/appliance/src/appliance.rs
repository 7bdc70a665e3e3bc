//! What every part of the running appliance shares, and the phase it is in.

use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use newton_attestation::{TrustedRoot, nsm::Nsm};
use newton_keys::{HpkeKey, MasterSecret, hpke::Sealed, shares::Recovery};
use newton_relay::control::ControlClient;
use newton_types::{
    Address, B256,
    manifest::{Chain, ConsensusManifest, LocalManifest},
};
use tokio::sync::mpsc;

use crate::{identity::Identity, metrics::Metrics, running::Running};

/// Shared by all tasks of the appliance.
pub struct Appliance {
    /// What it runs on, for `newt_health`.
    pub platform: &'static str,
    /// The security module.
    pub nsm: Arc<dyn Nsm>,
    /// Where the documents of other enclaves must end.
    pub root: TrustedRoot,
    /// Rules versions that this image implements.
    pub rules: RangeInclusive<u32>,
    /// The measured manifest.
    pub consensus: ConsensusManifest,
    /// The unmeasured manifest.
    pub local: LocalManifest,
    /// `keccak256(PCR16)`.
    pub config_hash: B256,
    /// The boot's keys.
    pub identity: Identity,
    /// The control channel.
    pub control: ControlClient,
    /// Public half of this boot's ephemeral HPKE key.
    pub ephemeral: [u8; 32],
    /// Figures for operators.
    pub metrics: Metrics,
    phase: RwLock<Phase>,
}

/// How far this boot has come.
enum Phase {
    /// Before the chain was asked whether a master secret exists.
    Starting(Option<HpkeKey>),
    /// Waiting for share holders.
    AwaitingSecret {
        recovery: Mutex<Recovery>,
        found: mpsc::Sender<MasterSecret>,
    },
    /// Shares were combined; the state is being opened.
    Opening,
    /// Serving.
    Ready(Arc<Running>),
    /// A fault that needs an operator; nothing is signed any more.
    Halted(String),
}

/// The shares of a secret made in this boot, sealed to their holders.
#[derive(Clone)]
pub struct SealedShares {
    /// Commitment of the secret.
    pub commitment: [u8; 32],
    /// How many are needed.
    pub threshold: u8,
    /// Share i+1, sealed to holder i.
    pub shares: Vec<Sealed>,
}

/// Why an operation is not possible in this phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Not before the chain has been read or the state opened.
    Starting,
    /// Not before the share holders have sent their shares.
    AwaitingSecret,
    /// Not any more, in this boot.
    Halted(String),
}

impl Appliance {
    /// A fresh boot.
    pub fn new(parts: Parts) -> Self {
        let ephemeral = parts.ephemeral.public_key();
        Self {
            platform: parts.platform,
            nsm: parts.nsm,
            root: parts.root,
            rules: parts.rules,
            config_hash: parts.consensus.config_hash(),
            consensus: parts.consensus,
            local: parts.local,
            identity: parts.identity,
            control: parts.control,
            ephemeral,
            metrics: Metrics::default(),
            phase: RwLock::new(Phase::Starting(Some(parts.ephemeral))),
        }
    }

    /// The operator's address.
    pub fn operator(&self) -> Address {
        self.identity.operator
    }

    /// The chain on which admission and key epochs are read. The manifest's validation guarantees that it is listed.
    pub fn authority(&self) -> &Chain {
        let c = &self.consensus.consensus;
        c.chains
            .iter()
            .find(|chain| chain.chain_id == c.authority_chain)
            .expect("a validated manifest lists its authority chain")
    }

    /// Everything that needs the secret and the state.
    pub fn running(&self) -> Result<Arc<Running>, Unavailable> {
        match &*self.phase.read().unwrap_or_else(PoisonError::into_inner) {
            Phase::Ready(running) => Ok(running.clone()),
            Phase::AwaitingSecret { .. } => Err(Unavailable::AwaitingSecret),
            Phase::Starting(_) | Phase::Opening => Err(Unavailable::Starting),
            Phase::Halted(fault) => Err(Unavailable::Halted(fault.clone())),
        }
    }

    /// Name of the phase, and the fault if there is one.
    pub fn phase(&self) -> (&'static str, Option<String>) {
        match &*self.phase.read().unwrap_or_else(PoisonError::into_inner) {
            Phase::Starting(_) => ("starting", None),
            Phase::AwaitingSecret { .. } => ("awaiting_secret", None),
            Phase::Opening => ("opening", None),
            Phase::Ready(_) => ("ready", None),
            Phase::Halted(fault) => ("halted", Some(fault.clone())),
        }
    }

    /// Whether a fault has stopped this boot.
    pub fn is_halted(&self) -> bool {
        let phase = self.phase.read().unwrap_or_else(PoisonError::into_inner);
        matches!(&*phase, Phase::Halted(_))
    }

    /// Waits for share holders from now on; what they give comes out of `found`.
    pub fn await_shares(
        &self,
        threshold: u8,
        commitment: [u8; 32],
        found: mpsc::Sender<MasterSecret>,
    ) {
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        if let Phase::Starting(key) = &mut *phase
            && let Some(key) = key.take()
        {
            *phase = Phase::AwaitingSecret {
                recovery: Mutex::new(Recovery::new(threshold, commitment, key)),
                found,
            };
        }
    }

    /// Takes one share; gives back how many are still missing.
    pub fn add_share(&self, index: u8, sealed: &Sealed) -> Result<usize, AddShareError> {
        let phase = self.phase.read().unwrap_or_else(PoisonError::into_inner);
        let Phase::AwaitingSecret { recovery, found } = &*phase else {
            return Err(AddShareError::NotAwaited);
        };
        let mut recovery = recovery.lock().unwrap_or_else(PoisonError::into_inner);
        match recovery.add(index, sealed) {
            Ok(None) => Ok(recovery.missing()),
            Ok(Some(secret)) => {
                // The receiver takes one secret only; a second full set of shares changes nothing.
                let _ = found.try_send(secret);
                Ok(0)
            }
            Err(e) => Err(AddShareError::Refused(e)),
        }
    }

    /// The secret is here, the state is being opened.
    pub fn opening(&self) {
        self.set(Phase::Opening);
    }

    /// Everything runs.
    pub fn ready(&self, running: Arc<Running>) {
        self.set(Phase::Ready(running));
    }

    /// Stops everything that signs or writes. The first fault stays.
    pub fn halt(&self, fault: &str) {
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*phase, Phase::Halted(_)) {
            tracing::error!(fault, "halted: nothing is signed any more in this boot");
            *phase = Phase::Halted(fault.to_owned());
        }
    }

    fn set(&self, next: Phase) {
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*phase, Phase::Halted(_)) {
            *phase = next;
        }
    }
}

/// What an [`Appliance`] is made of.
pub struct Parts {
    /// What it runs on.
    pub platform: &'static str,
    /// The security module.
    pub nsm: Arc<dyn Nsm>,
    /// Where the documents of other enclaves must end.
    pub root: TrustedRoot,
    /// Rules versions that the image implements.
    pub rules: RangeInclusive<u32>,
    /// The measured manifest.
    pub consensus: ConsensusManifest,
    /// The unmeasured manifest.
    pub local: LocalManifest,
    /// The boot's keys.
    pub identity: Identity,
    /// The control channel.
    pub control: ControlClient,
    /// The boot's ephemeral HPKE key.
    pub ephemeral: HpkeKey,
}

/// Why a share was not taken.
pub enum AddShareError {
    /// This boot has a secret, or does not need one yet.
    NotAwaited,
    /// The share is no good.
    Refused(newton_keys::shares::ShareError),
}
