//! Brings the catalog to what the engine says, each time that the catalog was reached. Never the other way round: nothing
//! is destroyed and nothing made again (R9).
//!
//! What the engine knows and the catalog does not is *adopted*; what only the catalog knows is *missing*. Unfinished
//! operations are rolled forward where the catalog is this appliance's newest one, and abandoned where it is a restored
//! dump.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ashlar_openapi::appliance::{CatalogRebuilt, Import};
use ashlar_openapi::operations::{ImportAppliance, RebuildCatalog};
use ashlar_openapi::{Natural, Problem, ProblemType};
use sqlx::PgConnection;
use uuid::Uuid;

use super::change::{Audited, Begun, Change, NewEvent};
use super::facts::Facts;
use super::intent::Intent;
use super::refusals::of_engine;
use super::{Answer, App, Caller, accounts, appliance, catalog_problem};
use crate::catalog::{
    Catalog, CatalogError, Found, Identity, Presence, Reconciled, devices, exports, idempotency, identity,
    mirror, operations, raid_groups, volumes,
};
use crate::engine::{EngineError, EngineState, ImportError};
use crate::steps::step;

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
        // One that never had a device is nobody's.
        && identity.epoch > 0
    {
        return Err(format!(
            "it is the catalog of appliance {}, and this is {id}: give each appliance a database of its own",
            identity.appliance
        )
        .into());
    }
    app.apply_rate_limit().await;
    let epoch = app.epoch().await;
    if !found.continued && app.knows_more_than(&catalog).await? {
        abandon_all(&catalog).await?;
    }
    if *app.engine.state().borrow() == EngineState::Open {
        let mirrored = app.mirror(&catalog, Presence::Adopted).await?;
        if mirrored.adopted + mirrored.missing > 0 {
            tracing::info!(?mirrored, "the catalog was brought to what the devices say");
        }
    }
    accounts::first_admin(&catalog, &app.data_dir)
        .await
        .map_err(|problem| problem.to_string())?;
    Ok(Identity { appliance: id, epoch })
}

/// Gives up what is unfinished in a restored dump. Its keys are free: whoever asks again, asks anew. Sessions that were
/// ended since would be good again: all end.
async fn abandon_all(catalog: &Catalog) -> Result<(), CatalogError> {
    let mut transaction = catalog.begin().await?;
    let abandoned = operations::abandon_all(&mut transaction).await?;
    for operation in &abandoned {
        idempotency::release_of_operation(&mut transaction, *operation).await?;
    }
    crate::catalog::refresh_tokens::revoke_all(&mut transaction).await?;
    transaction.commit().await?;
    tracing::warn!(
        abandoned = abandoned.len(),
        "the catalog is an older one that was restored"
    );
    Ok(())
}

impl App {
    /// Whether the catalog is an older one than the one that the engine's changes were written down in: the engine hears
    /// of an operation only after that, so that the newest one it knows stands in every catalog that is not older. What
    /// was pruned counts as older: then nothing was changed for long, and nothing is unfinished.
    async fn knows_more_than(&self, catalog: &Catalog) -> Result<bool, CatalogError> {
        let newest = self
            .engine
            .with(async |appliance| appliance.newest_operation().await)
            .await;
        let Ok(Some(newest)) = newest else {
            return Ok(false);
        };
        let mut connection = catalog.acquire().await?;
        Ok(operations::get(&mut connection, newest.0).await?.is_none())
    }

    /// The engine's count of starts; 0 where there is no appliance yet.
    pub async fn epoch(&self) -> i64 {
        let epoch = self.engine.with(async |appliance| appliance.epoch().await).await;
        epoch
            .ok()
            .and_then(|epoch| i64::try_from(epoch).ok())
            .unwrap_or(0)
    }

    /// Brings every mirrored row to what the engine says.
    ///
    /// # Errors
    /// As the catalog's.
    pub async fn mirror(&self, catalog: &Catalog, new_as: Presence) -> Result<Mirrored, CatalogError> {
        let mut transaction = catalog.begin().await?;
        mirror::lock(&mut transaction).await?;
        let mut facts = self
            .facts()
            .await
            .map_err(|error| CatalogError::Unavailable(error.to_string()))?;
        // What an unfinished operation makes is not adopted: it is known when that is rolled forward.
        facts.leave_out(&being_made(&mut transaction).await?);
        let mirrored = write(&mut transaction, &facts, new_as, BATCH).await?;
        transaction.commit().await?;
        Ok(mirrored)
    }

    /// Makes the catalog's records anew from the devices: everything there is is known, what is missing is forgotten.
    ///
    /// # Errors
    /// Where the catalog or the engine is away.
    pub async fn rebuild_catalog(&self, caller: &Caller) -> Result<Answer, Problem> {
        let mut change = match Change::begin(&self.catalog, caller).await? {
            Begun::New(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        let connection = change.connection();
        // What is changed after the facts are read waits for what is written of them.
        let locked = mirror::lock(connection).await;
        locked.map_err(|error| catalog_problem(&error))?;
        let facts = self.facts().await.map_err(|error| of_engine(&error))?;
        let written = async {
            let mirrored = write(connection, &facts, Presence::Present, BATCH).await?;
            Ok::<_, CatalogError>((mirrored, forget(connection).await?))
        };
        let (mirrored, forgotten) = written.await.map_err(|error| catalog_problem(&error))?;
        let rebuilt = CatalogRebuilt {
            adopted: number(mirrored.adopted),
            forgotten: number(forgotten),
            renewed: number(mirrored.known),
        };
        self.note(
            &mut change,
            "appliance.catalog_rebuilt",
            serde_json::json!(rebuilt),
        );
        change.commit(Answer::of::<RebuildCatalog>(&rebuilt)).await
    }

    /// Takes over the appliance that these devices carry. Its exports are off.
    ///
    /// # Errors
    /// Where there is an appliance already, or the devices carry none.
    pub async fn import(&self, caller: &Caller, import: Import) -> Result<Answer, Problem> {
        let mut change = match Change::begin(&self.catalog, caller).await? {
            Begun::New(change) => change,
            Begun::Answered(answer) => return Ok(answer),
        };
        self.take_over(&import).await?;
        step("the devices are imported");
        let facts = self.facts().await.map_err(|error| of_engine(&error))?;
        let (id, epoch) = (self.engine.id().0, self.epoch().await);
        let connection = change.connection();
        let written = async {
            write(connection, &facts, Presence::Present, BATCH).await?;
            // Where a crash cut this off, the start after it has adopted them.
            forget(connection).await?;
            identity::set(connection, Identity { appliance: id, epoch }).await
        };
        written.await.map_err(|error| catalog_problem(&error))?;
        self.note(
            &mut change,
            "appliance.imported",
            serde_json::json!({"devices": facts.devices.len()}),
        );
        let (body, tag) = appliance::look(self).await;
        change
            .commit(Answer::of::<ImportAppliance>(&body).tagged(tag))
            .await
    }

    /// Opens the devices, unless the same import has done so before a crash.
    async fn take_over(&self, import: &Import) -> Result<(), Problem> {
        let imported = self.engine.import(import.sources.clone()).await;
        imported
            .map_err(|error| of_engine(&error))?
            .map_err(|error| match error {
                ImportError::NotBlank => Problem::new(
                    ProblemType::ApplianceNotBlank,
                    error.to_string(),
                    "import into an appliance with a new data folder",
                ),
                ImportError::Devices(why) => {
                    let correction = "give all devices of one appliance, and none that is in use";
                    Problem::new(ProblemType::DeviceCannotBeOpened, why, correction).at("/sources")
                }
            })
    }

    fn note(&self, change: &mut Change<'_>, kind: &'static str, data: serde_json::Value) {
        let id = self.engine.id().0;
        change.event(NewEvent {
            kind,
            subject_kind: "appliance",
            subject: id,
            data: data.clone(),
        });
        change.audit(Audited {
            object_kind: "appliance",
            object: id,
            before: None,
            after: Some(data),
        });
    }

    async fn facts(&self) -> Result<Facts, EngineError> {
        let places: BTreeMap<_, _> = self.engine.locations.known().into_iter().collect();
        self.engine
            .with(async move |appliance| Facts::read(appliance, &places).await)
            .await
    }
}

/// Objects that unfinished operations make.
async fn being_made(connection: &mut PgConnection) -> Result<BTreeSet<Uuid>, CatalogError> {
    let unfinished = operations::unfinished(connection).await?;
    let makes = |operation: &operations::Operation| {
        let intent = serde_json::from_value::<Intent>(operation.intent.clone());
        intent.is_ok_and(|intent| intent.creates())
    };
    let made = unfinished.iter().filter(|operation| makes(operation));
    Ok(made.map(|operation| operation.object_id).collect())
}

fn number(count: usize) -> Natural {
    super::devices::count(count)
}

/// Runs one kind of objects: marks those missing that have gone, then brings the others up to date.
macro_rules! one_kind {
    ($connection:expr, $table:ident, $facts:expr, $new_as:expr, $batch:expr, $mirrored:expr) => {{
        let known: BTreeSet<Uuid> = $table::known($connection)
            .await?
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        let there: BTreeSet<Uuid> = $facts.iter().map(|facts| facts.id).collect();
        let gone: Vec<Uuid> = known.difference(&there).copied().collect();
        for gone in gone.chunks($batch) {
            $mirrored.missing +=
                usize::try_from($table::set_presence($connection, gone, Presence::Missing).await?)
                    .unwrap_or(usize::MAX);
        }
        for facts in $facts.chunks($batch) {
            $table::make_way($connection, facts).await?;
        }
        for facts in $facts.chunks($batch) {
            $table::upsert($connection, facts, $new_as).await?;
        }
        $mirrored.adopted += there.difference(&known).count();
        $mirrored.known += there.intersection(&known).count();
    }};
}

/// Brings every mirrored row to these facts, so many objects in each statement.
///
/// # Errors
/// As the catalog's.
pub async fn write(
    connection: &mut PgConnection,
    facts: &Facts,
    new_as: Presence,
    batch: usize,
) -> Result<Mirrored, CatalogError> {
    let mut mirrored = Mirrored::default();
    one_kind!(connection, devices, facts.devices, new_as, batch, mirrored);
    one_kind!(
        connection,
        raid_groups,
        facts.raid_groups,
        new_as,
        batch,
        mirrored
    );
    one_kind!(connection, volumes, facts.volumes, new_as, batch, mirrored);
    one_kind!(connection, exports, facts.exports, new_as, batch, mirrored);
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
