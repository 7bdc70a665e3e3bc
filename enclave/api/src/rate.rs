//! Token buckets: how many calls each bearer key may make, and everyone without one together.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use newton_types::manifest::Rate;

/// One caller's bucket.
pub struct Bucket {
    rate: Rate,
    state: Mutex<State>,
}

struct State {
    /// In billionths, so that no call is lost to rounding.
    tokens: u128,
    last: Instant,
}

/// One token.
const TOKEN: u128 = 1_000_000_000;

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            state: Mutex::new(State {
                tokens: u128::from(rate.burst) * TOKEN,
                last: Instant::now(),
            }),
        }
    }

    /// Takes one token, or says how long to wait for one.
    pub fn take(&self) -> Result<(), Duration> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(state.last).as_nanos();
        state.last = state.last.max(now);
        // A token a second is one billionth a nanosecond.
        let per_nanosecond = u128::from(self.rate.per_second);
        state.tokens = passed
            .saturating_mul(per_nanosecond)
            .saturating_add(state.tokens)
            .min(u128::from(self.rate.burst) * TOKEN);
        if state.tokens >= TOKEN {
            state.tokens -= TOKEN;
            return Ok(());
        }
        let nanoseconds = (TOKEN - state.tokens).div_ceil(per_nanosecond.max(1));
        Err(Duration::from_nanos(
            u64::try_from(nanoseconds).unwrap_or(u64::MAX),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let bucket = Bucket::new(Rate {
            per_second: 10,
            burst: 3,
        });
        let start = Instant::now() + Duration::from_secs(1);
        let at = |ms: u64| start + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(bucket.take_at(at(0)), Ok(()));
        }
        assert_eq!(bucket.take_at(at(0)), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take_at(at(60)), Err(Duration::from_millis(40)));
        assert_eq!(bucket.take_at(at(100)), Ok(()));
        assert!(bucket.take_at(at(100)).is_err());
        // A long rest fills it, no further.
        let taken = (0..10).filter(|_| bucket.take_at(at(60_000)).is_ok());
        assert_eq!(taken.count(), 3);
        // Time that goes back gives nothing.
        assert!(bucket.take_at(at(0)).is_err());
    }
}
