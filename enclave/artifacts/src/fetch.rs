//! From a queue entry to an artifact's bytes.

use crate::{
    BlobSource, Certificate, CertificateError, CheckError, DaRef, DaRefError, DaRules, FetchError,
};
use crate::{NOT_YET_CHECKED, PendingCheck};
use alloy_primitives::{B256, keccak256};

/// How far certificates are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaChecks {
    /// Every check of design 11; while [`NOT_YET_CHECKED`] is not empty, nothing passes.
    Complete,
    /// The manifest's development switch `incomplete_da_checks`: the checks that exist; the rest counts as passed.
    Incomplete,
}

/// Why there are no bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// A verdict: the entry is to be rejected, by everybody.
    #[error("invalid: {0}")]
    Invalid(#[from] InvalidReason),
    /// No verdict: abstain.
    #[error("unavailable: {0}")]
    Unavailable(#[from] Unavailable),
}

/// Why an entry is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidReason {
    /// The DA reference.
    #[error(transparent)]
    DaRef(#[from] DaRefError),
    /// A certificate does not parse.
    #[error("blob {blob}: {source}")]
    Certificate {
        /// Position of the blob.
        blob: usize,
        /// Why.
        source: CertificateError,
    },
    /// A certificate does not hold.
    #[error("blob {blob}: {source}")]
    Check {
        /// Position of the blob.
        blob: usize,
        /// Why.
        source: CheckError,
    },
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The source did not deliver.
    #[error("blob {blob}: {source}")]
    Fetch {
        /// Position of the blob.
        blob: usize,
        /// Why.
        source: FetchError,
    },
    /// The certificate cannot be judged completely yet (see [`NOT_YET_CHECKED`]).
    #[error(
        "blob {blob}: {check} is not checked yet, and the manifest does not allow incomplete DA checks"
    )]
    CheckNotImplemented {
        /// Position of the blob.
        blob: usize,
        /// The first check that is missing.
        check: PendingCheck,
    },
    /// A blob's payload is not as long as the DA reference says.
    #[error("blob {blob} has {got} bytes, expected {expected}")]
    Length {
        /// Position of the blob.
        blob: usize,
        /// Length in the DA reference.
        expected: u32,
        /// Bytes delivered.
        got: usize,
    },
    /// The bytes delivered are not the artifact.
    #[error("bytes hash to {got}, expected {expected}")]
    Hash {
        /// `artifactHash` on chain.
        expected: B256,
        /// Keccak of the bytes delivered.
        got: B256,
    },
}

impl Unavailable {
    /// Whether asking the same source again soon may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Fetch { source, .. } if source.is_retryable())
    }
}

/// Judges a DA reference by itself: its form, its lengths, its certificates. What comes of it depends on nothing but the arguments, so
/// every enclave arrives at the same, whatever bytes it has or gets.
///
/// # Errors
/// [`ArtifactError::Invalid`], or [`Unavailable::CheckNotImplemented`] where certificates cannot be judged completely.
pub fn check_reference(
    rules: &DaRules,
    checks: DaChecks,
    da_ref: &[u8],
    byte_length: u32,
) -> Result<DaRef, ArtifactError> {
    let da_ref = DaRef::decode(da_ref).map_err(InvalidReason::from)?;
    da_ref.check_sum(byte_length).map_err(InvalidReason::from)?;
    for (blob, part) in da_ref.blobs().iter().enumerate() {
        let certificate = Certificate::parse(&part.certificate)
            .map_err(|source| InvalidReason::Certificate { blob, source })?;
        certificate
            .check(rules, part.length)
            .map_err(|source| InvalidReason::Check { blob, source })?;
        if let (DaChecks::Complete, Some(check)) = (checks, NOT_YET_CHECKED.first()) {
            return Err(Unavailable::CheckNotImplemented {
                blob,
                check: *check,
            }
            .into());
        }
    }
    Ok(da_ref)
}

/// Fetches the bytes of a reference that [`check_reference`] let pass. At most its length in payload bytes is held, beside one encoded
/// blob.
///
/// Bytes that do not fit are no verdict, whosever fault they are: the right ones may be had elsewhere, and who has them accepts. The
/// bytes that come back have the hash, and any length: one that is not the declared one is a verdict, since everyone who has them sees it.
///
/// # Errors
/// [`Unavailable`].
pub async fn fetch_artifact(
    source: &dyn BlobSource,
    da_ref: &DaRef,
    artifact_hash: B256,
) -> Result<Vec<u8>, Unavailable> {
    let mut bytes = Vec::new();
    let mut of_other_length = None;
    for (blob, part) in da_ref.blobs().iter().enumerate() {
        let payload = source
            .blob(&part.certificate, part.length)
            .await
            .map_err(|source| Unavailable::Fetch { blob, source })?;
        if payload.len() != part.length as usize {
            of_other_length.get_or_insert(Unavailable::Length {
                blob,
                expected: part.length,
                got: payload.len(),
            });
        }
        bytes.extend_from_slice(&payload);
    }
    let got = keccak256(&bytes);
    if got == artifact_hash {
        return Ok(bytes);
    }
    Err(of_other_length.unwrap_or(Unavailable::Hash {
        expected: artifact_hash,
        got,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::certificate::tests::real_v4;
    use crate::{DaBlob, MAX_BLOBS};
    use bytes::Bytes;
    use newton_http::BoxFuture;

    /// Answers every request with the same.
    struct Fixed(fn() -> Result<Bytes, FetchError>);
    impl BlobSource for Fixed {
        fn blob<'a>(&'a self, _: &'a [u8], _: u32) -> BoxFuture<'a, Result<Bytes, FetchError>> {
            Box::pin(async { (self.0)() })
        }
    }

    fn reference(blobs: usize, length: u32) -> Vec<u8> {
        let blob = DaBlob {
            certificate: real_v4().into(),
            length,
        };
        DaRef::new(vec![blob; blobs]).unwrap().encode()
    }

    async fn fetch(
        source: fn() -> Result<Bytes, FetchError>,
        checks: DaChecks,
        da_ref: &[u8],
        bytes: &[u8],
    ) -> Result<Vec<u8>, ArtifactError> {
        let length = bytes.len() as u32;
        let da_ref = check_reference(&DaRules::default(), checks, da_ref, length)?;
        Ok(fetch_artifact(&Fixed(source), &da_ref, keccak256(bytes)).await?)
    }

    #[tokio::test]
    async fn blobs_are_joined() {
        for blobs in 1..=MAX_BLOBS {
            let whole = b"abc".repeat(blobs);
            let source = || Ok(Bytes::from_static(b"abc"));
            assert_eq!(
                fetch(source, DaChecks::Incomplete, &reference(blobs, 3), &whole)
                    .await
                    .unwrap(),
                whole
            );
        }
    }

    #[tokio::test]
    async fn without_the_switch_nothing_is_fetched() {
        let source = || panic!("asked for bytes");
        let error = fetch(source, DaChecks::Complete, &reference(1, 3), b"abc")
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            ArtifactError::Unavailable(Unavailable::CheckNotImplemented {
                blob: 0,
                check: PendingCheck::RegistryState
            })
        ));
        // A certificate that fails an existing check is invalid all the same.
        let error = fetch(source, DaChecks::Complete, &reference(1, 32), &[0; 32])
            .await
            .unwrap_err();
        assert!(
            matches!(error, ArtifactError::Invalid(InvalidReason::Check { .. })),
            "{error}"
        );
    }

    #[tokio::test]
    async fn verdicts_and_abstentions_are_told_apart() {
        use DaChecks::Incomplete;
        let never = || panic!("asked for bytes");
        let good = reference(1, 3);
        let error = fetch(never, Incomplete, b"", b"abc").await.unwrap_err();
        assert!(matches!(
            error,
            ArtifactError::Invalid(InvalidReason::DaRef(DaRefError::Encoding(_)))
        ));
        let error = fetch(never, Incomplete, &good, b"abcd").await.unwrap_err();
        assert!(matches!(
            error,
            ArtifactError::Invalid(InvalidReason::DaRef(DaRefError::Sum {
                expected: 4,
                got: 3
            }))
        ));
        let junk = DaRef::new(vec![DaBlob {
            certificate: Bytes::from_static(b"\x03junk"),
            length: 3,
        }])
        .unwrap();
        let error = fetch(never, Incomplete, &junk.encode(), b"abc")
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            ArtifactError::Invalid(InvalidReason::Certificate { blob: 0, .. })
        ));

        let error = fetch(|| Ok(Bytes::from_static(b"abd")), Incomplete, &good, b"abc")
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            ArtifactError::Unavailable(Unavailable::Hash { .. })
        ));
        let error = fetch(|| Ok(Bytes::from_static(b"ab")), Incomplete, &good, b"abc")
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            ArtifactError::Unavailable(Unavailable::Length {
                expected: 3,
                got: 2,
                ..
            })
        ));
        let error = fetch(
            || Ok(Bytes::from_static(b"abcd")),
            Incomplete,
            &good,
            b"abc",
        )
        .await
        .unwrap_err();
        assert!(matches!(
            error,
            ArtifactError::Unavailable(Unavailable::Length {
                expected: 3,
                got: 4,
                ..
            })
        ));
        let refused = || {
            Err(FetchError::Refused {
                code: 3,
                text: String::new(),
            })
        };
        let error = fetch(refused, Incomplete, &good, b"abc").await.unwrap_err();
        assert!(matches!(
            error,
            ArtifactError::Unavailable(Unavailable::Fetch { blob: 0, .. })
        ));

        let busy = || {
            Err(FetchError::Busy {
                status: 503,
                text: String::new(),
            })
        };
        // The bytes that were asked for, which are longer than was declared.
        let longer = DaRef::decode(&good).unwrap();
        let fetched = fetch_artifact(
            &Fixed(|| Ok(Bytes::from_static(b"abcd"))),
            &longer,
            keccak256(b"abcd"),
        );
        assert_eq!(fetched.await.unwrap(), b"abcd");

        match fetch(busy, Incomplete, &good, b"abc").await.unwrap_err() {
            ArtifactError::Unavailable(reason) => assert!(reason.is_retryable()),
            error => panic!("{error}"),
        }
    }
}
