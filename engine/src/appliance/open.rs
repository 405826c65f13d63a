//! Starting: a new appliance, or the one that a set of devices carries (R6).
//!
//! Order: superblocks → copies of the metadata → election → for each group, whether it may start → holders → members
//! that are absent are recorded as out → groups → volumes → members that came back begin to join.
//!
//! Invariants: nothing is written before it is known which copy counts; a group starts only where more than half of
//! the holders are there, or all members in sync of its newest known record, and no newer metadata is lost to damage; or
//! by the user's word.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::devices::{descends, label_new};
use super::error::VerbError;
use super::journal::{self, Ledger, Present, choose_holders};
use super::records::{DeviceRecord, GroupSlices, Record, Truth, VolumeTruth};
use super::{Appliance, GroupSlot, Working};
use crate::device::superblock::{self, SuperblockError};
use crate::device::{Device, DeviceHandle};
use crate::logical_device::{Allocator, SliceLength, SliceState, Slices};
use crate::map::VolumeMap;
use crate::metadata::{Elected, HolderCopy, Store, StoreError, elect};
use crate::planted::{self, Planted};
use crate::raid::membership::Journal;
use crate::raid::{Group, GroupRecord, MemberStatus};
use crate::types::{ApplianceId, DeviceId, DeviceNumber, EmulationType, GroupNumber, IdSource, VolumeNumber};

/// Owner of slices that could not be cleared: no volume has this number.
const NOBODY: VolumeNumber = VolumeNumber(u32::MAX);

/// Why a group waits whose record is not to be relied on.
const UNSOUND: &str = "its stored record contradicts itself or its devices";

/// What the user says at a start.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Start groups although members are absent that may know better, or newer metadata is damaged: what only they know
    /// is given up.
    pub force: bool,
    /// After a divergence: this device's copy counts.
    pub prefer: Option<DeviceId>,
    /// Start nothing and write nothing: only what the metadata says can be asked for.
    pub look_only: bool,
}

/// Why an appliance could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("none of the devices belongs to an appliance")]
    NoAppliance,
    #[error("the devices belong to different appliances: {0} and {1}")]
    Mixed(ApplianceId, ApplianceId),
    #[error(
        "two of the devices say that they are device {0}: one is a copy of the other, or both are the same"
    )]
    DeviceTwice(DeviceNumber),
    #[error("no device holds the appliance's metadata")]
    NoMetadata,
    #[error("a device cannot be read: {0}")]
    Superblock(#[from] SuperblockError),
    #[error("metadata: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Verb(#[from] VerbError),
}

/// A group that was not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingGroup {
    pub why: &'static str,
    /// Devices whose coming would help.
    pub missing: Vec<DeviceId>,
}

impl Appliance {
    /// Starts a new appliance on these devices. With `force` whatever they hold is given up.
    pub async fn create(
        devices: Vec<Arc<dyn Device>>,
        force: bool,
        ids: IdSource,
    ) -> Result<Self, VerbError> {
        let id = ApplianceId::random(&ids);
        let mut labelled = Vec::new();
        for (number, device) in (0..).map(DeviceNumber).zip(devices) {
            labelled.push(label_new(device, id, number, &ids, force).await?);
        }
        let areas = labelled
            .iter()
            .map(|(handle, superblock)| (Arc::clone(handle), superblock.layout.metadata));
        let store = Store::<Truth>::create(areas.collect(), ids.clone()).await?;
        let mut records = vec![Record::Appliance(id)];
        records.extend(labelled.iter().map(|(handle, superblock)| {
            let capacity = handle.info().capacity;
            Record::Device(DeviceRecord {
                number: superblock.number,
                id: handle.id(),
                capacity,
            })
        }));
        store.commit(records).await?;
        let found = labelled
            .into_iter()
            .map(|(handle, superblock)| Present { handle, superblock });
        Ok(Self::assemble(id, ids, store, found.collect()))
    }

    fn assemble(id: ApplianceId, ids: IdSource, store: Store<Truth>, found: Vec<Present>) -> Self {
        let present = found
            .into_iter()
            .map(|found| (found.handle.id(), found))
            .collect();
        let ledger = Ledger {
            store,
            present: Mutex::new(present),
            ids: ids.clone(),
        };
        Self {
            id,
            ids,
            ledger: Arc::new(ledger),
            groups: RefCell::new(BTreeMap::new()),
            volumes: RefCell::new(BTreeMap::new()),
            working: tokio::sync::Mutex::new(Working::default()),
        }
    }

    /// Opens the appliance that these devices carry. What cannot be served yet waits, and says why.
    pub async fn open(
        devices: Vec<Arc<dyn Device>>,
        options: &OpenOptions,
        ids: IdSource,
    ) -> Result<Self, OpenError> {
        let found = find(devices).await?;
        let id = found.first().ok_or(OpenError::NoAppliance)?.superblock.appliance;
        if let Some(other) = found.iter().find(|found| found.superblock.appliance != id) {
            return Err(OpenError::Mixed(id, other.superblock.appliance));
        }
        if let Some(number) = named_twice(&found) {
            return Err(OpenError::DeviceTwice(number));
        }
        let mut copies = Vec::new();
        for found in &found {
            // A device whose metadata area cannot be read is no holder; its group sees to the rest.
            if let Ok(copy) =
                HolderCopy::read(Arc::clone(&found.handle), found.superblock.layout.metadata).await
            {
                copies.push(copy);
            }
        }
        let elected = elect::elect(&copies, options.prefer).ok_or(OpenError::NoMetadata)?;
        let store = Store::<Truth>::open(&copies, &elected, ids.clone()).await?;
        let starts = decide(&store, &found, &elected, options, &ids).await;
        if options.look_only {
            let waiting = starts
                .into_iter()
                .filter(|(_, start)| matches!(start, Start::Wait(_)))
                .collect();
            let appliance = Self::assemble(id, ids, store, found);
            appliance.hold_back_all(waiting);
            return Ok(appliance);
        }
        let every_group_starts =
            !starts.is_empty() && starts.values().all(|start| matches!(start, Start::Now(_)));
        let forced = options.force || options.prefer.is_some() || planted::is(Planted::NewestPresentWins);
        let is_whole = elected.diverged.is_empty() && elected.damaged.is_empty();
        let may_write = elected.quorum || forced || (is_whole && every_group_starts);
        let taken = if may_write {
            store
                .take_holders(choose_holders(found.clone(), &elected.named), forced)
                .await
        } else {
            Err(StoreError::NotTaken)
        };
        let starts = match taken {
            Ok(()) => starts,
            Err(error) => {
                tracing::warn!(%error, "the appliance waits for more of its devices");
                let waits = |start| match start {
                    Start::Now(_) => {
                        Start::Wait(wait("too few metadata holders are there", &elected.missing))
                    }
                    waiting @ Start::Wait(_) => waiting,
                };
                starts
                    .into_iter()
                    .map(|(number, start)| (number, waits(start)))
                    .collect()
            }
        };
        Self::assemble(id, ids, store, found).begin(starts).await
    }

    async fn begin(self, starts: BTreeMap<GroupNumber, Start>) -> Result<Self, OpenError> {
        {
            let mut working = self.working.lock().await;
            for (number, start) in starts {
                match start {
                    Start::Now(record) => self.start_group(&mut working, *record).await?,
                    Start::Wait(waiting) => self.hold_back(number, waiting),
                }
            }
            self.start_volumes(&mut working).await;
        }
        self.rejoin_all().await;
        Ok(self)
    }

    fn hold_back_all(&self, starts: BTreeMap<GroupNumber, Start>) {
        for (number, start) in starts {
            if let Start::Wait(waiting) = start {
                self.hold_back(number, waiting);
            }
        }
    }

    pub(super) fn hold_back(&self, number: GroupNumber, waiting: WaitingGroup) {
        tracing::warn!(group = %number, why = waiting.why, "RAID group waits");
        self.groups
            .borrow_mut()
            .insert(number, GroupSlot::Waiting(waiting));
    }

    async fn start_group(&self, working: &mut Working, record: GroupRecord) -> Result<(), OpenError> {
        let number = record.number;
        let Ok(slice) = SliceLength::try_from(record.slice) else {
            self.hold_back(number, wait(UNSOUND, &[]));
            return Ok(());
        };
        let slices = slice.slices_in(record.layout.capacity());
        if let Err(error) = working
            .numbering
            .restore(number, record.first_logical_device, slices)
        {
            tracing::error!(group = %number, %error, "stored numbers of logical devices contradict each other");
            self.hold_back(number, wait("its stored numbers contradict another group's", &[]));
            return Ok(());
        }
        let devices = self.member_devices(&record);
        let in_sync: Vec<_> = record
            .members
            .iter()
            .zip(&devices)
            .filter(|(member, _)| member.status == MemberStatus::InSync)
            .filter_map(|(_, device)| device.clone())
            .collect();
        // Before anything is written that an absent member would miss.
        let recorded = self.ledger.record(&record, &in_sync).await;
        let journal = Arc::clone(&self.ledger) as Arc<dyn Journal>;
        let opened = match recorded {
            Ok(()) => Group::open(record, devices, journal)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match opened {
            Ok(group) => self.serve_group(working, Arc::new(group), slice, slices),
            Err(error) => {
                tracing::error!(group = %number, error, "RAID group cannot be opened");
                self.hold_back(number, wait("it could not be opened", &[]));
            }
        }
        Ok(())
    }

    /// Clears what removed volumes left behind, then brings allocators and volumes back.
    async fn start_volumes(&self, working: &mut Working) {
        for owned in self.ledger.store.read(|truth| truth.clearing.clone()).await {
            if let Err(error) = self.clear_slices(owned).await {
                tracing::warn!(group = %owned.group, %error, "freed space could not be cleared and is not used");
            }
        }
        // Looked at in place: the volumes are most of what the metadata holds.
        self.ledger
            .store
            .read(|truth| {
                restore_allocators(working, truth);
                for VolumeTruth { record, runs, .. } in truth.volumes.values() {
                    match VolumeMap::new(runs.clone()) {
                        Ok(map) => self.serve_volume(record, map),
                        Err(error) => {
                            tracing::error!(volume = %record.number, %error, "stored map contradicts itself");
                        }
                    }
                }
            })
            .await;
    }

    /// Members that are there but out begin to get what they missed.
    async fn rejoin_all(&self) {
        let present: Vec<Present> = self.ledger.present().values().cloned().collect();
        for Present { handle, superblock } in present {
            let out = self.groups.borrow().values().any(|slot| match slot {
                GroupSlot::Serving { group, .. } => {
                    let record = group.record();
                    record
                        .member(handle.id())
                        .is_some_and(|at| record.members[at].status != MemberStatus::InSync)
                }
                GroupSlot::Waiting(_) => false,
            });
            if out && let Err(error) = self.rejoin(&handle, &superblock).await {
                tracing::warn!(device = %superblock.number, %error, "member cannot be taken in again");
            }
        }
    }
}

pub(super) fn wait(why: &'static str, missing: &[DeviceId]) -> WaitingGroup {
    WaitingGroup {
        why,
        missing: missing.to_vec(),
    }
}

/// The allocators of every group that is served, as the stored volumes own its slices.
fn restore_allocators(working: &mut Working, truth: &Truth) {
    let mut states: BTreeMap<GroupNumber, Vec<SliceState>> = BTreeMap::new();
    for GroupSlices { group, slices } in &truth.clearing {
        // Whatever type: what counts is that nobody gets them.
        let formatted_for = Some(EmulationType::ALL[0].1);
        states.entry(*group).or_default().push(SliceState {
            slices: *slices,
            owner: Some(NOBODY),
            formatted_for,
        });
    }
    for (number, volume) in &truth.volumes {
        for GroupSlices { group, slices } in &volume.slices {
            let formatted_for = Some(volume.record.emulation);
            states.entry(*group).or_default().push(SliceState {
                slices: *slices,
                owner: Some(*number),
                formatted_for,
            });
        }
    }
    for (number, owned) in states {
        let Some(allocator) = working.allocators.get(number) else {
            continue;
        };
        let (slice, total) = (allocator.slice_length(), allocator.total());
        let restored = Allocator::restore(slice, &with_free(owned, total))
            .ok()
            .filter(|restored| restored.total() == total);
        let restored = restored.unwrap_or_else(|| {
            tracing::error!(group = %number, "stored slices contradict each other or their group: none is given out");
            Allocator::new(slice, 0)
        });
        working.allocators.insert(number, restored);
    }
}

/// The states of a group's slices, those that nobody owns put in between.
fn with_free(mut owned: Vec<SliceState>, total: u32) -> Vec<SliceState> {
    owned.sort_unstable_by_key(|state| state.slices);
    let free = |first: u32, end: u32| {
        (first < end).then(|| SliceState {
            slices: Slices::between(first, end),
            owner: None,
            formatted_for: None,
        })
    };
    let mut states = Vec::new();
    let mut at = 0;
    for state in owned {
        states.extend(free(at, state.slices.first));
        at = state.slices.end();
        states.push(state);
    }
    states.extend(free(at, total));
    states
}

/// Reads the superblocks; devices without one are left alone.
async fn find(devices: Vec<Arc<dyn Device>>) -> Result<Vec<Present>, SuperblockError> {
    let mut found = Vec::new();
    for device in devices {
        let probe = DeviceHandle::new(DeviceId(uuid::Uuid::nil()), Arc::clone(&device));
        match superblock::read(&probe).await {
            Ok(Some(superblock)) => {
                let handle = Arc::new(DeviceHandle::new(superblock.device, device));
                found.push(Present { handle, superblock });
            }
            Ok(None) => {}
            Err(SuperblockError::Device(error)) => tracing::warn!(%error, "a device cannot be read"),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// A device that was found twice. Only one of them would be written, and nobody could tell later which one counts.
fn named_twice(found: &[Present]) -> Option<DeviceNumber> {
    let mut seen = BTreeSet::new();
    let twice = found.iter().find(|found| !seen.insert(found.handle.id()))?;
    Some(twice.superblock.number)
}

/// What becomes of a group at a start.
enum Start {
    /// With this record: members that are absent are out.
    Now(Box<GroupRecord>),
    Wait(WaitingGroup),
}

async fn decide(
    store: &Store<Truth>,
    found: &[Present],
    elected: &Elected,
    options: &OpenOptions,
    ids: &IdSource,
) -> BTreeMap<GroupNumber, Start> {
    let known: Vec<GroupRecord> = store.read(|truth| truth.groups.values().cloned().collect()).await;
    known
        .into_iter()
        .map(|record| (record.number, decide_group(record, found, elected, options, ids)))
        .collect()
}

fn decide_group(
    stored: GroupRecord,
    found: &[Present],
    elected: &Elected,
    options: &OpenOptions,
    ids: &IdSource,
) -> Start {
    if !elected.diverged.is_empty() && options.prefer.is_none() {
        return Start::Wait(wait(
            "copies of the metadata went different ways: say which counts",
            &elected.diverged,
        ));
    }
    if !elected.damaged.is_empty() && !options.force && options.prefer.is_none() {
        return Start::Wait(wait(
            "the newest metadata is damaged on the devices that are here",
            &elected.damaged,
        ));
    }
    let payload = |device: DeviceId| {
        let found = found.iter().find(|found| found.handle.id() == device)?;
        Some(found.superblock.layout.payload)
    };
    if !stored.is_sound(payload) {
        return Start::Wait(wait(UNSOUND, &[]));
    }
    let labels: Vec<GroupRecord> = found
        .iter()
        .filter_map(|found| found.superblock.member.as_ref())
        .filter(|label| label.group == stored.id)
        .filter_map(|label| journal::decode(&label.record))
        .filter(|label| label.number == stored.number && label.descends_from(stored.membership))
        .filter(|label| label.is_sound(payload))
        .collect();
    let newest = labels.into_iter().fold(stored, |best, label| {
        if label.membership.generation > best.membership.generation {
            label
        } else {
            best
        }
    });
    let there = |device: DeviceId| {
        found
            .iter()
            .any(|found| found.handle.id() == device && descends(&newest, &found.superblock))
    };
    let absent: Vec<DeviceId> = newest.in_sync().filter(|device| !there(*device)).collect();
    let may_start =
        elected.quorum || absent.is_empty() || options.force || planted::is(Planted::NewestPresentWins);
    if !may_start {
        return Start::Wait(wait(
            "members or metadata holders that may know better are absent",
            &absent,
        ));
    }
    let record = if absent.is_empty() {
        newest
    } else {
        newest.changed(ids, |members| {
            for member in members
                .iter_mut()
                .filter(|member| absent.contains(&member.device))
            {
                member.status = MemberStatus::Out;
            }
        })
    };
    let copies = record.layout.copies();
    let complete = record
        .members
        .chunks(copies)
        .all(|column| column.iter().any(|member| member.status == MemberStatus::InSync));
    if complete {
        Start::Now(Box::new(record))
    } else {
        Start::Wait(wait("too many members are absent", &absent))
    }
}
