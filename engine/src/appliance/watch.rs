//! Looks at devices, groups and volumes from time to time and after each verb, and tells what changed.
//!
//! It looks and changes nothing: what serves does not know of it, and it cannot hold up a request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::journal::Ledger;
use super::out_of_service::BY_HAND;
use super::records::Truth;
use super::{GroupSlot, Groups, Volumes};
use crate::event::{EventKind, Events};
use crate::raid::GroupState;
use crate::types::{DeviceId, GroupId, VolumeId};
use crate::volume::Volume;

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupSeen {
    Serving(GroupState),
    Waiting(&'static str),
}

/// What was seen last.
#[derive(Default)]
struct Seen {
    /// Why a device is out of service.
    devices: BTreeMap<DeviceId, Option<String>>,
    groups: BTreeMap<GroupId, GroupSeen>,
    /// Whether a volume serves.
    volumes: BTreeMap<VolumeId, bool>,
}

/// The watch over an appliance.
pub(super) struct Watch {
    ledger: Arc<Ledger>,
    groups: Groups,
    volumes: Volumes,
    pub(super) events: Arc<Events>,
    seen: RefCell<Seen>,
}

/// Whether all groups of a volume serve.
pub(super) fn serves(volume: &Volume) -> bool {
    let shape = volume.shape();
    shape
        .groups
        .iter()
        .all(|group| group.state() != GroupState::Failed)
}

impl Watch {
    pub(super) fn new(ledger: &Arc<Ledger>, groups: &Groups, volumes: &Volumes, events: Events) -> Rc<Self> {
        Rc::new(Self {
            ledger: Arc::clone(ledger),
            groups: Rc::clone(groups),
            volumes: Rc::clone(volumes),
            events: Arc::new(events),
            seen: RefCell::default(),
        })
    }

    /// Begins to look, for as long as the appliance lives.
    pub(super) async fn begin(self: &Rc<Self>) {
        self.ledger.store.read(|truth| self.note_missing(truth)).await;
        self.look();
        let watch = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                match watch.upgrade() {
                    Some(watch) => watch.look(),
                    None => return,
                }
            }
        });
    }

    /// What belongs here and is not there at the start.
    fn note_missing(&self, truth: &Truth) {
        let seen = &mut *self.seen.borrow_mut();
        for device in truth.devices.values() {
            if !self.ledger.present().contains_key(&device.id) {
                let why = match truth.taken_out.contains(&device.id) {
                    true => BY_HAND,
                    false => "it is not there",
                };
                self.see_device(seen, device.id, Some(why));
            }
        }
        for volume in truth.volumes.values() {
            if !self.volumes.borrow().contains(volume.record.number) {
                self.see_volume(seen, volume.record.id, false);
            }
        }
    }

    /// Looks now.
    pub(super) fn look(&self) {
        let seen = &mut *self.seen.borrow_mut();
        for (id, present) in self.ledger.present().iter() {
            self.see_device(seen, *id, present.handle.failure());
        }
        let now: BTreeMap<GroupId, GroupSeen> = (self.groups.borrow().values())
            .map(|slot| match slot {
                GroupSlot::Serving { group, .. } => (group.id(), GroupSeen::Serving(group.state())),
                GroupSlot::Waiting { id, waiting } => (*id, GroupSeen::Waiting(waiting.why)),
            })
            .collect();
        seen.groups.retain(|id, _| now.contains_key(id));
        let mut changed = false;
        for (id, state) in now {
            changed |= self.see_group(seen, id, state);
        }
        // A volume serves as its groups do: there may be very many, and they change seldom.
        if changed {
            for volume in self.volumes.borrow().values() {
                self.see_volume(seen, volume.id(), serves(volume));
            }
        }
    }

    /// A volume was taken into service, or its larger shape.
    pub(super) fn look_at(&self, volume: &Volume) {
        self.see_volume(&mut self.seen.borrow_mut(), volume.id(), serves(volume));
    }

    /// A device or a volume is gone for good.
    pub(super) fn forget_device(&self, id: DeviceId) {
        self.seen.borrow_mut().devices.remove(&id);
    }

    pub(super) fn forget_volume(&self, id: VolumeId) {
        self.seen.borrow_mut().volumes.remove(&id);
    }

    fn see_device(&self, seen: &mut Seen, device: DeviceId, failure: Option<&str>) {
        let before = seen.devices.get(&device).cloned().flatten();
        match (before, failure) {
            (None, Some(why)) => {
                let why = why.to_owned();
                self.events.emit(EventKind::DeviceFailed { device, why });
            }
            (Some(_), None) => self.events.emit(EventKind::DeviceReturned { device }),
            _ => {}
        }
        seen.devices.insert(device, failure.map(str::to_owned));
    }

    /// Whether it is another state than was seen last.
    fn see_group(&self, seen: &mut Seen, group: GroupId, now: GroupSeen) -> bool {
        let before = seen.groups.insert(group, now);
        match now {
            _ if before == Some(now) => return false,
            GroupSeen::Waiting(why) => self.events.emit(EventKind::GroupWaiting { group, why }),
            GroupSeen::Serving(to) => {
                let from = match before {
                    Some(GroupSeen::Serving(from)) => Some(from),
                    _ => None,
                };
                if from.is_some() || to != GroupState::Optimal {
                    self.events.emit(EventKind::GroupStateChanged { group, from, to });
                }
            }
        }
        true
    }

    fn see_volume(&self, seen: &mut Seen, volume: VolumeId, now: bool) {
        let before = seen.volumes.insert(volume, now).unwrap_or(true);
        match (before, now) {
            (true, false) => self.events.emit(EventKind::VolumeNotServing { volume }),
            (false, true) => self.events.emit(EventKind::VolumeServing { volume }),
            _ => {}
        }
    }
}
