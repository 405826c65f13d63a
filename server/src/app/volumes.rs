//! Volumes: making, naming, enlarging, placing, deleting, and where their addresses lie.

use ashlar_engine::appliance::{NewPlacements, NewVolume as EngineVolume, VolumeStatus};
use ashlar_engine::map::{Layout, Placement as EnginePlacement, Planned};
use ashlar_engine::types::geometry::HEADS;
use ashlar_engine::types::{ByteRange, EmulationType, GroupId, OperationId, VolumeId};
use ashlar_openapi::values::Track;
use ashlar_openapi::volumes::{
    Expand, Geometry, MorePlacements, NewVolume, Placement, PlacementLayout, Volume, VolumeMade, VolumeState,
};
use ashlar_openapi::{Bytes, Extent, Natural, Problem, ProblemType, Range, Timestamp};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::change::{Audited, NewEvent};
use super::devices::{bytes, count, natural, presence};
use super::operations::Done;
use super::refusals::{bounded, of_engine, of_range, to_range};
use super::show::Show;
use super::touched::Touched;
use super::{App, facts, no_such};
use crate::catalog::{self, CatalogError};
use crate::engine::EngineError;

/// The type of a volume where none is given.
const USUAL_TYPE: &str = "open-512";

/// A volume as the engine has it.
pub struct Live {
    pub status: VolumeStatus,
    mapped: u64,
}

impl App {
    /// What the engine says of volumes; nothing of those that it does not know.
    pub async fn live_volumes(&self, ids: Vec<Uuid>) -> Result<Vec<Option<Live>>, EngineError> {
        self.engine
            .with(async move |appliance| {
                let mut found = Vec::new();
                for id in ids {
                    let status = appliance.find_volume(VolumeId(id)).await;
                    found.push(status.map(|status| Live {
                        mapped: mapped_bytes(&status),
                        status,
                    }));
                }
                found
            })
            .await
    }

    /// The engine's state of one volume, which must exist.
    pub async fn volume_status(&self, id: Uuid) -> Result<VolumeStatus, Problem> {
        let found = self
            .engine
            .with(async move |appliance| appliance.find_volume(VolumeId(id)).await);
        let found = found.await.map_err(|error| of_engine(&error))?;
        found.ok_or_else(|| no_such("volume", id))
    }

    /// What making a volume would give.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn preview_volume(&self, id: Uuid, new: NewVolume) -> Result<VolumeMade, Problem> {
        let wanted = engine_volume(id, new)?;
        self.preview(async move |appliance| appliance.preview_volume(&wanted).await)
            .await
    }

    /// What placing more would give.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn preview_placements(&self, id: Uuid, more: MorePlacements) -> Result<VolumeMade, Problem> {
        let emulation = self.volume_status(id).await?.record.emulation;
        let wanted = engine_placements(emulation, &more)?;
        self.preview(async move |appliance| appliance.preview_placements(VolumeId(id), &wanted).await)
            .await
    }

    /// What expanding would give.
    ///
    /// # Errors
    /// Why it would be refused.
    pub async fn preview_expand(&self, id: Uuid, expand: Expand) -> Result<VolumeMade, Problem> {
        let rest = expand.raid_group.map(GroupId);
        self.preview(async move |appliance| {
            appliance
                .preview_expand(VolumeId(id), expand.capacity_bytes.0, rest)
                .await
        })
        .await
    }

    async fn preview(
        &self,
        verb: impl AsyncFnOnce(
            &ashlar_engine::appliance::Appliance,
        ) -> Result<Planned, ashlar_engine::appliance::VerbError>
        + Send
        + 'static,
    ) -> Result<VolumeMade, Problem> {
        let planned = self.verb(verb).await?;
        Ok(VolumeMade {
            volume: None,
            mapped: planned.mapped.iter().map(to_range).collect(),
            trimmed: planned.trimmed().map(Natural).collect(),
        })
    }
}

fn mapped_bytes(status: &VolumeStatus) -> u64 {
    status.mapped
}

/// The bytes that a range of the request means.
fn resolve(emulation: EmulationType, extent: Extent) -> Result<ByteRange, Problem> {
    match extent {
        Extent::Bytes(range) => bounded(range.offset.0, range.length.0),
        Extent::Tracks(tracks) => {
            let at = |track: Track| ashlar_engine::types::extent::TrackAddress {
                cylinder: track.cylinder.0,
                head: track.head.0,
            };
            let tracks = ashlar_engine::types::Extent::Tracks {
                from: at(tracks.from),
                to: at(tracks.to),
            };
            // The capacity is checked with the rest of the placements.
            tracks
                .resolve(emulation, u64::MAX)
                .map_err(|error| of_range(&error))
        }
    }
}

fn engine_placements_of(
    emulation: EmulationType,
    placements: &[Placement],
) -> Result<Vec<EnginePlacement<GroupId>>, Problem> {
    let one = |(index, placement): (usize, &Placement)| {
        let at = |problem: Problem| problem.at(format!("/placements/{index}/range"));
        Ok(EnginePlacement {
            range: resolve(emulation, placement.range).map_err(at)?,
            group: GroupId(placement.raid_group),
        })
    };
    placements.iter().enumerate().map(one).collect()
}

fn layout(layout: PlacementLayout) -> Layout {
    match layout {
        PlacementLayout::Aligned => Layout::Aligned,
        PlacementLayout::Packed => Layout::DEFAULT_PACKED,
    }
}

fn engine_placements(emulation: EmulationType, more: &MorePlacements) -> Result<NewPlacements, Problem> {
    Ok(NewPlacements {
        placements: engine_placements_of(emulation, &more.placements)?,
        layout: layout(more.layout),
        exact: more.exact,
    })
}

fn engine_volume(id: Uuid, new: NewVolume) -> Result<EngineVolume, Problem> {
    let wanted = new.emulation_type.as_deref().unwrap_or(USUAL_TYPE);
    let emulation: EmulationType =
        wanted
            .parse()
            .map_err(|error: ashlar_engine::types::geometry::UnknownEmulationType| {
                Problem::new(
                    ProblemType::EmulationUnsupported,
                    error.to_string(),
                    "use one of the types that there are",
                )
                .at("/emulation_type")
                .allowing(EmulationType::ALL.map(|(name, _)| name))
            })?;
    Ok(EngineVolume {
        id: Some(VolumeId(id)),
        number: new
            .number
            .map(|number| ashlar_engine::types::VolumeNumber(number.0)),
        name: new.name.into_string(),
        emulation,
        capacity: new.capacity_bytes.map(|capacity| capacity.0),
        placements: engine_placements_of(emulation, &new.placements)?,
        rest: new.raid_group.map(GroupId),
        layout: layout(new.layout),
        exact: new.exact,
    })
}

/// A volume as the contract has it.
pub fn view(row: &catalog::volumes::Volume, live: Option<&Live>) -> Option<Volume> {
    let emulation: Option<EmulationType> = row.emulation.parse().ok();
    Some(Volume {
        id: row.id,
        number: natural(row.number),
        name: row.name.parse().ok()?,
        emulation_type: row.emulation.clone(),
        geometry: emulation.and_then(geometry),
        capacity_bytes: bytes(row.capacity),
        block_bytes: Natural(emulation.map_or(0, EmulationType::block)),
        partial: row.partial,
        mapped_bytes: Bytes(live.map_or(0, |live| live.mapped)),
        runs: live.map_or(Natural(0), |live| count(live.status.runs)),
        state: match live {
            Some(live) if live.status.serving => VolumeState::Serving,
            _ => VolumeState::NotServing,
        },
        presence: presence(row.presence),
        created_at: Timestamp(row.created_at),
        updated_at: Timestamp(row.updated_at),
    })
}

fn geometry(emulation: EmulationType) -> Option<Geometry> {
    let EmulationType::Ckd(model) = emulation else {
        return None;
    };
    Some(Geometry {
        cylinders: Natural(model.cylinders()),
        heads: Natural(HEADS),
        track_bytes: Bytes(model.slot()),
    })
}

/// A volume's row, as the contract has it, with its ETag.
pub async fn show(
    app: &App,
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<Option<(Volume, String)>, CatalogError> {
    let Some(row) = catalog::volumes::get(connection, id).await? else {
        return Ok(None);
    };
    let live = app
        .live_volumes(vec![id])
        .await
        .ok()
        .and_then(|mut found| found.pop().flatten());
    let volume = view(&row, live.as_ref());
    Ok(volume.map(|volume| (volume, super::etag(row.version, row.updated_at))))
}

fn event(kind: &'static str, id: Uuid, data: serde_json::Value) -> NewEvent {
    NewEvent {
        kind,
        subject_kind: "volume",
        subject: id,
        data,
    }
}

fn audited(id: Uuid, before: Option<serde_json::Value>, after: Option<serde_json::Value>) -> Audited {
    Audited {
        object_kind: "volume",
        object: id,
        before,
        after,
    }
}

/// What a volume is, for events and the audit log.
fn told(status: &VolumeStatus) -> serde_json::Value {
    let record = &status.record;
    json!({
        "number": record.number.0,
        "name": record.name,
        "emulation_type": record.emulation.to_string(),
        "capacity_bytes": record.capacity,
    })
}

/// Makes a volume.
pub async fn create(app: &App, operation: Uuid, id: Uuid, new: NewVolume) -> Result<Done, Problem> {
    let wanted = engine_volume(id, new)?;
    given(app, id, 201, "volume.created", None, async move |appliance| {
        appliance.create_volume(OperationId(operation), &wanted).await
    })
    .await
}

/// Maps more ranges.
pub async fn place(app: &App, operation: Uuid, id: Uuid, more: MorePlacements) -> Result<Done, Problem> {
    let before = app.volume_status(id).await?;
    let wanted = engine_placements(before.record.emulation, &more)?;
    given(
        app,
        id,
        200,
        "volume.placed",
        Some(told(&before)),
        async move |appliance| {
            appliance
                .place_more(OperationId(operation), VolumeId(id), &wanted)
                .await
        },
    )
    .await
}

/// Gives more capacity.
pub async fn expand(app: &App, operation: Uuid, id: Uuid, expand: Expand) -> Result<Done, Problem> {
    let before = told(&app.volume_status(id).await?);
    let (capacity, rest) = (expand.capacity_bytes.0, expand.raid_group.map(GroupId));
    given(
        app,
        id,
        200,
        "volume.expanded",
        Some(before),
        async move |appliance| {
            appliance
                .expand_volume(OperationId(operation), VolumeId(id), capacity, rest)
                .await
        },
    )
    .await
}

/// The outcome of a verb that gave a volume space.
async fn given(
    app: &App,
    id: Uuid,
    status: u16,
    kind: &'static str,
    before: Option<serde_json::Value>,
    verb: impl AsyncFnOnce(
        &ashlar_engine::appliance::Appliance,
    )
        -> Result<ashlar_engine::appliance::VolumeMade, ashlar_engine::appliance::VerbError>
    + Send
    + 'static,
) -> Result<Done, Problem> {
    let made = app.verb(verb).await?;
    let stands = app.volume_status(id).await?;
    let mapped: Vec<Range> = made.mapped.iter().copied().map(to_range).collect();
    let after = told(&stands);
    Ok(Done {
        touched: vec![Touched::Volume(facts::of_volume(&stands))],
        show: Show::VolumeMade {
            id,
            status,
            mapped,
            trimmed: made.trimmed.iter().copied().map(Natural).collect(),
        },
        event: Some(event(kind, id, after.clone())),
        audited: audited(id, before, Some(after)),
    })
}

/// Renames a volume.
pub async fn rename(app: &App, operation: Uuid, id: Uuid, name: String) -> Result<Done, Problem> {
    let before = app.volume_status(id).await?.record.name;
    let wanted = name.clone();
    app.verb(async move |appliance| {
        appliance
            .rename_volume(OperationId(operation), VolumeId(id), &wanted)
            .await
    })
    .await?;
    let after = json!({"name": name});
    Ok(Done {
        touched: vec![Touched::Volume(facts::of_volume(&app.volume_status(id).await?))],
        show: Show::Volume { id },
        event: Some(event("volume.changed", id, after.clone())),
        audited: audited(id, Some(json!({"name": before})), Some(after)),
    })
}

/// Deletes a volume.
pub async fn delete(app: &App, operation: Uuid, id: Uuid) -> Result<Done, Problem> {
    app.verb(async move |appliance| {
        appliance
            .delete_volume(OperationId(operation), VolumeId(id))
            .await
    })
    .await?;
    Ok(Done {
        touched: vec![Touched::NoVolume(id)],
        show: Show::Nothing,
        event: Some(event("volume.deleted", id, json!({}))),
        audited: audited(id, Some(json!({"id": id})), None),
    })
}
