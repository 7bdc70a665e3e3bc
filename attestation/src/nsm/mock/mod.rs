//! A security module in software, for tests and the process backend: it signs valid ES384 documents with a certificate
//! authority of its own, shaped like AWS's (root → regional → instance → enclave). Its root is not AWS's, so nothing it
//! signs passes a production verifier. The image is built without this feature.

mod document;
mod pki;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{AttestationRequest, Description, Nsm, NsmError, Pcr, Refusal};
use crate::document::MAX_PCRS;
use crate::pcr::PcrValue;

pub use document::{DocumentSpec, emulated_document};
pub use pki::{CertificateSpec, ExtensionSpec, KeyPair, Pki};

/// A security module in software.
#[derive(Debug)]
pub struct MockNsm {
    pki: Pki,
    module_id: String,
    time_ms: Option<u64>,
    pcrs: Mutex<[Pcr; MAX_PCRS]>,
}

impl MockNsm {
    /// A module under this certificate authority, with the measurements of an image in PCR0 to PCR2. As on AWS, PCR0 to
    /// PCR15 are locked from the start.
    #[must_use]
    pub fn new(pki: Pki, module_id: &str, measurements: [PcrValue; 3]) -> Self {
        let mut pcrs = [Pcr {
            value: PcrValue::ZERO,
            locked: false,
        }; MAX_PCRS];
        pcrs[..16].iter_mut().for_each(|pcr| pcr.locked = true);
        for (pcr, value) in pcrs.iter_mut().zip(measurements) {
            pcr.value = value;
        }
        Self {
            pki,
            module_id: module_id.into(),
            time_ms: None,
            pcrs: Mutex::new(pcrs),
        }
    }

    /// Stops its clock at a time, in milliseconds since 1970.
    #[must_use]
    pub fn at(mut self, time_ms: u64) -> Self {
        self.time_ms = Some(time_ms);
        self
    }

    /// The certificate authority.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The document this module would sign, still to be changed.
    #[must_use]
    pub fn document(&self, request: &AttestationRequest<'_>) -> DocumentSpec {
        let time_ms = self.time_ms.unwrap_or_else(now_ms);
        let locked =
            |(index, pcr): (usize, &Pcr)| pcr.locked.then(|| (index as u64, pcr.value.0.to_vec()));
        let pcrs = self
            .registers()
            .iter()
            .enumerate()
            .filter_map(locked)
            .collect();
        DocumentSpec::new(&self.pki, &self.module_id, time_ms, pcrs, request)
    }

    fn registers(&self) -> MutexGuard<'_, [Pcr; MAX_PCRS]> {
        // Every change is one assignment: a panic elsewhere leaves nothing half-done.
        self.pcrs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Nsm for MockNsm {
    fn describe(&self) -> Result<Description, NsmError> {
        let pcrs = self.registers();
        Ok(Description {
            module_id: self.module_id.clone(),
            max_pcrs: MAX_PCRS as u16,
            locked_pcrs: (0..)
                .zip(pcrs.iter())
                .filter(|(_, pcr)| pcr.locked)
                .map(|(index, _)| index)
                .collect(),
            version: [1, 0, 0],
        })
    }

    fn describe_pcr(&self, index: u16) -> Result<Pcr, NsmError> {
        let pcrs = self.registers();
        pcrs.get(usize::from(index))
            .copied()
            .ok_or(refused("DescribePCR", Refusal::InvalidIndex))
    }

    fn extend_pcr(&self, index: u16, data: &[u8]) -> Result<PcrValue, NsmError> {
        const NAME: &str = "ExtendPCR";
        let mut pcrs = self.registers();
        let pcr = pcrs
            .get_mut(usize::from(index))
            .ok_or(refused(NAME, Refusal::InvalidIndex))?;
        if pcr.locked {
            return Err(refused(NAME, Refusal::ReadOnlyIndex));
        }
        pcr.value = pcr.value.extended(data);
        Ok(pcr.value)
    }

    fn lock_pcr(&self, index: u16) -> Result<(), NsmError> {
        const NAME: &str = "LockPCR";
        let mut pcrs = self.registers();
        let pcr = pcrs
            .get_mut(usize::from(index))
            .ok_or(refused(NAME, Refusal::InvalidIndex))?;
        if pcr.locked {
            return Err(refused(NAME, Refusal::ReadOnlyIndex));
        }
        pcr.locked = true;
        Ok(())
    }

    fn lock_pcrs(&self, count: u16) -> Result<(), NsmError> {
        let mut pcrs = self.registers();
        let range = pcrs
            .get_mut(..usize::from(count))
            .ok_or(refused("LockPCRs", Refusal::InvalidIndex))?;
        range.iter_mut().for_each(|pcr| pcr.locked = true);
        Ok(())
    }

    fn attestation(&self, request: &AttestationRequest<'_>) -> Result<Vec<u8>, NsmError> {
        request.check()?;
        Ok(self.document(request).sign())
    }

    fn random(&self, out: &mut [u8]) -> Result<(), NsmError> {
        getrandom::fill(out).map_err(|_| NsmError::Randomness)
    }
}

fn refused(request: &'static str, refusal: Refusal) -> NsmError {
    NsmError::Refused { request, refusal }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |d| d.as_millis() as u64)
}
