//! Storage devices: naming, taking out of service and back, giving back, and what one is. Adding is [`super::adding`].

use std::sync::Arc;

use ashlar_engine::appliance::{DeviceState, Health, SpareFor, VerbError, examine};
use ashlar_engine::device::{Device, ErrorCounts, signature};
use ashlar_engine::raid::MemberStatus;
use ashlar_engine::types::{DeviceId, GroupId, OperationId};
use ashlar_openapi::devices::{
    Device as View, DeviceErrors, DeviceHealth, DeviceKind, DeviceSource, DeviceState as State, Examined,
    ExaminedDevice, MemberState, Membership, Presence, Spare,
};
use ashlar_openapi::{Bytes, Natural, Problem, ProblemType, Timestamp};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::change::{Audited, NewEvent};
use super::operations::Done;
use super::refusals::{of_engine, of_source, of_verb};
use super::show::Show;
use super::touched::Touched;
use super::{App, facts, internal, no_such};
use crate::catalog::{self, CatalogError};
use crate::engine::{EngineError, source};
use crate::steps::step;

/// A device as the engine has it, and whether it holds metadata.
pub struct Live {
    state: DeviceState,
    holds_metadata: bool,
}

impl App {
    /// What the engine says of devices; nothing of those that it does not know.
    pub async fn live_devices(&self, ids: Vec<Uuid>) -> Result<Vec<Option<Live>>, EngineError> {
        self.engine
            .with(async move |appliance| {
                let holders = appliance.metadata_holders().await;
                let mut found = Vec::new();
                for id in ids {
                    let state = appliance.find_device(DeviceId(id)).await;
                    found.push(state.map(|state| Live {
                        holds_metadata: holders.contains(&DeviceId(id)),
                        state,
                    }));
                }
                found
            })
            .await
    }

    /// The engine's state of one device, which must exist.
    pub(super) async fn device_state(&self, id: Uuid) -> Result<DeviceState, Problem> {
        let found = self
            .engine
            .with(async move |appliance| appliance.find_device(DeviceId(id)).await);
        let found = found.await.map_err(|error| of_engine(&error))?;
        found.ok_or_else(|| no_such("device", id))
    }
}

/// A device as the contract has it.
pub fn view(row: &catalog::devices::Device, live: Option<&Live>) -> View {
    View {
        id: row.id,
        number: natural(row.number),
        name: row.name.as_deref().and_then(|name| name.parse().ok()),
        kind: match row.kind {
            catalog::devices::DeviceKind::File => DeviceKind::File,
            catalog::devices::DeviceKind::Block => DeviceKind::Block,
            catalog::devices::DeviceKind::Nbd => DeviceKind::Nbd,
        },
        location: row.location.clone(),
        capacity_bytes: bytes(row.capacity),
        block_bytes: live.and_then(|live| live.state.block).map(Natural),
        state: match live {
            Some(live) if live.state.failure.is_some() => State::Failed,
            Some(live) if live.state.present => State::InService,
            _ => State::Absent,
        },
        failure: live.and_then(|live| live.state.failure.clone()),
        taken_out: live.is_some_and(|live| live.state.taken_out),
        membership: live
            .and_then(|live| live.state.member.as_ref())
            .map(|member| Membership {
                raid_group: member.group.0,
                role: count(member.role),
                state: member_state(member.status),
            }),
        spare: live.map_or(Spare::None, |live| spare(live.state.spare)),
        former_raid_group: live.and_then(|live| live.state.former).map(|group| group.0),
        health: live.map_or(DeviceHealth::Healthy, |live| health(live.state.health)),
        errors: live.map(|live| errors(live.state.errors)).unwrap_or_default(),
        holds_metadata: live.is_some_and(|live| live.holds_metadata),
        presence: presence(row.presence),
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    }
}

pub fn member_state(status: MemberStatus) -> MemberState {
    match status {
        MemberStatus::InSync => MemberState::InSync,
        MemberStatus::Out => MemberState::Out,
        MemberStatus::Blank => MemberState::Blank,
    }
}

fn spare(spare: Option<SpareFor>) -> Spare {
    match spare {
        None => Spare::None,
        Some(SpareFor::All) => Spare::Shared,
        Some(SpareFor::Group(group)) => Spare::RaidGroup { raid_group: group.0 },
    }
}

fn health(health: Health) -> DeviceHealth {
    match health {
        Health::Healthy => DeviceHealth::Healthy,
        Health::Suspect => DeviceHealth::Suspect,
        Health::Failed => DeviceHealth::Failed,
    }
}

pub fn errors(counts: ErrorCounts) -> DeviceErrors {
    DeviceErrors {
        medium: Bytes(counts.medium),
        checksums: Bytes(counts.unfit),
        reads: Bytes(counts.reads),
        writes: Bytes(counts.writes),
        flushes: Bytes(counts.flushes),
        timeouts: Bytes(counts.timeouts),
        mended: Bytes(counts.mended),
    }
}

pub fn presence(presence: catalog::Presence) -> Presence {
    match presence {
        catalog::Presence::Present => Presence::Present,
        catalog::Presence::Adopted => Presence::Adopted,
        catalog::Presence::Missing => Presence::Missing,
    }
}

/// A number that the catalog's constraints keep from being negative.
pub fn natural(number: i32) -> Natural {
    Natural(u32::try_from(number).unwrap_or(0))
}

pub fn bytes(bytes: i64) -> Bytes {
    Bytes(u64::try_from(bytes).unwrap_or(0))
}

pub fn count(count: usize) -> Natural {
    Natural(u32::try_from(count).unwrap_or(u32::MAX >> 1))
}

/// Names the state that an edit is meant for: what the catalog mirrors, and whose spare it is, which only the engine knows.
fn tag(row: &catalog::devices::Device, live: Option<&Live>) -> String {
    let tag = super::etag(row.version, row.updated_at);
    let part = match live.and_then(|live| live.state.spare) {
        None => return tag,
        Some(SpareFor::All) => "shared".to_owned(),
        Some(SpareFor::Group(group)) => group.0.simple().to_string(),
    };
    format!("{}-{part}\"", tag.trim_end_matches('"'))
}

/// A device's row, as the contract has it, with its ETag.
pub async fn show(
    app: &App,
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<Option<(View, String)>, CatalogError> {
    let Some(row) = catalog::devices::get(connection, id).await? else {
        return Ok(None);
    };
    let live = app
        .live_devices(vec![id])
        .await
        .ok()
        .and_then(|mut found| found.pop().flatten());
    Ok(Some((view(&row, live.as_ref()), tag(&row, live.as_ref()))))
}

pub(super) fn file_problem(error: &crate::files::FileError) -> Problem {
    tracing::error!(%error, "the data folder cannot be written");
    internal()
}

pub(super) fn event(kind: &'static str, id: Uuid, data: serde_json::Value) -> NewEvent {
    NewEvent {
        kind,
        subject_kind: "device",
        subject: id,
        data,
    }
}

pub(super) fn audited(
    id: Uuid,
    before: Option<serde_json::Value>,
    after: Option<serde_json::Value>,
) -> Audited {
    Audited {
        object_kind: "device",
        object: id,
        before,
        after,
    }
}

/// The outcome of a change after which the device is there.
async fn changed(
    app: &App,
    id: Uuid,
    kind: &'static str,
    before: serde_json::Value,
    after: serde_json::Value,
) -> Result<Done, Problem> {
    let state = app.device_state(id).await?;
    let source = app.engine.locations.of(id);
    Ok(Done {
        touched: vec![Touched::Device(facts::of_device(&state, source.as_ref()))],
        show: Show::Device { id, status: 200 },
        event: Some(event(kind, id, after.clone())),
        audited: audited(id, Some(before), Some(after)),
    })
}

/// Names a device.
pub async fn rename(app: &App, operation: Uuid, id: Uuid, name: Option<String>) -> Result<Done, Problem> {
    let before = app.device_state(id).await?.name;
    let wanted = name.clone();
    app.verb(async move |appliance| {
        appliance
            .rename_device(OperationId(operation), DeviceId(id), wanted.as_deref())
            .await
    })
    .await?;
    changed(
        app,
        id,
        "device.changed",
        json!({"name": before}),
        json!({"name": name}),
    )
    .await
}

/// Makes a device a spare, or none any more.
pub async fn set_spare(app: &App, operation: Uuid, id: Uuid, wanted: Spare) -> Result<Done, Problem> {
    let before = spare(app.device_state(id).await?.spare);
    let for_whom = match wanted {
        Spare::None => None,
        Spare::Shared => Some(SpareFor::All),
        Spare::RaidGroup { raid_group } => Some(SpareFor::Group(GroupId(raid_group))),
    };
    app.verb(async move |appliance| {
        appliance
            .set_spare(OperationId(operation), DeviceId(id), for_whom)
            .await
    })
    .await?;
    changed(
        app,
        id,
        "device.spare_changed",
        json!({"spare": before}),
        json!({"spare": wanted}),
    )
    .await
}

/// Takes a device out of service.
pub async fn fail(app: &App, operation: Uuid, id: Uuid) -> Result<Done, Problem> {
    let before = app.device_state(id).await?.taken_out;
    app.verb(async move |appliance| appliance.fail_device(OperationId(operation), DeviceId(id)).await)
        .await?;
    let after = json!({"state": "failed", "taken_out": true});
    changed(app, id, "device.taken_out", json!({"taken_out": before}), after).await
}

/// Whether a device can be given back: not while it serves.
///
/// # Errors
/// [`ProblemType::DeviceInService`].
pub async fn check_returnable(app: &App, id: Uuid) -> Result<(), Problem> {
    let state = app.device_state(id).await?;
    if state.present && state.failure.is_none() {
        return Err(of_verb(&VerbError::DeviceServes(state.record.number)));
    }
    Ok(())
}

/// Takes a device into service again.
pub async fn give_back(app: &App, operation: Uuid, id: Uuid) -> Result<Done, Problem> {
    let before = app.device_state(id).await?.taken_out;
    // Where it serves although it did not when the operation began, a start has taken it, after a crash.
    if !app.answered(operation).await? && check_returnable(app, id).await.is_ok() {
        let source = app.engine.locations.of(id).ok_or_else(|| {
            Problem::new(
                ProblemType::DeviceAbsent,
                "where the device is found on this machine is not known",
                "add it with its source",
            )
        })?;
        let held = app
            .engine
            .with(async move |appliance| appliance.held_device(DeviceId(id)))
            .await
            .map_err(|error| of_engine(&error))?;
        let device = reopened(app, source, held).await?;
        app.verb(async move |appliance| appliance.return_device(OperationId(operation), device).await)
            .await?;
    }
    changed(
        app,
        id,
        "device.taken_back",
        json!({"taken_out": before}),
        json!({"state": "in_service", "taken_out": false}),
    )
    .await
}

/// The device, open and answering: anew, or as it is held, for a file cannot be opened a second time.
async fn reopened(
    app: &App,
    source: DeviceSource,
    held: Option<Arc<dyn Device>>,
) -> Result<Arc<dyn Device>, Problem> {
    let is_file = matches!(source, DeviceSource::File { .. });
    let opened = app.engine.run(async move || {
        if let Some(held) = held.clone().filter(|_| is_file)
            && examine(Arc::clone(&held)).await.is_ok()
        {
            return Ok(held);
        }
        match (source::open_blocking(&source).await, held) {
            (Err(_), Some(held)) => Ok(held),
            (opened, _) => opened,
        }
    });
    opened
        .await
        .map_err(|stopped| of_engine(&stopped.into()))?
        .map_err(|error| of_source(&error))
}

/// Gives a device back: it is blank afterwards.
pub async fn remove(app: &App, operation: Uuid, id: Uuid) -> Result<Done, Problem> {
    app.verb(async move |appliance| {
        appliance
            .remove_device(OperationId(operation), DeviceId(id))
            .await
    })
    .await?;
    step("the device is blank");
    app.engine
        .locations
        .forget(id)
        .map_err(|error| file_problem(&error))?;
    Ok(Done {
        touched: vec![Touched::NoDevice(id)],
        show: Show::Nothing,
        event: Some(event("device.removed", id, json!({}))),
        audited: audited(id, Some(json!({"id": id})), None),
    })
}

/// Looks what a device is, changing nothing.
///
/// # Errors
/// Where it cannot be opened or read.
pub async fn look(app: &App, source: DeviceSource) -> Result<Examined, Problem> {
    let looked = app.engine.run(async move || {
        let device = source::open_blocking(&source)
            .await
            .map_err(|error| of_source(&error))?;
        let unreadable = |error: String| {
            Problem::new(
                ProblemType::DeviceCannotBeOpened,
                error,
                "the device cannot be read",
            )
            .at("/source")
        };
        let examined = examine(Arc::clone(&device))
            .await
            .map_err(|error| unreadable(error.to_string()))?;
        let foreign = signature::examine(&*device)
            .await
            .map_err(|error| unreadable(error.to_string()))?;
        let info = device.info();
        Ok(Examined {
            capacity_bytes: Bytes(info.capacity),
            block_bytes: Natural(info.block),
            signatures: foreign.iter().map(ToString::to_string).collect(),
            appliance_device: examined.as_ref().map(described),
        })
    });
    looked.await.map_err(|stopped| of_engine(&stopped.into()))?
}

fn described(examined: &ashlar_engine::appliance::Examined) -> ExaminedDevice {
    let superblock = &examined.superblock;
    ExaminedDevice {
        appliance: superblock.appliance.0,
        device: superblock.device.0,
        number: Natural(superblock.number.0),
        sequence: Bytes(superblock.sequence),
        metadata_generation: examined.metadata_generation.map(Bytes),
        metadata_is_damaged: examined.metadata_is_damaged,
        raid_group: examined.group.as_ref().map(|group| group.id.0),
        raid_group_number: examined.group.as_ref().map(|group| Natural(group.number.0)),
    }
}
