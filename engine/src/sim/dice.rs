//! Every decision of a simulation.
//!
//! Invariant: streams of one seed are independent, so that more draws in one (say, the devices) move no other.

use rand::seq::SliceRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// What a stream of decisions is for. The number tells apart streams of one kind.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    Shape,
    Devices,
    /// The plan of the life of this number.
    Life(u32),
    /// The ids that the engine draws in the life of this number.
    Ids(u32),
    /// A client, by life and number.
    Client(u32, u32),
    Nemesis(u32),
    Manager(u32),
}

impl Stream {
    fn number(self) -> u64 {
        let (kind, life, member) = match self {
            Self::Shape => (0, 0, 0),
            Self::Devices => (1, 0, 0),
            Self::Life(life) => (2, life, 0),
            Self::Ids(life) => (3, life, 0),
            Self::Client(life, client) => (4, life, client),
            Self::Nemesis(life) => (5, life, 0),
            Self::Manager(life) => (6, life, 0),
        };
        kind << 56 | u64::from(life) << 24 | u64::from(member)
    }
}

#[derive(Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64, stream: Stream) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream.number());
        Self(rng)
    }

    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.random_range(0..bound)
    }

    pub fn between(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// An index below `len`, which is not 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.0.random_range(0..len)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`, which are not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// A number from 1 to `2^bits`, small ones as likely as large ones.
    pub fn magnitude(&mut self, bits: u32) -> u64 {
        let bit = self.below(u64::from(bits));
        self.between(1 << bit..=2 << bit)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.0);
    }
}
