//! 32 bytes of randomness in the shape the hpke crate wants.

use core::convert::Infallible;

use hpke::rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Gives the 32 bytes first; whatever is asked beyond them is hashed out of them, so that it never runs dry. RFC 9180's
/// key generation for X25519 asks for exactly 32.
pub(super) struct OneShot<'a> {
    seed: &'a Zeroizing<[u8; 32]>,
    block: Zeroizing<[u8; 32]>,
    used: usize,
    counter: u64,
}

impl<'a> OneShot<'a> {
    pub(super) fn new(seed: &'a Zeroizing<[u8; 32]>) -> Self {
        Self {
            seed,
            block: seed.clone(),
            used: 0,
            counter: 0,
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == self.block.len() {
                self.counter += 1;
                let next = Sha256::new_with_prefix(b"newton-entropy-v1")
                    .chain_update(self.seed.as_slice())
                    .chain_update(self.counter.to_be_bytes());
                *self.block = next.finalize().into();
                self.used = 0;
            }
            *byte = self.block[self.used];
            self.used += 1;
        }
    }
}

impl TryRng for OneShot<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.take()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.take()))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for OneShot<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_comes_first_and_nothing_repeats() {
        let seed = Zeroizing::new(core::array::from_fn(|i| i as u8));
        let mut source = OneShot::new(&seed);
        let mut out = [0u8; 96];
        let Ok(()) = source.try_fill_bytes(&mut out);
        assert_eq!(&out[..32], seed.as_slice());
        assert_ne!(out[32..64], out[..32]);
        assert_ne!(out[32..64], out[64..]);
    }
}
