//! The boot's TLS key and its self-signed certificate.
//!
//! Nobody checks this certificate against a certificate authority: clients and the chain know the key by the SHA-256 of its
//! SubjectPublicKeyInfo (as in RFC 7469), which the NSM document and the admission bind. Everything else in it is fixed,
//! so that two boots differ by key, serial number and signature alone.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SerialNumber, date_time_ymd,
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Common name of every certificate.
const COMMON_NAME: &str = "Newton policy enclave";

/// A P-256 key pair and its certificate, made at boot and gone with it. No `Debug`, wiped on drop.
pub struct TlsIdentity {
    certificate: Vec<u8>,
    private_key: Zeroizing<Vec<u8>>,
    spki_hash: [u8; 32],
}

impl TlsIdentity {
    /// Makes a fresh key from the system's randomness (in the image: seeded by the security module before this runs) and
    /// a certificate for `names` (DNS names or IP addresses).
    ///
    /// # Errors
    /// [`TlsError`] if a name is not a DNS name, or the key cannot be made.
    pub fn generate(names: &[&str]) -> Result<Self, TlsError> {
        let mut key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TlsError::Key)?;
        let spki_hash: [u8; 32] = Sha256::digest(key.subject_public_key_info()).into();
        let certificate = certificate(&key, &spki_hash, names);
        let private_key = Zeroizing::new(key.serialize_der());
        zeroize::Zeroize::zeroize(&mut key);
        Ok(Self {
            certificate: certificate?,
            private_key,
            spki_hash,
        })
    }

    /// The certificate, DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The private key, PKCS #8 DER. rustls can borrow it (`PrivatePkcs8KeyDer::from(&[u8])`), so no copy is needed.
    #[must_use]
    pub fn private_key_pkcs8_der(&self) -> &[u8] {
        &self.private_key
    }

    /// SHA-256 of the SubjectPublicKeyInfo: `tlsSpkiHash` in attestation documents, `tlsKeyHash` on chain.
    #[must_use]
    pub fn spki_hash(&self) -> [u8; 32] {
        self.spki_hash
    }
}

/// The TLS identity could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No key pair.
    #[error("cannot make a P-256 key: {0}")]
    Key(#[source] rcgen::Error),
    /// No certificate, in practice because of a name that is neither a DNS name nor an IP address.
    #[error("cannot make the certificate for {names:?}: {source}")]
    Certificate {
        /// The names asked for.
        names: Vec<String>,
        /// The library's reason.
        source: rcgen::Error,
    },
}

fn certificate(key: &KeyPair, spki_hash: &[u8; 32], names: &[&str]) -> Result<Vec<u8>, TlsError> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let made = CertificateParams::new(names.clone()).and_then(|mut params| {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, COMMON_NAME);
        params.distinguished_name = subject;
        // There is no trusted clock at boot, and trust comes from the attested key: no window to speak of.
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(9999, 12, 31);
        let mut serial = spki_hash[..16].to_vec();
        // Positive and without a leading zero, whatever the hash.
        serial[0] = serial[0] & 0x3f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.self_signed(key)
    });
    match made {
        Ok(certificate) => Ok(certificate.der().to_vec()),
        Err(source) => Err(TlsError::Certificate { names, source }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use x509_cert::Certificate;
    use x509_cert::der::{Decode as _, Encode as _};

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_certificates_key() {
        let identity = TlsIdentity::generate(&["localhost", "127.0.0.1"]).unwrap();
        let certificate = Certificate::from_der(identity.certificate_der()).unwrap();
        let spki = certificate
            .tbs_certificate()
            .subject_public_key_info()
            .to_der()
            .unwrap();
        assert_eq!(identity.spki_hash()[..], Sha256::digest(&spki)[..]);
        // The private key belongs to it.
        let pair = KeyPair::try_from(identity.private_key_pkcs8_der()).unwrap();
        assert_eq!(pair.subject_public_key_info(), spki);
    }

    #[test]
    fn two_boots_differ_by_key_and_serial_alone() {
        let [a, b] = [(), ()].map(|()| {
            let identity = TlsIdentity::generate(&["localhost"]).unwrap();
            Certificate::from_der(identity.certificate_der()).unwrap()
        });
        let (a, b) = (a.tbs_certificate(), b.tbs_certificate());
        assert_ne!(a.subject_public_key_info(), b.subject_public_key_info());
        assert_ne!(a.serial_number(), b.serial_number());
        assert_eq!(a.subject(), b.subject());
        assert_eq!(a.issuer(), a.subject());
        assert_eq!(a.validity(), b.validity());
        // All but the subject key identifier, which is a hash of the key.
        let fixed = |extensions: &[x509_cert::ext::Extension]| -> Vec<_> {
            let all = extensions.iter().cloned();
            all.filter(|e| e.extn_id.to_string() != "2.5.29.14")
                .collect()
        };
        assert_eq!(
            fixed(a.extensions().unwrap()),
            fixed(b.extensions().unwrap())
        );
    }

    #[test]
    fn a_bad_name_is_an_error() {
        let error = TlsIdentity::generate(&["näme"]).err().unwrap();
        assert!(matches!(error, TlsError::Certificate { .. }), "{error}");
    }
}
