//! Opens RAID groups anew that stopped because they lost more members than their level bears, once enough of these answer
//! again.
//!
//! To the members it is as if a crash had come when the group stopped: what was acknowledged and not flushed may be
//! missing, and opening the group deals with that as a start does. Hosts stay attached, unlike after a crash: where
//! something may be missing, their next flush fails.
//!
//! Invariants: who is in sync is decided by the stored record, as at a start; nothing was acknowledged after the group
//! stopped. The old group changes nothing on a device any more before the new one is opened, and serves reads until that
//! is done, also where it cannot be done. A device that may yet carry out what it was asked is taken only where it was
//! opened anew, and one that refused a flush only by somebody's word: it shows what it may have lost. What hangs on a
//! device holds up nothing else.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::care::Turn;
use super::devices::probe;
use super::journal::Ledger;
use super::scrub::Keeper;
use super::start::{absent_members, without};
use super::tend::Tending;
use super::watch::Watch;
use super::{Appliance, GroupSlot, Groups, Volumes};
use crate::device::superblock::{self, Superblock};
use crate::device::{Device, DeviceHandle};
use crate::metadata::HolderCopy;
use crate::raid::{CopyLimit, Group, GroupRecord, GroupState, MemberStatus};
use crate::types::{ApplianceId, DeviceId, GroupId};

/// How long a member may take to answer.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// A device that is being opened, or why it cannot be.
pub type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn Device>, String>>>>;

/// Opens devices anew where they are known to be found.
pub trait Opener: Send + Sync {
    /// Opens the device that is expected to be this one; called on the appliance's thread.
    fn open(&self, device: DeviceId) -> Opening;
}

impl Appliance {
    /// Says how devices are opened anew that do not answer any more as they are open. Without, only those come back by
    /// themselves that do.
    pub fn set_opener(&self, opener: Arc<dyn Opener>) {
        self.caring.set_opener(opener);
    }
}

pub(super) struct Resuming {
    pub(super) id: ApplianceId,
    pub(super) ledger: Arc<Ledger>,
    pub(super) groups: Groups,
    pub(super) volumes: Volumes,
    pub(super) watch: Rc<Watch>,
    pub(super) turn: Turn,
    pub(super) keeper: Keeper,
    pub(super) copy_limit: Arc<CopyLimit>,
    pub(super) opener: RefCell<Option<Arc<dyn Opener>>>,
    /// The stopped groups, as they were seen last.
    pub(super) seen: RefCell<BTreeMap<GroupId, Seen>>,
}

#[derive(Default)]
pub(super) struct Seen {
    /// Why it does not resume, as it was told.
    told: Option<String>,
    /// Enough members answered, and not all: the others may be about to come as well.
    is_enough: bool,
}

/// A member that answers.
struct Found {
    /// As it was when it was looked at; `None` where it was not there.
    before: Option<Arc<DeviceHandle>>,
    device: Arc<dyn Device>,
    superblock: Superblock,
}

/// A stopped group that can be opened anew.
pub(super) struct Resumable {
    group: Arc<Group>,
    found: Vec<Found>,
}

impl Resuming {
    /// Looks which groups can resume, and changes nothing.
    pub(super) async fn look(&self) -> Vec<Resumable> {
        let stopped = self.stopped();
        let is_stopped = |id: &GroupId| stopped.iter().any(|group| group.id() == *id);
        self.seen.borrow_mut().retain(|id, _| is_stopped(id));
        let looked = stopped.into_iter().map(|group| async move {
            let id = group.id();
            match self.look_at(group).await {
                Ok(resumable) => resumable,
                Err(why) => {
                    self.tell(id, why);
                    None
                }
            }
        });
        join_all(looked).await.into_iter().flatten().collect()
    }

    fn stopped(&self) -> Vec<Arc<Group>> {
        let groups = self.groups.borrow();
        let stopped = groups.values().filter_map(|slot| match slot {
            GroupSlot::Serving { group, .. } if group.state() == GroupState::Failed => Some(group),
            _ => None,
        });
        stopped.cloned().collect()
    }

    /// Once for each reason.
    fn tell(&self, group: GroupId, why: String) {
        let mut seen = self.seen.borrow_mut();
        let seen = seen.entry(group).or_default();
        if seen.told.as_ref() != Some(&why) {
            tracing::warn!(%group, why, "a RAID group that stopped cannot resume");
            seen.told = Some(why);
        }
    }

    /// The group's record as it is stored, and its members that nobody took out.
    async fn stored(&self, id: GroupId) -> Result<(GroupRecord, Vec<DeviceId>), String> {
        let looked = self.ledger.store.read(|truth| {
            let record = truth.groups.find(id)?.clone();
            let members = record.members.iter().map(|member| member.device);
            let wanted = members
                .filter(|device| !truth.taken_out.contains(device))
                .collect();
            Some((record, wanted))
        });
        looked.await.ok_or_else(|| "it is gone".into())
    }

    /// `None`: enough members answer, and the others are waited for once.
    async fn look_at(&self, group: Arc<Group>) -> Result<Option<Resumable>, String> {
        let (record, wanted) = self.stored(group.id()).await?;
        let asked = wanted.into_iter().map(|device| self.find(device));
        let mut found = Vec::new();
        let mut whys = Vec::new();
        for answer in join_all(asked).await {
            match answer {
                Ok(member) => found.push(member),
                Err(why) => whys.push(why),
            }
        }
        let absent = absent_members(&record, found.iter().map(|member| &member.superblock));
        let is_whole = absent.is_empty();
        let payload = |device| {
            let member = found.iter().find(|member| member.superblock.device == device)?;
            Some(member.superblock.layout.payload)
        };
        if !record.is_sound(payload) || without(record, &absent, &self.ledger.ids).is_none() {
            return Err(format!("too many members are absent: {}", whys.join("; ")));
        }
        for member in &found {
            self.check_not_elsewhere(member).await?;
        }
        let mut seen = self.seen.borrow_mut();
        let was_enough = std::mem::replace(&mut seen.entry(group.id()).or_default().is_enough, true);
        Ok((is_whole || was_enough).then_some(Resumable { group, found }))
    }

    /// Asks a member, as it is open or else anew, whether it is there.
    async fn find(&self, id: DeviceId) -> Result<Found, String> {
        let before = self.ledger.device(id);
        let refused = |why: &str| format!("device {id}: {why}");
        if before.as_ref().is_some_and(|before| before.could_not_flush()) {
            return Err(refused("it could not flush, and must be returned by hand"));
        }
        let held = before.as_ref().filter(|before| !before.has_timed_out());
        let mut answer = Err("it may yet carry out what it did not answer in time".to_owned());
        if let Some(held) = held {
            answer = self.ask(id, held.device()).await;
        }
        let opener = self.opener.borrow().clone();
        if answer.is_err()
            && let Some(opener) = opener
        {
            answer = match tokio::time::timeout(PROBE_LIMIT, opener.open(id)).await {
                Ok(Ok(device)) => self.ask(id, device).await,
                Ok(Err(why)) => Err(why),
                Err(_) => Err("it cannot be opened in time".into()),
            };
        }
        let (device, superblock) = answer.map_err(|why| refused(&why))?;
        Ok(Found {
            before,
            device,
            superblock,
        })
    }

    /// Whether this is the device that it should be.
    async fn ask(
        &self,
        id: DeviceId,
        device: Arc<dyn Device>,
    ) -> Result<(Arc<dyn Device>, Superblock), String> {
        let handle = probe(Arc::clone(&device));
        let read = tokio::time::timeout(PROBE_LIMIT, superblock::read(&handle)).await;
        let read = read.map_err(|_| "it does not answer in time".to_owned())?;
        match read.map_err(|error| error.to_string())? {
            Some(found) if (found.appliance, found.device) == (self.id, id) => Ok((device, found)),
            _ => Err("another device is in its place".into()),
        }
    }

    /// Whether nobody has gone on elsewhere with what the device holds.
    async fn check_not_elsewhere(&self, member: &Found) -> Result<(), String> {
        let handle = Arc::new(probe(Arc::clone(&member.device)));
        let area = member.superblock.layout.metadata;
        let read = tokio::time::timeout(PROBE_LIMIT, HolderCopy::read(handle, area)).await;
        let read = read.map_err(|_| "a member does not answer in time".to_owned())?;
        let copy = read.map_err(|error| error.to_string())?;
        let newest = copy.tip().map_or(0, |tip| tip.generation);
        // Asked for afterwards: the device may be a holder that serves.
        if newest > self.ledger.store.generation().await {
            let device = member.superblock.device;
            return Err(format!("device {device}: it was used elsewhere meanwhile"));
        }
        Ok(())
    }

    pub(super) async fn resume_all(&self, resumable: Vec<Resumable>) {
        join_all(resumable.into_iter().map(|one| self.resume(one))).await;
    }

    async fn resume(&self, Resumable { group, found }: Resumable) {
        // What runs may take as long as its devices do; no verb waits for that.
        group.writes_end().await;
        let _turn = self.turn.lock().await;
        let is_still_stopped = self.stopped().iter().any(|known| Arc::ptr_eq(known, &group));
        if !is_still_stopped {
            return;
        }
        match self.open_anew(&group, found).await {
            Ok(()) => {
                tracing::info!(group = %group.number(), "a RAID group that stopped has resumed");
                self.watch.look();
            }
            Err(why) => self.tell(group.id(), why),
        }
    }

    async fn open_anew(&self, old: &Group, mut found: Vec<Found>) -> Result<(), String> {
        let (record, wanted) = self.stored(old.id()).await?;
        found.retain(|member| wanted.contains(&member.superblock.device) && self.is_as_before(member));
        let absent = absent_members(&record, found.iter().map(|member| &member.superblock));
        let record = without(record, &absent, &self.ledger.ids).ok_or("too many members are absent")?;
        let mut there = BTreeSet::new();
        for member in found {
            there.insert(member.superblock.device);
            self.admit(member).await;
        }
        // Before the old handles are given up, which holders may be written through.
        let renewed = self.ledger.renew_holders().await;
        old.supersede();
        renewed.map_err(|error| error.to_string())?;
        old.writes_end().await;
        let tended = self.end_tending(old);
        if let Some(tended) = tended {
            tended.await;
        }
        let group = self.ledger.open_group(record).await?;
        group.set_copy_limit(old.copy_limit());
        group.set_copy_paused(old.is_copy_paused());
        group.share_copy_limit(Arc::clone(&self.copy_limit));
        let group = Arc::new(group);
        self.serve(&group, may_lack(old, &group));
        self.rejoin(&group, &there).await;
        Ok(())
    }

    /// Whether nobody has begun with the device anew since it was looked at.
    fn is_as_before(&self, member: &Found) -> bool {
        match (self.ledger.device(member.superblock.device), &member.before) {
            (Some(now), Some(before)) => Arc::ptr_eq(&now, before),
            (now, before) => now.is_none() && before.is_none(),
        }
    }

    async fn admit(&self, member: Found) {
        let Found {
            before,
            device,
            superblock,
        } = member;
        let id = superblock.device;
        // The label of one that serves may have been written again since it was read.
        let serving = before.as_ref().filter(|before| before.failure().is_none());
        let known = serving.and_then(|_| {
            self.ledger
                .present()
                .get(&id)
                .map(|known| known.superblock.clone())
        });
        let handle = Arc::new(DeviceHandle::new(id, device));
        if let Some(before) = &before {
            handle.doubt_as(before);
        }
        self.ledger.admit(&handle, known.unwrap_or(superblock)).await;
    }

    fn end_tending(&self, old: &Group) -> Option<impl Future<Output = ()> + use<>> {
        match self.groups.borrow_mut().get_mut(&old.number()) {
            Some(GroupSlot::Serving { tending, .. }) => Some(tending.begin_end()),
            _ => None,
        }
    }

    /// Puts the group in the place of the one that stopped; whose its slices are stays as it was.
    fn serve(&self, group: &Arc<Group>, may_lack: bool) {
        let slot = GroupSlot::Serving {
            group: Arc::clone(group),
            tending: Tending::of(group, &self.keeper),
        };
        self.groups.borrow_mut().insert(group.number(), slot);
        for volume in self.volumes.borrow().values() {
            volume.use_reopened(group, may_lack);
        }
    }

    /// Members that are there but out begin to get what they missed.
    async fn rejoin(&self, group: &Group, there: &BTreeSet<DeviceId>) {
        for member in group.record().members {
            let is_out = member.status != MemberStatus::InSync && there.contains(&member.device);
            let known = self.ledger.present().get(&member.device).cloned();
            if let Some(known) = known.filter(|_| is_out) {
                self.ledger.rejoin(group, &known.handle, &known.superblock).await;
            }
        }
    }
}

/// Whether a member may have lost what was acknowledged and not flushed: not where it is open as it always was, and never
/// refused a flush.
fn may_lack(old: &Group, new: &Group) -> bool {
    let is_as_it_was = |member| match (old.member_device(member), new.member_device(member)) {
        (Some(before), Some(now)) => {
            Arc::ptr_eq(&before.device(), &now.device()) && !before.could_not_flush()
        }
        (_, now) => now.is_none(),
    };
    (0..new.serving().len()).any(|member| !is_as_it_was(member))
}
