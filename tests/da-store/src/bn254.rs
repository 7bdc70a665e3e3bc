//! BN254 as EigenDA uses it, with a τ that everybody knows.
//!
//! Knowing τ makes commitments and length proofs without a reference string, and makes them worthless as a commitment: anybody
//! can open them to anything. That is what a development store needs and production never may accept; the verifier tells the
//! two apart by τ·G2 in its trust root.

use alloy_primitives::{B256, U256, keccak256};
use ark_bn254::{Fq, Fr, G1Affine, G1Projective, G2Affine, G2Projective};
use ark_ec::{AffineRepr, CurveGroup, PrimeGroup};
use ark_ff::{BigInteger, FftField, Field, One, PrimeField, Zero, batch_inversion};
use newton_artifacts::{BlobCommitment, G1Point, G2Point, Pair, SYMBOL_BYTES};

/// EigenDA's reference string has 2^28 points; a length proof shifts to its end.
const REFERENCE_STRING: u64 = 1 << 28;

/// A scalar that everybody knows: keccak of `name`, reduced.
pub(crate) fn known_scalar(name: &str) -> Fr {
    Fr::from_be_bytes_mod_order(keccak256(name).as_slice())
}

/// The development τ.
pub(crate) fn tau() -> Fr {
    known_scalar("newton development da tau")
}

/// Commits to an encoded payload: its symbols are the evaluations of a polynomial at the powers of a root of unity, and
/// the commitment is that polynomial at τ, in the exponent (design 11.3).
pub(crate) fn commit(encoded: &[u8]) -> BlobCommitment {
    let symbols: Vec<Fr> = encoded
        .chunks_exact(SYMBOL_BYTES)
        .map(Fr::from_be_bytes_mod_order)
        .collect();
    let at_tau = evaluate(&symbols, tau());
    let shift = tau().pow([REFERENCE_STRING - symbols.len() as u64]);
    BlobCommitment {
        commitment: g1(G1Projective::generator() * at_tau),
        length_commitment: g2(G2Projective::generator() * at_tau),
        length_proof: g2(G2Projective::generator() * (at_tau * shift)),
        // At most 2^19 symbols.
        length: symbols.len() as u32,
    }
}

/// Evaluates the polynomial given by `values` at the powers of the root of unity, at a point that is none of them:
/// (zⁿ − 1)/n · Σ yᵢ·ωⁱ / (z − ωⁱ).
fn evaluate(values: &[Fr], z: Fr) -> Fr {
    let n = values.len() as u64;
    let root = Fr::get_root_of_unity(n).expect("a power of two below 2^28");
    let mut powers = Vec::with_capacity(values.len());
    let mut power = Fr::one();
    for _ in values {
        powers.push(power);
        power *= root;
    }
    let mut inverses: Vec<Fr> = powers.iter().map(|p| z - p).collect();
    batch_inversion(&mut inverses);
    let sum: Fr = values
        .iter()
        .zip(&powers)
        .zip(&inverses)
        .map(|((y, p), i)| *y * p * i)
        .sum();
    let n_inverse = Fr::from(n).inverse().expect("n is not zero");
    sum * (z.pow([n]) - Fr::one()) * n_inverse
}

/// `secret`·G1.
pub(crate) fn g1_key(secret: Fr) -> G1Point {
    g1(G1Projective::generator() * secret)
}

/// `secret`·G2.
pub(crate) fn g2_key(secret: Fr) -> G2Point {
    g2(G2Projective::generator() * secret)
}

/// EigenLayer's BLS signature: `secret`·H(message), H by trial and increment.
pub(crate) fn sign(secret: Fr, message: B256) -> G1Point {
    g1(hash_to_g1(message) * secret)
}

/// Starts at the message as an x coordinate and counts up until x³ + 3 is a square; takes the root β^((p+1)/4).
fn hash_to_g1(message: B256) -> G1Affine {
    let mut x = Fq::from_be_bytes_mod_order(message.as_slice());
    let mut exponent = Fq::MODULUS;
    exponent.add_with_carry(&1u64.into());
    exponent >>= 2;
    loop {
        let square = x * x * x + Fq::from(3u64);
        let y = square.pow(exponent);
        if y * y == square {
            return G1Affine::new_unchecked(x, y);
        }
        x += Fq::one();
    }
}

fn g1(point: G1Projective) -> G1Point {
    point
        .into_affine()
        .xy()
        .map_or_else(G1Point::default, |(x, y)| G1Point {
            x: number(x),
            y: number(y),
        })
}

fn g2(point: G2Projective) -> G2Point {
    let affine: G2Affine = point.into_affine();
    affine.xy().map_or_else(G2Point::default, |(x, y)| G2Point {
        x: Pair([number(x.c1), number(x.c0)]),
        y: Pair([number(y.c1), number(y.c0)]),
    })
}

fn number(element: Fq) -> U256 {
    if element.is_zero() {
        U256::ZERO
    } else {
        U256::from_be_slice(&element.into_bigint().to_bytes_be())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ark_bn254::{Bn254, Fq2};
    use ark_ec::pairing::Pairing;

    fn fq(n: U256) -> Fq {
        Fq::from_be_bytes_mod_order(&n.to_be_bytes::<32>())
    }

    fn read_g1(p: G1Point) -> G1Affine {
        let point = G1Affine::new(fq(p.x), fq(p.y));
        assert!(point.is_on_curve());
        point
    }

    fn read_g2(p: G2Point) -> G2Affine {
        // `new` panics off the curve or outside the subgroup.
        G2Affine::new(
            Fq2::new(fq(p.x.0[1]), fq(p.x.0[0])),
            Fq2::new(fq(p.y.0[1]), fq(p.y.0[0])),
        )
    }

    #[test]
    fn the_root_of_unity_is_eigenda_s() {
        // Generator 5 raised to (r − 1)/2^28, as gnark-crypto and rust-kzg-bn254 use it.
        let exponent = (-Fr::one()) / Fr::from(1u64 << 28);
        assert_eq!(
            Fr::get_root_of_unity(1 << 28).unwrap(),
            Fr::from(5u64).pow(exponent.into_bigint())
        );
    }

    #[test]
    fn evaluation_agrees_with_the_definition() {
        // Values of p(x) = 7 + 3x + x³ at the fourth roots of unity give p back at any point.
        let p = |x: Fr| Fr::from(7u64) + Fr::from(3u64) * x + x * x * x;
        let root = Fr::get_root_of_unity(4).unwrap();
        let values: Vec<Fr> = (0..4u64).map(|i| p(root.pow([i]))).collect();
        assert_eq!(evaluate(&values, Fr::from(12345u64)), p(Fr::from(12345u64)));
    }

    #[test]
    fn commitment_in_g2_and_length_proof_fit() {
        let mut encoded = vec![0u8; 4 * SYMBOL_BYTES];
        encoded[5] = 70;
        encoded[33..63].fill(9);
        let commitment = commit(&encoded);
        let (c1, c2, proof) = (
            read_g1(commitment.commitment),
            read_g2(commitment.length_commitment),
            read_g2(commitment.length_proof),
        );
        let (g1, g2) = (G1Affine::generator(), G2Affine::generator());
        assert_eq!(Bn254::pairing(c1, g2), Bn254::pairing(g1, c2));
        // e(τ^(2^28 − length)·G1, length commitment) = e(G1, length proof): EigenDA's length check.
        let shifted = (G1Projective::generator() * tau().pow([REFERENCE_STRING - 4])).into_affine();
        assert_eq!(Bn254::pairing(shifted, c2), Bn254::pairing(g1, proof));
        assert_eq!(commitment.length, 4);
    }

    #[test]
    fn signatures_verify() {
        let secret = known_scalar("some operator");
        let message = keccak256("batch");
        let (signature, key) = (read_g1(sign(secret, message)), read_g2(g2_key(secret)));
        assert_eq!(
            Bn254::pairing(signature, G2Affine::generator()),
            Bn254::pairing(hash_to_g1(message), key)
        );
        assert!(hash_to_g1(message).is_on_curve());
        assert_ne!(sign(secret, keccak256("other")), sign(secret, message));
    }
}
