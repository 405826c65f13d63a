//! Spares: free devices that take the places of members that are lost, by themselves. Marking them, and choosing one.
//!
//! Invariants: a spare is a member of no group; the commit that makes it one takes its mark away ([`Truth::apply`]), so
//! that it is used once, whatever is cut off where.
//!
//! [`Truth::apply`]: crate::metadata::State::apply

use serde::{Deserialize, Serialize};

use super::Appliance;
use super::error::VerbError;
use super::groups::ChosenMember;
use super::health::Health;
use super::journal::Ledger;
use super::members::place_in;
use super::operation::answered;
use super::records::{Record, Truth};
use crate::raid::{Group, MemberRecord};
use crate::types::{DeviceId, GroupId, OperationId};

/// Where a spare is read when it is marked, and when it is looked at: the beginning, which every use of it needs.
const HEAD: usize = 4096;

/// For whom a device is a spare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpareFor {
    /// Whichever group needs one first and has none of its own that fits.
    All,
    Group(GroupId),
}

/// The devices that may take a place in a group.
pub(super) fn spares_of(truth: &Truth, group: GroupId) -> impl Iterator<Item = (DeviceId, SpareFor)> + '_ {
    let fits = move |spare: SpareFor| matches!(spare, SpareFor::All) || spare == SpareFor::Group(group);
    let all = truth.spares.iter().map(|(&device, &spare)| (device, spare));
    all.filter(move |(_, spare)| fits(*spare))
}

impl Appliance {
    /// Makes a free device a spare, for another one than it was for, or none any more.
    pub async fn set_spare(
        &self,
        operation: OperationId,
        device: DeviceId,
        spare: Option<SpareFor>,
    ) -> Result<(), VerbError> {
        self.once(operation, async || {
            self.known_device(device).await?;
            if let Some(spare) = spare {
                self.check_spare(device, spare).await?;
            }
            let records = vec![Record::Spare { device, spare }, answered(operation, &())];
            Ok(self.ledger.store.commit(records).await?)
        })
        .await
    }

    /// Whether the device could take a place there now.
    async fn check_spare(&self, device: DeviceId, spare: SpareFor) -> Result<(), VerbError> {
        let chosen = self.ledger.free_device(device).await?;
        if self.caring.health_of(device) == Health::Suspect {
            return Err(VerbError::DeviceSuspect(chosen.number));
        }
        if let SpareFor::Group(group) = spare {
            let group = self.serving_group(self.group_number(group).await?)?;
            if !group.record().layout.is_complete(|member| member > 0) {
                return Err(VerbError::NoRedundancy(group.number()));
            }
            place_in(&group, 0, &chosen)?;
        }
        chosen.device.read(0, HEAD).await?;
        Ok(())
    }
}

impl Ledger {
    /// For whom a device is a spare.
    pub(super) async fn spare(&self, device: DeviceId) -> Option<SpareFor> {
        self.store.read(|truth| truth.spares.get(&device).copied()).await
    }

    /// The spare for a member's place, and how it lies there: the group's own before those that it shares, of these the
    /// smallest that fits. Else why there is none.
    pub(super) async fn spare_for(
        &self,
        group: &Group,
        member: usize,
        health: impl Fn(DeviceId) -> Health,
    ) -> Result<(ChosenMember, MemberRecord), String> {
        let looked = self.store.read(|truth| {
            let capacity = |device| truth.devices.find(device).map_or(0, |device| device.capacity);
            let spares = spares_of(truth, group.id());
            let mut spares: Vec<_> = spares
                .map(|(device, spare)| (spare == SpareFor::All, capacity(device), device))
                .collect();
            spares.sort_unstable();
            spares
        });
        let mut refused = Vec::new();
        for (_, _, device) in looked.await {
            match self.try_spare(group, member, device, &health).await {
                Ok(fits) => return Ok(fits),
                Err(error) => refused.push(error.to_string()),
            }
        }
        match refused.is_empty() {
            true => Err("no device is a spare for it".into()),
            false => Err(refused.join("; ")),
        }
    }

    async fn try_spare(
        &self,
        group: &Group,
        member: usize,
        device: DeviceId,
        health: impl Fn(DeviceId) -> Health,
    ) -> Result<(ChosenMember, MemberRecord), VerbError> {
        let chosen = self.free_device(device).await?;
        if health(device) == Health::Suspect {
            return Err(VerbError::DeviceSuspect(chosen.number));
        }
        let place = place_in(group, member, &chosen)?;
        Ok((chosen, place))
    }
}
