//! Which bytes of a read's answer have arrived.
//!
//! Invariant: parts are in order, not empty, and neither overlap nor touch.

use std::ops::Range;

use smallvec::SmallVec;

/// Parts kept for one read; a server that scatters its answer more finely than this means no good.
const MAX_PARTS: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Coverage(SmallVec<[Range<usize>; 1]>);

impl Coverage {
    /// Adds a part, which must not be empty. `false` where a byte of it came before, or parts are too many.
    pub(super) fn add(&mut self, part: Range<usize>) -> bool {
        let next = self.0.partition_point(|known| known.end <= part.start);
        if self.0.get(next).is_some_and(|known| known.start < part.end) {
            return false;
        }
        let joins_previous = next > 0 && self.0[next - 1].end == part.start;
        let joins_next = self.0.get(next).is_some_and(|known| known.start == part.end);
        match (joins_previous, joins_next) {
            (true, true) => self.0[next - 1].end = self.0.remove(next).end,
            (true, false) => self.0[next - 1].end = part.end,
            (false, true) => self.0[next].start = part.start,
            (false, false) if self.0.len() == MAX_PARTS => return false,
            (false, false) => self.0.insert(next, part),
        }
        true
    }

    /// Whether all of the first `len` bytes came.
    pub(super) fn is_whole(&self, len: usize) -> bool {
        len == 0 || (self.0.len() == 1 && self.0[0] == (0..len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_are_taken_once_and_make_a_whole_when_no_byte_is_missing(
            parts in prop::collection::vec((0usize..30, 1usize..10), 0..20),
        ) {
            let mut coverage = Coverage::default();
            let mut model = [false; 40];
            for (start, len) in parts {
                let bytes = start..start + len;
                let fresh = model[bytes.clone()].iter().all(|&came| !came);
                prop_assert_eq!(coverage.add(bytes.clone()), fresh);
                if fresh {
                    model[bytes].fill(true);
                }
                for end in 1..=model.len() {
                    let exactly = model[..end].iter().all(|&came| came) && !model[end..].contains(&true);
                    prop_assert_eq!(coverage.is_whole(end), exactly);
                }
            }
        }
    }

    #[test]
    fn an_answer_in_too_many_pieces_is_refused() {
        let mut coverage = Coverage::default();
        assert!((0..MAX_PARTS).all(|part| coverage.add(2 * part..2 * part + 1)));
        assert!(!coverage.add(2 * MAX_PARTS..2 * MAX_PARTS + 1));
    }
}
