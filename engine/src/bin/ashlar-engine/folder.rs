//! The folder of an appliance: which devices it has and how they are opened.
//!
//! `DIR/devices` has a line per device: `direct PATH`, `buffered PATH` (relative to the folder) or `nbd URI`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ashlar_engine::device::remote::{RemoteDevice, RemoteOptions};
use ashlar_engine::device::{CachePolicy, Device, OpenOptions, file};
use ashlar_engine::nbd::uri::NbdUri;

use crate::Failure;

/// How one device is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    File {
        path: PathBuf,
        cache: CachePolicy,
    },
    /// An export of another server.
    Remote(NbdUri),
}

impl Source {
    fn parse(line: &str) -> Result<Self, Failure> {
        let (kind, place) = line
            .split_once(' ')
            .ok_or_else(|| format!("not a device: {line:?}"))?;
        match kind {
            "direct" => Ok(Self::File {
                path: place.into(),
                cache: CachePolicy::Direct,
            }),
            "buffered" => Ok(Self::File {
                path: place.into(),
                cache: CachePolicy::Buffered,
            }),
            "nbd" => Ok(Self::Remote(place.parse()?)),
            _ => Err(format!("not a kind of device: {kind:?}").into()),
        }
    }

    fn line(&self) -> String {
        match self {
            Self::File {
                path,
                cache: CachePolicy::Direct,
            } => format!("direct {}", path.display()),
            Self::File {
                path,
                cache: CachePolicy::Buffered,
            } => format!("buffered {}", path.display()),
            Self::Remote(uri) => format!("nbd {uri}"),
        }
    }

    /// The file that holds the device, where it is one.
    pub(crate) fn file(&self, folder: &Path) -> Option<PathBuf> {
        match self {
            Self::File { path, .. } => Some(folder.join(path)),
            Self::Remote(_) => None,
        }
    }

    /// Opens the device; a file that does not exist is made with `size` bytes where that is given.
    pub(crate) async fn open(&self, folder: &Path, size: Option<u64>) -> Result<Arc<dyn Device>, Failure> {
        match self {
            Self::File { path, cache } => {
                let path = folder.join(path);
                let options = OpenOptions {
                    cache: Some(*cache),
                    ..OpenOptions::default()
                };
                let device = match size {
                    Some(size) if !path.exists() => file::create(&path, size, &options)?,
                    _ => file::adopt(&path, &options)?,
                };
                Ok(Arc::new(device))
            }
            Self::Remote(uri) => Ok(RemoteDevice::connect(uri, RemoteOptions::default()).await?),
        }
    }
}

fn list(folder: &Path) -> PathBuf {
    folder.join("devices")
}

/// Whether an appliance was made here.
pub(crate) fn is_made(folder: &Path) -> bool {
    list(folder).exists()
}

pub(crate) fn write(folder: &Path, sources: &[Source]) -> Result<(), Failure> {
    let text: String = sources.iter().map(|source| source.line() + "\n").collect();
    Ok(std::fs::write(list(folder), text)?)
}

pub(crate) fn read(folder: &Path) -> Result<Vec<Source>, Failure> {
    let text = std::fs::read_to_string(list(folder)).map_err(|error| {
        format!(
            "{}: no appliance here ({error}); make one with `create`",
            folder.display()
        )
    })?;
    text.lines().map(Source::parse).collect()
}
