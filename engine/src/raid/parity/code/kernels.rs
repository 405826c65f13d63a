//! Going over whole columns: a block of each input at a time, kept in registers until what is made of it is stored.
//!
//! Sums are computed from the last column to the first, by Horner's rule: that needs doublings only, which cost less
//! than other multiplications.

use super::field::generator_power;
use super::recovery::Weights;
use super::simd::{Simd, Work};
use super::{GRANULE, Row, Sums};

/// A block of one column. All blocks that are met at once are at the same place of theirs.
type Block<S, const N: usize> = [<S as Simd>::Vector; N];

#[inline(always)]
fn load<S: Simd, const N: usize>(simd: S, column: &[u8], at: usize) -> Block<S, N> {
    let bytes = &column[at..at + N * S::BYTES];
    let mut block = [simd.zero(); N];
    for (number, vector) in block.iter_mut().enumerate() {
        *vector = simd.load(&bytes[number * S::BYTES..]);
    }
    block
}

#[inline(always)]
fn store<S: Simd, const N: usize>(simd: S, block: Block<S, N>, column: &mut [u8], at: usize) {
    let bytes = &mut column[at..at + N * S::BYTES];
    for (number, vector) in block.into_iter().enumerate() {
        simd.store(vector, &mut bytes[number * S::BYTES..]);
    }
}

#[inline(always)]
fn add<S: Simd, const N: usize>(simd: S, mut a: Block<S, N>, b: Block<S, N>) -> Block<S, N> {
    for (a, b) in a.iter_mut().zip(b) {
        *a = simd.add(*a, b);
    }
    a
}

#[inline(always)]
fn double<S: Simd, const N: usize>(simd: S, mut block: Block<S, N>) -> Block<S, N> {
    for vector in &mut block {
        *vector = simd.double(*vector);
    }
    block
}

#[inline(always)]
fn multiply<S: Simd, const N: usize>(simd: S, mut block: Block<S, N>, factor: S::Factor) -> Block<S, N> {
    for vector in &mut block {
        *vector = simd.multiply(*vector, factor);
    }
    block
}

/// The sum of the columns' blocks, and, where it is `WEIGHTED`, the one with the weights of Q.
#[inline(always)]
fn sums<S: Simd, const N: usize, const WEIGHTED: bool>(
    simd: S,
    data: &[Option<&[u8]>],
    at: usize,
) -> (Block<S, N>, Block<S, N>) {
    let (mut s, mut t) = ([simd.zero(); N], [simd.zero(); N]);
    for column in data.iter().rev() {
        if WEIGHTED {
            t = double(simd, t);
        }
        if let Some(column) = column {
            let block = load(simd, column, at);
            s = add(simd, s, block);
            if WEIGHTED {
                t = add(simd, t, block);
            }
        }
    }
    (s, t)
}

/// Where the blocks of a column begin.
fn places<S: Simd, const N: usize>(len: usize) -> impl Iterator<Item = usize> {
    const { assert!(GRANULE.is_multiple_of(N * S::BYTES), "no block is cut off") }
    (0..len).step_by(N * S::BYTES)
}

/// Sums of all columns.
pub(super) struct Encode<'a> {
    pub(super) into: Sums<'a>,
    pub(super) data: &'a [Option<&'a [u8]>],
}

impl Work for Encode<'_> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        match (self.into.p, self.into.q) {
            (Some(p), Some(q)) => {
                for at in places::<S, N>(p.len()) {
                    let (s, t) = sums::<S, N, true>(simd, self.data, at);
                    store(simd, s, p, at);
                    store(simd, t, q, at);
                }
            }
            (Some(p), None) => {
                for at in places::<S, N>(p.len()) {
                    store(simd, sums::<S, N, false>(simd, self.data, at).0, p, at);
                }
            }
            (None, Some(q)) => {
                for at in places::<S, N>(q.len()) {
                    store(simd, sums::<S, N, true>(simd, self.data, at).1, q, at);
                }
            }
            (None, None) => {}
        }
    }
}

/// Sums that follow one column from `old` to `new`.
pub(super) struct Update<'a> {
    pub(super) sums: Sums<'a>,
    pub(super) column: usize,
    pub(super) old: &'a [u8],
    pub(super) new: &'a [u8],
}

impl Work for Update<'_> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(mut self, simd: S) {
        let weight = simd.factor(generator_power(self.column));
        for at in places::<S, N>(self.old.len()) {
            let change: Block<S, N> = add(simd, load(simd, self.old, at), load(simd, self.new, at));
            if let Some(p) = &mut self.sums.p {
                store(simd, add(simd, load(simd, p, at), change), p, at);
            }
            if let Some(q) = &mut self.sums.q {
                let change = multiply(simd, change, weight);
                store(simd, add(simd, load(simd, q, at), change), q, at);
            }
        }
    }
}

/// What a row lacks. `row` has the sums that are needed, and no others.
pub(super) struct Recover<'a> {
    pub(super) row: Row<'a>,
    pub(super) weights: [Option<Weights>; 2],
    pub(super) wanted: [Option<&'a mut [u8]>; 2],
    pub(super) len: usize,
}

impl Work for Recover<'_> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(mut self, simd: S) {
        for at in places::<S, N>(self.len) {
            let (mut s, mut t) = sums::<S, N, true>(simd, self.row.data, at);
            if let Some(p) = self.row.p {
                s = add(simd, s, load(simd, p, at));
            }
            if let Some(q) = self.row.q {
                t = add(simd, t, load(simd, q, at));
            }
            for (out, weights) in self.wanted.iter_mut().zip(self.weights) {
                let (Some(out), Some(weights)) = (out, weights) else {
                    continue;
                };
                let s = multiply(simd, s, simd.factor(weights.s));
                let t = multiply(simd, t, simd.factor(weights.t));
                store(simd, add(simd, s, t), out, at);
            }
        }
    }
}
