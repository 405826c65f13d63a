//! The appliance itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::devices::DeviceSource;
use crate::operation::content;
use crate::values::{Bytes, Name, Natural, Timestamp, some};

/// Whether the appliance serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApplianceState {
    /// No device was ever added.
    Blank,
    /// Everything serves.
    Serving,
    /// Something waits for devices; `waiting_for` says what.
    Waiting,
    /// The devices could not be opened.
    Unavailable,
}

/// Where the catalog is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatalogKind {
    /// In the appliance's own Postgres.
    Private,
    /// In a database given at the start.
    External,
}

/// The appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Appliance {
    pub id: Uuid,
    /// `null` while it is blank.
    pub name: Option<Name>,
    /// The controller number; `null` while it is blank.
    pub number: Option<Natural>,
    pub state: ApplianceState,
    /// Why not everything serves, for people.
    pub waiting_for: Vec<String>,
    /// Smallest capacity of a new volume.
    pub smallest_volume_bytes: Bytes,
    /// One limit for all background work together, in bytes per second; `null` for none.
    pub rate_limit_bytes_per_s: Option<Bytes>,
    /// Counts the starts.
    pub epoch: Bytes,
    pub started_at: Timestamp,
    /// The program's version.
    pub version: String,
    pub catalog: CatalogKind,
    /// Where hosts attach, as `nbd://HOST:PORT`.
    pub nbd_uri: String,
    pub devices: Natural,
    pub raid_groups: Natural,
    pub volumes: Natural,
    pub exports: Natural,
}

/// An edit of the appliance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplianceChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub number: Option<Natural>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub smallest_volume_bytes: Option<Bytes>,
    /// `null` takes the limit away.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Bytes>)]
    pub rate_limit_bytes_per_s: Option<Option<Bytes>>,
}

/// Devices of an appliance that ran elsewhere, to be taken over whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Import {
    #[schema(min_items = 1, max_items = 1024)]
    pub sources: Vec<DeviceSource>,
}

/// What reading the devices again brought into the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CatalogRebuilt {
    /// Objects that the catalog did not know.
    pub adopted: Natural,
    /// Objects that it knew and the devices do not; their records are gone now.
    pub forgotten: Natural,
    /// Objects whose records were brought up to date.
    pub renewed: Natural,
}

content!(Appliance, ApplianceChange, Import, CatalogRebuilt);
