//! A certificate authority in the shape of AWS's, with certificates as values that tests can change before they are
//! signed. The DER is written by hand so that also what no library would write can be made.

use core::fmt;

use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{DerSignature, Signature, SigningKey};
use sha2::{Digest as _, Sha384};

use crate::root::TrustedRoot;

/// Object identifiers as DER content.
mod oid {
    pub(super) const ECDSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
    pub(super) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    pub(super) const SECP384R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    pub(super) const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    pub(super) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    pub(super) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
}

/// `keyCertSign | cRLSign` as the content of a BIT STRING extension.
const USAGE_AUTHORITY: &[u8] = &[0x03, 0x02, 0x01, 0x06];
/// `digitalSignature`.
const USAGE_LEAF: &[u8] = &[0x03, 0x02, 0x07, 0x80];

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// 2019-10-28 and 2049-10-28, as AWS's root.
const ROOT_VALIDITY: [u64; 2] = [1_572_220_800, 2_518_992_000];

/// Root, two intermediates and an enclave's leaf, all from one seed.
#[derive(Clone, Debug)]
pub struct Pki {
    keys: [KeyPair; 4],
}

impl Pki {
    /// The authority of a seed: the same seed gives the same root.
    #[must_use]
    pub fn from_seed(seed: &[u8]) -> Self {
        Self {
            keys: ["root", "regional", "instance", "enclave"]
                .map(|label| KeyPair::from_seed(seed, label)),
        }
    }

    /// Its root as a verifier pins it.
    #[must_use]
    pub fn root(&self) -> TrustedRoot {
        use sha2::Sha256;
        TrustedRoot::from_fingerprint(Sha256::digest(self.root_der()).into())
    }

    /// Its root certificate, DER.
    #[must_use]
    pub fn root_der(&self) -> Vec<u8> {
        self.chain("", 0)[0].to_der()
    }

    /// Root first, leaf last, valid around this time for as long as AWS's are.
    #[must_use]
    pub fn chain(&self, module_id: &str, at_ms: u64) -> Vec<CertificateSpec> {
        let at = at_ms / 1000;
        let around =
            |before: u64, after: u64| [at.saturating_sub(before), at.saturating_add(after)];
        let [root, regional, instance, enclave] = &self.keys;
        let name = |prefix: &str| format!("{prefix}mock.nitro-enclaves");
        let enclave_name = format!("{module_id}.mock.nitro-enclaves");
        let authority = |limit: Option<u8>| {
            let content = match limit {
                None => vec![0x30, 3, 1, 1, 0xff],
                Some(limit) => vec![0x30, 6, 1, 1, 0xff, 2, 1, limit],
            };
            vec![
                ExtensionSpec {
                    oid: oid::BASIC_CONSTRAINTS.into(),
                    critical: true,
                    content,
                },
                ExtensionSpec {
                    oid: oid::KEY_USAGE.into(),
                    critical: true,
                    content: USAGE_AUTHORITY.into(),
                },
            ]
        };
        let leaf = vec![
            ExtensionSpec {
                oid: oid::BASIC_CONSTRAINTS.into(),
                critical: true,
                content: vec![0x30, 0],
            },
            // Not critical: so it is in AWS's leaf certificates.
            ExtensionSpec {
                oid: oid::KEY_USAGE.into(),
                critical: false,
                content: USAGE_LEAF.into(),
            },
        ];
        vec![
            CertificateSpec::new(
                1,
                [&name(""), &name("")],
                ROOT_VALIDITY,
                root,
                root,
                authority(None),
            ),
            CertificateSpec::new(
                2,
                [&name(""), &name("region.")],
                around(20 * DAY, DAY),
                regional,
                root,
                authority(Some(1)),
            ),
            CertificateSpec::new(
                3,
                [&name("region."), &name("i-mock.region.")],
                around(DAY, DAY),
                instance,
                regional,
                authority(Some(0)),
            ),
            CertificateSpec::new(
                4,
                [&name("i-mock.region."), &enclave_name],
                around(HOUR, 3 * HOUR),
                enclave,
                instance,
                leaf,
            ),
        ]
    }

    pub(super) fn leaf_key(&self) -> KeyPair {
        self.keys[3].clone()
    }
}

/// A P-384 key pair. `Debug` shows the public half.
#[derive(Clone)]
pub struct KeyPair(SigningKey);

impl KeyPair {
    /// The key of a seed and a label.
    #[must_use]
    pub fn from_seed(seed: &[u8], label: &str) -> Self {
        let candidate = |counter: u8| {
            let hash = Sha384::new()
                .chain_update(seed)
                .chain_update(label)
                .chain_update([counter])
                .finalize();
            SigningKey::from_slice(&hash).ok()
        };
        // A hash is out of range with probability 2⁻¹⁹⁰.
        Self(
            (0..=u8::MAX)
                .find_map(candidate)
                .expect("a hash below the group order"),
        )
    }

    /// The uncompressed public point.
    #[must_use]
    pub fn public_point(&self) -> Vec<u8> {
        self.0
            .verifying_key()
            .to_sec1_point(false)
            .as_bytes()
            .to_vec()
    }

    /// ES384 as COSE has it: r ‖ s.
    #[must_use]
    pub fn sign_raw(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_bytes().to_vec()
    }

    /// ES384 as X.509 has it: DER.
    #[must_use]
    pub fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.0.sign(message);
        signature.as_bytes().to_vec()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", hex::encode(self.public_point()))
    }
}

/// A certificate before encoding.
#[derive(Clone, Debug)]
pub struct CertificateSpec {
    /// 2 is X.509 version 3.
    pub version: u8,
    /// Serial number.
    pub serial: u8,
    /// Algorithm named inside the signed part, as object identifier content.
    pub inner_algorithm: Vec<u8>,
    /// Algorithm named outside.
    pub outer_algorithm: Vec<u8>,
    /// Common name of the issuer.
    pub issuer: String,
    /// Common name of the subject.
    pub subject: String,
    /// From and until, in seconds since 1970.
    pub validity: [u64; 2],
    /// Curve, as object identifier content.
    pub curve: Vec<u8>,
    /// The subject's public point.
    pub point: Vec<u8>,
    /// Extensions.
    pub extensions: Vec<ExtensionSpec>,
    /// Key that signs.
    pub signer: KeyPair,
}

/// An extension before encoding.
#[derive(Clone, Debug)]
pub struct ExtensionSpec {
    /// Object identifier content.
    pub oid: Vec<u8>,
    /// Whether it is critical.
    pub critical: bool,
    /// DER content.
    pub content: Vec<u8>,
}

impl CertificateSpec {
    fn new(
        serial: u8,
        [issuer, subject]: [&str; 2],
        validity: [u64; 2],
        key: &KeyPair,
        signer: &KeyPair,
        extensions: Vec<ExtensionSpec>,
    ) -> Self {
        Self {
            version: 2,
            serial,
            inner_algorithm: oid::ECDSA_WITH_SHA384.into(),
            outer_algorithm: oid::ECDSA_WITH_SHA384.into(),
            issuer: issuer.into(),
            subject: subject.into(),
            validity,
            curve: oid::SECP384R1.into(),
            point: key.public_point(),
            extensions,
            signer: signer.clone(),
        }
    }

    /// The signed part.
    #[must_use]
    pub fn tbs(&self) -> Vec<u8> {
        let extension = |e: &ExtensionSpec| {
            let critical = if e.critical {
                der(0x01, &[&[0xff]])
            } else {
                Vec::new()
            };
            der(
                0x30,
                &[&der(0x06, &[&e.oid]), &critical, &der(0x04, &[&e.content])],
            )
        };
        let extensions = self
            .extensions
            .iter()
            .map(extension)
            .collect::<Vec<_>>()
            .concat();
        let key_algorithm = der(
            0x30,
            &[
                &der(0x06, &[oid::EC_PUBLIC_KEY]),
                &der(0x06, &[&self.curve]),
            ],
        );
        der(
            0x30,
            &[
                &der(0xa0, &[&der(0x02, &[&[self.version]])]),
                &der(0x02, &[&[self.serial]]),
                &algorithm(&self.inner_algorithm),
                &name(&self.issuer),
                &der(0x30, &[&time(self.validity[0]), &time(self.validity[1])]),
                &name(&self.subject),
                &der(0x30, &[&key_algorithm, &der(0x03, &[&[0], &self.point])]),
                &if extensions.is_empty() {
                    Vec::new()
                } else {
                    der(0xa3, &[&der(0x30, &[&extensions])])
                },
            ],
        )
    }

    /// The certificate.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        let tbs = self.tbs();
        let signature = self.signer.sign_der(&tbs);
        self.assemble(&tbs, &signature)
    }

    /// A certificate of any signed part and signature.
    #[must_use]
    pub fn assemble(&self, tbs: &[u8], signature: &[u8]) -> Vec<u8> {
        der(
            0x30,
            &[
                tbs,
                &algorithm(&self.outer_algorithm),
                &der(0x03, &[&[0], signature]),
            ],
        )
    }
}

/// Tag, length and content.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ 0..0x80 => out.push(short as u8),
        long @ 0x80..0x100 => out.extend([0x81, long as u8]),
        long => out.extend([0x82, (long >> 8) as u8, long as u8]),
    }
    out.extend(content);
    out
}

fn algorithm(oid: &[u8]) -> Vec<u8> {
    der(0x30, &[&der(0x06, &[oid])])
}

fn name(common_name: &str) -> Vec<u8> {
    let attribute = der(
        0x30,
        &[
            &der(0x06, &[oid::COMMON_NAME]),
            &der(0x0c, &[common_name.as_bytes()]),
        ],
    );
    der(0x30, &[&der(0x31, &[&attribute])])
}

/// UTCTime until 2049, GeneralizedTime after (RFC 5280 section 4.1.2.5).
fn time(seconds: u64) -> Vec<u8> {
    let (year, month, day) = civil(seconds / DAY);
    let rest = seconds % DAY;
    let tail = format!(
        "{month:02}{day:02}{:02}{:02}{:02}Z",
        rest / HOUR,
        rest / 60 % 60,
        rest % 60
    );
    if year < 2050 {
        der(0x17, &[format!("{:02}{tail}", year % 100).as_bytes()])
    } else {
        der(0x18, &[format!("{year:04}{tail}").as_bytes()])
    }
}

/// Year, month and day of a day since 1970 in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}
