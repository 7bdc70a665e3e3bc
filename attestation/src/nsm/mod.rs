//! The Nitro Security Module as a trait.

#[cfg(feature = "device")]
mod device;
#[cfg(feature = "mock")]
pub mod mock;

use crate::pcr::PcrValue;

#[cfg(feature = "device")]
pub use device::DeviceNsm;

/// Register into which the manifest's consensus part is extended (design 6.3).
pub const CONFIG_PCR: u16 = 16;

/// What the appliance needs of a security module.
pub trait Nsm: Send + Sync {
    /// What the module says of itself.
    ///
    /// # Errors
    /// [`NsmError`].
    fn describe(&self) -> Result<Description, NsmError>;

    /// Reads a register.
    ///
    /// # Errors
    /// [`NsmError::Refused`] with [`Refusal::InvalidIndex`] if there is no such register.
    fn describe_pcr(&self, index: u16) -> Result<Pcr, NsmError>;

    /// Extends a register: new = SHA-384(old ‖ data). Returns the new value.
    ///
    /// # Errors
    /// [`NsmError::Refused`] with [`Refusal::ReadOnlyIndex`] if it is locked.
    fn extend_pcr(&self, index: u16, data: &[u8]) -> Result<PcrValue, NsmError>;

    /// Locks a register until the enclave ends. Only locked registers are in documents.
    ///
    /// # Errors
    /// [`NsmError::Refused`].
    fn lock_pcr(&self, index: u16) -> Result<(), NsmError>;

    /// Locks registers 0 to `count - 1`.
    ///
    /// # Errors
    /// [`NsmError::Refused`].
    fn lock_pcrs(&self, count: u16) -> Result<(), NsmError>;

    /// Makes a document.
    ///
    /// # Errors
    /// [`NsmError::TooLarge`] if a field is above AWS's limits.
    fn attestation(&self, request: &AttestationRequest<'_>) -> Result<Vec<u8>, NsmError>;

    /// Fills `out` with randomness.
    ///
    /// # Errors
    /// [`NsmError`]; `out` is then not to be used.
    fn random(&self, out: &mut [u8]) -> Result<(), NsmError>;
}

/// What to put into a document.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttestationRequest<'a> {
    /// Data, at most 512 bytes.
    pub user_data: Option<&'a [u8]>,
    /// The verifier's nonce, at most 512 bytes.
    pub nonce: Option<&'a [u8]>,
    /// A public key, 1 to 1024 bytes.
    pub public_key: Option<&'a [u8]>,
}

#[cfg(any(feature = "device", feature = "mock"))]
impl AttestationRequest<'_> {
    /// AWS's limits, so that a document that could not be parsed is never asked for.
    fn check(&self) -> Result<(), NsmError> {
        use crate::document::{MAX_PUBLIC_KEY_BYTES, MAX_USER_DATA_BYTES};
        let fields = [
            ("user_data", self.user_data, MAX_USER_DATA_BYTES),
            ("nonce", self.nonce, MAX_USER_DATA_BYTES),
            ("public_key", self.public_key, MAX_PUBLIC_KEY_BYTES),
        ];
        for (field, bytes, limit) in fields {
            let got = bytes.map_or(0, <[u8]>::len);
            if got > limit {
                return Err(NsmError::TooLarge { field, limit, got });
            }
        }
        Ok(())
    }
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pcr {
    /// Its value.
    pub value: PcrValue,
    /// Whether it is read-only.
    pub locked: bool,
}

/// What a module says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its id.
    pub module_id: String,
    /// Number of registers.
    pub max_pcrs: u16,
    /// Read-only registers, ascending.
    pub locked_pcrs: Vec<u16>,
    /// Major, minor, patch.
    pub version: [u16; 3],
}

/// The module did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NsmError {
    /// There is no device.
    #[error("cannot open /dev/nsm: this is not an enclave, or its kernel lacks the driver")]
    NoDevice,
    /// The module says no.
    #[error("the security module refuses {request}: {refusal:?}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// Its reason.
        refusal: Refusal,
    },
    /// The module answers something else.
    #[error("the security module's answer to {request} is not one: {reason}")]
    Answer {
        /// What was asked.
        request: &'static str,
        /// What is wrong with the answer.
        reason: &'static str,
    },
    /// A field of an attestation request is above AWS's limit.
    #[error("{field} has {got} bytes, at most {limit} fit into a document")]
    TooLarge {
        /// Which field.
        field: &'static str,
        /// Limit in bytes.
        limit: usize,
        /// Bytes given.
        got: usize,
    },
    /// The operating system gives no randomness (software module only).
    #[error("the operating system gives no randomness")]
    Randomness,
}

/// The module's reasons (NSM API).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// An argument is invalid.
    InvalidArgument,
    /// No such register.
    InvalidIndex,
    /// The answer does not belong to the request.
    InvalidResponse,
    /// The register is locked.
    ReadOnlyIndex,
    /// The module cannot do that.
    InvalidOperation,
    /// The answer does not fit.
    BufferTooSmall,
    /// The request is too large.
    InputTooLarge,
    /// Something else.
    InternalError,
}
