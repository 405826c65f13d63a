//! What is to be done with the engine, as it is written down before the engine hears of it. No secret stands in here.

use ashlar_openapi::Problem;
use ashlar_openapi::appliance::ApplianceChange;
use ashlar_openapi::devices::{NewDevice, Spare};
use ashlar_openapi::exports::{ExportChange, NewExport};
use ashlar_openapi::raid_groups::{NewRaidGroup, RaidGroupChange};
use ashlar_openapi::scrubs::Scrub;
use ashlar_openapi::volumes::{Expand, MorePlacements, NewVolume};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::operations::Done;
use super::{App, adding, appliance, devices, exports, raid_groups, scrubs, volumes};

/// A change that the engine takes part in. Ids of new objects are chosen before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Intent {
    ChangeAppliance { id: Uuid, change: ApplianceChange },
    AddDevice { id: Uuid, new: NewDevice },
    RenameDevice { id: Uuid, name: Option<String> },
    RemoveDevice { id: Uuid },
    FailDevice { id: Uuid },
    ReturnDevice { id: Uuid },
    SetSpare { id: Uuid, spare: Spare },
    CreateRaidGroup { id: Uuid, new: NewRaidGroup },
    ChangeRaidGroup { id: Uuid, change: RaidGroupChange },
    DeleteRaidGroup { id: Uuid },
    ReplaceMember { id: Uuid, old: Uuid, new: Uuid },
    ScrubRaidGroup { id: Uuid, wanted: Scrub },
    CreateVolume { id: Uuid, new: Box<NewVolume> },
    RenameVolume { id: Uuid, name: String },
    DeleteVolume { id: Uuid },
    PlaceVolume { id: Uuid, more: MorePlacements },
    ExpandVolume { id: Uuid, expand: Expand },
    CreateExport { id: Uuid, new: NewExport },
    ChangeExport { id: Uuid, change: ExportChange },
    DeleteExport { id: Uuid },
}

impl Intent {
    /// Kind and id of the object that it is about.
    pub fn object(&self) -> (&'static str, Uuid) {
        match self {
            Self::ChangeAppliance { id, .. } => ("appliance", *id),
            Self::AddDevice { id, .. }
            | Self::RenameDevice { id, .. }
            | Self::RemoveDevice { id }
            | Self::FailDevice { id }
            | Self::ReturnDevice { id }
            | Self::SetSpare { id, .. } => ("device", *id),
            Self::CreateRaidGroup { id, .. }
            | Self::ChangeRaidGroup { id, .. }
            | Self::DeleteRaidGroup { id }
            | Self::ReplaceMember { id, .. }
            | Self::ScrubRaidGroup { id, .. } => ("raid_group", *id),
            Self::CreateVolume { id, .. }
            | Self::RenameVolume { id, .. }
            | Self::DeleteVolume { id }
            | Self::PlaceVolume { id, .. }
            | Self::ExpandVolume { id, .. } => ("volume", *id),
            Self::CreateExport { id, .. } | Self::ChangeExport { id, .. } | Self::DeleteExport { id } => {
                ("export", *id)
            }
        }
    }

    /// Whether it makes the object.
    pub fn creates(&self) -> bool {
        matches!(
            self,
            Self::AddDevice { .. }
                | Self::CreateRaidGroup { .. }
                | Self::CreateVolume { .. }
                | Self::CreateExport { .. }
        )
    }

    /// What stands in the operation's row.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ChangeAppliance { .. } => "change_appliance",
            Self::AddDevice { .. } => "add_device",
            Self::RenameDevice { .. } => "rename_device",
            Self::RemoveDevice { .. } => "remove_device",
            Self::FailDevice { .. } => "fail_device",
            Self::ReturnDevice { .. } => "return_device",
            Self::SetSpare { .. } => "set_spare",
            Self::CreateRaidGroup { .. } => "create_raid_group",
            Self::ChangeRaidGroup { .. } => "change_raid_group",
            Self::DeleteRaidGroup { .. } => "delete_raid_group",
            Self::ReplaceMember { .. } => "replace_member",
            Self::ScrubRaidGroup { .. } => "scrub_raid_group",
            Self::CreateVolume { .. } => "create_volume",
            Self::RenameVolume { .. } => "rename_volume",
            Self::DeleteVolume { .. } => "delete_volume",
            Self::PlaceVolume { .. } => "place_volume",
            Self::ExpandVolume { .. } => "expand_volume",
            Self::CreateExport { .. } => "create_export",
            Self::ChangeExport { .. } => "change_export",
            Self::DeleteExport { .. } => "delete_export",
        }
    }

    /// Has the engine do it, under the operation's id: again is the same as once.
    ///
    /// # Errors
    /// Why not.
    pub async fn carry_out(self, app: &App, operation: Uuid) -> Result<Done, Problem> {
        match self {
            Self::ChangeAppliance { id, change } => appliance::change(app, operation, id, change).await,
            Self::AddDevice { id, new } => adding::add(app, operation, id, new).await,
            Self::RenameDevice { id, name } => devices::rename(app, operation, id, name).await,
            Self::RemoveDevice { id } => devices::remove(app, operation, id).await,
            Self::FailDevice { id } => devices::fail(app, operation, id).await,
            Self::ReturnDevice { id } => devices::give_back(app, operation, id).await,
            Self::SetSpare { id, spare } => devices::set_spare(app, operation, id, spare).await,
            Self::CreateRaidGroup { id, new } => raid_groups::create(app, operation, id, new).await,
            Self::ChangeRaidGroup { id, change } => raid_groups::change(app, operation, id, change).await,
            Self::DeleteRaidGroup { id } => raid_groups::delete(app, operation, id).await,
            Self::ReplaceMember { id, old, new } => raid_groups::replace(app, operation, id, old, new).await,
            Self::ScrubRaidGroup { id, wanted } => scrubs::start(app, operation, id, wanted).await,
            Self::CreateVolume { id, new } => volumes::create(app, operation, id, *new).await,
            Self::RenameVolume { id, name } => volumes::rename(app, operation, id, name).await,
            Self::DeleteVolume { id } => volumes::delete(app, operation, id).await,
            Self::PlaceVolume { id, more } => volumes::place(app, operation, id, more).await,
            Self::ExpandVolume { id, expand } => volumes::expand(app, operation, id, expand).await,
            Self::CreateExport { id, new } => exports::create(app, operation, id, new).await,
            Self::ChangeExport { id, change } => exports::change(app, operation, id, change).await,
            Self::DeleteExport { id } => exports::delete(app, operation, id).await,
        }
    }
}
