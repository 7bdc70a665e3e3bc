//! Documents as values that tests can change before they are encoded and signed.

use super::pki::{CertificateSpec, KeyPair, Pki};
use crate::cbor::Writer;
use crate::document::sig_structure;
use crate::nsm::AttestationRequest;

/// A document before encoding. All fields may hold what no module would write.
#[derive(Clone, Debug)]
pub struct DocumentSpec {
    /// The COSE tag, if any.
    pub tagged: bool,
    /// Whether the payload's map has an indefinite length, as AWS writes it since 2025.
    pub indefinite: bool,
    /// Content of the protected header.
    pub protected: Vec<u8>,
    /// `module_id`.
    pub module_id: String,
    /// `digest`.
    pub digest: String,
    /// `timestamp`.
    pub timestamp_ms: u64,
    /// `pcrs`.
    pub pcrs: Vec<(u64, Vec<u8>)>,
    /// Root, intermediates and leaf, not signed yet.
    pub chain: Vec<CertificateSpec>,
    /// `public_key`.
    pub public_key: Option<Vec<u8>>,
    /// `user_data`.
    pub user_data: Option<Vec<u8>>,
    /// `nonce`.
    pub nonce: Option<Vec<u8>>,
    /// Key that signs the document.
    pub key: KeyPair,
}

impl DocumentSpec {
    /// What a module under this authority would sign.
    #[must_use]
    pub fn new(
        pki: &Pki,
        module_id: &str,
        timestamp_ms: u64,
        pcrs: Vec<(u64, Vec<u8>)>,
        request: &AttestationRequest<'_>,
    ) -> Self {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        Self {
            tagged: false,
            indefinite: true,
            protected: vec![0xa1, 0x01, 0x38, 0x22],
            module_id: module_id.into(),
            digest: "SHA384".into(),
            timestamp_ms,
            pcrs,
            chain: pki.chain(module_id, timestamp_ms),
            public_key: owned(request.public_key),
            user_data: owned(request.user_data),
            nonce: owned(request.nonce),
            key: pki.leaf_key(),
        }
    }

    /// The payload: fields in the order AWS and QEMU write them.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut certificates: Vec<_> = self.chain.iter().map(CertificateSpec::to_der).collect();
        let leaf = certificates.pop().unwrap_or_default();
        payload(self, &leaf, &certificates)
    }

    /// The document with a signature over its payload.
    #[must_use]
    pub fn sign(&self) -> Vec<u8> {
        self.sign_payload(&self.payload())
    }

    /// A document with a valid signature over any payload.
    #[must_use]
    pub fn sign_payload(&self, payload: &[u8]) -> Vec<u8> {
        let signature = self.key.sign_raw(&sig_structure(&self.protected, payload));
        self.assemble(payload, &signature)
    }

    /// A document of any payload and signature.
    #[must_use]
    pub fn assemble(&self, payload: &[u8], signature: &[u8]) -> Vec<u8> {
        let body = Writer::default()
            .array(4)
            .bytes(&self.protected)
            .map(0)
            .bytes(payload)
            .bytes(signature)
            .finish();
        if self.tagged {
            [vec![0xd2], body].concat()
        } else {
            body
        }
    }
}

/// What QEMU's emulated module answers (hw/virtio/virtio-nsm.c): all locked registers, nulls for absent fields, 64 zero
/// bytes for certificate, single bundle entry and signature, algorithm -1.
#[must_use]
pub fn emulated_document(
    module_id: &str,
    timestamp_ms: u64,
    pcrs: &[(u64, Vec<u8>)],
    request: &AttestationRequest<'_>,
) -> Vec<u8> {
    const ZEROS: [u8; 64] = [0; 64];
    let spec = DocumentSpec {
        tagged: false,
        indefinite: false,
        protected: vec![0xa1, 0x01, 0x20],
        module_id: module_id.into(),
        digest: "SHA384".into(),
        timestamp_ms,
        pcrs: pcrs.to_vec(),
        chain: Vec::new(),
        public_key: request.public_key.map(<[u8]>::to_vec),
        user_data: request.user_data.map(<[u8]>::to_vec),
        nonce: request.nonce.map(<[u8]>::to_vec),
        key: KeyPair::from_seed(&ZEROS, "unused"),
    };
    spec.assemble(&payload(&spec, &ZEROS, &[ZEROS.to_vec()]), &ZEROS)
}

fn payload(spec: &DocumentSpec, leaf: &[u8], cabundle: &[Vec<u8>]) -> Vec<u8> {
    let open = if spec.indefinite {
        Writer::default().open_map()
    } else {
        Writer::default().map(9)
    };
    let mut out = open
        .text("module_id")
        .text(&spec.module_id)
        .text("digest")
        .text(&spec.digest)
        .text("timestamp")
        .unsigned(spec.timestamp_ms)
        .text("pcrs")
        .map(spec.pcrs.len() as u64);
    for (index, value) in &spec.pcrs {
        out = out.unsigned(*index).bytes(value);
    }
    out = out
        .text("certificate")
        .bytes(leaf)
        .text("cabundle")
        .array(cabundle.len() as u64);
    for certificate in cabundle {
        out = out.bytes(certificate);
    }
    for (name, value) in [
        ("public_key", &spec.public_key),
        ("user_data", &spec.user_data),
        ("nonce", &spec.nonce),
    ] {
        out = out.text(name);
        out = match value {
            Some(bytes) => out.bytes(bytes),
            None => out.null(),
        };
    }
    if spec.indefinite {
        out.end_map().finish()
    } else {
        out.finish()
    }
}
