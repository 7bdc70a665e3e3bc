//! One run: steps of enclave and host, and the judgement over every one.

use std::collections::BTreeMap;
use std::sync::Arc;

use newton_pages::PageError;
use newton_state::{LeafStatus, StateError};
use newton_types::keccak256;

use crate::da::Store;
use crate::disk::Host;
use crate::enclave::{Enclave, PAGE_KEY, Refusal};
use crate::plan::{Fault, Kind, Restart};
use crate::random::Random;
use crate::rpc::Node;
use crate::world::{MARKER, World, contents};

/// Steps of a run before the host behaves.
pub const STEPS: u64 = 28;
/// Rounds in which an enclave has to arrive, once the host behaves.
const PATIENCE: u64 = 120;

/// Refusals in a row after which an operator removes the file.
const REFUSED_OFTEN: u32 = 4;

/// What a run was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Faults that took place, in no order.
    pub injected: Vec<String>,
    /// Refusals by name.
    pub refusals: BTreeMap<String, u64>,
    /// Boots that reached a state.
    pub boots: u64,
    /// Commits signed.
    pub signed: u64,
    /// Sequence number at the end.
    pub sequence: u64,
    /// What must not have happened.
    pub wrong: Vec<String>,
    /// The same for two runs of one seed.
    pub trace: u64,
}

/// Runs a seed with these faults and so many steps.
#[must_use]
pub fn run(seed: u64, steps: u64, faults: &[Fault]) -> Outcome {
    let mut run = Run::new(seed, faults);
    for step in 0..steps {
        run.step(step);
    }
    run.end();
    run.outcome()
}

struct Run {
    seed: u64,
    world: Arc<World>,
    host: Host,
    node: Node,
    da: Store,
    restarts: BTreeMap<u64, (Restart, u64)>,
    random: Random,
    enclave: Option<Enclave>,
    outcome: Outcome,
    /// What the enclave was told is stored: sequence number and next block.
    acknowledged: (u64, u64),
    refused_in_a_row: u32,
}

impl Run {
    fn new(seed: u64, faults: &[Fault]) -> Self {
        let (mut disk, mut rpc, mut blobs, mut restarts) = (
            BTreeMap::new(),
            BTreeMap::new(),
            BTreeMap::new(),
            BTreeMap::new(),
        );
        for fault in faults {
            // Two at one place: the later one waits for the next.
            match fault.kind {
                Kind::Disk(kind) => insert(&mut disk, fault, kind),
                Kind::Rpc(kind) => insert(&mut rpc, fault, kind),
                Kind::Da(kind) => insert(&mut blobs, fault, kind),
                Kind::Restart(kind) => insert(&mut restarts, fault, kind),
            }
        }
        let needles = vec![MARKER.as_bytes().to_vec(), PAGE_KEY.to_vec()];
        let world = Arc::new(World::new(seed));
        let host = Host::new(disk, needles);
        Self {
            seed,
            node: Node::new(world.clone(), host.clone(), rpc),
            world,
            host,
            da: Store::new(blobs),
            restarts,
            random: Random::of(seed, 30),
            enclave: None,
            outcome: Outcome::default(),
            acknowledged: (0, 0),
            refused_in_a_row: 0,
        }
    }

    fn step(&mut self, step: u64) {
        if let Some((kind, dice)) = self.restarts.remove(&step) {
            self.stop();
            if self.host.disk().restart(kind, dice) {
                self.outcome.injected.push(format!("restart.{kind:?}"));
            }
        }
        let blocks = self.random.below(3);
        self.node.state().advance(blocks);
        self.round();
    }

    /// Boots if needed, polls, ingests.
    fn round(&mut self) {
        if self.host.disk().is_dead() {
            self.stop();
        }
        if self.enclave.is_none() && !self.boot() {
            return;
        }
        let Some(mut enclave) = self.enclave.take() else {
            return;
        };
        let result = self.work(&mut enclave);
        match result {
            Ok(()) => {
                self.refused_in_a_row = 0;
                self.acknowledge(&enclave);
                self.enclave = Some(enclave);
            }
            Err(refusal) => {
                let stays = matches!(&refusal, Refusal::Chain(e) if !e.is_contradiction());
                self.refused(&refusal);
                self.refused_in_a_row += u32::from(refusal.is_of_the_file());
                if stays {
                    self.enclave = Some(enclave);
                } else {
                    self.acknowledge(&enclave);
                    drop(enclave);
                    self.stop();
                }
                self.give_up();
            }
        }
    }

    fn work(&mut self, enclave: &mut Enclave) -> Result<(), Refusal> {
        let polled = enclave.poll()?;
        if let Some((commit, at)) = polled.signed {
            self.outcome.signed += 1;
            let expected = self
                .world
                .derived(at as usize)
                .commits
                .get(commit.sequenceNo as usize - 1);
            if expected != Some(&commit) {
                self.wrong(format!(
                    "signed commit {} with root {}, the model has {:?}",
                    commit.sequenceNo,
                    commit.newStateRoot,
                    expected.map(|c| c.newStateRoot)
                ));
            }
        }
        enclave.ingest()?;
        Ok(())
    }

    /// Remembers how far the enclave was told it is. Nothing that fails here is an acknowledgement.
    fn acknowledge(&mut self, enclave: &Enclave) {
        if let (Ok(tip), Ok(next)) = (enclave.state.tip(), enclave.state.next_block()) {
            self.acknowledged = (
                self.acknowledged.0.max(tip.sequence),
                self.acknowledged.1.max(next),
            );
        }
    }

    fn boot(&mut self) -> bool {
        self.host.disk().revive();
        match Enclave::boot(&self.host, &self.node, &self.da, self.seed) {
            Ok(enclave) => {
                self.outcome.boots += 1;
                self.check_boot(&enclave);
                self.enclave = Some(enclave);
                true
            }
            Err(refusal) => {
                self.refused(&refusal);
                self.refused_in_a_row += u32::from(refusal.is_of_the_file());
                self.give_up();
                false
            }
        }
    }

    /// What an operator does with a file that stays refused, at boot or at the first page that is unfit.
    fn give_up(&mut self) {
        if self.refused_in_a_row < REFUSED_OFTEN {
            return;
        }
        let mut disk = self.host.disk();
        if !disk.broken {
            drop(disk);
            self.wrong("a file on an honest medium stays refused".into());
            disk = self.host.disk();
        }
        disk.remove_file();
        drop(disk);
        self.acknowledged = (0, 0);
        self.refused_in_a_row = 0;
    }

    /// What was acknowledged is there if the medium was honest; what is there is true in any case.
    fn check_boot(&mut self, enclave: &Enclave) {
        let (Ok(tip), Ok(next)) = (enclave.state.tip(), enclave.state.next_block()) else {
            return;
        };
        let honest = !self.host.disk().broken;
        if honest && (tip.sequence < self.acknowledged.0 || next < self.acknowledged.1) {
            self.wrong(format!(
                "acknowledged commit {} and block {}, found {} and {next}",
                self.acknowledged.0, self.acknowledged.1, tip.sequence
            ));
        }
        self.acknowledged = (tip.sequence, next);
        let chain = newton_model::chain_commits(&self.world.blocks);
        for sequence in 1..=tip.sequence {
            match enclave.state.commit(sequence) {
                Ok(Some(commit))
                    if chain.get(sequence as usize - 1).map(|c| &c.1) == Some(&commit) => {}
                Ok(got) => self.wrong(format!("commit {sequence} is {got:?} after a boot")),
                // A refusal while it is read.
                Err(_) => return,
            }
        }
    }

    /// A refusal is right if something went wrong before it, and if it is one of the kinds that name it.
    fn refused(&mut self, refusal: &Refusal) {
        let name = refusal.name();
        let disk_faults = {
            let disk = self.host.disk();
            !disk.injected.is_empty()
                || self
                    .outcome
                    .injected
                    .iter()
                    .any(|i| i.starts_with("restart"))
        };
        let chain_faults = !self.node.state().injected.is_empty();
        let expected = match refusal {
            Refusal::Device(_) | Refusal::Pages(_) => disk_faults,
            Refusal::State { error, fault } => {
                let from_below = fault.as_ref().is_some_and(|fault| {
                    fault.is_integrity() || matches!(**fault, PageError::Device(_))
                });
                disk_faults
                    && from_below
                    && matches!(error, StateError::Storage(_) | StateError::Tree(_))
            }
            Refusal::Chain(_) => chain_faults,
        };
        if !expected {
            self.wrong(format!(
                "refused without a cause, or by the wrong name: {name}: {refusal}"
            ));
        }
        *self.outcome.refusals.entry(name).or_default() += 1;
    }

    fn stop(&mut self) {
        if let Some(enclave) = self.enclave.take() {
            self.acknowledge(&enclave);
            // A process that ends does not say good-bye: what its destructors do is not done.
            drop(enclave);
        }
        self.host.disk().revive();
    }

    /// The host behaves, and the enclave has to arrive where the model is.
    fn end(&mut self) {
        self.stop();
        self.host.disk().behave();
        self.da.state().behave();
        {
            let mut node = self.node.state();
            node.behave();
            let all = self.world.blocks.len() as u64;
            node.advance(all);
            node.all_final = true;
        }
        let wanted = newton_model::chain_commits(&self.world.blocks).len() as u64;
        // Damage that nobody has met yet may show at the end: then the file goes, and the enclave arrives again.
        for _ in 0..3 {
            self.arrive(wanted);
            match self.enclave.take() {
                Some(enclave) if self.is_readable(&enclave) => {
                    return self.check_end(&enclave, wanted);
                }
                Some(_) => {
                    self.refused_in_a_row = REFUSED_OFTEN;
                    self.give_up();
                }
                None => break,
            }
        }
        self.wrong("no enclave runs, though the host behaves".into());
    }

    /// Plays until the enclave has what the chain has.
    fn arrive(&mut self, wanted: u64) {
        for _ in 0..PATIENCE {
            if self.outcome.wrong.len() >= 8 {
                return;
            }
            self.round();
            let at = self.enclave.as_ref().and_then(|e| {
                Some((
                    e.state.tip().ok()?.sequence,
                    e.state.undecided(None, 1).ok()?,
                ))
            });
            if at.is_some_and(|(sequence, undecided)| sequence == wanted && undecided.is_empty()) {
                return;
            }
        }
    }

    /// Whether everything can be read. What cannot be is a refusal, and judged as one.
    fn is_readable(&mut self, enclave: &Enclave) -> bool {
        let head = self.world.blocks.len() - 1;
        let leaves = &self.world.derived(head).leaves;
        let read = enclave.checked(|state| {
            let snapshot = state.snapshot(None)?;
            for (key, value) in leaves {
                snapshot.prove(snapshot.tip().sequence, *key)?;
                snapshot.bytes(*value)?;
                snapshot.leaf_status(*key)?;
            }
            Ok(())
        });
        if let Err(refusal) = &read {
            self.refused(refusal);
        }
        read.is_ok()
    }

    fn check_end(&mut self, enclave: &Enclave, wanted: u64) {
        let head = self.world.blocks.len() - 1;
        // Of all that could follow, what landed.
        let landed = newton_model::chain_commits(&self.world.blocks);
        let Ok(snapshot) = enclave.state.snapshot(None) else {
            return self.wrong("no snapshot, though the host behaves".into());
        };
        let tip = snapshot.tip();
        self.outcome.sequence = tip.sequence;
        let expected = landed.last().map(|(_, commit)| commit.newStateRoot);
        if tip.sequence != wanted || Some(tip.root) != expected.or(Some(tip.root)) {
            return self.wrong(format!(
                "arrived at commit {} with root {}, the chain is at {wanted} with {expected:?}",
                tip.sequence, tip.root
            ));
        }
        if self.world.derived(head).commits.len() as u64 != wanted {
            // A commit that could still land changes no leaf that is checked below.
            return;
        }
        let world = self.world.clone();
        for (&key, &value) in &world.derived(head).leaves {
            let proven = snapshot.prove(tip.sequence, key);
            let holds = proven.as_ref().is_ok_and(|(got, proof)| {
                *got == Some(value) && proof.verify(tip.root, key, value).is_ok()
            });
            let bytes = snapshot.bytes(value).ok().flatten();
            let content = contents().iter().find(|c| c.hash == value);
            if !holds
                || bytes.as_deref().map(keccak256) != Some(value)
                || bytes.as_ref() != content.map(|c| &c.bytes)
                || !matches!(snapshot.leaf_status(key), Ok(LeafStatus::Committed { value_hash, .. }) if value_hash == value)
            {
                self.wrong(format!("leaf {} of {value} is lost", key.0));
            }
        }
    }

    fn wrong(&mut self, what: String) {
        // One is enough; the same again says no more.
        if self.outcome.wrong.len() < 8 && !self.outcome.wrong.contains(&what) {
            self.outcome.wrong.push(what);
        }
    }

    fn outcome(mut self) -> Outcome {
        drop(self.enclave.take());
        let disk = self.host.disk();
        self.outcome.injected.extend(disk.injected.iter().cloned());
        self.outcome.wrong.extend(disk.leaks.iter().cloned());
        self.outcome.trace = disk.trace;
        drop(disk);
        let node = self.node.state();
        self.outcome.injected.extend(node.injected.iter().cloned());
        drop(node);
        let da = self.da.state();
        self.outcome.injected.extend(da.injected.iter().cloned());
        drop(da);
        self.outcome
    }
}

fn insert<K>(faults: &mut BTreeMap<u64, (K, u64)>, fault: &Fault, kind: K) {
    let mut at = fault.at;
    while faults.contains_key(&at) {
        at += 1;
    }
    faults.insert(at, (kind, fault.dice));
}
