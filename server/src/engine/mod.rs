//! The engine as the server drives it: an appliance on the data plane's first thread, spoken to by messages.
//!
//! Invariants: nothing of the appliance leaves its thread but answers. While a call runs, the appliance is not stopped.
//! It is *blank* only as long as no device was ever made part of it, which stands in the data folder: an appliance that
//! cannot be opened is never taken for a new one.

pub mod copying;
pub mod locations;
mod opening;
pub mod serve;
pub mod source;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ashlar_engine::appliance::{self, Appliance, DeviceMade, NewAppliance, NewDevice, VerbError};
use ashlar_engine::export::Registry;
use ashlar_engine::runtime::{DataPlane, StartError, Stopped};
use ashlar_engine::types::{ApplianceId, IdSource, OperationId};
use ashlar_engine::volume::Volume;
use ashlar_openapi::devices::DeviceSource;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard, RwLock, watch};
use uuid::Uuid;

use crate::files::{self, FileError};
use locations::Locations;
use opening::{Opened, open_appliance, unlabelled};
use source::WhereNoted;

/// How long running requests may take at the end.
const GRACE: Duration = Duration::from_secs(30);

/// How the engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// No device was ever added.
    Blank,
    Open,
    /// The devices could not be opened, and why.
    Unavailable(String),
    Stopped,
}

/// Why the engine did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    #[error("the appliance has no device yet")]
    Blank,
    #[error("the appliance's devices could not be opened: {0}")]
    Unavailable(String),
    #[error("the appliance is stopping")]
    Stopping,
}

impl From<Stopped> for EngineError {
    fn from(_: Stopped) -> Self {
        Self::Stopping
    }
}

/// Why an appliance is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error("the appliance has devices of its own")]
    NotBlank,
    #[error("{0}")]
    Devices(String),
}

/// What the data folder says of the appliance itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    id: Uuid,
    /// Its first device was made part of it.
    made: bool,
    /// From where it was taken over, where it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    imported: Vec<DeviceSource>,
}

thread_local! {
    /// On the data plane's first thread: the appliance, while there is one.
    static APPLIANCE: Rc<RwLock<Option<Appliance>>> = Rc::default();
}

/// The appliance, once the data plane runs it.
pub struct Engine {
    plane: Arc<DataPlane>,
    identity_path: PathBuf,
    identity: std::sync::Mutex<Identity>,
    pub locations: Arc<Locations>,
    /// Held by whoever makes devices part of the appliance.
    turn: Mutex<()>,
    /// Where the appliance offers its exports, also while there is none.
    pub registry: Arc<Registry<Volume>>,
    state: watch::Sender<EngineState>,
}

/// Why there is no engine at all.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Engine {
    /// Starts the data plane, and opens the appliance that the data folder tells of.
    ///
    /// # Errors
    /// Where the data folder or the threads cannot be used. Devices that cannot be opened are no error: the state says
    /// so.
    pub async fn begin(folder: &Path, threads: usize) -> Result<Self, BeginError> {
        let identity_path = folder.join("appliance.json");
        let identity = match files::read_json(&identity_path)? {
            Some(identity) => identity,
            None => {
                let identity = Identity {
                    id: Uuid::new_v4(),
                    made: false,
                    imported: Vec::new(),
                };
                files::write_json(&identity_path, &identity)?;
                identity
            }
        };
        let engine = Self {
            plane: Arc::new(DataPlane::start(threads)?),
            identity_path,
            identity: std::sync::Mutex::new(identity),
            locations: Arc::new(Locations::open(folder)?),
            turn: Mutex::default(),
            registry: Arc::default(),
            state: watch::Sender::new(EngineState::Blank),
        };
        engine.open().await;
        Ok(engine)
    }

    /// The appliance's identity.
    pub fn id(&self) -> ApplianceId {
        ApplianceId(self.identity().id)
    }

    fn identity(&self) -> Identity {
        self.identity
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn set_identity(&self, next: Identity) -> Result<(), FileError> {
        files::write_json(&self.identity_path, &next)?;
        *self
            .identity
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = next;
        Ok(())
    }

    /// How it is, and each change of that.
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }

    /// Waits until nobody else adds devices or takes them over.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    pub fn threads(&self) -> usize {
        self.plane.threads()
    }

    fn options(&self, exports_off: bool) -> appliance::OpenOptions {
        appliance::OpenOptions {
            registry: Arc::clone(&self.registry),
            exports_off,
            ..appliance::OpenOptions::default()
        }
    }

    fn opener(&self) -> Arc<WhereNoted> {
        Arc::new(WhereNoted(Arc::clone(&self.locations)))
    }

    /// Opens what the locations lead to.
    async fn open(&self) {
        let identity = self.identity();
        let mut list = self.locations.all();
        // An import was cut off after it was decided.
        if list.is_empty() {
            list = unlabelled(&identity.imported);
        }
        if list.is_empty() && !identity.made {
            return;
        }
        let (own, options) = (ApplianceId(identity.id), self.options(false));
        let opener = self.opener();
        let opened = self
            .run(move || open_appliance(list, Some(own), options, opener))
            .await;
        let state = match opened {
            Ok(Ok(opened)) => match self.note_opened(opened) {
                Ok(()) => EngineState::Open,
                Err(error) => EngineState::Unavailable(error.to_string()),
            },
            Ok(Err(why)) if identity.made => EngineState::Unavailable(why),
            // The first device was not made to the end: whoever wanted it adds it again.
            Ok(Err(_)) => EngineState::Blank,
            Err(Stopped) => EngineState::Stopped,
        };
        if let EngineState::Unavailable(why) = &state {
            tracing::error!(why, "the appliance's devices could not be opened");
        }
        self.state.send_replace(state);
    }

    /// Keeps what a start has found.
    fn note_opened(&self, opened: Opened) -> Result<(), FileError> {
        self.locations.replace(opened.places)?;
        self.mark_made()
    }

    fn mark_made(&self) -> Result<(), FileError> {
        let identity = self.identity();
        if identity.made {
            return Ok(());
        }
        self.set_identity(Identity {
            made: true,
            ..identity
        })
    }

    /// Makes the appliance on its first device.
    ///
    /// # Errors
    /// The outer one: there is an appliance, or it stops. The inner one: the verb was refused.
    pub async fn create(
        &self,
        operation: OperationId,
        settings: appliance::ApplianceSettings,
        device: NewDevice,
    ) -> Result<Result<DeviceMade, VerbError>, EngineError> {
        let (id, registry, opener) = (self.id(), Arc::clone(&self.registry), self.opener());
        let made = self
            .run(move || async move {
                let place = APPLIANCE.with(Rc::clone);
                let mut place = place.write().await;
                if let Some(appliance) = &*place {
                    return appliance.add_device(operation, device).await;
                }
                let new = NewAppliance {
                    id,
                    settings,
                    devices: vec![device],
                    registry,
                };
                let created = Appliance::create(operation, new, IdSource::from_system()).await?;
                created.set_opener(opener);
                let answer = created.answered(operation).await;
                *place = Some(created);
                match answer {
                    Some(appliance::Answer::Device(made)) => Ok(made),
                    _ => Err(VerbError::OperationReused(operation)),
                }
            })
            .await?;
        if made.is_ok() {
            if let Err(error) = self.mark_made() {
                // The next start finds the device, and marks then.
                tracing::warn!(%error, "the data folder could not be written");
            }
            self.state.send_replace(EngineState::Open);
        }
        Ok(made)
    }

    /// Takes over the appliance that these devices carry, unless that was done before; only where it is blank.
    ///
    /// # Errors
    /// The outer one: it stops. The inner one: why they are not taken over.
    pub async fn import(&self, sources: Vec<DeviceSource>) -> Result<Result<(), ImportError>, EngineError> {
        let _turn = self.turn().await;
        if *self.state.borrow() != EngineState::Blank {
            let is_done = !sources.is_empty() && self.identity().imported == sources;
            return Ok(is_done.then_some(()).ok_or(ImportError::NotBlank));
        }
        let (list, options, opener) = (unlabelled(&sources), self.options(true), self.opener());
        let opened = self
            .run(move || open_appliance(list, None, options, opener))
            .await?;
        let Opened { id, places } = match opened {
            Ok(opened) => opened,
            Err(why) => return Ok(Err(ImportError::Devices(why))),
        };
        // This decides: from here on a start takes the devices over.
        let kept = self
            .set_identity(Identity {
                id: id.0,
                made: true,
                imported: sources,
            })
            .and_then(|()| self.locations.replace(places));
        if let Err(error) = kept {
            self.close().await;
            return Ok(Err(ImportError::Devices(error.to_string())));
        }
        self.state.send_replace(EngineState::Open);
        Ok(Ok(()))
    }

    /// Calls the appliance on its thread.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn with<T: Send + 'static>(
        &self,
        call: impl AsyncFnOnce(&Appliance) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let called = self
            .run(move || async move {
                let place = APPLIANCE.with(Rc::clone);
                let place = place.read().await;
                match &*place {
                    Some(appliance) => Some(call(appliance).await),
                    None => None,
                }
            })
            .await?;
        called.ok_or_else(|| match &*self.state.borrow() {
            EngineState::Unavailable(why) => EngineError::Unavailable(why.clone()),
            EngineState::Stopped => EngineError::Stopping,
            EngineState::Blank | EngineState::Open => EngineError::Blank,
        })
    }

    /// Runs something on the appliance's thread.
    pub(super) fn run<T, F>(
        &self,
        task: impl FnOnce() -> F + Send + 'static,
    ) -> impl Future<Output = Result<T, Stopped>> + Send
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        self.plane.run_on(0, task)
    }

    async fn close(&self) {
        let closed = self.run(|| async {
            let place = APPLIANCE.with(Rc::clone);
            let taken = place.write().await.take();
            if let Some(appliance) = taken {
                appliance.stop().await;
            }
        });
        // Where the thread has ended there is nothing left to close.
        let _ = closed.await;
    }

    /// Ends the appliance in order, after what runs. Connections of hosts must have ended.
    pub async fn stop(&self) {
        self.state.send_replace(EngineState::Stopped);
        self.close().await;
    }

    /// Ends the data plane's threads.
    pub fn end_threads(self) {
        if let Ok(plane) = Arc::try_unwrap(self.plane) {
            plane.stop(GRACE);
        }
    }
}
