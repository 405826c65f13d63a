//! Where the appliance's devices are found on this machine: a list in the data folder. It is a local fact, which is why
//! it stands neither on the devices nor in the catalog.
//!
//! Invariant: a device's location is in the list before the device is made part of the appliance, and leaves it only
//! after the device has.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ashlar_openapi::devices::DeviceSource;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files::{self, FileError};

/// A device's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Not known where the device could not be read.
    #[serde(default)]
    pub device: Option<Uuid>,
    pub source: DeviceSource,
}

/// The list.
#[derive(Debug)]
pub struct Locations {
    path: PathBuf,
    list: Mutex<Vec<Location>>,
}

impl Locations {
    /// # Errors
    /// Where the list cannot be read.
    pub fn open(folder: &Path) -> Result<Self, FileError> {
        let path = folder.join("devices.json");
        let list = files::read_json(&path)?.unwrap_or_default();
        Ok(Self {
            path,
            list: Mutex::new(list),
        })
    }

    pub fn sources(&self) -> Vec<DeviceSource> {
        self.lock()
            .iter()
            .map(|location| location.source.clone())
            .collect()
    }

    /// Where a device is found.
    pub fn of(&self, device: Uuid) -> Option<DeviceSource> {
        let list = self.lock();
        let found = list.iter().find(|location| location.device == Some(device));
        found.map(|location| location.source.clone())
    }

    /// Every device whose place is known.
    pub fn known(&self) -> Vec<(Uuid, DeviceSource)> {
        let list = self.lock();
        let known = list
            .iter()
            .filter_map(|location| Some((location.device?, location.source.clone())));
        known.collect()
    }

    /// Notes that a device is found there.
    ///
    /// # Errors
    /// Where the file system refuses; the list is then as it was.
    pub fn note(&self, device: Uuid, source: &DeviceSource) -> Result<(), FileError> {
        self.edit(|list| {
            list.retain(|location| {
                location.device != Some(device) && place(&location.source) != place(source)
            });
            list.push(Location {
                device: Some(device),
                source: source.clone(),
            });
        })
    }

    /// Takes a device out of the list.
    ///
    /// # Errors
    /// As [`Self::note`].
    pub fn forget(&self, device: Uuid) -> Result<(), FileError> {
        self.edit(|list| list.retain(|location| location.device != Some(device)))
    }

    /// Replaces the whole list.
    ///
    /// # Errors
    /// As [`Self::note`].
    pub fn replace(&self, locations: Vec<Location>) -> Result<(), FileError> {
        self.edit(|list| *list = locations)
    }

    fn edit(&self, edit: impl FnOnce(&mut Vec<Location>)) -> Result<(), FileError> {
        let mut list = self.lock();
        let mut next = list.clone();
        edit(&mut next);
        if next != *list {
            files::write_json(&self.path, &next)?;
            *list = next;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Location>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What makes two sources the same place.
pub fn place(source: &DeviceSource) -> &str {
    match source {
        DeviceSource::File { path, .. } | DeviceSource::Block { path, .. } => path,
        DeviceSource::Nbd { uri } => uri,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> DeviceSource {
        DeviceSource::File {
            path: path.into(),
            size_bytes: None,
            cache: None,
        }
    }

    #[test]
    fn what_was_noted_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        let locations = Locations::open(folder.path()).unwrap();
        locations.note(one, &file("/a")).unwrap();
        locations.note(other, &file("/b")).unwrap();
        // The place of a device that came to nothing is another's now.
        locations.note(one, &file("/b")).unwrap();
        let again = Locations::open(folder.path()).unwrap();
        assert_eq!(again.known(), [(one, file("/b"))]);
        again.forget(one).unwrap();
        assert!(Locations::open(folder.path()).unwrap().sources().is_empty());
    }
}
