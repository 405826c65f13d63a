//! What verbs that give out space would do, without doing it.

use super::groups::{NewGroupRequest, Waste};
use super::volumes::{Asked, NewPlacements, NewVolume};
use super::{Appliance, VerbError};
use crate::map::{Planned, placement};
use crate::types::{GroupId, VolumeId};

/// A group as it would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPreview {
    /// Bytes.
    pub capacity: u64,
    /// Logical devices.
    pub slices: u32,
    pub waste: Vec<Waste>,
}

impl Appliance {
    /// What [`create_group`](Self::create_group) would make. Fails where that would.
    pub async fn preview_group(&self, request: &NewGroupRequest) -> Result<GroupPreview, VerbError> {
        let plan = self.plan_group(request).await?;
        Ok(GroupPreview {
            capacity: plan.capacity(),
            slices: plan.slices,
            waste: plan.made.waste,
        })
    }

    /// The space that [`create_volume`](Self::create_volume) would take. Fails where that would.
    pub async fn preview_volume(&self, new: &NewVolume) -> Result<Planned, VerbError> {
        self.preview(self.ask_new(new)).await
    }

    /// The space that [`expand_volume`](Self::expand_volume) would take. Fails where that would.
    pub async fn preview_expand(
        &self,
        id: VolumeId,
        capacity: u64,
        rest: Option<GroupId>,
    ) -> Result<Planned, VerbError> {
        self.preview(self.ask_expand(id, capacity, rest)).await
    }

    /// The space that [`place_more`](Self::place_more) would take. Fails where that would.
    pub async fn preview_placements(&self, id: VolumeId, new: &NewPlacements) -> Result<Planned, VerbError> {
        self.preview(self.ask_more(id, new)).await
    }

    async fn preview(
        &self,
        ask: impl Future<Output = Result<Asked, VerbError>>,
    ) -> Result<Planned, VerbError> {
        let Asked { map, request, .. } = ask.await?;
        let mut allocators = self.working.borrow().allocators.clone();
        Ok(placement::plan(&request, &map, &mut allocators)?)
    }
}
