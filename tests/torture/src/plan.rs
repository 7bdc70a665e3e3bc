//! What goes wrong in a run: a list, so that a failing one can be shortened.

use serde::Serialize;

use crate::random::Random;

/// One thing the host does, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The request of its service (disk, chain, DA), or the step for a restart, counted over the whole run.
    pub at: u64,
    /// What it does.
    pub kind: Kind,
    /// Decides the details.
    pub dice: u64,
}

/// What a host can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To a request of the disk service.
    Disk(Disk),
    /// To a question to the chain's node.
    Rpc(Rpc),
    /// To a request for a blob.
    Da(Da),
    /// Between two boots.
    Restart(Restart),
}

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub enum $name { $($(#[$item_doc])* $item),* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$item),*];
        }
    };
}

kinds! {
    /// To a request of the disk service.
    Disk {
        /// Hang up before anything is done.
        HangUp,
        /// Do it, and hang up without an answer: the client repeats what was done.
        LoseReply,
        /// An answer with a wrong checksum.
        DamageReply,
        /// Half an answer, then the end.
        CutReply,
        /// The answer twice.
        RepeatReply,
        /// The answer after the next one.
        ReorderReply,
        /// An answer of another kind.
        WrongReply,
        /// One slot less than asked for.
        ShortRead,
        /// An error: disk full.
        NoSpace,
        /// An error of the medium; a part of a write may have been done.
        IoError,
        /// A flipped bit in what is read.
        CorruptRead,
        /// What the slots held some flushes ago.
        StaleRead,
        /// The slots of a read in another order.
        SwapRead,
        /// The file is longer than it was.
        GrowFile,
        /// The enclave is killed; a write may be done in part.
        Kill,
        /// Power is cut at a write or a flush: of what was not flushed any part is there, one write torn.
        PowerCut,
        /// The whole file as it was some flushes ago, while the enclave runs.
        RollBack,
        /// A write is acknowledged and not done.
        DropWrite,
        /// A write is acknowledged and done in part.
        TearWrite,
        /// A flush is acknowledged and not done.
        LieFlush,
        /// A bit of the file flips.
        CorruptSlot,
        /// Two slots change places.
        SwapSlots,
        /// A slot holds what it held some flushes ago.
        OldSlot,
        /// The file is cut.
        CutFile,
        /// A wrong length is named.
        LieLength,
    }
}

kinds! {
    /// To a question to the chain's node. Only what a view without proofs can notice: a consistent lie of a node is its own trust
    /// assumption (design 7), and no test of this kind.
    Rpc {
        /// No answer.
        Unreachable,
        /// An error of the node.
        Refuse,
        /// No JSON.
        Garbage,
        /// Half of the answer.
        Cut,
        /// The answer to another question.
        WrongId,
        /// Null.
        Null,
        /// Another height.
        WrongHeight,
        /// A hash that nothing links to.
        WrongHash,
        /// A parent that is not the one before.
        BrokenLink,
        /// A log of a contract that was not asked for.
        ForeignLog,
        /// A log of a block that was not asked for.
        LogOfOtherBlock,
        /// Two logs in the wrong order.
        SwapLogs,
        /// A log twice.
        RepeatLog,
        /// A log that a reorg took away.
        RemovedLog,
        /// A finalized head that steps back.
        FinalityBack,
        /// A head that steps back.
        HeadBack,
        /// Pending blocks of another branch, with a commit that nobody derives.
        ForkPending,
    }
}

kinds! {
    /// To a request for a blob.
    Da {
        /// Busy.
        Busy,
        /// Failed.
        Fail,
        /// What comes is no encoded payload.
        Garbage,
        /// Nothing for the next requests.
        Withhold,
    }
}

kinds! {
    /// Between two boots.
    Restart {
        /// Nothing but the restart.
        Clean,
        /// Power is cut: of what was not flushed any part is there, one write torn.
        PowerCut,
        /// The file grew.
        Grow,
        /// The whole file as it was some flushes ago.
        RollBack,
        /// A bit of a slot flips.
        CorruptSlot,
        /// A bit of a superblock flips.
        CorruptSuperblock,
        /// A slot is zeros.
        ZeroSlot,
        /// Two slots change places.
        SwapSlots,
        /// A slot holds what it held some flushes ago.
        OldSlot,
        /// The file is cut at a byte.
        Cut,
        /// The file is empty.
        Empty,
        /// The file is something else.
        Foreign,
    }
}

impl Kind {
    /// Its name in reports.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Disk(kind) => format!("disk.{kind:?}"),
            Self::Rpc(kind) => format!("rpc.{kind:?}"),
            Self::Da(kind) => format!("da.{kind:?}"),
            Self::Restart(kind) => format!("restart.{kind:?}"),
        }
    }
}

impl Disk {
    /// Whether the medium no longer does what it acknowledged, so that the crash promise does not hold.
    #[must_use]
    pub fn breaks_medium(self) -> bool {
        matches!(
            self,
            Self::RollBack
                | Self::DropWrite
                | Self::TearWrite
                | Self::LieFlush
                | Self::CorruptSlot
                | Self::SwapSlots
                | Self::OldSlot
                | Self::CutFile
                | Self::LieLength
        )
    }
}

impl Restart {
    /// As [`Disk::breaks_medium`].
    #[must_use]
    pub fn breaks_medium(self) -> bool {
        !matches!(self, Self::Clean | Self::PowerCut | Self::Grow)
    }
}

/// The plan of a seed. A third of the runs has an honest medium, so that the crash promise is held against it.
#[must_use]
pub fn plan(seed: u64, steps: u64) -> Vec<Fault> {
    let mut random = Random::of(seed, 1);
    let honest_medium = random.one_in(3);
    let count = random.below(14);
    let mut faults = Vec::new();
    while (faults.len() as u64) < count {
        let kind = match random.below(10) {
            0..=3 => Kind::Disk(random.pick(Disk::ALL)),
            4..=6 => Kind::Restart(random.pick(Restart::ALL)),
            7 | 8 => Kind::Rpc(random.pick(Rpc::ALL)),
            _ => Kind::Da(random.pick(Da::ALL)),
        };
        let breaks = match kind {
            Kind::Disk(kind) => kind.breaks_medium(),
            Kind::Restart(kind) => kind.breaks_medium(),
            _ => false,
        };
        if breaks && honest_medium {
            continue;
        }
        let at = match kind {
            // Early requests come in every run, late ones only in long runs.
            Kind::Disk(_) => {
                let bound = random.pick(&[30, 150, 600]);
                random.below(bound)
            }
            Kind::Rpc(_) => random.below(5 * steps),
            Kind::Da(_) => random.below(2 * steps),
            Kind::Restart(_) => random.below(steps),
        };
        faults.push(Fault {
            at,
            kind,
            dice: random.draw(),
        });
    }
    faults
}
