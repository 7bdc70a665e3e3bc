//! Encodings of points: compressed and uncompressed (the Zcash convention, as blst has it) and EIP-2537.

use blst::{BLST_ERROR, min_sig};

use super::{
    BlsError, PUBLIC_KEY_COMPRESSED, PUBLIC_KEY_EIP2537, PUBLIC_KEY_UNCOMPRESSED, Point, PublicKey,
    SIGNATURE_COMPRESSED, SIGNATURE_EIP2537, SIGNATURE_UNCOMPRESSED, Signature,
};

/// Bytes of one base field element.
const FIELD: usize = 48;
/// Bytes of one base field element in EIP-2537 form.
const SLOT: usize = 64;
const PADDING: usize = SLOT - FIELD;

/// The base field modulus p, big-endian (EIP-2537, "Curve parameters").
const MODULUS: [u8; FIELD] = [
    0x1a, 0x01, 0x11, 0xea, 0x39, 0x7f, 0xe6, 0x9a, 0x4b, 0x1b, 0xa7, 0xb6, 0x43, 0x4b, 0xac, 0xd7,
    0x64, 0x77, 0x4b, 0x84, 0xf3, 0x85, 0x12, 0xbf, 0x67, 0x30, 0xd2, 0xa0, 0xf6, 0xb0, 0xf6, 0x24,
    0x1e, 0xab, 0xff, 0xfe, 0xb1, 0x53, 0xff, 0xff, 0xb9, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xaa, 0xab,
];

/// Position of each EIP-2537 coordinate of a G2 point (x.c0, x.c1, y.c0, y.c1) in the uncompressed form
/// (x.c1, x.c0, y.c1, y.c0).
const G2_ORDER: [usize; 4] = [1, 0, 3, 2];
/// The same for G1 (x, y).
const G1_ORDER: [usize; 2] = [0, 1];

impl PublicKey {
    /// Parses 96 compressed bytes.
    ///
    /// # Errors
    /// Any length, flag, field, curve, subgroup or infinity violation, each by its own variant.
    pub fn from_compressed(bytes: &[u8]) -> Result<Self, BlsError> {
        const WHAT: Point = Point::PublicKey;
        check_compressed::<PUBLIC_KEY_COMPRESSED>(WHAT, bytes)?;
        let key = min_sig::PublicKey::uncompress(bytes).map_err(|e| blst_error(WHAT, e))?;
        Self::checked(key)
    }

    /// Parses 192 uncompressed bytes.
    ///
    /// # Errors
    /// As [`Self::from_compressed`].
    pub fn from_uncompressed(bytes: &[u8]) -> Result<Self, BlsError> {
        const WHAT: Point = Point::PublicKey;
        check_uncompressed::<PUBLIC_KEY_UNCOMPRESSED>(WHAT, bytes)?;
        let key = min_sig::PublicKey::deserialize(bytes).map_err(|e| blst_error(WHAT, e))?;
        Self::checked(key)
    }

    /// Parses 256 bytes in EIP-2537 form.
    ///
    /// # Errors
    /// As [`Self::from_compressed`], and [`BlsError::Padding`].
    pub fn from_eip2537(bytes: &[u8]) -> Result<Self, BlsError> {
        let raw: [u8; PUBLIC_KEY_UNCOMPRESSED] = unpad(Point::PublicKey, bytes, &G2_ORDER)?;
        Self::from_uncompressed(&raw)
    }

    /// 96 compressed bytes.
    #[must_use]
    pub fn to_compressed(&self) -> [u8; PUBLIC_KEY_COMPRESSED] {
        self.0.compress()
    }

    /// 192 uncompressed bytes, x.c1 ‖ x.c0 ‖ y.c1 ‖ y.c0.
    #[must_use]
    pub fn to_uncompressed(&self) -> [u8; PUBLIC_KEY_UNCOMPRESSED] {
        self.0.serialize()
    }

    /// 256 bytes in EIP-2537 form, x.c0 ‖ x.c1 ‖ y.c0 ‖ y.c1, each padded to 64.
    #[must_use]
    pub fn to_eip2537(&self) -> [u8; PUBLIC_KEY_EIP2537] {
        pad(&self.to_uncompressed(), &G2_ORDER)
    }

    fn checked(key: min_sig::PublicKey) -> Result<Self, BlsError> {
        key.validate()
            .map_err(|e| blst_error(Point::PublicKey, e))?;
        Ok(Self(key))
    }
}

impl Signature {
    /// Parses 48 compressed bytes.
    ///
    /// # Errors
    /// Any length, flag, field, curve, subgroup or infinity violation, each by its own variant.
    pub fn from_compressed(bytes: &[u8]) -> Result<Self, BlsError> {
        const WHAT: Point = Point::Signature;
        check_compressed::<SIGNATURE_COMPRESSED>(WHAT, bytes)?;
        let signature = min_sig::Signature::uncompress(bytes).map_err(|e| blst_error(WHAT, e))?;
        Self::checked(signature)
    }

    /// Parses 96 uncompressed bytes.
    ///
    /// # Errors
    /// As [`Self::from_compressed`].
    pub fn from_uncompressed(bytes: &[u8]) -> Result<Self, BlsError> {
        const WHAT: Point = Point::Signature;
        check_uncompressed::<SIGNATURE_UNCOMPRESSED>(WHAT, bytes)?;
        let signature = min_sig::Signature::deserialize(bytes).map_err(|e| blst_error(WHAT, e))?;
        Self::checked(signature)
    }

    /// Parses 128 bytes in EIP-2537 form.
    ///
    /// # Errors
    /// As [`Self::from_compressed`], and [`BlsError::Padding`].
    pub fn from_eip2537(bytes: &[u8]) -> Result<Self, BlsError> {
        let raw: [u8; SIGNATURE_UNCOMPRESSED] = unpad(Point::Signature, bytes, &G1_ORDER)?;
        Self::from_uncompressed(&raw)
    }

    /// 48 compressed bytes.
    #[must_use]
    pub fn to_compressed(&self) -> [u8; SIGNATURE_COMPRESSED] {
        self.0.compress()
    }

    /// 96 uncompressed bytes, x ‖ y.
    #[must_use]
    pub fn to_uncompressed(&self) -> [u8; SIGNATURE_UNCOMPRESSED] {
        self.0.serialize()
    }

    /// 128 bytes in EIP-2537 form, x ‖ y, each padded to 64.
    #[must_use]
    pub fn to_eip2537(&self) -> [u8; SIGNATURE_EIP2537] {
        pad(&self.to_uncompressed(), &G1_ORDER)
    }

    fn checked(signature: min_sig::Signature) -> Result<Self, BlsError> {
        signature
            .validate(true)
            .map_err(|e| blst_error(Point::Signature, e))?;
        Ok(Self(signature))
    }
}

fn check_length(what: Point, bytes: &[u8], expected: usize) -> Result<(), BlsError> {
    if bytes.len() == expected {
        Ok(())
    } else {
        Err(BlsError::Length {
            what,
            expected,
            got: bytes.len(),
        })
    }
}

fn check_compressed<const N: usize>(what: Point, bytes: &[u8]) -> Result<(), BlsError> {
    check_length(what, bytes, N)?;
    let flags = bytes[0] & 0xe0;
    if flags & 0x80 == 0 {
        return Err(BlsError::Flags {
            what,
            got: bytes[0],
        });
    }
    if flags & 0x40 != 0 {
        // Infinity has one encoding; any other byte string with this flag is malformed.
        let rest_is_zero = bytes[0] == 0xc0 && bytes[1..].iter().all(|b| *b == 0);
        return Err(if rest_is_zero {
            BlsError::Infinity { what }
        } else {
            BlsError::Flags {
                what,
                got: bytes[0],
            }
        });
    }
    for (index, field) in bytes.chunks_exact(FIELD).enumerate() {
        let mut field: [u8; FIELD] = field
            .try_into()
            .map_err(|_| BlsError::NotCanonical { what })?;
        if index == 0 {
            field[0] &= 0x1f;
        }
        check_field(what, &field)?;
    }
    Ok(())
}

fn check_uncompressed<const N: usize>(what: Point, bytes: &[u8]) -> Result<(), BlsError> {
    check_length(what, bytes, N)?;
    if bytes.iter().skip(1).all(|b| *b == 0) && (bytes[0] == 0x40 || bytes[0] == 0) {
        return Err(BlsError::Infinity { what });
    }
    if bytes[0] & 0xe0 != 0 {
        return Err(BlsError::Flags {
            what,
            got: bytes[0],
        });
    }
    bytes
        .chunks_exact(FIELD)
        .try_for_each(|field| check_field(what, field))
}

fn check_field(what: Point, field: &[u8]) -> Result<(), BlsError> {
    // Same length and big-endian: the order of slices is the order of numbers.
    if field < MODULUS.as_slice() {
        Ok(())
    } else {
        Err(BlsError::NotCanonical { what })
    }
}

fn blst_error(what: Point, error: BLST_ERROR) -> BlsError {
    match error {
        BLST_ERROR::BLST_POINT_NOT_ON_CURVE => BlsError::NotOnCurve { what },
        BLST_ERROR::BLST_POINT_NOT_IN_GROUP => BlsError::NotInSubgroup { what },
        BLST_ERROR::BLST_PK_IS_INFINITY => BlsError::Infinity { what },
        // Length and flags were checked before: what is left is a coordinate out of range.
        _ => BlsError::NotCanonical { what },
    }
}

fn pad<const OUT: usize>(raw: &[u8], order: &[usize]) -> [u8; OUT] {
    let mut out = [0u8; OUT];
    for (slot, position) in out.chunks_exact_mut(SLOT).zip(order) {
        slot[PADDING..].copy_from_slice(&raw[position * FIELD..(position + 1) * FIELD]);
    }
    out
}

fn unpad<const RAW: usize>(
    what: Point,
    bytes: &[u8],
    order: &[usize],
) -> Result<[u8; RAW], BlsError> {
    check_length(what, bytes, order.len() * SLOT)?;
    let mut raw = [0u8; RAW];
    for (coordinate, (slot, position)) in bytes.chunks_exact(SLOT).zip(order).enumerate() {
        if slot[..PADDING].iter().any(|b| *b != 0) {
            return Err(BlsError::Padding { what, coordinate });
        }
        check_field(what, &slot[PADDING..])?;
        raw[position * FIELD..(position + 1) * FIELD].copy_from_slice(&slot[PADDING..]);
    }
    Ok(raw)
}
