//! Misbehaviour on demand.

use serde::{Deserialize, Serialize};

/// What the store does wrong from now on; `PUT /dev/faults` takes this as JSON, all fields optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Delay before every answer to a put or get, in milliseconds.
    pub latency_ms: u64,
    /// Answer puts with this status.
    pub put_status: Option<u16>,
    /// Answer gets with this status.
    pub get_status: Option<u16>,
    /// `StatusCode` in the JSON of a 418.
    pub code: u32,
    /// How many requests are answered rightly before the statuses apply.
    pub after: u32,
    /// How many requests the statuses apply to; all if absent.
    pub times: Option<u32>,
    /// Flip a bit in the middle of every payload served.
    pub corrupt: bool,
    /// Cut every answer to a get after this many bytes.
    pub truncate: Option<usize>,
}

impl Faults {
    /// The status to answer with instead, counting it.
    pub(crate) fn status(&mut self, put: bool) -> Option<u16> {
        let status = if put {
            self.put_status
        } else {
            self.get_status
        }?;
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        match &mut self.times {
            Some(0) => return None,
            Some(times) => *times -= 1,
            None => {}
        }
        Some(status)
    }
}
