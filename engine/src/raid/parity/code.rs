//! The sums of a row and what they give back: P alone (RAID 5), P and Q (RAID 6).
//!
//! The formulas are those of H. P. Anvin, "The mathematics of RAID-6", as Linux md has them: bytes are elements of
//! GF(2^8) with the polynomial 0x11d and the generator g = 2, and over the data columns d₀, d₁, …
//!
//! ```text
//! P = d₀ + d₁ + d₂ + …          Q = g⁰·d₀ + g¹·d₁ + g²·d₂ + …
//! ```
//!
//! `field` is the arithmetic of single elements, `simd` that of a register full of them, `kernels` goes over whole
//! columns, `recovery` knows how what is missing follows from the rest.
//!
//! Invariants: every function gives the same bytes on every processor; each byte of an input is read from memory once;
//! nothing allocates. All slices of a call have one length, a multiple of [`GRANULE`].

mod field;
mod kernels;
mod recovery;
mod simd;
#[cfg(test)]
mod tests;

pub use recovery::{Column, Recovery};

use simd::Processor;

/// Lengths are multiples of so many bytes: the smallest block of a device.
pub const GRANULE: usize = 512;
/// Data columns of a row at most: g has so many different powers.
pub const MAX_COLUMNS: usize = 255;

/// The sums of a row that are to be computed or brought up to date.
#[derive(Debug)]
pub struct Sums<'a> {
    pub p: Option<&'a mut [u8]>,
    pub q: Option<&'a mut [u8]>,
}

impl Sums<'_> {
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        [&self.p, &self.q].into_iter().flatten().map(|sum| &**sum)
    }
}

/// The columns of a row that are there.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// All data columns in order; `None` for the missing ones.
    pub data: &'a [Option<&'a [u8]>],
    pub p: Option<&'a [u8]>,
    pub q: Option<&'a [u8]>,
}

/// The arithmetic, in the way that this processor is fastest at.
#[derive(Debug, Clone, Copy)]
pub struct Code(Processor);

impl Code {
    /// Asks the processor what it can: keep the answer.
    pub fn fastest() -> Self {
        Self::all().next().expect("portable code runs everywhere")
    }

    /// Every way that this processor can, the fastest first.
    pub fn all() -> impl Iterator<Item = Self> {
        Processor::all().map(Self)
    }

    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Computes sums of all data columns, given in order, in one pass. `None` stands for a column of zeros.
    ///
    /// # Panics
    /// Where lengths differ or are not multiples of [`GRANULE`], or with more than [`MAX_COLUMNS`] columns.
    pub fn sums(self, into: Sums<'_>, data: &[Option<&[u8]>]) {
        assert!(data.len() <= MAX_COLUMNS, "{} columns", data.len());
        check_lengths(into.iter().chain(data.iter().copied().flatten()));
        self.0.run(kernels::Encode { into, data });
    }

    /// Makes sums that fit the `old` content of one data column fit its `new` one.
    ///
    /// # Panics
    /// Where lengths differ or are not multiples of [`GRANULE`], or where `column` is not below [`MAX_COLUMNS`].
    pub fn update(self, sums: Sums<'_>, column: usize, old: &[u8], new: &[u8]) {
        assert!(column < MAX_COLUMNS, "column {column}");
        check_lengths(sums.iter().chain([old, new]));
        self.0.run(kernels::Update {
            sums,
            column,
            old,
            new,
        });
    }

    /// Computes what is missing, in the order in which `recovery` was told it; `None` where it is not wanted.
    ///
    /// # Panics
    /// Where lengths differ or are not multiples of [`GRANULE`], where `row` lacks other data columns than `recovery`
    /// was told or a sum that it needs, or where more columns are wanted than it was told.
    pub fn recover(self, recovery: Recovery, row: Row<'_>, wanted: [Option<&mut [u8]>; 2]) {
        assert!(row.data.len() <= MAX_COLUMNS, "{} columns", row.data.len());
        for (number, column) in row.data.iter().enumerate() {
            assert_eq!(
                column.is_some(),
                recovery.needs(Column::Data(number)),
                "{number} of {recovery:?}"
            );
        }
        let there = row.data.iter().flatten().count();
        assert_eq!(there + recovery.missing_data(), row.data.len(), "{recovery:?}");
        let row = Row {
            p: row.p.filter(|_| recovery.needs(Column::P)),
            q: row.q.filter(|_| recovery.needs(Column::Q)),
            ..row
        };
        assert_eq!(row.p.is_some(), recovery.needs(Column::P), "P for {recovery:?}");
        assert_eq!(row.q.is_some(), recovery.needs(Column::Q), "Q for {recovery:?}");
        for (out, weights) in wanted.iter().zip(recovery.weights) {
            assert!(out.is_none() || weights.is_some(), "wanted of {recovery:?}");
        }
        let inputs = row.data.iter().chain([&row.p, &row.q]).flatten();
        let len = check_lengths(inputs.copied().chain(wanted.iter().flatten().map(|out| &**out)));
        let weights = recovery.weights;
        self.0.run(kernels::Recover {
            row,
            weights,
            wanted,
            len,
        });
    }
}

/// The one length of all slices.
fn check_lengths<'a>(mut slices: impl Iterator<Item = &'a [u8]>) -> usize {
    let len = slices.next().map_or(0, <[u8]>::len);
    assert_eq!(len % GRANULE, 0, "whole blocks");
    assert!(slices.all(|slice| slice.len() == len), "all of {len} bytes");
    len
}
