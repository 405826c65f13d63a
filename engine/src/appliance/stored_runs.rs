//! A volume's map as the metadata keeps it.
//!
//! Invariant ([`StoredRuns::invariant`]): in address order; neighbours that continue each other are one run. They are
//! a claim until a [`VolumeMap`](crate::map::VolumeMap) was made of them: they may overlap or end beyond 64 bits.

use crate::map::Run;

/// Runs in address order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredRuns {
    runs: Vec<Run>,
    /// Bytes of all runs.
    len: u64,
}

fn join(runs: &mut Vec<Run>) {
    runs.dedup_by(|next, run| {
        let joins = joins(*run, *next);
        if joins {
            run.len += next.len;
        }
        joins
    });
}

fn joins(run: Run, next: Run) -> bool {
    run.is_sound() && next.is_sound() && run.continues_with(next)
}

impl StoredRuns {
    /// Adds runs; in order behind the others, that costs as much as they are.
    pub fn add(&mut self, added: Vec<Run>) {
        for run in &added {
            self.len = self.len.saturating_add(run.len);
        }
        for run in added {
            match self.runs.last_mut() {
                Some(last) if joins(*last, run) => last.len += run.len,
                _ => self.runs.push(run),
            }
        }
        if !self.runs.is_sorted_by_key(|run| run.volume_start) {
            // Two stretches in order, for which this sort needs one pass.
            self.runs.sort_by_key(|run| run.volume_start);
            join(&mut self.runs);
        }
    }

    pub fn as_slice(&self) -> &[Run] {
        &self.runs
    }

    pub fn into_vec(self) -> Vec<Run> {
        self.runs
    }

    /// The sound runs from the last one on that begins at `address` or before.
    pub fn from(&self, address: u64) -> impl Iterator<Item = Run> {
        let next = self.runs.partition_point(|run| run.volume_start <= address);
        let runs = &self.runs[next.saturating_sub(1)..];
        runs.iter().copied().filter(|run| run.is_sound())
    }

    /// Bytes that lie below `capacity`: the last slices may go beyond it.
    pub fn bytes_within(&self, capacity: u64) -> u64 {
        let beyond = |run: &Run| {
            let end = run.volume_start.saturating_add(run.len);
            run.len.min(end.saturating_sub(capacity))
        };
        let hidden = self.runs.iter().rev().map(beyond);
        let hidden = hidden.take_while(|bytes| *bytes > 0).fold(0, u64::saturating_add);
        self.len.saturating_sub(hidden)
    }

    /// Whether all is as the module's text says. Always true; tests ask after every step.
    pub fn invariant(&self) -> bool {
        let len = self.runs.iter().map(|run| run.len).fold(0, u64::saturating_add);
        let in_order =
            |pair: &[Run]| pair[0].volume_start <= pair[1].volume_start && !joins(pair[0], pair[1]);
        self.runs.windows(2).all(in_order) && len == self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::VolumeMap;
    use crate::types::GroupNumber;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn in_whatever_order_runs_are_stored_they_are_the_volumes_map(
            parts in proptest::collection::vec((0u64..2, 1u64..4, 0u32..2, any::<u8>()), 0..20),
            pieces in 1usize..5,
            capacity in 0u64..60,
        ) {
            let mut at = 0;
            let mut runs = Vec::new();
            for (gap, len, group, order) in parts {
                at += gap;
                runs.push((order % 4, Run { volume_start: at, len, group: GroupNumber(group), group_start: at }));
                at += len;
            }
            runs.sort_by_key(|(order, _)| *order);
            let runs: Vec<Run> = runs.into_iter().map(|(_, run)| run).collect();
            let mut stored = StoredRuns::default();
            for piece in runs.chunks(pieces) {
                stored.add(piece.to_vec());
                prop_assert!(stored.invariant());
            }
            let map = VolumeMap::new(runs).unwrap();
            prop_assert_eq!(stored.as_slice(), map.runs().collect::<Vec<_>>());
            let within: u64 = (0..capacity).filter(|at| map.lookup(*at).is_some()).count() as u64;
            prop_assert_eq!(stored.bytes_within(capacity), within);
        }
    }

    #[test]
    fn runs_that_make_no_map_are_kept_apart_and_not_joined() {
        let run = |volume_start, len| Run {
            volume_start,
            len,
            group: GroupNumber(0),
            group_start: volume_start,
        };
        let mut stored = StoredRuns::default();
        stored.add(vec![run(0, 4), run(4, u64::MAX), run(2, 4)]);
        assert_eq!(stored.as_slice(), [run(0, 4), run(2, 4), run(4, u64::MAX)]);
        assert_eq!(stored.from(0).count(), 2);
        assert!(stored.invariant());
    }
}
