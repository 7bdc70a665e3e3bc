//! DA references, certificates and payloads.

use newton_artifacts::{Certificate, DaRef, DaRules, decode_payload, encode_payload};

/// The bytes as a DA reference (and each certificate in it), as a certificate, and as an encoded payload. All three have one
/// encoding only.
pub fn certificate(input: &[u8]) {
    if let Ok(reference) = DaRef::decode(input) {
        assert_eq!(reference.encode(), input);
        let _ = reference.check_sum(input.len() as u32);
        for blob in reference.blobs() {
            one(&blob.certificate, blob.length);
        }
    }
    one(input, input.len() as u32);
    if let Ok(payload) = decode_payload(input) {
        let canonical = encode_payload(&payload).unwrap();
        assert_eq!(decode_payload(&canonical).unwrap(), payload);
        // A disperser may pad further, with zeros and nothing else.
        assert!(input.starts_with(&canonical[..canonical.len().min(input.len())]));
    }
}

fn one(bytes: &[u8], length: u32) {
    if let Ok(certificate) = Certificate::parse(bytes) {
        assert_eq!(certificate.to_bytes(), bytes);
        let _ = certificate.check(&DaRules::default(), length);
        let _ = certificate.batch_header.hash();
        let _ = certificate.blob_inclusion_info.computed_root();
    }
}
