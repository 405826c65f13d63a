//! Formatting: free logical devices are made blank on the devices of their group, ahead of their use.
//!
//! They read as zeros before and after: what formatting does is that nothing of earlier owners, or of earlier uses of the
//! devices, stands there any more. See `docs/decisions/0009-what-formatting-is.md`.

use super::Appliance;
use super::error::VerbError;
use super::groups::slice_range;
use crate::raid::Group;
use crate::types::{ByteRange, GroupId};

impl Appliance {
    /// Makes the first free space of a group from address `from` on blank, at most so many bytes, and answers which it
    /// was; `None` where there is no more, and all of it is durable. Nobody is given that space meanwhile.
    pub async fn format_free(
        &self,
        id: GroupId,
        from: u64,
        most: u64,
    ) -> Result<Option<ByteRange>, VerbError> {
        let _turn = self.turn.lock().await;
        let number = self.group_number(id).await?;
        let group = self.serving_group(number)?;
        let Some(free) = self.next_free(&group, from) else {
            group.flush().await?;
            return Ok(None);
        };
        let end = free.end().min(free.start().saturating_add(most));
        let range = ByteRange::between(free.start(), end);
        group.wipe(range).await?;
        Ok(Some(range))
    }

    /// What is left behind `from` of the first free logical devices that do not end before it.
    fn next_free(&self, group: &Group, from: u64) -> Option<ByteRange> {
        let working = self.working.borrow();
        let states = working.allocators.get(group.number())?.states();
        let free = states
            .filter(|state| state.owner.is_none())
            .map(|state| slice_range(group.slice(), state.slices));
        let mut behind = free.filter(|range| range.end() > from);
        let first = behind.next()?;
        Some(ByteRange::between(first.start().max(from), first.end()))
    }
}
