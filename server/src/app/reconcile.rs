//! Brings the catalog to what the engine says, each time that the catalog was reached. Never the other way round: nothing
//! is destroyed and nothing made again (R9).
//!
//! What the engine knows and the catalog does not is *adopted*; what only the catalog knows is *missing*. Unfinished
//! operations are rolled forward where the catalog is this appliance's newest one, and abandoned where it is a restored
//! dump.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ashlar_openapi::appliance::CatalogRebuilt;
use ashlar_openapi::{Natural, Problem};
use sqlx::PgConnection;
use uuid::Uuid;

use super::facts::Facts;
use super::{App, catalog_problem};
use crate::catalog::{
    Catalog, CatalogError, Found, Identity, Presence, Reconciled, devices, exports, operations, raid_groups, volumes,
};
use crate::engine::EngineState;

/// Objects of one bulk statement.
const BATCH: usize = 10_000;

/// What bringing the mirror up to date came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mirrored {
    pub adopted: usize,
    pub missing: usize,
    pub known: usize,
}

/// Called by the catalog's keeper.
pub async fn reconcile(app: Arc<App>, catalog: Catalog, found: Found) -> Reconciled {
    let id = app.engine.id().0;
    if let Some(identity) = found.identity
        && identity.appliance != id
    {
        return Err(format!(
            "it is the catalog of appliance {}, and this is {id}: give each appliance a database of its own",
            identity.appliance
        )
        .into());
    }
    let epoch = app.epoch().await;
    let restored = !found.continued && found.identity.is_some_and(|identity| identity.epoch + 1 < epoch);
    if *app.engine.state().borrow() == EngineState::Open {
        let mirrored = app.mirror(&catalog, Presence::Adopted).await?;
        if mirrored.adopted + mirrored.missing > 0 {
            tracing::info!(?mirrored, "the catalog was brought to what the devices say");
        }
    }
    if restored {
        let mut connection = catalog.acquire().await?;
        let abandoned = operations::abandon_all(&mut connection).await?;
        tracing::warn!(abandoned = abandoned.len(), "the catalog is an older one that was restored");
    }
    Ok(Identity { appliance: id, epoch })
}

impl App {
    /// The engine's count of starts; 0 where there is no appliance yet.
    pub async fn epoch(&self) -> i64 {
        let epoch = self.engine.with(async |appliance| appliance.epoch().await).await;
        epoch.ok().and_then(|epoch| i64::try_from(epoch).ok()).unwrap_or(0)
    }

    /// Brings every mirrored row to what the engine says.
    ///
    /// # Errors
    /// As the catalog's.
    pub async fn mirror(&self, catalog: &Catalog, new_as: Presence) -> Result<Mirrored, CatalogError> {
        let places: BTreeMap<_, _> = self.engine.locations.known().into_iter().collect();
        let read = self.engine.with(async move |appliance| Facts::read(appliance, &places).await).await;
        let facts = read.map_err(|error| CatalogError::Unavailable(error.to_string()))?;
        let mut transaction = catalog.begin().await?;
        let mirrored = write(&mut transaction, &facts, new_as).await?;
        transaction.commit().await?;
        Ok(mirrored)
    }

    /// Makes the catalog's records anew from the devices: everything there is is known, what is missing is forgotten.
    ///
    /// # Errors
    /// Where the catalog or the engine is away.
    pub async fn rebuild_catalog(&self) -> Result<CatalogRebuilt, Problem> {
        let rebuilt = self.catalog.guard(async {
            let mirrored = self.mirror(&self.catalog, Presence::Present).await?;
            let mut transaction = self.catalog.begin().await?;
            let forgotten = forget(&mut transaction).await?;
            transaction.commit().await?;
            Ok::<_, CatalogError>((mirrored, forgotten))
        });
        let (mirrored, forgotten) = rebuilt.await.map_err(|error| catalog_problem(&error))?;
        Ok(CatalogRebuilt {
            adopted: number(mirrored.adopted),
            forgotten: number(forgotten),
            renewed: number(mirrored.known),
        })
    }
}

fn number(count: usize) -> Natural {
    super::devices::count(count)
}

/// Runs one kind of objects: marks those missing that have gone, then brings the others up to date.
macro_rules! one_kind {
    ($connection:expr, $table:ident, $facts:expr, $new_as:expr, $mirrored:expr) => {{
        let known: BTreeSet<Uuid> = $table::known($connection).await?.into_iter().map(|(id, _)| id).collect();
        let there: BTreeSet<Uuid> = $facts.iter().map(|facts| facts.id).collect();
        let gone: Vec<Uuid> = known.difference(&there).copied().collect();
        for gone in gone.chunks(BATCH) {
            $mirrored.missing += usize::try_from($table::set_presence($connection, gone, Presence::Missing).await?)
                .unwrap_or(usize::MAX);
        }
        for facts in $facts.chunks(BATCH) {
            $table::upsert($connection, facts, $new_as).await?;
        }
        $mirrored.adopted += there.difference(&known).count();
        $mirrored.known += there.intersection(&known).count();
    }};
}

async fn write(connection: &mut PgConnection, facts: &Facts, new_as: Presence) -> Result<Mirrored, CatalogError> {
    let mut mirrored = Mirrored::default();
    one_kind!(connection, devices, facts.devices, new_as, mirrored);
    one_kind!(connection, raid_groups, facts.raid_groups, new_as, mirrored);
    one_kind!(connection, volumes, facts.volumes, new_as, mirrored);
    one_kind!(connection, exports, facts.exports, new_as, mirrored);
    Ok(mirrored)
}

/// Deletes the rows of what is missing, and takes what was adopted for known.
async fn forget(connection: &mut PgConnection) -> Result<usize, CatalogError> {
    let mut forgotten = 0;
    macro_rules! one_kind {
        ($table:ident) => {
            let mut adopted = Vec::new();
            for (id, presence) in $table::known(connection).await? {
                match presence {
                    Presence::Missing => forgotten += usize::from($table::delete(connection, id).await?),
                    Presence::Adopted => adopted.push(id),
                    Presence::Present => {}
                }
            }
            $table::set_presence(connection, &adopted, Presence::Present).await?;
        };
    }
    one_kind!(exports);
    one_kind!(volumes);
    one_kind!(raid_groups);
    one_kind!(devices);
    Ok(forgotten)
}
