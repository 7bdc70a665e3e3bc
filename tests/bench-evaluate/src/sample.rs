//! Samples and what is made of them.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::Serialize;

/// Two ways of doing the same, sampled in turns.
#[derive(Debug, Serialize)]
pub struct Ratio {
    /// Median of ours over median of theirs.
    pub ratio: f64,
    /// Median of ours, microseconds.
    pub ours_us: f64,
    /// Median of theirs, microseconds.
    pub theirs_us: f64,
    /// What is aimed at, where the design says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
    /// Pairs of samples.
    pub samples: usize,
}

impl Ratio {
    /// Runs both in turns, each first in every second pair, so that what else the machine does hits both alike.
    ///
    /// # Errors
    /// Of either.
    pub fn measure<E>(
        samples: usize,
        goal: Option<f64>,
        mut ours: impl FnMut() -> Result<(), E>,
        mut theirs: impl FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        let (mut a, mut b) = (Vec::with_capacity(samples), Vec::with_capacity(samples));
        for pair in 0..samples {
            if pair % 2 == 0 {
                a.push(timed(&mut ours)?);
                b.push(timed(&mut theirs)?);
            } else {
                b.push(timed(&mut theirs)?);
                a.push(timed(&mut ours)?);
            }
        }
        let (ours_us, theirs_us) = (percentile(&mut a, 50), percentile(&mut b, 50));
        Ok(Self {
            ratio: ours_us / theirs_us,
            ours_us,
            theirs_us,
            goal,
            samples,
        })
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ratio,
            ours_us,
            theirs_us,
            ..
        } = self;
        write!(f, "{ratio:.3} ({ours_us:.1} us / {theirs_us:.1} us")?;
        match self.goal {
            Some(goal) => write!(f, ", goal {goal})"),
            None => f.write_str(")"),
        }
    }
}

/// The engine's error as ours.
pub fn bare<T>(outcome: wasmtime::Result<T>) -> anyhow::Result<T> {
    outcome.map_err(|error| anyhow::anyhow!("{error:#}"))
}

/// How long one call took.
pub fn timed<E>(work: &mut impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}

/// A percentile in microseconds.
#[allow(clippy::cast_precision_loss)]
pub fn percentile(samples: &mut [Duration], percent: usize) -> f64 {
    samples.sort_unstable();
    let at = (samples.len() * percent / 100).min(samples.len().saturating_sub(1));
    samples
        .get(at)
        .map_or(0.0, |sample| sample.as_nanos() as f64 / 1_000.0)
}
