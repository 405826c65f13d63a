//! Putting another device in a member's place: by hand, or a spare by itself.

use std::sync::Arc;

use super::Appliance;
use super::error::VerbError;
use super::groups::{ChosenMember, place_member};
use super::journal::{Along, Ledger};
use super::operation::answered;
use super::records::Record;
use super::spares::SpareFor;
use crate::device::DeviceHandle;
use crate::io::IoError;
use crate::raid::{Group, MemberRecord, MemberStatus};
use crate::types::{ByteSize, DeviceId, GroupId, OperationId};

/// The place of a new member of a group, where the device can be one.
pub(super) fn place_in(
    group: &Group,
    member: usize,
    chosen: &ChosenMember,
) -> Result<MemberRecord, VerbError> {
    let (block, group_block) = (chosen.device.info().block, group.block());
    if block > group_block {
        return Err(VerbError::MemberBlock { block, group_block });
    }
    let record = group.record();
    let log = record.members[member].log.len();
    let place = place_member(&chosen.device, chosen.layout, log, MemberStatus::Blank);
    let payload_end = chosen.layout.payload.end();
    if place.data_start + record.layout.member_len > payload_end {
        return Err(VerbError::MemberTooSmall {
            offered: ByteSize(payload_end.saturating_sub(place.data_start)),
            needed: ByteSize(record.layout.member_len),
        });
    }
    Ok(place)
}

impl Appliance {
    /// Puts a free device in the place of a member, which is not used any more, and begins to copy to it.
    pub async fn replace_member(
        &self,
        operation: OperationId,
        group: GroupId,
        old: DeviceId,
        new: DeviceId,
    ) -> Result<(), VerbError> {
        self.once(operation, async || {
            let group = self.serving_group(self.group_number(group).await?)?;
            let Some(member) = group.record().member(old) else {
                let (device, _) = self.known_device(old).await?;
                let group = group.number();
                return Err(VerbError::NotAMember { device, group });
            };
            let chosen = self.ledger.free_device(new).await?;
            self.check_not_anothers(&chosen, group.id()).await?;
            let place = place_in(&group, member, &chosen)?;
            let records = vec![answered(operation, &())];
            self.ledger
                .put_in(&group, member, chosen.device, place, records)
                .await
        })
        .await
    }

    /// A spare of another group is kept for that one; a shared one, or the group's own, is there for this.
    async fn check_not_anothers(&self, chosen: &ChosenMember, group: GroupId) -> Result<(), VerbError> {
        let spare = self.ledger.spare(chosen.device.id()).await;
        match spare {
            Some(SpareFor::Group(other)) if other != group => Err(VerbError::DeviceIsSpare(chosen.number)),
            _ => Ok(()),
        }
    }
}

impl Ledger {
    /// Puts a device in a member's place, durably together with `records`, and begins to copy to it.
    pub(super) async fn put_in(
        &self,
        group: &Group,
        member: usize,
        device: Arc<DeviceHandle>,
        place: MemberRecord,
        records: Vec<Record>,
    ) -> Result<(), VerbError> {
        Group::format_member(&group.record(), &device, place.log).await?;
        *self.along() = Some(Along {
            group: group.id(),
            device: device.id(),
            status: MemberStatus::Blank,
            records,
        });
        let replaced = group.replace(member, place).await;
        self.along_with(replaced)?;
        self.take_in(group, member, device).await;
        Ok(())
    }

    /// What a change of a group's members came to, and what was to go along with it where that was not stored.
    pub(super) fn along_with<T>(&self, changed: Result<T, IoError>) -> Result<(T, Option<Along>), VerbError> {
        let left = self.along().take();
        match changed {
            Ok(changed) => Ok((changed, left)),
            // It was tried to store it.
            Err(error) if left.is_none() => Err(VerbError::Membership(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Begins to copy to a new member. That it is one is durable: what fails here shows in the group's state.
    async fn take_in(&self, group: &Group, member: usize, device: Arc<DeviceHandle>) {
        // A label of this membership: whoever examines the device sees where it belongs.
        if let Err(error) = self.label(&device, &group.record()).await {
            tracing::warn!(device = %device.id(), %error, "new member could not be labelled");
        }
        if let Err(error) = group.join(member, device).await {
            tracing::warn!(group = %group.number(), %error, "new member could not be taken in");
        }
        if let Err(error) = self.renew_holders().await {
            tracing::warn!(%error, "metadata holders could not be renewed");
        }
    }
}
