//! A plain vector of bits.

use super::region_log::WORDS;

/// Bits 0 up to `len`, all clear at first.
#[derive(Debug, Clone, Default)]
pub(super) struct BitVec {
    words: Vec<u64>,
    len: usize,
}

impl BitVec {
    pub(super) fn new(len: usize) -> Self {
        Self {
            words: vec![0; len.div_ceil(64)],
            len,
        }
    }

    pub(super) fn get(&self, at: usize) -> bool {
        self.words[at / 64] & 1 << (at % 64) != 0
    }

    pub(super) fn set(&mut self, at: usize, value: bool) {
        if value {
            self.words[at / 64] |= 1 << (at % 64);
        } else {
            self.words[at / 64] &= !(1 << (at % 64));
        }
    }

    pub(super) fn ones(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.words.iter().enumerate().filter(|&(_, &word)| word != 0);
        words.flat_map(|(number, &word)| {
            (0..64)
                .filter(move |bit| word & 1 << bit != 0)
                .map(move |bit| number * 64 + bit)
        })
    }

    /// How many bits are set here or there.
    pub(super) fn ones_of_either(&self, other: &Self) -> usize {
        let words = self.words.iter().zip(&other.words);
        words
            .map(|(one, other)| (one | other).count_ones() as usize)
            .sum()
    }

    pub(super) fn next_one(&self, from: usize) -> Option<usize> {
        (from..self.len).find(|&at| self.get(at))
    }

    pub(super) fn load_block(&mut self, block: u32, words: impl Iterator<Item = u64>) {
        let first = block as usize * WORDS;
        for (target, word) in self.words.iter_mut().skip(first).zip(words) {
            *target = word;
        }
    }

    pub(super) fn store_block(&self, block: u32, words: &mut [u64; WORDS]) {
        let first = block as usize * WORDS;
        for (target, &word) in words.iter_mut().zip(self.words.iter().skip(first)) {
            *target = word;
        }
    }
}
