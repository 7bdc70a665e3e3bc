//! What several operators sign about one task, and what is kept so that it can be done again.
//!
//! | module | does |
//! |---|---|
//! | [`outputs`] | signs an operator's outputs, verifies a set of them against the task's operator set |
//! | [`record`] | everything that an attestation follows from, private parts sealed |
//! | [`reexecute`](mod@reexecute) | from a record and artifacts to the attestation |
//! | [`outcome`] | whether a signed result is right, in the form that contracts verify |
//!
//! No I/O, no keys but those handed in: the appliance and a challenger run the same code. Design 3.5 and 4.5; forms in
//! `docs/protocol.md` §5 and §12.

pub mod outcome;
pub mod outputs;
pub mod record;
pub mod reexecute;

pub use outcome::{Judged, judge};
pub use outputs::{Expected, Member, OperatorOutputs, OutputsError, SignedOutput, Verified};
pub use record::{DataPart, PolicyPart, Record, Transcript, TranscriptError};
pub use reexecute::{Evaluate, Outcome, Private, ReexecuteError, Replay, reexecute};
