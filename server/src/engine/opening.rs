//! From places to the appliance that the devices there carry.
//!
//! Invariant: at a start, a disk that is another appliance's is left out wherever it lies, and so is one that was only
//! about to be added: neither may hinder what serves.

use std::collections::BTreeSet;
use std::sync::Arc;

use ashlar_engine::appliance::{Appliance, OpenOptions};
use ashlar_engine::device::superblock::{self, Superblock};
use ashlar_engine::device::{Device, DeviceHandle};
use ashlar_engine::types::{ApplianceId, DeviceId, IdSource};
use ashlar_openapi::devices::DeviceSource;
use uuid::Uuid;

use super::APPLIANCE;
use super::locations::{Location, place};
use super::source::{self, WhereNoted};

/// An appliance that was opened.
pub(super) struct Opened {
    pub id: ApplianceId,
    /// The list that it was opened from, with what stands where.
    pub places: Vec<Location>,
}

/// Places of which nobody has said yet what stands there.
pub(super) fn unlabelled(sources: &[DeviceSource]) -> Vec<Location> {
    let places = sources.iter().map(|source| Location {
        device: None,
        source: source.clone(),
        addition: None,
    });
    places.collect()
}

/// Opens the devices that can be opened, and the appliance that they carry; on the appliance's thread. `own` is which one
/// that has to be, where it is known.
///
/// # Errors
/// Why there is none.
pub(super) async fn open_appliance(
    mut places: Vec<Location>,
    own: Option<ApplianceId>,
    options: OpenOptions,
    opener: Arc<WhereNoted>,
) -> Result<Opened, String> {
    let mut listed: BTreeSet<Uuid> = places.iter().filter_map(|location| location.device).collect();
    let (mut devices, mut left_out): (Vec<Arc<dyn Device>>, Vec<String>) = Default::default();
    for location in &mut places {
        let device = match source::open_blocking(&location.source).await {
            Ok(device) => device,
            Err(error) => {
                tracing::warn!(%error, "a device cannot be opened");
                left_out.push(error.to_string());
                continue;
            }
        };
        let handle = DeviceHandle::new(DeviceId(Uuid::nil()), Arc::clone(&device));
        let label = superblock::read(&handle).await.ok().flatten();
        if let Some(own) = own
            && let Err(why) = check(location, label.as_ref(), own, &listed)
        {
            let place = place(&location.source);
            tracing::warn!(place, why, "a device is left out");
            left_out.push(format!("{place}: {why}"));
            continue;
        }
        if location.device.is_none() {
            location.device = label.map(|label| label.device.0);
            listed.extend(location.device);
        }
        devices.push(device);
    }
    let opened = Appliance::open(devices, &options, IdSource::from_system()).await;
    let appliance = opened.map_err(|error| {
        let left_out: String = left_out.iter().map(|why| format!("; {why}")).collect();
        format!("{error}{left_out}")
    })?;
    let id = appliance.id();
    appliance.set_opener(opener);
    let place = APPLIANCE.with(std::rc::Rc::clone);
    *place.write().await = Some(appliance);
    Ok(Opened { id, places })
}

/// Whether a device is the appliance's, as far as its label tells. What was added to the end is only asked whose it is.
///
/// # Errors
/// Why it is left out.
fn check(
    location: &Location,
    label: Option<&Superblock>,
    own: ApplianceId,
    listed: &BTreeSet<Uuid>,
) -> Result<(), String> {
    match (label, location.device) {
        (Some(label), _) if label.appliance != own => Err(format!(
            "it belongs to appliance {}, and this is {own}",
            label.appliance
        )),
        (_, Some(_)) if location.addition.is_none() => Ok(()),
        (None, _) => Err("it has no label of this appliance".into()),
        (Some(label), Some(wanted)) if label.device.0 != wanted => {
            Err(format!("it is device {}, which is somewhere else", label.device))
        }
        (Some(label), None) if listed.contains(&label.device.0) => {
            Err(format!("it is device {}, which is somewhere else", label.device))
        }
        (Some(_), _) => Ok(()),
    }
}
