//! From where a device is said to be to the open device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ashlar_engine::appliance::{Opener, Opening};
use ashlar_engine::device::remote::{ConnectError, RemoteDevice, RemoteOptions};
use ashlar_engine::device::{CachePolicy, Device, LocalDevice, OpenError, OpenOptions, block, file};
use ashlar_engine::nbd::uri::{NbdUri, UriError};
use ashlar_engine::types::DeviceId;
use ashlar_openapi::devices::{Cache, DeviceSource};

use super::locations::Locations;

/// Why a device cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Local(#[from] OpenError),
    #[error("{uri}: {source}")]
    Remote { uri: String, source: ConnectError },
    #[error("{0}")]
    Uri(#[from] UriError),
    #[error("{0:?} is no absolute path")]
    Path(String),
    #[error("the appliance is stopping")]
    Stopping,
}

/// Opens the appliance's devices where they are noted to be found.
pub(super) struct WhereNoted(pub(super) Arc<Locations>);

impl Opener for WhereNoted {
    fn open(&self, device: DeviceId) -> Opening {
        let source = self.0.of(device.0);
        Box::pin(async move {
            let source = source.ok_or_else(|| "where it is found on this machine is not known".to_owned())?;
            let opened = open_blocking(&source).await;
            opened.map_err(|error| error.to_string())
        })
    }
}

fn options(cache: Option<Cache>) -> OpenOptions {
    OpenOptions {
        cache: cache.map(|cache| match cache {
            Cache::Direct => CachePolicy::Direct,
            Cache::Buffered => CachePolicy::Buffered,
        }),
        ..OpenOptions::default()
    }
}

fn absolute(path: &str) -> Result<PathBuf, SourceError> {
    let good = Path::new(path).is_absolute() && !path.contains('\0');
    good.then(|| PathBuf::from(path))
        .ok_or_else(|| SourceError::Path(path.to_owned()))
}

/// Makes the file that a device is to be, where it is to be made; whether it is.
///
/// # Errors
/// Where it exists, or the file system refuses.
pub async fn create(source: &DeviceSource) -> Result<bool, SourceError> {
    let DeviceSource::File {
        path,
        size_bytes: Some(size),
        cache,
    } = source
    else {
        return Ok(false);
    };
    let (path, size, options) = (absolute(path)?, size.0, options(*cache));
    blocking(move || file::create(&path, size, &options).map(|_| true)).await
}

/// Opens the device; on a data thread. The waiting for the file system is done elsewhere.
///
/// # Errors
/// Where it is not there, or is in use.
pub async fn open_blocking(source: &DeviceSource) -> Result<Arc<dyn Device>, SourceError> {
    match source {
        DeviceSource::File { path, cache, .. } => {
            let (path, options) = (absolute(path)?, options(*cache));
            shared(blocking(move || file::adopt(&path, &options)).await)
        }
        DeviceSource::Block { path, cache } => {
            let (path, options) = (absolute(path)?, options(*cache));
            shared(blocking(move || block::open(&path, &options)).await)
        }
        DeviceSource::Nbd { uri } => {
            let parsed: NbdUri = uri.parse()?;
            let connected = RemoteDevice::connect(&parsed, RemoteOptions::default()).await;
            let device = connected.map_err(|source| SourceError::Remote {
                uri: uri.clone(),
                source,
            })?;
            Ok(device)
        }
    }
}

fn shared(opened: Result<LocalDevice, SourceError>) -> Result<Arc<dyn Device>, SourceError> {
    opened.map(|device| Arc::new(device) as Arc<dyn Device>)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, SourceError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| SourceError::Stopping)??)
}
