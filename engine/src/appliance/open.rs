//! Starting: a new appliance, or the one that a set of devices carries (R6).
//!
//! Order: superblocks → copies of the metadata → election → devices that an administrator took out are left alone → for
//! each group, whether it may start → holders → members that are absent are recorded as out → groups → volumes → members
//! that came back begin to join.
//!
//! Invariants: nothing is written before it is known which copy counts; a group starts only where more than half of
//! the holders are there, or all members in sync of its newest known record, and no newer metadata is lost to damage; or
//! by the user's word.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use super::care::Caring;
use super::devices::{NewDevice, check_new_devices, check_unmade, device_records, label_new};
use super::error::VerbError;
use super::journal::{Ledger, Present, holders_at_start};
use super::names::check_name;
use super::operation::{DeviceMade, answered};
use super::out_of_service::keep_out;
use super::records::{ApplianceSettings, Record, Truth, VolumeTruth};
use super::resume::Resuming;
use super::scrub::Keeper;
use super::start::{Start, Starts, UNSOUND, WaitingGroup, all_wait, decide, restore_allocators, wait};
use super::watch::Watch;
use super::{Appliance, GroupSlot};
use crate::device::superblock::{self, SuperblockError};
use crate::device::{Device, DeviceHandle};
use crate::event::Events;
use crate::export::Registry;
use crate::logical_device::SliceLength;
use crate::map::VolumeMap;
use crate::metadata::{HolderCopy, Store, StoreError, elect};
use crate::planted::{self, Planted};
use crate::raid::{GroupRecord, MemberStatus};
use crate::types::{
    ApplianceId, ByteRange, DeviceId, DeviceNumber, GroupId, GroupNumber, IdSource, OperationId,
};
use crate::volume::Volume;

/// What the user says at a start.
#[derive(Clone, Default)]
pub struct OpenOptions {
    /// Start groups although members are absent that may know better, or newer metadata is damaged: what only they know
    /// is given up.
    pub force: bool,
    /// After a divergence: this device's copy counts.
    pub prefer: Option<DeviceId>,
    /// Start nothing and write nothing: only what the metadata says can be asked for.
    pub look_only: bool,
    /// Where exports are offered.
    pub registry: Arc<Registry<Volume>>,
    /// Disables every export, durably: who takes over an appliance's devices says himself what is offered.
    pub exports_off: bool,
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
    #[error("appliance {0} was not made to the end: make it again, with the same identity")]
    Unfinished(ApplianceId),
    #[error("a device cannot be read: {0}")]
    Superblock(#[from] SuperblockError),
    #[error("metadata: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Verb(#[from] VerbError),
}

/// An appliance to be made.
pub struct NewAppliance {
    pub id: ApplianceId,
    pub settings: ApplianceSettings,
    /// At least one.
    pub devices: Vec<NewDevice>,
    /// Where exports are offered.
    pub registry: Arc<Registry<Volume>>,
}

impl Appliance {
    /// Starts a new appliance on these devices; the answer that is kept for the operation tells of the first of them.
    /// Devices that an earlier try with the same identity has labelled are taken; where it had got so far that the
    /// metadata names the appliance, this is refused: [`open`](Self::open) it.
    pub async fn create(operation: OperationId, new: NewAppliance, ids: IdSource) -> Result<Self, VerbError> {
        let NewAppliance {
            id,
            settings,
            devices,
            registry,
        } = new;
        check_name(&settings.name)?;
        check_new_devices(&devices)?;
        for device in &devices {
            check_unmade(id, &device.device, &ids).await?;
        }
        let mut labelled = Vec::new();
        let mut records = vec![
            Record::Appliance(id),
            Record::Settings(settings),
            Record::Epoch(1),
        ];
        for (index, device) in (0..).zip(devices) {
            let number = device.number.unwrap_or(DeviceNumber(index));
            let made = DeviceMade {
                number,
                id: device.id.unwrap_or_else(|| DeviceId::random(&ids)),
            };
            let (handle, superblock) = label_new(&device, id, &made, |_| None).await?;
            let capacity = handle.info().capacity;
            records.extend(device_records(&made, capacity, device.name));
            if index == 0 {
                records.push(answered(operation, &made));
            }
            labelled.push(Present { handle, superblock });
        }
        let areas = labelled
            .iter()
            .map(|present| (Arc::clone(&present.handle), present.superblock.layout.metadata));
        let store = Store::<Truth>::create(areas.collect(), ids.clone()).await?;
        store.commit(records).await?;
        let appliance = Self::assemble(id, ids, store, (labelled, registry), Events::new(1));
        appliance.watch.begin().await;
        appliance.caring.begin().await;
        Ok(appliance)
    }

    fn assemble(
        id: ApplianceId,
        ids: IdSource,
        store: Store<Truth>,
        (found, registry): (Vec<Present>, Arc<Registry<Volume>>),
        events: Events,
    ) -> Self {
        let present = found.into_iter().map(|present| (present.handle.id(), present));
        let ledger = Arc::new(Ledger {
            store,
            present: Mutex::new(present.collect()),
            along: Mutex::default(),
            ids: ids.clone(),
        });
        let (groups, volumes) = (Rc::default(), Rc::default());
        let watch = Watch::new(&ledger, &groups, &volumes, events);
        let turn = Rc::default();
        let keeper = Keeper {
            ledger: Arc::clone(&ledger),
            events: Arc::clone(&watch.events),
            clock: Rc::default(),
        };
        let copy_limit = Arc::default();
        let resuming = Resuming {
            id,
            ledger: Arc::clone(&ledger),
            groups: Rc::clone(&groups),
            volumes: Rc::clone(&volumes),
            watch: Rc::clone(&watch),
            turn: Rc::clone(&turn),
            keeper: keeper.clone(),
            copy_limit: Arc::clone(&copy_limit),
            opener: RefCell::default(),
            seen: RefCell::default(),
        };
        Self {
            id,
            ids,
            keeper,
            caring: Caring::over(&ledger, &groups, &watch, &turn, resuming),
            watch,
            ledger,
            groups,
            volumes,
            registry,
            export_counters: RefCell::default(),
            copy_limit,
            working: RefCell::default(),
            turn,
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
        let found = own_devices(&store, id, found).await?;
        let usable = keep_out(&store, &found).await;
        let starts = decide(&store, &usable, &elected, options, &ids).await;
        let epoch = store.read(|truth| truth.epoch).await;
        let next_epoch = epoch.saturating_add(1);
        let registry = Arc::clone(&options.registry);
        if options.look_only {
            let waiting = starts
                .into_iter()
                .filter(|(_, start)| matches!(start, Start::Wait(_)))
                .collect();
            let events = Events::uncounted(epoch);
            let appliance = Self::assemble(id, ids, store, (found, registry), events);
            appliance.hold_back_all(waiting);
            return Ok(appliance);
        }
        let every_group_starts =
            !starts.is_empty() && starts.values().all(|start| matches!(start, Start::Now(_)));
        let forced = options.force || options.prefer.is_some() || planted::is(Planted::NewestPresentWins);
        let is_whole = elected.diverged.is_empty() && elected.damaged.is_empty();
        let may_write = elected.quorum || forced || (is_whole && every_group_starts);
        let taken = if may_write {
            let holders = holders_at_start(usable, &elected.named);
            take(&store, holders, forced, next_epoch).await
        } else {
            Err(StoreError::NotTaken)
        };
        let (starts, events) = match taken {
            Ok(()) => (starts, Events::new(next_epoch)),
            Err(error) => {
                tracing::warn!(%error, "the appliance waits for more of its devices");
                (all_wait(starts, &elected.missing), Events::uncounted(epoch))
            }
        };
        let appliance = Self::assemble(id, ids, store, (found, registry), events);
        if options.exports_off {
            appliance.disable_exports().await?;
        }
        appliance.begin(starts).await
    }

    async fn begin(self, starts: Starts) -> Result<Self, OpenError> {
        self.ledger.carry_errors_on().await;
        for ((number, id), start) in starts {
            match start {
                Start::Now(record) => self.start_group(*record).await?,
                Start::Wait(waiting) => {
                    self.hold_back(number, id, waiting);
                    self.reserve_numbers(number).await;
                }
            }
        }
        self.start_volumes().await;
        self.rejoin_all().await;
        self.offer_exports().await;
        self.watch.begin().await;
        self.caring.begin().await;
        Ok(self)
    }

    fn hold_back_all(&self, starts: Starts) {
        for ((number, id), start) in starts {
            if let Start::Wait(waiting) = start {
                self.hold_back(number, id, waiting);
            }
        }
    }

    pub(super) fn hold_back(&self, number: GroupNumber, id: GroupId, waiting: WaitingGroup) {
        tracing::warn!(group = %number, why = waiting.why, "RAID group waits");
        self.groups
            .borrow_mut()
            .insert(number, GroupSlot::Waiting { id, waiting });
    }

    /// The logical devices of a group that waits keep their numbers: a new group must not get them.
    async fn reserve_numbers(&self, number: GroupNumber) {
        let looked = self.ledger.store.read(|truth| {
            let group = truth
                .groups
                .get(number)
                .filter(|group| group.is_sound(|_| None))?;
            let slices = u32::try_from(group.slices()).ok()?;
            Some((group.first_logical_device, slices))
        });
        if let Some((first, slices)) = looked.await {
            let restored = self.working.borrow_mut().numbering.restore(number, first, slices);
            if let Err(error) = restored {
                tracing::error!(group = %number, %error, "stored numbers of logical devices contradict each other");
            }
        }
    }

    async fn start_group(&self, record: GroupRecord) -> Result<(), OpenError> {
        let (number, id) = (record.number, record.id);
        let Ok(slice) = SliceLength::try_from(record.slice) else {
            self.hold_back(number, id, wait(UNSOUND, &[]));
            return Ok(());
        };
        let slices = slice.slices_in(record.layout.capacity());
        let first = record.first_logical_device;
        let restored = self.working.borrow_mut().numbering.restore(number, first, slices);
        if let Err(error) = restored {
            tracing::error!(group = %number, %error, "stored numbers of logical devices contradict each other");
            self.hold_back(
                number,
                id,
                wait("its stored numbers contradict another group's", &[]),
            );
            return Ok(());
        }
        match self.ledger.open_group(record).await {
            Ok(group) => self.serve_group(Arc::new(group), slice, slices),
            Err(error) => {
                tracing::error!(group = %number, error, "RAID group cannot be opened");
                self.hold_back(number, id, wait("it could not be opened", &[]));
            }
        }
        Ok(())
    }

    /// Clears what removed volumes left behind, then brings allocators and volumes back.
    async fn start_volumes(&self) {
        let to_clear = self
            .ledger
            .store
            .read(|truth| truth.to_clear().collect::<Vec<_>>());
        for owned in to_clear.await {
            if let Err(error) = self.clear_slices(owned).await {
                tracing::warn!(group = %owned.group, %error, "freed space could not be cleared and is not used");
            }
        }
        // Looked at in place: the volumes are most of what the metadata holds.
        self.ledger
            .store
            .read(|truth| {
                restore_allocators(&mut self.working.borrow_mut(), truth);
                for VolumeTruth { record, runs, .. } in truth.volumes.values() {
                    match VolumeMap::new(runs.as_slice().to_vec()) {
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
            if handle.failure().is_some() {
                continue;
            }
            let Some((group, member)) = self.place_of(handle.id()).await else {
                continue;
            };
            if group.record().members[member].status != MemberStatus::InSync {
                self.ledger.rejoin(&group, &handle, &superblock).await;
            }
        }
    }
}

/// Takes the devices as holders and counts the start.
async fn take(
    store: &Store<Truth>,
    holders: Vec<(Arc<DeviceHandle>, ByteRange)>,
    forced: bool,
    epoch: u64,
) -> Result<(), StoreError> {
    store.take_holders(holders, forced).await?;
    store.commit(vec![Record::Epoch(epoch)]).await
}

/// The devices that the metadata knows. Others are labelled only: their addition was cut off, or their removal.
async fn own_devices(
    store: &Store<Truth>,
    id: ApplianceId,
    found: Vec<Present>,
) -> Result<Vec<Present>, OpenError> {
    let looked = store.read(|truth| {
        let known: BTreeSet<DeviceId> = truth.devices.values().map(|device| device.id).collect();
        (truth.appliance.is_some(), known)
    });
    let (is_made, known) = looked.await;
    if !is_made {
        return Err(OpenError::Unfinished(id));
    }
    let (own, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|present| known.contains(&present.handle.id()));
    for other in others {
        tracing::warn!(device = %other.handle.id(), "a device is labelled as ours and not known: it is left alone");
    }
    Ok(own)
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
