//! Bytes that a processor adds and multiplies at once, and which processor can what.
//!
//! Whoever implements [`Simd`] is a *proof*: its values are made only where the processor has the instructions that its
//! methods use. Everything is inlined into [`Simd::run`], which is compiled for these instructions.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use portable::Portable;

pub(super) trait Simd: Copy {
    type Vector: Copy;
    /// What a multiplication needs of its constant.
    type Factor: Copy;
    /// Bytes of a vector.
    const BYTES: usize;

    fn zero(self) -> Self::Vector;
    /// The first bytes of a slice that has at least so many, at any address.
    fn load(self, from: &[u8]) -> Self::Vector;
    /// The same way back.
    fn store(self, vector: Self::Vector, into: &mut [u8]);
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn double(self, vector: Self::Vector) -> Self::Vector;
    fn factor(self, constant: u8) -> Self::Factor;
    fn multiply(self, vector: Self::Vector, factor: Self::Factor) -> Self::Vector;
    /// Runs `work` compiled for these instructions.
    fn run(self, work: impl Work);
}

/// What can be done with any vectors, in blocks of `N`. Everything that is called is inlined, or it is compiled without the instructions.
pub(super) trait Work {
    fn run<S: Simd, const N: usize>(self, simd: S);
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Processor {
    #[cfg(target_arch = "x86_64")]
    Gfni(x86::Gfni),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    Portable(Portable),
}

impl Processor {
    /// What this processor can, the fastest first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let special = [
            x86::Gfni::detect().map(Self::Gfni),
            x86::Avx2::detect().map(Self::Avx2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let special: [Option<Self>; 0] = [];
        special.into_iter().flatten().chain([Self::Portable(Portable)])
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(_) => "AVX-512 with GFNI",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
            Self::Portable(_) => "portable",
        }
    }

    pub(super) fn run(self, work: impl Work) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Gfni(simd) => simd.run(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.run(work),
            Self::Portable(simd) => simd.run(work),
        }
    }
}
