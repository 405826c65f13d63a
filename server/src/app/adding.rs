//! Adding a device: whose id and place are, where it is noted, its file, and making it part of the appliance.
//!
//! Invariants: one device at a time is added, so that nobody takes what another one was just found not to have. Nothing
//! is noted and no file is touched before it is known that the appliance has no device of that id. A file is removed
//! only where the list of places says that it was made for this addition.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use ashlar_engine::appliance::{
    ApplianceSettings, DeviceState, NewDevice as EngineDevice, VerbError, examine,
};
use ashlar_engine::device::Device;
use ashlar_engine::types::{DeviceId, OperationId};
use ashlar_openapi::devices::{DeviceSource, NewDevice};
use ashlar_openapi::{Problem, ProblemType};
use serde_json::json;
use uuid::Uuid;

use super::devices::{audited, event, file_problem};
use super::operations::{Done, is_settled};
use super::refusals::{of_engine, of_source, of_verb};
use super::show::Show;
use super::touched::Touched;
use super::{App, facts};
use crate::data_dir;
use crate::engine::locations::{Addition, place};
use crate::engine::{EngineError, EngineState, source};
use crate::steps::step;

/// Adds a device; the first one makes the appliance.
pub async fn add(app: &App, operation: Uuid, id: Uuid, new: NewDevice) -> Result<Done, Problem> {
    let _turn = app.engine.turn().await;
    if !app.answered(operation).await? {
        check_apart(&app.data_dir, &new.source)?;
        check_free(app, id, &new.source).await?;
        if let Err(refused) = prepare_and_add(app, operation, id, &new).await {
            if is_settled(&refused) {
                give_up(app, id, &new.source)?;
            }
            return Err(refused);
        }
    }
    let confirmed = app.engine.locations.confirm(id, &new.source);
    confirmed.map_err(|error| file_problem(&error))?;
    added(app, id, &new.source).await
}

/// Whether the place is none that the data folder, whose path has no links, has for itself.
fn check_apart(data: &Path, source: &DeviceSource) -> Result<(), Problem> {
    let DeviceSource::File { path, .. } = source else {
        return Ok(());
    };
    // What is not there yet is where its folder is; what cannot be found is refused when it is opened.
    let asked = Path::new(path);
    let found = asked.canonicalize().or_else(|error| {
        let (Some(folder), Some(name)) = (asked.parent(), asked.file_name()) else {
            return Err(error);
        };
        folder.canonicalize().map(|folder| folder.join(name))
    });
    let Ok(found) = found else { return Ok(()) };
    match found.strip_prefix(data) {
        Ok(within) if data_dir::is_own(within) => Err(Problem::new(
            ProblemType::InvalidValue,
            format!("{path} belongs to the appliance's data folder"),
            "give a path outside the data folder, or in a folder of its own there",
        )
        .at("/source/path")),
        _ => Ok(()),
    }
}

/// Whether the appliance has no device of that id, and none that serves at that place.
async fn check_free(app: &App, id: Uuid, source: &DeviceSource) -> Result<(), Problem> {
    if known(app, id).await?.is_some() {
        return Err(Problem::new(
            ProblemType::IdTaken,
            format!("device {id} is there already"),
            "choose another id, or leave it out",
        )
        .at("/id"));
    }
    for other in app.engine.locations.at(source) {
        // In the place of one that does not serve there may be another one by now: its label tells.
        let serves = |state: &DeviceState| state.present && state.failure.is_none();
        if let Some(state) = known(app, other).await?.filter(serves) {
            return Err(Problem::new(
                ProblemType::DeviceKnown,
                format!("{} is device {}, {other}", place(source), state.record.number),
                "use another device: this one serves already",
            )
            .at("/source"));
        }
    }
    Ok(())
}

/// What the engine says of a device; nothing where it has none of that id.
async fn known(app: &App, id: Uuid) -> Result<Option<DeviceState>, Problem> {
    let asked = app
        .engine
        .with(async move |appliance| appliance.find_device(DeviceId(id)).await);
    match asked.await {
        Ok(state) => Ok(state),
        Err(EngineError::Blank) => Ok(None),
        Err(error) => Err(of_engine(&error)),
    }
}

async fn prepare_and_add(app: &App, operation: Uuid, id: Uuid, new: &NewDevice) -> Result<(), Problem> {
    prepare(app, id, &new.source).await?;
    open_and_add(app, operation, id, new).await
}

/// Notes where the device will be found, and makes its file where that is wanted.
async fn prepare(app: &App, id: Uuid, source: &DeviceSource) -> Result<(), Problem> {
    let locations = &app.engine.locations;
    let before = locations.addition(id, source);
    if before == Some(Addition::Made) && Path::new(place(source)).exists() {
        return Ok(());
    }
    if let DeviceSource::File {
        path,
        size_bytes: Some(size),
        ..
    } = source
    {
        clear_the_way(Path::new(path), size.0, before)?;
    }
    let noted = locations.note(id, source, Some(Addition::Noted));
    noted.map_err(|error| file_problem(&error))?;
    step("the location is noted");
    if source::create(source).await.map_err(|error| of_source(&error))? {
        step("the file is made");
        let noted = locations.note(id, source, Some(Addition::Made));
        noted.map_err(|error| file_problem(&error))?;
    }
    Ok(())
}

/// A file is made only where there is none. What a crash left of its making holds nothing.
fn clear_the_way(path: &Path, size: u64, before: Option<Addition>) -> Result<(), Problem> {
    let is_empty = |found: &std::fs::Metadata| {
        found.is_file() && found.blocks() == 0 && (found.len() == 0 || found.len() == size)
    };
    match path.symlink_metadata() {
        Ok(found) if before.is_some() && is_empty(&found) => std::fs::remove_file(path).map_err(|error| {
            Problem::new(
                ProblemType::DeviceCannotBeOpened,
                format!("{}: {error}", path.display()),
                "give another path",
            )
            .at("/source/path")
        }),
        Ok(_) => Err(Problem::new(
            ProblemType::DeviceCannotBeOpened,
            format!("{} exists already", path.display()),
            "leave `size_bytes` out to use it as it is, or give another path",
        )
        .at("/source/path")),
        // What else is wrong there, its making says.
        Err(_) => Ok(()),
    }
}

async fn open_and_add(app: &App, operation: Uuid, id: Uuid, new: &NewDevice) -> Result<(), Problem> {
    let wanted = new.source.clone();
    let opened = app
        .engine
        .run(async move || source::open_blocking(&wanted).await)
        .await;
    let device = opened
        .map_err(|stopped| of_engine(&stopped.into()))?
        .map_err(|error| of_source(&error))?;
    let engine_device = EngineDevice {
        id: Some(DeviceId(id)),
        name: new.name.as_ref().map(ToString::to_string),
        force: new.force,
        ..EngineDevice::new(Arc::clone(&device))
    };
    let operation = OperationId(operation);
    let made = if *app.engine.state().borrow() == EngineState::Blank {
        let settings = ApplianceSettings {
            name: app.first_name(),
            ..ApplianceSettings::default()
        };
        app.engine.create(operation, settings, engine_device).await
    } else {
        app.engine
            .with(async move |appliance| appliance.add_device(operation, engine_device).await)
            .await
    };
    match made.map_err(|error| of_engine(&error))? {
        Ok(_) => Ok(()),
        Err(error @ VerbError::DeviceKnown(_)) => Err(found_again(app, device, &new.source, &error).await),
        Err(error) => Err(of_verb(&error)),
    }
}

/// The refusal of a device that is the appliance's already. Where it was absent, this is where it is now: it can be
/// returned from there.
async fn found_again(
    app: &App,
    device: Arc<dyn Device>,
    source: &DeviceSource,
    error: &VerbError,
) -> Problem {
    let mut problem = of_verb(error);
    let label = app.engine.run(async move || examine(device).await).await;
    let Ok(Ok(Some(examined))) = label else {
        return problem;
    };
    let id = examined.superblock.device.0;
    match known(app, id).await {
        Ok(Some(state)) if !state.present => {}
        _ => return problem,
    }
    let locations = &app.engine.locations;
    let noted = locations.note(id, source, None);
    match noted.and_then(|()| locations.confirm(id, source)) {
        Ok(()) => {
            problem.correction.text = format!("return device {id}: its place is known now");
            problem
        }
        Err(error) => file_problem(&error),
    }
}

/// Takes away what only this addition wanted.
fn give_up(app: &App, id: Uuid, source: &DeviceSource) -> Result<(), Problem> {
    let locations = &app.engine.locations;
    if locations.addition(id, source) == Some(Addition::Made)
        && let Err(error) = std::fs::remove_file(place(source))
    {
        tracing::warn!(path = place(source), %error, "a file that was made in vain could not be removed");
    }
    locations.forget(id).map_err(|error| file_problem(&error))
}

async fn added(app: &App, id: Uuid, source: &DeviceSource) -> Result<Done, Problem> {
    let state = app.device_state(id).await?;
    let facts = facts::of_device(&state, Some(source));
    let data = json!({"number": facts.number, "name": facts.name, "location": facts.location, "capacity_bytes": facts.capacity});
    Ok(Done {
        // The first device makes the appliance, and with it the count of starts.
        touched: vec![Touched::Device(facts), Touched::Epoch(app.epoch().await)],
        show: Show::Device { id, status: 201 },
        event: Some(event("device.added", id, data.clone())),
        audited: audited(id, None, Some(data)),
    })
}
