//! What BLOCK_STATUS can tell: metadata contexts, and their extents.
//!
//! Invariant: extents handed to a reply are not empty, lie within the range asked for and begin at its start,
//! whatever the target said.

use smallvec::SmallVec;

use crate::export::StatusRun;
use crate::nbd::wire;

/// A kind of metadata that a client can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaContext {
    /// Which bytes are stored, and which read as zeros.
    BaseAllocation,
}

/// The contexts that a connection negotiated.
pub type MetaContexts = SmallVec<[MetaContext; 1]>;

/// Most extents in one reply; a client that wants to know more asks again from where it ended.
pub const MAX_EXTENTS: usize = 4096;

impl MetaContext {
    const ALL: [Self; 1] = [Self::BaseAllocation];

    pub fn name(self) -> &'static str {
        match self {
            Self::BaseAllocation => wire::BASE_ALLOCATION,
        }
    }

    /// The number that stands for it on the wire.
    pub fn id(self) -> u32 {
        match self {
            Self::BaseAllocation => 1,
        }
    }

    /// Contexts that one of the queries names.
    pub fn named(queries: &[&str]) -> MetaContexts {
        Self::ALL
            .into_iter()
            .filter(|context| queries.contains(&context.name()))
            .collect()
    }

    /// Contexts that a client can choose from: all, or those that a query names or whose name space it is (`base:`).
    pub fn listed(queries: &[&str]) -> MetaContexts {
        let wanted = |context: &Self| {
            let name = context.name();
            queries
                .iter()
                .any(|&query| query == name || (query.ends_with(':') && name.starts_with(query)))
        };
        Self::ALL
            .into_iter()
            .filter(|context| queries.is_empty() || wanted(context))
            .collect()
    }
}

/// A run of bytes with the same flags in one context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub len: u64,
    pub flags: u32,
}

/// `runs` as extents of `base:allocation` that cover at most `len` bytes.
pub fn allocation_extents(runs: &[StatusRun], len: u64) -> Vec<Extent> {
    let mut left = len;
    let mut extents: Vec<Extent> = Vec::with_capacity(runs.len());
    for run in runs {
        let here = run.len.min(left);
        if here == 0 {
            continue;
        }
        left -= here;
        let hole = if run.hole { wire::STATE_HOLE } else { 0 };
        let zero = if run.zero { wire::STATE_ZERO } else { 0 };
        extents.push(Extent {
            len: here,
            flags: hole | zero,
        });
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(len: u64, hole: bool, zero: bool) -> StatusRun {
        StatusRun { len, hole, zero }
    }

    #[test]
    fn extents_never_reach_beyond_what_was_asked_for() {
        let extents = allocation_extents(
            &[run(10, true, true), run(0, true, false), run(10, false, false)],
            15,
        );
        assert_eq!(
            extents,
            [Extent { len: 10, flags: 3 }, Extent { len: 5, flags: 0 }]
        );
    }

    #[test]
    fn a_name_space_lists_its_contexts_but_selects_none() {
        let base = [MetaContext::BaseAllocation];
        assert_eq!(MetaContext::listed(&[])[..], base);
        assert_eq!(MetaContext::listed(&["base:"])[..], base);
        assert_eq!(MetaContext::listed(&["other:", "base:allocation"])[..], base);
        assert!(MetaContext::listed(&["bas", "other:"]).is_empty());
        assert_eq!(MetaContext::named(&["x:y", "base:allocation"])[..], base);
        assert!(MetaContext::named(&["base:"]).is_empty());
    }
}
