//! What is being done, in plain sentences on standard error; standard output is for results.

use std::time::{Duration, Instant};

/// Says one thing.
pub fn say(sentence: &str) {
    eprintln!("{sentence}");
}

/// A step that takes a while: says what is done now and, at the end, how long it took.
#[derive(Debug)]
pub struct Step {
    what: String,
    begun: Instant,
    said: Instant,
}

impl Step {
    /// Begins a step, described by a sentence without its full stop, as in `Building QEMU (about four minutes)`.
    pub fn begin(what: &str) -> Self {
        eprintln!("{what} ...");
        let now = Instant::now();
        Self {
            what: what.to_owned(),
            begun: now,
            said: now,
        }
    }

    /// Says every half minute that the step goes on. To be called often.
    pub fn tick(&mut self) {
        if self.said.elapsed() >= Duration::from_secs(30) {
            self.said = Instant::now();
            eprintln!(
                "  still at it after {}: {}",
                seconds(self.begun.elapsed()),
                self.what
            );
        }
    }

    /// Ends the step and says how long it took.
    pub fn done(self) -> Duration {
        let took = self.begun.elapsed();
        eprintln!("  done in {}", seconds(took));
        took
    }
}

/// `4.2 s`, or `3 min 20 s` from one minute on.
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!(seconds(Duration::from_millis(4_210)), "4.2 s");
        assert_eq!(seconds(Duration::from_secs(60)), "1 min 0 s");
        assert_eq!(seconds(Duration::from_secs(200)), "3 min 20 s");
    }
}
