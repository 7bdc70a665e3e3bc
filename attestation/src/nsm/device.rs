//! The security module behind `/dev/nsm`: AWS's, or QEMU's emulated one. The only place where serde_cbor is used, by
//! AWS's crate (docs/decisions.md).

use aws_nitro_enclaves_nsm_api::api::{ErrorCode, Request, Response};
use aws_nitro_enclaves_nsm_api::driver;
use serde_bytes::ByteBuf;

use super::{AttestationRequest, Description, Nsm, NsmError, Pcr, Refusal};
use crate::document::MAX_DOCUMENT_BYTES;
use crate::pcr::PcrValue;

/// The device, open until dropped.
#[derive(Debug)]
pub struct DeviceNsm {
    descriptor: i32,
}

impl DeviceNsm {
    /// Opens `/dev/nsm`.
    ///
    /// # Errors
    /// [`NsmError::NoDevice`].
    pub fn open() -> Result<Self, NsmError> {
        match driver::nsm_init() {
            descriptor if descriptor >= 0 => Ok(Self { descriptor }),
            _ => Err(NsmError::NoDevice),
        }
    }

    fn ask(&self, name: &'static str, request: Request) -> Result<Response, NsmError> {
        match driver::nsm_process_request(self.descriptor, request) {
            Response::Error(code) => Err(NsmError::Refused {
                request: name,
                refusal: refusal(&code),
            }),
            response => Ok(response),
        }
    }
}

impl Drop for DeviceNsm {
    fn drop(&mut self) {
        driver::nsm_exit(self.descriptor);
    }
}

impl Nsm for DeviceNsm {
    fn describe(&self) -> Result<Description, NsmError> {
        const NAME: &str = "DescribeNSM";
        match self.ask(NAME, Request::DescribeNSM)? {
            Response::DescribeNSM {
                version_major,
                version_minor,
                version_patch,
                module_id,
                max_pcrs,
                locked_pcrs,
                ..
            } => Ok(Description {
                module_id,
                max_pcrs,
                locked_pcrs: locked_pcrs.into_iter().collect(),
                version: [version_major, version_minor, version_patch],
            }),
            _ => Err(other(NAME)),
        }
    }

    fn describe_pcr(&self, index: u16) -> Result<Pcr, NsmError> {
        const NAME: &str = "DescribePCR";
        match self.ask(NAME, Request::DescribePCR { index })? {
            Response::DescribePCR { lock, data } => Ok(Pcr {
                value: register(NAME, &data)?,
                locked: lock,
            }),
            _ => Err(other(NAME)),
        }
    }

    fn extend_pcr(&self, index: u16, data: &[u8]) -> Result<PcrValue, NsmError> {
        const NAME: &str = "ExtendPCR";
        match self.ask(
            NAME,
            Request::ExtendPCR {
                index,
                data: data.to_vec(),
            },
        )? {
            Response::ExtendPCR { data } => register(NAME, &data),
            _ => Err(other(NAME)),
        }
    }

    fn lock_pcr(&self, index: u16) -> Result<(), NsmError> {
        const NAME: &str = "LockPCR";
        match self.ask(NAME, Request::LockPCR { index })? {
            Response::LockPCR => Ok(()),
            _ => Err(other(NAME)),
        }
    }

    fn lock_pcrs(&self, count: u16) -> Result<(), NsmError> {
        const NAME: &str = "LockPCRs";
        match self.ask(NAME, Request::LockPCRs { range: count })? {
            Response::LockPCRs => Ok(()),
            _ => Err(other(NAME)),
        }
    }

    fn attestation(&self, request: &AttestationRequest<'_>) -> Result<Vec<u8>, NsmError> {
        const NAME: &str = "Attestation";
        request.check()?;
        let owned = |bytes: Option<&[u8]>| bytes.map(|b| ByteBuf::from(b.to_vec()));
        let request = Request::Attestation {
            user_data: owned(request.user_data),
            nonce: owned(request.nonce),
            public_key: owned(request.public_key),
        };
        match self.ask(NAME, request)? {
            Response::Attestation { document } if document.len() <= MAX_DOCUMENT_BYTES => {
                Ok(document)
            }
            Response::Attestation { .. } => Err(NsmError::Answer {
                request: NAME,
                reason: "the document is too long",
            }),
            _ => Err(other(NAME)),
        }
    }

    fn random(&self, out: &mut [u8]) -> Result<(), NsmError> {
        const NAME: &str = "GetRandom";
        let mut filled = 0;
        while filled < out.len() {
            let Response::GetRandom { random } = self.ask(NAME, Request::GetRandom)? else {
                return Err(other(NAME));
            };
            // 256 bytes a call; an empty answer would make this loop endless.
            if random.is_empty() {
                return Err(NsmError::Answer {
                    request: NAME,
                    reason: "no bytes",
                });
            }
            let taken = random.len().min(out.len() - filled);
            out[filled..filled + taken].copy_from_slice(&random[..taken]);
            filled += taken;
        }
        Ok(())
    }
}

fn register(request: &'static str, data: &[u8]) -> Result<PcrValue, NsmError> {
    data.try_into().map(PcrValue).map_err(|_| NsmError::Answer {
        request,
        reason: "the register does not have 48 bytes",
    })
}

fn other(request: &'static str) -> NsmError {
    NsmError::Answer {
        request,
        reason: "it belongs to another request",
    }
}

fn refusal(code: &ErrorCode) -> Refusal {
    match code {
        ErrorCode::InvalidArgument => Refusal::InvalidArgument,
        ErrorCode::InvalidIndex => Refusal::InvalidIndex,
        ErrorCode::InvalidResponse => Refusal::InvalidResponse,
        ErrorCode::ReadOnlyIndex => Refusal::ReadOnlyIndex,
        ErrorCode::InvalidOperation => Refusal::InvalidOperation,
        ErrorCode::BufferTooSmall => Refusal::BufferTooSmall,
        ErrorCode::InputTooLarge => Refusal::InputTooLarge,
        // "Success" as an error is no answer either.
        ErrorCode::Success | ErrorCode::InternalError => Refusal::InternalError,
    }
}
