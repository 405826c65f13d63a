//! What an operation answers, made from the rows as its transaction leaves them.

use ashlar_openapi::operations::{
    AddDevice, ChangeAppliance, CreateExport, CreateRaidGroup, CreateVolume, GetJob, ReplaceMember,
};
use ashlar_openapi::raid_groups::{RaidGroupMade, Waste};
use ashlar_openapi::volumes::VolumeMade;
use ashlar_openapi::{Natural, Operation as _, Range};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Answer, App, appliance, devices, exports, jobs, raid_groups, volumes};
use crate::catalog::CatalogError;

/// What is to be shown.
pub enum Show {
    Nothing,
    Appliance,
    Device {
        id: Uuid,
        status: u16,
    },
    RaidGroupMade {
        id: Uuid,
        waste: Vec<Waste>,
    },
    RaidGroup {
        id: Uuid,
    },
    VolumeMade {
        id: Uuid,
        status: u16,
        mapped: Vec<Range>,
        trimmed: Vec<Natural>,
    },
    Volume {
        id: Uuid,
    },
    Export {
        id: Uuid,
        status: u16,
    },
    /// A job that is made with the operation.
    Job(jobs::NewJob),
}

impl Show {
    /// # Errors
    /// As the catalog's; also where the object has gone meanwhile.
    pub async fn answer(
        self,
        app: &App,
        connection: &mut PgConnection,
        operation: Uuid,
    ) -> Result<Answer, CatalogError> {
        match self {
            Self::Nothing => Ok(Answer::nothing::<ashlar_openapi::operations::RemoveDevice>()),
            Self::Appliance => {
                let (body, tag) = appliance::show(app, connection).await?;
                Ok(Answer::of::<ChangeAppliance>(&body).tagged(tag))
            }
            Self::Device { id, status } => {
                let (body, tag) = found(devices::show(app, connection, id).await?)?;
                let answer = Answer::of::<AddDevice>(&body).tagged(tag);
                Ok(made(answer, status, "devices", id))
            }
            Self::RaidGroupMade { id, waste } => {
                let (group, tag) = found(raid_groups::show(app, connection, id).await?)?;
                let body = RaidGroupMade {
                    capacity_bytes: group.capacity_bytes,
                    logical_devices: group.logical_devices,
                    raid_group: Some(group),
                    waste,
                };
                let answer = Answer::of::<CreateRaidGroup>(&body).tagged(tag);
                Ok(made(answer, CreateRaidGroup::STATUS, "raid-groups", id))
            }
            Self::RaidGroup { id } => {
                let (body, tag) = found(raid_groups::show(app, connection, id).await?)?;
                Ok(Answer::of::<ashlar_openapi::operations::GetRaidGroup>(&body).tagged(tag))
            }
            Self::VolumeMade {
                id,
                status,
                mapped,
                trimmed,
            } => {
                let (volume, tag) = found(volumes::show(app, connection, id).await?)?;
                let body = VolumeMade {
                    volume: Some(volume),
                    mapped,
                    trimmed,
                };
                let answer = Answer::of::<CreateVolume>(&body).tagged(tag);
                Ok(made(answer, status, "volumes", id))
            }
            Self::Volume { id } => {
                let (body, tag) = found(volumes::show(app, connection, id).await?)?;
                Ok(Answer::of::<ashlar_openapi::operations::GetVolume>(&body).tagged(tag))
            }
            Self::Export { id, status } => {
                let (body, tag) = found(exports::show(app, connection, id).await?)?;
                let answer = Answer::of::<CreateExport>(&body).tagged(tag);
                Ok(made(answer, status, "exports", id))
            }
            Self::Job(new) => {
                let job = jobs::make(connection, new, Some(operation)).await?;
                let tag = super::etag(job.version, job.created_at);
                let body = jobs::view(&job, None);
                let answer = Answer::of::<GetJob>(&body)
                    .tagged(tag)
                    .status(ReplaceMember::STATUS);
                Ok(answer.located(format_args!("/jobs/{}", job.id)))
            }
        }
    }
}

fn found<T>(found: Option<T>) -> Result<T, CatalogError> {
    found.ok_or(CatalogError::NotFound)
}

fn made(answer: Answer, status: u16, path: &str, id: Uuid) -> Answer {
    let answer = answer.status(status);
    if status == 201 {
        answer.located(format_args!("/{path}/{id}"))
    } else {
        answer
    }
}
