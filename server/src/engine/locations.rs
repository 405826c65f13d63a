//! Where the appliance's devices are found on this machine: a list in the data folder. It is a local fact, which is why
//! it stands neither on the devices nor in the catalog.
//!
//! Invariants: a device's location is in the list before the device is made part of the appliance, and leaves it only
//! after the device has. Until then it is said to be an addition, which a start trusts no further than the device's own
//! label. Noting one device takes no other one's place away.

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
    /// How far its addition is, where it was not made to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addition: Option<Addition>,
}

/// How far the addition of a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Addition {
    /// What stands there was not made for it.
    Noted,
    /// The file that stands there was made for it.
    Made,
}

impl Location {
    fn is_at(&self, source: &DeviceSource) -> bool {
        place(&self.source) == place(source)
    }
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

    /// The whole list.
    pub fn all(&self) -> Vec<Location> {
        self.lock().clone()
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

    /// The devices that are said to be found there.
    pub fn at(&self, source: &DeviceSource) -> Vec<Uuid> {
        let list = self.lock();
        let there = list.iter().filter(|location| location.is_at(source));
        there.filter_map(|location| location.device).collect()
    }

    /// How far the addition of just this is.
    pub fn addition(&self, device: Uuid, source: &DeviceSource) -> Option<Addition> {
        let list = self.lock();
        let found = list
            .iter()
            .find(|location| location.device == Some(device) && location.source == *source);
        found?.addition
    }

    /// Notes that a device is found there, or is to be added there.
    ///
    /// # Errors
    /// Where the file system refuses; the list is then as it was.
    pub fn note(
        &self,
        device: Uuid,
        source: &DeviceSource,
        addition: Option<Addition>,
    ) -> Result<(), FileError> {
        self.edit(|list| {
            list.retain(|location| location.device != Some(device));
            list.push(Location {
                device: Some(device),
                source: source.clone(),
                addition,
            });
        })
    }

    /// A device was added where it was noted: whatever was there before is not any more.
    ///
    /// # Errors
    /// As [`Self::note`].
    pub fn confirm(&self, device: Uuid, source: &DeviceSource) -> Result<(), FileError> {
        self.edit(|list| {
            list.retain(|location| location.device == Some(device) || !location.is_at(source));
            let own = list.iter_mut().filter(|location| location.device == Some(device));
            own.for_each(|location| location.addition = None);
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
        let one = Uuid::new_v4();
        let locations = Locations::open(folder.path()).unwrap();
        locations.note(one, &file("/a"), None).unwrap();
        locations.note(one, &file("/b"), Some(Addition::Made)).unwrap();
        let again = Locations::open(folder.path()).unwrap();
        assert_eq!(again.known(), [(one, file("/b"))]);
        assert_eq!(again.addition(one, &file("/b")), Some(Addition::Made));
        assert_eq!(again.addition(one, &file("/a")), None);
        again.forget(one).unwrap();
        assert!(Locations::open(folder.path()).unwrap().all().is_empty());
    }

    #[test]
    fn a_place_stays_a_devices_until_another_one_was_added_there() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        let locations = Locations::open(folder.path()).unwrap();
        locations.note(one, &file("/a"), None).unwrap();
        for _ in 0..2 {
            locations.note(other, &file("/a"), Some(Addition::Noted)).unwrap();
            assert_eq!(locations.at(&file("/a")), [one, other]);
            // It was refused.
            locations.forget(other).unwrap();
            assert_eq!(locations.known(), [(one, file("/a"))]);
        }
        locations.note(other, &file("/a"), Some(Addition::Noted)).unwrap();
        locations.confirm(other, &file("/a")).unwrap();
        assert_eq!(locations.known(), [(other, file("/a"))]);
        assert_eq!(locations.addition(other, &file("/a")), None);
    }
}
