//! The appliance: builds and recovers everything in order, and the verbs by which it is managed. A server sees only
//! this.
//!
//! Verbs run one at a time. Each checks everything first, then makes its records durable, then changes what serves; so
//! a verb that fails has changed nothing, and one that was answered survives a crash (R11). Each carries the identity of
//! the operation that asks for it, and is done once (R10). What it acts on is named by identity, for numbers are used
//! again.
//!
//! Everything here runs on one data thread; the volumes and groups that it hands out serve on all of them.

mod care;
mod clock;
mod devices;
mod error;
mod exports;
mod format;
mod group_settings;
mod groups;
mod health;
mod journal;
mod look_up;
mod members;
mod names;
mod open;
mod operation;
mod out_of_service;
mod owned_slices;
mod preview;
pub mod records;
mod resume;
mod scrub;
mod scrubs;
mod settings;
mod spares;
mod start;
mod statistics;
mod status;
mod stored_runs;
mod tables;
mod tend;
mod volumes;
mod watch;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::event::Events;
use crate::export::Registry;
use crate::logical_device::{Allocators, Numbering};
use crate::raid::{CopyLimit, Group};
use crate::statistics::Counters;
use crate::types::{ApplianceId, DeviceId, ExportId, GroupId, GroupNumber, IdSource, VolumeId, VolumeNumber};
use crate::volume::Volume;
use care::Caring;
use journal::Ledger;
use scrub::Keeper;
use tables::{Row, Table};
use tend::Tending;
use watch::Watch;

pub use devices::{Examined, NewDevice, examine};
pub use error::VerbError;
pub use exports::{ExportChange, ExportStatus, NewExport};
pub use group_settings::{CareSettings, GroupChange};
pub use groups::{NewGroupRequest, Waste};
pub use health::Health;
pub use look_up::{LogicalDeviceFilter, LogicalDeviceRun, LogicalDeviceState, MapPlace, MapStretch, On};
pub use open::{NewAppliance, OpenError, OpenOptions};
pub use operation::{Answer, DeviceMade, ExportMade, GroupMade, VolumeMade};
pub use preview::GroupPreview;
pub use records::{ApplianceSettings, DeviceRecord, ExportRecord, VolumeRecord};
pub use resume::{Opener, Opening};
pub use scrubs::{ScrubEnded, ScrubSchedule};
pub use settings::SettingsChange;
pub use spares::SpareFor;
pub use start::WaitingGroup;
pub use statistics::Statistics;
pub use status::{DeviceMember, DeviceState, GroupStatus, ScrubStatus, VolumeStatus};
pub use volumes::{NewPlacements, NewVolume};

/// A group that the metadata knows.
enum GroupSlot {
    Serving {
        group: Arc<Group>,
        tending: Tending,
    },
    /// Not started, and why (R6).
    Waiting {
        id: GroupId,
        waiting: WaitingGroup,
    },
}

type Groups = Rc<RefCell<BTreeMap<GroupNumber, GroupSlot>>>;
type Volumes = Rc<RefCell<Table<Arc<Volume>>>>;

impl Row for Arc<Volume> {
    type Key = VolumeNumber;
    type Other = VolumeId;

    fn key(&self) -> VolumeNumber {
        self.number()
    }

    fn other(&self) -> VolumeId {
        self.id()
    }
}

/// What the verbs work on.
#[derive(Default)]
struct Working {
    allocators: Allocators,
    numbering: Numbering,
}

/// A running appliance.
pub struct Appliance {
    id: ApplianceId,
    ids: IdSource,
    ledger: Arc<Ledger>,
    groups: Groups,
    volumes: Volumes,
    registry: Arc<Registry<Volume>>,
    /// An export keeps its own when it is changed and offered anew.
    export_counters: RefCell<BTreeMap<ExportId, Arc<Counters>>>,
    watch: Rc<Watch>,
    keeper: Keeper,
    /// Of all groups together.
    copy_limit: Arc<CopyLimit>,
    working: RefCell<Working>,
    /// Held by the verb that runs, while a spare takes a place, and while a group that stopped is opened anew.
    turn: Rc<tokio::sync::Mutex<()>>,
    caring: Caring,
}

impl Appliance {
    pub fn id(&self) -> ApplianceId {
        self.id
    }

    /// The devices that hold the metadata.
    pub async fn metadata_holders(&self) -> Vec<DeviceId> {
        self.ledger.store.holders().await
    }

    /// What happened since the start.
    pub fn events(&self) -> Arc<Events> {
        Arc::clone(&self.watch.events)
    }

    /// The exports that hosts can attach to at this moment. The appliance offers and withdraws them.
    pub fn registry(&self) -> Arc<Registry<Volume>> {
        Arc::clone(&self.registry)
    }

    /// A serving group.
    pub fn group(&self, number: GroupNumber) -> Option<Arc<Group>> {
        match self.groups.borrow().get(&number) {
            Some(GroupSlot::Serving { group, .. }) => Some(Arc::clone(group)),
            _ => None,
        }
    }

    /// A serving volume.
    pub fn volume(&self, number: VolumeNumber) -> Option<Arc<Volume>> {
        self.volumes.borrow().get(number).cloned()
    }

    /// Every serving volume, by number.
    pub fn volumes(&self) -> Vec<Arc<Volume>> {
        self.volumes.borrow().values().cloned().collect()
    }

    /// Ends everything in order: no request runs afterwards, everything is durable, and no mark is left that the next
    /// start would have to work off, but those of copies that are still being made equal.
    pub async fn stop(self) {
        self.caring.end().await;
        self.withdraw_exports().await;
        for volume in self.volumes() {
            volume.retire().await;
        }
        for slot in self.groups.take().into_values() {
            let GroupSlot::Serving { group, tending } = slot else {
                continue;
            };
            tending.end().await;
            let mut last = 0;
            for _pass in 0..2 {
                if let Err(error) = group.take_back_marks(&mut last).await {
                    tracing::warn!(group = %group.number(), %error, "group could not be left clean");
                }
            }
            // A group with a member missing keeps its marks, but must be durable all the same.
            let _ = group.flush().await;
        }
    }
}

#[cfg(test)]
mod care_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod exports_tests;
#[cfg(test)]
mod operation_tests;
#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod spare_tests;
#[cfg(test)]
mod tests;
