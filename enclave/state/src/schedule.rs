//! Windows (design 2.4, `docs/protocol.md` §3): where they end, and which block is a window's boundary.

use newton_types::events::ConsensusParameters;

use crate::StateError;
use crate::registry::ScheduledParameters;

/// Consensus parameters over time.
///
/// Set i holds for window ends T with `active_from(i) ≤ T < active_from(i+1)`; the ends themselves are
/// `genesis_time(i) + n·cadence(i)`, n ≥ 1, and each `active_from` after the first, where the old windows end and the new
/// ones start.
pub(crate) struct Schedule {
    sets: Vec<ScheduledParameters>,
}

/// End of a window and the parameters in force there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowEnd {
    pub timestamp: u64,
    pub parameters: ConsensusParameters,
}

impl Schedule {
    /// `sets` in the order of their events; they become active in that order.
    pub(crate) fn new(sets: Vec<ScheduledParameters>) -> Result<Self, StateError> {
        if sets.iter().any(|s| s.parameters.cadence == 0) {
            return Err(StateError::Parameters("a cadence of zero".into()));
        }
        if sets.windows(2).any(|w| w[0].active_from > w[1].active_from) {
            return Err(StateError::Parameters(
                "a later event's parameters become active earlier".into(),
            ));
        }
        Ok(Self { sets })
    }

    /// The first window end at or after `time`; `None` without parameters.
    pub(crate) fn first_end_from(&self, time: u64) -> Option<WindowEnd> {
        let first = self.sets.first()?;
        let i = self.index_at(time);
        let set = &self.sets[i];
        let hand_over = self.sets.get(i + 1).map(|next| next.active_from);
        let end = if i > 0 && set.active_from == time && set.active_from > first.active_from {
            time
        } else {
            let p = &set.parameters;
            let n = time
                .saturating_sub(p.genesis_time)
                .div_ceil(p.cadence)
                .max(1);
            p.genesis_time.checked_add(n.checked_mul(p.cadence)?)?
        };
        let end = hand_over.map_or(end, |h| h.max(time).min(end));
        Some(WindowEnd {
            timestamp: end,
            parameters: self.at(end),
        })
    }

    /// Whether empty windows are skipped at `time` and at all times that are known to come, so that a search may jump
    /// over them.
    pub(crate) fn skips_empty_from(&self, time: u64) -> bool {
        let i = self.index_at(time);
        self.sets.iter().skip(i).all(|s| s.parameters.skip_empty)
    }

    fn at(&self, time: u64) -> ConsensusParameters {
        self.sets[self.index_at(time)].parameters
    }

    /// The last set active at `time`; before the first becomes active, its windows count from its genesis all the same.
    fn index_at(&self, time: u64) -> usize {
        self.sets
            .iter()
            .rposition(|s| s.active_from <= time)
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn parameters(genesis_time: u64, cadence: u64) -> ConsensusParameters {
        ConsensusParameters {
            genesis_time,
            cadence,
            max_commit_bytes: 100,
            max_artifact_bytes: 50,
            max_expire_after: 1,
            quorum_bps: 6667,
            min_signers: 1,
            max_set_age: 1,
            max_defer_queue_bytes: 1000,
            author_quota_bytes: 1000,
            response_window: 1,
            challenge_window: 1,
            skip_empty: false,
        }
    }

    fn set(genesis: u64, cadence: u64, active_from: u64) -> ScheduledParameters {
        ScheduledParameters {
            parameters: parameters(genesis, cadence),
            active_from,
        }
    }

    fn ends(schedule: &Schedule, from: u64, count: usize) -> Vec<u64> {
        let mut time = from;
        (0..count)
            .map(|_| {
                let end = schedule.first_end_from(time).unwrap().timestamp;
                time = end + 1;
                end
            })
            .collect()
    }

    #[test]
    fn windows_count_from_genesis() {
        let s = Schedule::new(vec![set(100, 10, 100)]).unwrap();
        assert_eq!(ends(&s, 0, 3), [110, 120, 130]);
        assert_eq!(s.first_end_from(100).unwrap().timestamp, 110);
        assert_eq!(s.first_end_from(110).unwrap().timestamp, 110);
        assert_eq!(s.first_end_from(111).unwrap().timestamp, 120);
    }

    #[test]
    fn a_new_cadence_starts_where_the_old_windows_end() {
        let s =
            Schedule::new(vec![set(100, 10, 100), set(130, 7, 130), set(144, 20, 144)]).unwrap();
        assert_eq!(ends(&s, 0, 7), [110, 120, 130, 137, 144, 164, 184]);
        assert_eq!(s.first_end_from(130).unwrap().parameters.cadence, 7);
        assert_eq!(s.first_end_from(121).unwrap().parameters.cadence, 7);
        assert_eq!(s.first_end_from(120).unwrap().parameters.cadence, 10);
    }

    #[test]
    fn other_parameters_keep_the_grid() {
        let mut later = set(100, 10, 130);
        later.parameters.max_commit_bytes = 7;
        let s = Schedule::new(vec![set(100, 10, 100), later]).unwrap();
        assert_eq!(ends(&s, 101, 4), [110, 120, 130, 140]);
        assert_eq!(
            s.first_end_from(125).unwrap().parameters.max_commit_bytes,
            7
        );
        assert_eq!(
            s.first_end_from(115).unwrap().parameters.max_commit_bytes,
            100
        );
    }

    #[test]
    fn empty_windows_are_jumped_over_only_if_all_to_come_are_skipped() {
        let mut skips = set(100, 10, 130);
        skips.parameters.skip_empty = true;
        let s = Schedule::new(vec![set(100, 10, 100), skips]).unwrap();
        assert!(!s.skips_empty_from(0) && !s.skips_empty_from(129));
        assert!(s.skips_empty_from(130));
        let s = Schedule::new(vec![skips, set(100, 10, 150)]).unwrap();
        assert!(!s.skips_empty_from(140) && !s.skips_empty_from(150));
        assert!(Schedule::new(vec![]).unwrap().skips_empty_from(1));
    }

    #[test]
    fn no_parameters_no_windows() {
        assert!(Schedule::new(vec![]).unwrap().first_end_from(5).is_none());
        assert!(Schedule::new(vec![set(0, 0, 0)]).is_err());
        assert!(Schedule::new(vec![set(0, 5, 9), set(0, 5, 8)]).is_err());
    }

    #[test]
    fn huge_times_do_not_wrap() {
        let s = Schedule::new(vec![set(u64::MAX - 3, 10, 0)]).unwrap();
        assert!(s.first_end_from(u64::MAX).is_none());
    }
}
