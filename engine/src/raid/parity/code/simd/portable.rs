//! Sixteen bytes as two words: what every processor can, and what compilers make good vector code of.

use super::{Simd, Work};
use crate::raid::parity::code::field::REDUCTION;

#[derive(Debug, Clone, Copy)]
pub(in crate::raid::parity::code) struct Portable;

const WORDS: usize = 2;

/// One byte in all bytes of a word.
const fn everywhere(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// All ones in the bytes whose highest bit is set.
#[inline(always)]
fn high_bits_spread(word: u64) -> u64 {
    let high = word & everywhere(0x80);
    // 0x100 - 0x01 in each such byte; what is carried out of a byte is what the next one lends.
    (high << 1).wrapping_sub(high >> 7)
}

#[inline(always)]
fn double(word: u64) -> u64 {
    ((word & everywhere(0x7f)) << 1) ^ (high_bits_spread(word) & everywhere(REDUCTION))
}

impl Simd for Portable {
    type Vector = [u64; WORDS];
    /// For each bit of the constant all ones or zero.
    type Factor = [u64; 8];
    const BYTES: usize = 8 * WORDS;

    #[inline(always)]
    fn zero(self) -> Self::Vector {
        [0; WORDS]
    }

    #[inline(always)]
    fn load(self, from: &[u8]) -> Self::Vector {
        bytemuck::pod_read_unaligned(&from[..Self::BYTES])
    }

    #[inline(always)]
    fn store(self, vector: Self::Vector, into: &mut [u8]) {
        into[..Self::BYTES].copy_from_slice(bytemuck::bytes_of(&vector));
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        [a[0] ^ b[0], a[1] ^ b[1]]
    }

    #[inline(always)]
    fn double(self, vector: Self::Vector) -> Self::Vector {
        [double(vector[0]), double(vector[1])]
    }

    #[inline(always)]
    fn factor(self, constant: u8) -> Self::Factor {
        let mut masks = [0; 8];
        for (bit, mask) in masks.iter_mut().enumerate() {
            *mask = if constant >> bit & 1 == 1 { u64::MAX } else { 0 };
        }
        masks
    }

    #[inline(always)]
    fn multiply(self, vector: Self::Vector, factor: Self::Factor) -> Self::Vector {
        let mut product = self.zero();
        for mask in factor.into_iter().rev() {
            product = self.double(product);
            product = self.add(product, [vector[0] & mask, vector[1] & mask]);
        }
        product
    }

    #[inline(always)]
    fn run(self, work: impl Work) {
        work.run::<Self, 4>(self);
    }
}
