//! 64 bytes with AVX-512 and GFNI, 32 bytes with AVX2.
//!
//! A multiplication by a constant is linear in the bits of the other element: with GFNI it is one instruction that
//! takes the constant as a matrix of bits, with AVX2 two look-ups by half a byte each (H. P. Anvin, section 4; J. S.
//! Plank et al., "Screaming Fast Galois Field Arithmetic Using Intel SIMD Instructions").
//!
//! Blocks are of two lines of the cache: shorter ones leave the processor waiting for additions, with longer ones its
//! prefetching falls behind where the columns come from memory.
#![expect(
    unsafe_code,
    reason = "the compiler does not know what processor it runs on; the proofs of `simd` do"
)]

use std::arch::x86_64::{
    __m256i, __m512i, _mm_loadu_si128, _mm256_add_epi8, _mm256_and_si256, _mm256_broadcastsi128_si256,
    _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_srli_epi16, _mm256_storeu_si256, _mm256_xor_si256, _mm512_gf2p8affine_epi64_epi8,
    _mm512_loadu_si512, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_xor_si512,
};
use std::is_x86_feature_detected as has;

use super::{Simd, Work};
use crate::raid::parity::code::field::{REDUCTION, multiply};

/// The proof of AVX-512 Foundation and GFNI.
#[derive(Debug, Clone, Copy)]
pub(in crate::raid::parity::code) struct Gfni(());

impl Gfni {
    pub(super) fn detect() -> Option<Self> {
        (has!("avx512f") && has!("gfni")).then_some(Self(()))
    }
}

/// For each constant the matrix that multiplies by it: byte 7 - i is the row of bit i.
static MATRICES: [u64; 256] = {
    let mut matrices = [0; 256];
    let mut constant = u8::MAX;
    // Row 0 of the table stays as it is: the constant 0 gives 0.
    while constant > 0 {
        let mut bit = 0;
        while bit < 64 {
            let (row, column) = (7 - bit / 8, bit % 8);
            let is_set = multiply(constant, 1 << column) >> row & 1;
            matrices[constant as usize] |= (is_set as u64) << bit;
            bit += 1;
        }
        constant -= 1;
    }
    matrices
};

impl Simd for Gfni {
    type Vector = __m512i;
    type Factor = __m512i;
    const BYTES: usize = 64;

    #[inline(always)]
    fn zero(self) -> Self::Vector {
        // SAFETY: `self` is the proof of AVX-512.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn load(self, from: &[u8]) -> Self::Vector {
        let from = &from[..Self::BYTES];
        // SAFETY: `self` is the proof of AVX-512; the slice has the 64 bytes that are read, which may be unaligned.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, vector: Self::Vector, into: &mut [u8]) {
        let into = &mut into[..Self::BYTES];
        // SAFETY: `self` is the proof of AVX-512; the slice has the 64 bytes that are written, which may be unaligned.
        unsafe { _mm512_storeu_si512(into.as_mut_ptr().cast(), vector) }
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: `self` is the proof of AVX-512.
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    fn double(self, vector: Self::Vector) -> Self::Vector {
        self.multiply(vector, self.factor(2))
    }

    #[inline(always)]
    fn factor(self, constant: u8) -> Self::Factor {
        let matrix = MATRICES[usize::from(constant)].cast_signed();
        // SAFETY: `self` is the proof of AVX-512.
        unsafe { _mm512_set1_epi64(matrix) }
    }

    #[inline(always)]
    fn multiply(self, vector: Self::Vector, factor: Self::Factor) -> Self::Vector {
        // SAFETY: `self` is the proof of AVX-512 and GFNI.
        unsafe { _mm512_gf2p8affine_epi64_epi8::<0>(vector, factor) }
    }

    #[inline(always)]
    fn run(self, work: impl Work) {
        #[target_feature(enable = "avx512f,gfni")]
        fn compiled(simd: Gfni, work: impl Work) {
            work.run::<Gfni, 2>(simd);
        }
        // SAFETY: `self` is the proof of AVX-512 and GFNI.
        unsafe { compiled(self, work) }
    }
}

/// The proof of AVX2.
#[derive(Debug, Clone, Copy)]
pub(in crate::raid::parity::code) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        has!("avx2").then_some(Self(()))
    }
}

/// Products of a constant, by the low half of the other element and by its high half.
type Products = [[u8; 16]; 2];

static PRODUCTS: [Products; 256] = {
    let mut products = [[[0; 16]; 2]; 256];
    let mut constant = u8::MAX;
    // Row 0 of the table stays as it is: the constant 0 gives 0.
    while constant > 0 {
        let mut half = 0;
        while half < 16 {
            products[constant as usize][0][half as usize] = multiply(constant, half);
            products[constant as usize][1][half as usize] = multiply(constant, half << 4);
            half += 1;
        }
        constant -= 1;
    }
    products
};

impl Simd for Avx2 {
    type Vector = __m256i;
    /// The products by the low half and by the high half, each twice.
    type Factor = [__m256i; 2];
    const BYTES: usize = 32;

    #[inline(always)]
    fn zero(self) -> Self::Vector {
        // SAFETY: `self` is the proof of AVX2.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn load(self, from: &[u8]) -> Self::Vector {
        let from = &from[..Self::BYTES];
        // SAFETY: `self` is the proof of AVX2; the slice has the 32 bytes that are read, which may be unaligned.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, vector: Self::Vector, into: &mut [u8]) {
        let into = &mut into[..Self::BYTES];
        // SAFETY: `self` is the proof of AVX2; the slice has the 32 bytes that are written, which may be unaligned.
        unsafe { _mm256_storeu_si256(into.as_mut_ptr().cast(), vector) }
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: `self` is the proof of AVX2.
        unsafe { _mm256_xor_si256(a, b) }
    }

    #[inline(always)]
    fn double(self, vector: Self::Vector) -> Self::Vector {
        // SAFETY: `self` is the proof of AVX2.
        unsafe {
            // Bytes whose highest bit is set are negative.
            let carries = _mm256_cmpgt_epi8(_mm256_setzero_si256(), vector);
            let reduction = _mm256_and_si256(carries, _mm256_set1_epi8(REDUCTION.cast_signed()));
            _mm256_xor_si256(_mm256_add_epi8(vector, vector), reduction)
        }
    }

    #[inline(always)]
    fn factor(self, constant: u8) -> Self::Factor {
        let [low, high] = &PRODUCTS[usize::from(constant)];
        // SAFETY: `self` is the proof of AVX2; each table has the 16 bytes that are read, which may be unaligned.
        unsafe {
            [
                _mm256_broadcastsi128_si256(_mm_loadu_si128(low.as_ptr().cast())),
                _mm256_broadcastsi128_si256(_mm_loadu_si128(high.as_ptr().cast())),
            ]
        }
    }

    #[inline(always)]
    fn multiply(self, vector: Self::Vector, [low, high]: Self::Factor) -> Self::Vector {
        // SAFETY: `self` is the proof of AVX2.
        unsafe {
            let half = _mm256_set1_epi8(0x0f);
            let by_low = _mm256_shuffle_epi8(low, _mm256_and_si256(vector, half));
            // There is no shift of bytes: what comes over from the next one is masked out.
            let by_high = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16::<4>(vector), half));
            _mm256_xor_si256(by_low, by_high)
        }
    }

    #[inline(always)]
    fn run(self, work: impl Work) {
        #[target_feature(enable = "avx2")]
        fn compiled(simd: Avx2, work: impl Work) {
            work.run::<Avx2, 4>(simd);
        }
        // SAFETY: `self` is the proof of AVX2.
        unsafe { compiled(self, work) }
    }
}
