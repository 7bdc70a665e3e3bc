//! Where blobs are had, or not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use newton_artifacts::{BlobSource, FetchError};
use newton_http::BoxFuture;

use crate::plan::Da as Fault;
use crate::random::Random;
use crate::world::contents;

/// A source of blobs. Clones share it. It withholds and fails; that it hands out other bytes is what the development switch
/// `incomplete_da_checks` trusts it not to do.
#[derive(Clone)]
pub struct Store(Arc<Mutex<State>>);

/// What it does.
pub struct State {
    requests: u64,
    withheld_until: u64,
    faults: BTreeMap<u64, (Fault, u64)>,
    /// Faults that took place.
    pub injected: Vec<String>,
}

impl Store {
    /// With faults by request number.
    #[must_use]
    pub fn new(faults: BTreeMap<u64, (Fault, u64)>) -> Self {
        Self(Arc::new(Mutex::new(State {
            requests: 0,
            withheld_until: 0,
            faults,
            injected: Vec::new(),
        })))
    }

    /// What it does.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// No more faults from here on.
    pub fn behave(&mut self) {
        self.faults.clear();
        self.withheld_until = 0;
    }

    fn get(&mut self, certificate: &[u8]) -> Result<Bytes, FetchError> {
        let number = self.requests;
        self.requests += 1;
        if number < self.withheld_until {
            return Err(failed());
        }
        let due = self.faults.iter().next().map(|(at, fault)| (*at, *fault));
        if let Some((at, (kind, dice))) = due.filter(|(at, _)| *at <= number) {
            self.faults.remove(&at);
            self.injected.push(format!("da.{kind:?}"));
            return Err(match kind {
                Fault::Busy => FetchError::Busy {
                    status: 503,
                    text: "as planned".into(),
                },
                Fault::Fail => failed(),
                Fault::Garbage => match newton_artifacts::decode_payload(&[7; 33]) {
                    Err(error) => FetchError::Encoding(error),
                    Ok(_) => failed(),
                },
                Fault::Withhold => {
                    self.withheld_until = number + 2 + Random::of(dice, 7).below(30);
                    failed()
                }
            });
        }
        contents()
            .iter()
            .find(|content| *content.certificate == *certificate)
            .map(|content| Bytes::copy_from_slice(&content.bytes))
            .ok_or_else(failed)
    }
}

fn failed() -> FetchError {
    FetchError::Failed {
        status: 500,
        text: "as planned".into(),
    }
}

impl BlobSource for Store {
    fn blob<'a>(
        &'a self,
        certificate: &'a [u8],
        _: u32,
    ) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        let answer = self.state().get(certificate);
        Box::pin(async move { answer })
    }
}
