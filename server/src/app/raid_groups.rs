//! RAID groups: making, naming, deleting, replacing members, and their logical devices as runs.

use std::time::Duration;

use ashlar_engine::appliance::{
    CareSettings, DeviceState, GroupChange, GroupStatus, NewGroupRequest, ScrubStatus, VerbError,
    Waste as EngineWaste,
};
use ashlar_engine::logical_device::SliceLength;
use ashlar_engine::raid::{GroupState, MemberStatus};
use ashlar_engine::types::{DeviceId, GroupId, OperationId};
use ashlar_openapi::jobs::JobKind;
use ashlar_openapi::operations::FormatRaidGroup;
use ashlar_openapi::raid_groups::{
    Formatting, GroupSpare, NewRaidGroup, RaidGroup, RaidGroupChange, RaidGroupMade, RaidGroupState, Waiting,
    Waste,
};
use ashlar_openapi::{Bytes, Natural, Problem, ProblemType, Range, Timestamp};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::change::{Audited, NewEvent};
use super::devices::{bytes, natural, presence};
use super::jobs::NewJob;
use super::members;
use super::operations::Done;
use super::refusals::{of_engine, of_verb};
use super::show::Show;
use super::touched::Touched;
use super::{Answer, App, Caller, facts, levels, no_such, scrubs};
use crate::catalog::{self, CatalogError};
use crate::engine::EngineError;

/// Free stretches that are shown.
const MOST_FREE_RANGES: usize = 100;

/// A group as the engine has it, with the devices of its members and its spares.
pub struct Live {
    status: GroupStatus,
    devices: Vec<Option<DeviceState>>,
    spares: Vec<GroupSpare>,
}

impl App {
    /// What the engine says of groups; nothing of those that it does not know.
    pub async fn live_groups(&self, ids: Vec<Uuid>) -> Result<Vec<Option<Live>>, EngineError> {
        self.engine
            .with(async move |appliance| {
                let mut found = Vec::new();
                for id in ids {
                    let Some(status) = appliance.find_group(GroupId(id)).await else {
                        found.push(None);
                        continue;
                    };
                    let mut devices = Vec::new();
                    for member in &status.record.members {
                        devices.push(appliance.find_device(member.device).await);
                    }
                    let spares = members::spares(appliance, &status).await;
                    found.push(Some(Live {
                        status,
                        devices,
                        spares,
                    }));
                }
                found
            })
            .await
    }

    async fn group_status(&self, id: Uuid) -> Result<GroupStatus, Problem> {
        let found = self
            .engine
            .with(async move |appliance| appliance.find_group(GroupId(id)).await);
        let found = found.await.map_err(|error| of_engine(&error))?;
        found.ok_or_else(|| no_such("RAID group", id))
    }

    /// What would be made.
    ///
    /// # Errors
    /// Why nothing would.
    pub async fn preview_group(&self, id: Uuid, new: &NewRaidGroup) -> Result<RaidGroupMade, Problem> {
        let request = self.group_request(id, new).await?;
        let members = new.members.clone();
        let preview = self
            .engine
            .with(async move |appliance| {
                let preview = appliance.preview_group(&request).await?;
                let waste = waste_of(appliance, &preview.waste, &members).await;
                Ok((preview, waste))
            })
            .await
            .map_err(|error| of_engine(&error))?;
        let (preview, waste) = preview.map_err(|error| of_verb(&error))?;
        Ok(RaidGroupMade {
            raid_group: None,
            capacity_bytes: Bytes(preview.capacity),
            logical_devices: Natural(preview.slices),
            waste,
        })
    }

    async fn group_request(&self, id: Uuid, new: &NewRaidGroup) -> Result<NewGroupRequest, Problem> {
        let smallest = self
            .engine
            .with(async |appliance| appliance.settings().await.smallest_volume)
            .await
            .map_err(|error| of_engine(&error))?;
        let length = new.slice_length_bytes.map_or(smallest, |length| length.0);
        let slice = SliceLength::new(length, smallest).map_err(|error| {
            let correction = "give a power of two from 1 MiB up to the smallest volume";
            Problem::new(ProblemType::InvalidValue, error.to_string(), correction).at("/slice_length_bytes")
        })?;
        let level = levels::of_contract(new.level);
        Ok(NewGroupRequest {
            id: Some(GroupId(id)),
            number: None,
            name: new.name.as_ref().map(ToString::to_string),
            level,
            members: new.members.iter().map(|id| DeviceId(*id)).collect(),
            slice,
            unit: new
                .stripe_unit_bytes
                .map_or_else(|| levels::usual_unit(level), |unit| unit.0),
            checksums: new.checksums.unwrap_or(true),
        })
    }
}

async fn waste_of(
    appliance: &ashlar_engine::appliance::Appliance,
    waste: &[EngineWaste],
    members: &[Uuid],
) -> Vec<Waste> {
    let mut found = Vec::new();
    for member in members {
        let Some(device) = appliance.find_device(DeviceId(*member)).await else {
            continue;
        };
        let wasted = waste.iter().find(|waste| waste.device == device.record.number);
        found.extend(wasted.map(|waste| Waste {
            device: *member,
            bytes: Bytes(waste.bytes),
        }));
    }
    found
}

/// A group as the contract has it.
pub fn view(row: &catalog::raid_groups::RaidGroup, live: Option<&Live>) -> RaidGroup {
    let status = live.map(|live| &live.status);
    let care = status.map(|status| status.care).unwrap_or_default();
    let slice = u64::try_from(row.slice_length).unwrap_or(0);
    RaidGroup {
        id: row.id,
        number: natural(row.number),
        name: row.name.as_deref().and_then(|name| name.parse().ok()),
        level: levels::of_number(row.level),
        stripe_unit_bytes: bytes(row.stripe_unit.unwrap_or(0)),
        checksums: status.is_some_and(|status| status.record.checksums),
        slice_length_bytes: bytes(row.slice_length),
        capacity_bytes: bytes(row.capacity),
        logical_devices: Natural(status.map_or(0, |status| {
            u32::try_from(status.record.slices()).unwrap_or(u32::MAX >> 1)
        })),
        free_logical_devices: Natural(status.map_or(0, |status| status.free_slices)),
        free_bytes: Bytes(status.map_or(0, |status| u64::from(status.free_slices) * slice)),
        free_ranges: status
            .map(|status| free_ranges(status, slice))
            .unwrap_or_default(),
        state: state(status),
        waiting: status
            .and_then(|status| status.waiting.as_ref())
            .map(|waiting| Waiting {
                why: waiting.why.to_owned(),
                missing: waiting.missing.iter().map(|id| id.0).collect(),
            }),
        members: live
            .map(|live| members::view(&live.status, &live.devices))
            .unwrap_or_default(),
        bytes_to_sync: Bytes(status.map_or(0, |status| status.copy.left)),
        rate_limit_bytes_per_s: status.and_then(|status| status.standing_copy_limit).map(Bytes),
        scrub_schedule: status
            .and_then(|status| status.scrub.schedule)
            .map(scrubs::schedule),
        scrubs: scrubs::view(status.map_or(&ScrubStatus::default(), |status| &status.scrub)),
        spares: live.map(|live| live.spares.clone()).unwrap_or_default(),
        spare_after_seconds: care.spare_after.map(Natural),
        replace_suspect: care.replace_suspect,
        suspect_after: Natural(care.suspect_after),
        presence: presence(row.presence),
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    }
}

fn state(status: Option<&GroupStatus>) -> RaidGroupState {
    match status.and_then(|status| status.state) {
        Some(GroupState::Optimal) => RaidGroupState::Optimal,
        Some(GroupState::Degraded) => RaidGroupState::Degraded,
        Some(GroupState::Rebuilding) => RaidGroupState::Rebuilding,
        Some(GroupState::Failed) => RaidGroupState::Failed,
        None => RaidGroupState::Waiting,
    }
}

fn free_ranges(status: &GroupStatus, slice: u64) -> Vec<Range> {
    let range = |run: &ashlar_engine::logical_device::Slices| Range {
        offset: Bytes(u64::from(run.first) * slice),
        length: Bytes(u64::from(run.count) * slice),
    };
    status.free.iter().take(MOST_FREE_RANGES).map(range).collect()
}

/// Names the state that an edit is meant for: what the catalog mirrors, and the settings that only the engine knows.
fn tag(row: &catalog::raid_groups::RaidGroup, live: Option<&Live>) -> String {
    let mut tag = super::etag(row.version, row.updated_at);
    let mut add = |part: &str| tag = format!("{}-{part}\"", tag.trim_end_matches('"'));
    if let Some(limit) = live.and_then(|live| live.status.standing_copy_limit) {
        add(&format!("{limit:x}"));
    }
    if let Some(schedule) = live.and_then(|live| live.status.scrub.schedule) {
        add(&format!("{:x}{:?}", schedule.every_hours, schedule.mode));
    }
    let care = live.map(|live| live.status.care).unwrap_or_default();
    if care != CareSettings::default() {
        let CareSettings {
            spare_after,
            replace_suspect,
            suspect_after,
        } = care;
        let after = spare_after.map_or_else(String::new, |after| after.to_string());
        add(&format!("c{after}.{replace_suspect}.{suspect_after}"));
    }
    tag
}

/// A group's row with its ETag, and the group as the engine has it.
pub async fn find(
    app: &App,
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<Option<(catalog::raid_groups::RaidGroup, Option<Live>, String)>, CatalogError> {
    let Some(row) = catalog::raid_groups::get(connection, id).await? else {
        return Ok(None);
    };
    let live = app
        .live_groups(vec![id])
        .await
        .ok()
        .and_then(|mut found| found.pop().flatten());
    let tag = tag(&row, live.as_ref());
    Ok(Some((row, live, tag)))
}

/// A group as the contract has it, with its ETag.
pub async fn show(
    app: &App,
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<Option<(RaidGroup, String)>, CatalogError> {
    let found = find(app, connection, id).await?;
    Ok(found.map(|(row, live, tag)| (view(&row, live.as_ref()), tag)))
}

fn event(kind: &'static str, id: Uuid, data: serde_json::Value) -> NewEvent {
    NewEvent {
        kind,
        subject_kind: "raid_group",
        subject: id,
        data,
    }
}

fn audited(id: Uuid, before: Option<serde_json::Value>, after: Option<serde_json::Value>) -> Audited {
    Audited {
        object_kind: "raid_group",
        object: id,
        before,
        after,
    }
}

/// Makes a group.
pub async fn create(app: &App, operation: Uuid, id: Uuid, new: NewRaidGroup) -> Result<Done, Problem> {
    let request = app.group_request(id, &new).await?;
    let members = new.members.clone();
    let made = app
        .verb(async move |appliance| {
            let made = appliance.create_group(OperationId(operation), &request).await?;
            Ok(waste_of(appliance, &made.waste, &members).await)
        })
        .await?;
    let status = app.group_status(id).await?;
    let facts = facts::of_group(&status);
    let data =
        json!({"number": facts.number, "name": facts.name, "level": new.level, "members": new.members});
    Ok(Done {
        touched: vec![Touched::RaidGroup(facts)],
        show: Show::RaidGroupMade { id, waste: made },
        event: Some(event("raid_group.created", id, data.clone())),
        audited: audited(id, None, Some(data)),
    })
}

/// Changes a group's settings.
pub async fn change(app: &App, operation: Uuid, id: Uuid, change: RaidGroupChange) -> Result<Done, Problem> {
    let before = app.group_status(id).await?;
    let before = json!({
        "name": before.name,
        "rate_limit_bytes_per_s": before.standing_copy_limit,
        "scrub_schedule": before.scrub.schedule.map(scrubs::schedule),
        "spare_after_seconds": before.care.spare_after,
        "replace_suspect": before.care.replace_suspect,
        "suspect_after": before.care.suspect_after,
    });
    let wanted = GroupChange {
        name: change
            .name
            .as_ref()
            .map(|name| name.as_ref().map(ToString::to_string)),
        copy_limit: change
            .rate_limit_bytes_per_s
            .map(|limit| limit.map(|limit| limit.0)),
        scrub_schedule: change
            .scrub_schedule
            .map(|schedule| schedule.map(scrubs::schedule_to_engine)),
        spare_after: change.spare_after_seconds.map(|after| after.map(|after| after.0)),
        replace_suspect: change.replace_suspect,
        suspect_after: change.suspect_after.map(|after| after.0),
    };
    app.verb(async move |appliance| {
        // A schedule begins to count now.
        appliance.tell_time(scrubs::seconds_now());
        appliance
            .change_group(OperationId(operation), GroupId(id), wanted)
            .await
    })
    .await?;
    let after = json!(change);
    Ok(Done {
        touched: vec![Touched::RaidGroup(facts::of_group(&app.group_status(id).await?))],
        show: Show::RaidGroup { id },
        event: Some(event("raid_group.changed", id, after.clone())),
        audited: audited(id, Some(before), Some(after)),
    })
}

/// Deletes a group that no volume lies on.
pub async fn delete(app: &App, operation: Uuid, id: Uuid) -> Result<Done, Problem> {
    app.verb(async move |appliance| appliance.delete_group(OperationId(operation), GroupId(id)).await)
        .await?;
    Ok(Done {
        touched: vec![Touched::NoRaidGroup(id)],
        show: Show::Nothing,
        event: Some(event("raid_group.deleted", id, json!({}))),
        audited: audited(id, Some(json!({"id": id})), None),
    })
}

impl App {
    /// Has the free logical devices of a group made blank, or only says which these are.
    ///
    /// # Errors
    /// Where the group does not serve.
    pub async fn format_group(
        &self,
        caller: &Caller,
        id: Uuid,
        dry_run: bool,
        wait: Option<Duration>,
    ) -> Result<Answer, Problem> {
        let status = self.group_status(id).await?;
        if status.state.is_none() {
            return Err(of_verb(&VerbError::GroupWaits(status.record.number)));
        }
        let slice = status.record.slice;
        let formatting = |job| Formatting {
            job,
            logical_devices: Natural(status.free_slices),
            bytes: Bytes(u64::from(status.free_slices) * slice),
        };
        if dry_run {
            return Ok(Answer::of::<FormatRaidGroup>(&formatting(None)).status(200));
        }
        let new = NewJob {
            kind: JobKind::Format,
            subject_kind: "raid_group",
            subject: id,
            params: json!({}),
            bytes_total: Some(status.record.slices() * slice),
            limit: None,
        };
        self.begin_job::<FormatRaidGroup>(caller, new, wait, |job| formatting(Some(job)))
            .await
    }
}

/// What a replacement has come to, where it is asked for again.
enum Replaced {
    Not,
    /// The new member is being copied to.
    Copying,
    InSync,
}

fn replaced(status: &GroupStatus, old: Uuid, new: Uuid) -> Replaced {
    let record = &status.record;
    match (record.member(DeviceId(old)), record.member(DeviceId(new))) {
        (None, Some(member)) if record.members[member].status == MemberStatus::InSync => Replaced::InSync,
        (None, Some(_)) => Replaced::Copying,
        _ => Replaced::Not,
    }
}

/// Puts a free device in the place of a member; what is to be copied is a job. Where just that is being done already, it
/// is left alone, and its job answered.
pub async fn replace(app: &App, operation: Uuid, id: Uuid, old: Uuid, new: Uuid) -> Result<Done, Problem> {
    let data = json!({"old": old, "new": new});
    let before = match app.answered(operation).await? {
        true => Replaced::Not,
        false => replaced(&app.group_status(id).await?, old, new),
    };
    match before {
        Replaced::Not => {
            app.verb(async move |appliance| {
                let operation = OperationId(operation);
                appliance
                    .replace_member(operation, GroupId(id), DeviceId(old), DeviceId(new))
                    .await
            })
            .await?;
        }
        Replaced::Copying => {}
        Replaced::InSync => {
            return Err(Problem::new(
                ProblemType::NotAMember,
                format!("device {old} is no member of the RAID group: device {new} is, and in sync"),
                "there is nothing to replace: look at the group's members",
            )
            .at("/old"));
        }
    }
    let status = app.group_status(id).await?;
    let is_new = !matches!(before, Replaced::Copying);
    Ok(Done {
        touched: vec![Touched::RaidGroup(facts::of_group(&status))],
        show: Show::Job(NewJob {
            kind: JobKind::Rebuild,
            subject_kind: "raid_group",
            subject: id,
            params: data.clone(),
            bytes_total: Some(status.copy.left),
            limit: None,
        }),
        event: is_new.then(|| event("raid_group.member_replaced", id, data)),
        audited: audited(id, Some(json!({"member": old})), Some(json!({"member": new}))),
    })
}
