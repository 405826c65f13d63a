//! Rows of the mirror that follow a change of the engine, in the transaction that ends the operation.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::catalog::devices::DeviceFacts;
use crate::catalog::exports::ExportFacts;
use crate::catalog::raid_groups::RaidGroupFacts;
use crate::catalog::volumes::VolumeFacts;
use crate::catalog::{CatalogError, Presence, devices, exports, identity, raid_groups, volumes};

/// An object as it is now.
#[derive(Debug, Clone)]
pub enum Touched {
    Device(DeviceFacts),
    NoDevice(Uuid),
    RaidGroup(RaidGroupFacts),
    NoRaidGroup(Uuid),
    Volume(VolumeFacts),
    NoVolume(Uuid),
    Export(ExportFacts),
    NoExport(Uuid),
    /// The engine's count of starts.
    Epoch(i64),
}

/// Brings its row to that.
///
/// # Errors
/// As the catalog's.
pub async fn write(connection: &mut PgConnection, touched: &Touched) -> Result<(), CatalogError> {
    match touched {
        Touched::Device(facts) => {
            devices::upsert(connection, std::slice::from_ref(facts), Presence::Present).await
        }
        Touched::RaidGroup(facts) => {
            raid_groups::upsert(connection, std::slice::from_ref(facts), Presence::Present).await
        }
        Touched::Volume(facts) => {
            volumes::upsert(connection, std::slice::from_ref(facts), Presence::Present).await
        }
        Touched::Export(facts) => {
            exports::upsert(connection, std::slice::from_ref(facts), Presence::Present).await
        }
        Touched::NoDevice(id) => devices::delete(connection, *id).await.map(drop),
        Touched::NoRaidGroup(id) => raid_groups::delete(connection, *id).await.map(drop),
        Touched::NoVolume(id) => volumes::delete(connection, *id).await.map(drop),
        Touched::Epoch(epoch) => identity::set_epoch(connection, *epoch).await,
        Touched::NoExport(id) => exports::delete(connection, *id).await.map(drop),
    }
}
