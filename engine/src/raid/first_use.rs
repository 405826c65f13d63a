//! The first write of never-written space (R12): afterwards the whole granule is equal on all members.
//!
//! Whoever writes first owns the granules of its range exclusively, fills with zeros what it does not write, and sets
//! the bits in memory. They become durable with the next flush; a crash before that leaves *never written*, and the
//! write was not flushed.

use smallvec::SmallVec;

use super::group::Group;
use super::write::{Content, Part};
use crate::io::IoError;
use crate::io::range_lock::Mode;
use crate::planted::{self, Planted};
use crate::types::ByteRange;

impl Group {
    pub(super) async fn write_first_use(&self, part: Part) -> Result<(), IoError> {
        let span = self.regions.round_to_granules(part.range);
        let _claim = self.lock.claim(span, Mode::Exclusive).await;
        self.write_first_use_claimed(part).await
    }

    /// The caller holds the part's granules exclusively.
    pub(super) async fn write_first_use_claimed(&self, part: Part) -> Result<(), IoError> {
        let range = part.range;
        let span = self.regions.round_to_granules(range);
        let mut parts: SmallVec<[Part; 3]> = SmallVec::new();
        for edge in [
            ByteRange::between(span.start(), range.start()),
            ByteRange::between(range.end(), span.end()),
        ] {
            // Only the first and the last granule can be written in part.
            if !edge.is_empty()
                && !self.regions.all_written(edge)
                && !planted::is(Planted::ReuseFreedUncleared)
            {
                parts.push(Part {
                    range: edge,
                    content: Content::Zeros,
                });
            }
        }
        parts.push(part);
        self.write_parts(span, &parts).await?;
        self.regions.set_written(range);
        Ok(())
    }
}
