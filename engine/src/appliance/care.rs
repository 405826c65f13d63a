//! Has spares take the places of members that are lost or suspect, watches how devices are, and keeps their counts.
//!
//! Invariants: what is changed is changed in a verb's turn, and looked at again there: exactly one group gets a spare, and
//! a member that came back in time is not replaced. How long a member was out is counted from when this saw it, and anew
//! after a start. What failed on devices is stored once a minute at the most.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::error::VerbError;
use super::health::{Health, Sight};
use super::journal::Ledger;
use super::records::{Record, Truth};
use super::resume::{Opener, Resuming};
use super::spares::SpareFor;
use super::watch::Watch;
use super::{CareSettings, GroupSlot, Groups};
use crate::device::{DeviceHandle, ErrorCounts};
use crate::event::EventKind;
use crate::raid::membership::Serving;
use crate::raid::{Group, GroupState};
use crate::types::{DeviceId, GroupId};

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(250);
/// How often counts are stored that have changed.
const STORE_PERIOD: Duration = Duration::from_secs(60);
/// How often each spare is read.
const CHECK_PERIOD: Duration = Duration::from_secs(10 * 60);
/// Before a place is given to a spare again after that could not be done.
const AGAIN: Duration = Duration::from_secs(60);
/// How often it is looked whether groups that stopped can resume.
const RESUME_PERIOD: Duration = Duration::from_secs(5);
/// What is read of a spare.
const CHECKED: usize = 64 << 10;

pub(super) type Turn = Rc<tokio::sync::Mutex<()>>;

/// A member's place with the device that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    group: GroupId,
    device: DeviceId,
}

/// A member that is out.
struct Lack {
    since: Instant,
    /// Not before this is it tried to have a spare take its place.
    tried: Option<Instant>,
    /// Why no spare fits, as it was told.
    told: Option<String>,
}

struct Care {
    ledger: Arc<Ledger>,
    groups: Groups,
    watch: Rc<Watch>,
    turn: Turn,
    health: RefCell<BTreeMap<DeviceId, Health>>,
    lacks: RefCell<BTreeMap<Place, Lack>>,
    /// Why spares could not be read the last time.
    unreadable: RefCell<BTreeMap<DeviceId, String>>,
    resuming: Resuming,
    /// Told when stopped groups are to be looked at without waiting.
    returned: Notify,
    is_ending: Cell<bool>,
    ending: Notify,
}

/// The background task that cares.
pub(super) struct Caring {
    care: Rc<Care>,
    task: RefCell<Option<JoinHandle<()>>>,
}

impl Drop for Caring {
    /// The appliance is dropped as it is: as good as a crash.
    fn drop(&mut self) {
        if let Some(task) = &*self.task.borrow() {
            task.abort();
        }
    }
}

impl Caring {
    pub(super) fn over(
        ledger: &Arc<Ledger>,
        groups: &Groups,
        watch: &Rc<Watch>,
        turn: &Turn,
        resuming: Resuming,
    ) -> Self {
        let care = Care {
            ledger: Arc::clone(ledger),
            groups: Rc::clone(groups),
            watch: Rc::clone(watch),
            turn: Rc::clone(turn),
            health: RefCell::default(),
            lacks: RefCell::default(),
            unreadable: RefCell::default(),
            resuming,
            returned: Notify::new(),
            is_ending: Cell::default(),
            ending: Notify::new(),
        };
        Self {
            care: Rc::new(care),
            task: RefCell::default(),
        }
    }

    /// Begins to care. How devices are by what is stored is nothing new, and not told.
    pub(super) async fn begin(&self) {
        let care = &self.care;
        care.ledger
            .store
            .read(|truth| care.see_devices(truth, false))
            .await;
        let task = tokio::task::spawn_local(Rc::clone(care).run());
        *self.task.borrow_mut() = Some(task);
    }

    /// Ends the task at its next step, waits for that, and stores the counts a last time.
    pub(super) async fn end(&self) {
        self.care.is_ending.set(true);
        self.care.ending.notify_waiters();
        let task = self.task.borrow_mut().take();
        let Some(task) = task else { return };
        if let Err(error) = task.await {
            tracing::error!(%error, "the care for spares failed");
        }
        self.care.store_errors().await;
    }

    /// A device of a group that stopped is there again.
    pub(super) fn look_at_stopped(&self) {
        self.care.returned.notify_one();
    }

    /// From now on devices are opened anew by this.
    pub(super) fn set_opener(&self, opener: Arc<dyn Opener>) {
        *self.care.resuming.opener.borrow_mut() = Some(opener);
    }

    /// As it was when it was looked at last.
    pub(super) fn health_of(&self, device: DeviceId) -> Health {
        self.care.health_of(device)
    }

    /// As it is now.
    pub(super) fn health_now(&self, truth: &Truth, device: DeviceId) -> Health {
        let (seen, _) = self.care.sight_of(truth, device);
        self.care.health_of(device).next(seen)
    }
}

/// The settings of the group that a device is in or is a spare for alone; else what is usual.
fn care_for(truth: &Truth, device: DeviceId) -> CareSettings {
    let group = match truth.spares.get(&device) {
        Some(SpareFor::Group(group)) => Some(*group),
        _ => truth.group_of(device).map(|group| group.id),
    };
    let care = group.and_then(|group| truth.care.get(&group));
    care.copied().unwrap_or_default()
}

impl Care {
    async fn run(self: Rc<Self>) {
        let look = self.every(PERIOD, async || self.look().await);
        let store = self.every(STORE_PERIOD, async || self.store_errors().await);
        let round = Cell::new(0);
        let check = self.every(CHECK_PERIOD, async || {
            round.set(round.get() + 1);
            self.check_spares(round.get()).await;
        });
        tokio::join!(look, store, check, self.resume());
    }

    /// Has groups that stopped resume. Looking for their members changes nothing, and is cut off at the end.
    async fn resume(&self) {
        loop {
            let mut ending = pin!(self.ending.notified());
            if self.is_ending.get() {
                return;
            }
            let look = pin!(async {
                let _ = tokio::time::timeout(RESUME_PERIOD, self.returned.notified()).await;
                self.resuming.look().await
            });
            match select(look, ending.as_mut()).await {
                Either::Left((found, _)) => self.resuming.resume_all(found).await,
                Either::Right(_) => return,
            }
        }
    }

    /// Waits before each time.
    async fn every(&self, period: Duration, work: impl AsyncFn()) {
        loop {
            let ending = self.ending.notified();
            if self.is_ending.get() || tokio::time::timeout(period, ending).await.is_ok() {
                return;
            }
            work().await;
        }
    }

    fn health_of(&self, device: DeviceId) -> Health {
        let known = self.health.borrow().get(&device).copied();
        known.unwrap_or(Health::Healthy)
    }

    async fn look(&self) {
        let work = self.ledger.store.read(|truth| {
            self.see_devices(truth, true);
            self.see_members(truth)
        });
        for place in work.await {
            if self.is_ending.get() {
                return;
            }
            self.replace(place).await;
        }
    }

    fn sight_of(&self, truth: &Truth, device: DeviceId) -> (Sight, ErrorCounts) {
        let handle = self.ledger.device(device);
        let stored = || truth.errors.get(&device).copied().unwrap_or_default();
        let errors = handle.as_ref().map_or_else(stored, |handle| handle.errors());
        let seen = Sight {
            is_out: handle.is_some_and(|handle| handle.failure().is_some()),
            lost_places: errors.lost_places(),
            borne: care_for(truth, device).suspect_after,
        };
        (seen, errors)
    }

    /// Notes how every device is, and tells of those that became suspect.
    fn see_devices(&self, truth: &Truth, tell: bool) {
        let mut health = self.health.borrow_mut();
        health.retain(|device, _| truth.devices.find(*device).is_some());
        for record in truth.devices.values() {
            let device = record.id;
            let (seen, errors) = self.sight_of(truth, device);
            let known = health.entry(device).or_insert(Health::Healthy);
            let before = std::mem::replace(known, known.next(seen));
            if tell && before != Health::Suspect && *known == Health::Suspect {
                let lost_places = errors.lost_places();
                self.watch
                    .events
                    .emit(EventKind::DeviceSuspect { device, lost_places });
            }
        }
    }

    /// The places that are due for a spare.
    fn see_members(&self, truth: &Truth) -> Vec<Place> {
        let mut due = Vec::new();
        let mut lacks = self.lacks.borrow_mut();
        let mut out = BTreeMap::new();
        for slot in self.groups.borrow().values() {
            let GroupSlot::Serving { group, .. } = slot else {
                continue;
            };
            let care = truth.care.get(&group.id()).copied().unwrap_or_default();
            for member in group.record().members {
                let place = Place {
                    group: group.id(),
                    device: member.device,
                };
                if self.is_out(group, place.device) {
                    let lack = lacks.remove(&place).unwrap_or_else(Lack::new);
                    let wait = care.wait(self.is_absent(truth, place.device));
                    if lack.is_due(wait) {
                        due.push(place);
                    }
                    out.insert(place, lack);
                } else if self.is_to_be_replaced(group, place.device, care) {
                    due.push(place);
                }
            }
        }
        // What is not out any more is forgotten: the next time counts anew.
        *lacks = out;
        due
    }

    /// Whether a member that the group could be given anew is out, or is about to be because its device failed.
    fn is_out(&self, group: &Group, device: DeviceId) -> bool {
        let Some(member) = group.record().member(device) else {
            return false;
        };
        let failed = self
            .ledger
            .device(device)
            .is_some_and(|handle| handle.failure().is_some());
        let is_out = failed || group.serving()[member] == Serving::Out;
        is_out && can_do_without(group, device)
    }

    /// Whether a member that is out may come back by itself, or by what somebody does elsewhere.
    fn is_absent(&self, truth: &Truth, device: DeviceId) -> bool {
        let handle = self.ledger.device(device);
        let failed = handle.is_some_and(|handle| handle.failure().is_some() && !handle.is_lost());
        !failed && !truth.taken_out.contains(&device)
    }

    /// Whether a member that serves is to give its place to a spare.
    fn is_to_be_replaced(&self, group: &Group, device: DeviceId, care: CareSettings) -> bool {
        care.replace_suspect
            && self.health_of(device) == Health::Suspect
            && group.state() == GroupState::Optimal
            && can_do_without(group, device)
            // What is copied is read from the others.
            && group.record().members.iter().all(|member| {
                member.device == device || self.health_of(member.device) == Health::Healthy
            })
    }

    fn serving_group(&self, id: GroupId) -> Option<Arc<Group>> {
        let groups = self.groups.borrow();
        groups.values().find_map(|slot| match slot {
            GroupSlot::Serving { group, .. } if group.id() == id => Some(Arc::clone(group)),
            _ => None,
        })
    }

    /// Has a spare take a place, where that is still to be done once it is this one's turn.
    async fn replace(&self, place: Place) {
        let _turn = self.turn.lock().await;
        let still_due = self
            .ledger
            .store
            .read(|truth| self.see_members(truth).contains(&place));
        if !still_due.await || self.ledger.store.check_usable().await.is_err() {
            return;
        }
        let Some(group) = self.serving_group(place.group) else {
            return;
        };
        let Some(member) = group.record().member(place.device) else {
            return;
        };
        let health = |device| self.health_of(device);
        let spare = match self.ledger.spare_for(&group, member, health).await {
            Ok(spare) => spare,
            Err(why) => return self.tell_none_fits(place, why),
        };
        let (chosen, record) = spare;
        let new = chosen.device.id();
        match self.take_over(&group, member, chosen.device, record).await {
            Ok(()) => {
                let Place { group, device: old } = place;
                self.watch
                    .events
                    .emit(EventKind::SpareTookOver { group, old, new });
            }
            Err(error) => {
                tracing::warn!(group = %group.number(), spare = %new, %error, "a spare could not take a member's place");
                if let Some(lack) = self.lacks.borrow_mut().get_mut(&place) {
                    lack.tried = Some(Instant::now());
                }
            }
        }
        self.watch.look();
    }

    async fn take_over(
        &self,
        group: &Group,
        member: usize,
        device: Arc<DeviceHandle>,
        place: crate::raid::MemberRecord,
    ) -> Result<(), VerbError> {
        self.ledger.put_in(group, member, device, place, Vec::new()).await
    }

    /// Once for each time that the member is out, and again for another reason.
    fn tell_none_fits(&self, place: Place, why: String) {
        let mut lacks = self.lacks.borrow_mut();
        // A suspect member still serves: that it is suspect was told.
        let Some(lack) = lacks.get_mut(&place) else { return };
        if lack.told.as_ref() != Some(&why) {
            lack.told = Some(why.clone());
            let Place { group, device } = place;
            self.watch
                .events
                .emit(EventKind::NoSpareFits { group, device, why });
        }
    }

    async fn store_errors(&self) {
        let looked = self.ledger.store.read(|truth| {
            let mut records = Vec::new();
            for record in truth.devices.values() {
                let device = record.id;
                let stored = truth.errors.get(&device).copied().unwrap_or_default();
                let now = self.ledger.device(device).map(|handle| handle.errors());
                if let Some(errors) = now.filter(|now: &ErrorCounts| *now != stored) {
                    records.push(Record::DeviceErrors { device, errors });
                }
            }
            records
        });
        let records = looked.await;
        if records.is_empty() || self.ledger.store.check_usable().await.is_err() {
            return;
        }
        if let Err(error) = self.ledger.store.commit(records).await {
            tracing::warn!(%error, "what failed on devices could not be stored");
        }
    }

    /// Reads every spare at its beginning and at a place that is another one each time.
    async fn check_spares(&self, round: u64) {
        let spares = self
            .ledger
            .store
            .read(|truth| truth.spares.keys().copied().collect::<Vec<_>>());
        let spares = spares.await;
        self.unreadable
            .borrow_mut()
            .retain(|device, _| spares.contains(device));
        for device in spares {
            let Some(handle) = self.ledger.device(device) else {
                continue;
            };
            // Why one is out of service was told when it went.
            if handle.failure().is_none() {
                let why = check_spare(&handle, round).await;
                self.note_check(device, why);
            }
        }
    }

    fn note_check(&self, device: DeviceId, why: Option<String>) {
        let mut unreadable = self.unreadable.borrow_mut();
        match why {
            None => drop(unreadable.remove(&device)),
            Some(why) => {
                if unreadable.insert(device, why.clone()).is_none() {
                    self.watch.events.emit(EventKind::SpareUnreadable { device, why });
                }
            }
        }
    }
}

/// Why a spare cannot be read.
async fn check_spare(handle: &DeviceHandle, round: u64) -> Option<String> {
    /// Scatters successive rounds over the device.
    const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;
    let chunk = CHECKED as u64;
    let places = (handle.info().capacity / chunk).max(1);
    let scattered = round.wrapping_mul(STRIDE) % places * chunk;
    for at in [0, scattered] {
        if let Err(error) = handle.read(at, CHECKED).await {
            return Some(error.to_string());
        }
    }
    None
}

/// Whether the group's other members hold everything.
fn can_do_without(group: &Group, device: DeviceId) -> bool {
    let member = group.record().member(device);
    member.is_some_and(|member| group.bears_the_loss_of(member))
}

impl Lack {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            tried: None,
            told: None,
        }
    }

    fn is_due(&self, wait: Duration) -> bool {
        self.since.elapsed() >= wait && self.tried.is_none_or(|tried| tried.elapsed() >= AGAIN)
    }
}
