//! Writes down the exchanges of an evaluation, for its record.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use newton_evaluate::transcript::{Exchange, FetchError, HttpFetcher, HttpOutcome, HttpRequest};
use newton_rounds::{Record, Transcript, record::FullExchange};
use newton_types::B256;

/// Bytes of exchanges that are written down for one evaluation.
const MOST_BYTES: u64 = 8 << 20;

/// A fetcher that remembers.
pub struct Recorder<F> {
    inner: F,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    exchanges: Vec<FullExchange>,
    bytes: u64,
}

impl<F: HttpFetcher> Recorder<F> {
    /// Over another fetcher.
    pub fn new(inner: F) -> Self {
        Self {
            inner,
            seen: Mutex::default(),
        }
    }

    /// The sealed exchanges of each data instance, given the hashes that its run reported. Instances whose exchanges were too many
    /// bytes to remember are missing.
    pub fn seal<'a>(
        &self,
        record: &Record,
        public_key: &[u8; 32],
        hashes: impl IntoIterator<Item = (B256, &'a [Exchange])>,
    ) -> BTreeMap<B256, Transcript> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left: Vec<(Exchange, &FullExchange)> = seen
            .exchanges
            .iter()
            .map(|full| (Exchange::new(&full.0, &full.1), full))
            .collect();
        let mut sealed = BTreeMap::new();
        for (instance, exchanges) in hashes {
            if exchanges.is_empty() {
                continue;
            }
            let full: Option<Vec<FullExchange>> = exchanges
                .iter()
                .map(|hash| {
                    let at = left.iter().position(|(seen, _)| seen == hash)?;
                    Some(left.remove(at).1.clone())
                })
                .collect();
            let Some(full) = full else {
                tracing::warn!(%instance, "exchanges were too many bytes to be recorded");
                continue;
            };
            match Transcript::seal(public_key, record.task_id, instance, &full) {
                Ok(transcript) => drop(sealed.insert(instance, transcript)),
                Err(e) => tracing::error!(error = %e, "a transcript was not sealed"),
            }
        }
        sealed
    }
}

impl<F: HttpFetcher> HttpFetcher for Recorder<F> {
    fn fetch(&self, request: &HttpRequest, max_body: u64) -> Result<HttpOutcome, FetchError> {
        let outcome = self.inner.fetch(request, max_body)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.bytes += request.size() + size(&outcome);
        if seen.bytes <= MOST_BYTES {
            seen.exchanges.push((request.clone(), outcome.clone()));
        }
        Ok(outcome)
    }
}

fn size(outcome: &HttpOutcome) -> u64 {
    match outcome {
        Ok(response) => {
            let headers = response.headers.iter().map(|(n, v)| n.len() + v.len());
            (headers.sum::<usize>() + response.body.len()) as u64
        }
        Err(text) => text.len() as u64,
    }
}
