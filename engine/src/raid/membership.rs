//! Who serves in a group right now, and how that changes.
//!
//! ```text
//!            device comes            all copied, flushed, recorded
//!   Out ───────────────────► Joining ───────────────────────────► InSync
//!    ▲                          │                                    │
//!    └──────────────────────────┴────────────────────────────────────┘
//!                 a write, flush or log write failed
//! ```
//! Invariants: a write that some member missed is answered only after that member's being *Out* is durable on the
//! others (R6). A column never loses its last member in sync: the group stops instead. Members are `Joining` only in
//! memory; the record says `Out` or `Blank` until they have everything.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::checks::{Checks, MemberChecks};
use super::group::Group;
use super::parity::Parity;
use super::record::{GroupRecord, MemberStatus};
use crate::device::{DeviceHandle, Io, Request};
use crate::io::IoError;
use crate::io::range_lock::Mode;
use crate::types::{ByteRange, DeviceId, IdSource};

/// How a member takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// Read and written.
    InSync,
    /// Written, not read, while it gets what it lacks.
    Joining,
    /// Not used.
    Out,
}

/// One place in a group.
#[derive(Debug, Clone)]
pub struct Member {
    pub serving: Serving,
    /// The device, where it is there.
    pub device: Option<Arc<DeviceHandle>>,
    /// What is known of its checksums, where the group has them: of this device only.
    pub(super) checks: Option<Arc<MemberChecks>>,
}

impl Member {
    pub(super) fn is_same_device(&self, other: &Self) -> bool {
        match (&self.device, &other.device) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// The members at one moment. Never changed: a change makes a new one.
#[derive(Debug, Clone)]
pub struct Members {
    pub record: GroupRecord,
    pub list: SmallVec<[Member; 4]>,
}

impl Members {
    /// The device of a member that is read.
    pub(super) fn readable(&self, member: usize) -> Option<&Arc<DeviceHandle>> {
        let member = &self.list[member];
        member
            .device
            .as_ref()
            .filter(|_| member.serving == Serving::InSync)
    }

    /// The device of a member that is written.
    pub(super) fn writable(&self, member: usize) -> Option<&Arc<DeviceHandle>> {
        let member = &self.list[member];
        member.device.as_ref().filter(|_| member.serving != Serving::Out)
    }

    /// Members that are written, with their devices.
    pub(super) fn all_writable(&self) -> impl Iterator<Item = (usize, &Arc<DeviceHandle>)> {
        (0..self.list.len()).filter_map(|member| Some((member, self.writable(member)?)))
    }

    /// A flush on every member that is written.
    pub(super) fn start_flushes(&self) -> SmallVec<[(usize, Io); 4]> {
        self.all_writable()
            .map(|(member, device)| (member, device.start(Request::Flush)))
            .collect()
    }

    fn in_sync_devices(&self) -> Vec<Arc<DeviceHandle>> {
        (0..self.list.len())
            .filter_map(|member| self.readable(member))
            .cloned()
            .collect()
    }

    /// Whether the members in sync hold everything.
    pub(super) fn complete(&self) -> bool {
        let in_sync = |member: usize| self.list[member].serving == Serving::InSync;
        self.record.layout.is_complete(in_sync)
    }

    /// Whether the other members hold everything, those whose devices failed left out: that may not be noticed yet.
    fn bears_the_loss_of(&self, member: usize) -> bool {
        let stays = |other: usize| {
            let device = self.readable(other);
            other != member && device.is_some_and(|device| device.failure().is_none())
        };
        self.record.layout.is_complete(stays)
    }

    /// Whether the device of a member in sync failed, and that was not acted upon yet.
    pub(super) fn has_failed_device(&self) -> bool {
        let failed = |member| {
            self.readable(member)
                .is_some_and(|device| device.failure().is_some())
        };
        (0..self.list.len()).any(failed)
    }

    /// Whether every place is taken by a member in sync.
    pub(super) fn whole(&self) -> bool {
        self.list.iter().all(|member| member.serving == Serving::InSync)
    }
}

/// Why a membership could not be made durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);

/// Makes group records durable: in the metadata, and in the superblocks of `members` (those in sync).
pub trait Journal: Send + Sync {
    fn record<'a>(
        &'a self,
        record: &'a GroupRecord,
        members: &'a [Arc<DeviceHandle>],
    ) -> Pin<Box<dyn Future<Output = Result<(), JournalError>> + 'a>>;

    fn ids(&self) -> &IdSource;
}

impl Group {
    /// Takes members out, durably, whose devices failed under the membership `before`; a device that has taken a
    /// failed one's place meanwhile is not touched. `Ok` when every column still has a member in sync.
    pub(super) async fn drop_members(&self, before: &Members, failed: &[usize]) -> Result<(), IoError> {
        let _one_change = self.change.lock().await;
        self.check_running()?;
        let mut failed: SmallVec<[usize; 4]> = SmallVec::from_slice(failed);
        let now = self.members.load_full();
        failed.retain(|&mut member| now.list[member].is_same_device(&before.list[member]));
        self.drop_now(failed).await
    }

    /// Whether the other members hold everything.
    pub fn bears_the_loss_of(&self, member: usize) -> bool {
        self.check_running().is_ok() && self.members.load().bears_the_loss_of(member)
    }

    /// Takes a member's device out of service on purpose, durably. `false`, and nothing changed, where its column would be
    /// left without a member in sync.
    pub async fn take_out(&self, device: DeviceId, why: &str) -> Result<bool, IoError> {
        let _one_change = self.change.lock().await;
        self.check_running()?;
        let members = self.members.load_full();
        let Some(member) = members.record.member(device) else {
            return Ok(true);
        };
        if !members.bears_the_loss_of(member) {
            return Ok(false);
        }
        if let Some(device) = &members.list[member].device {
            device.fail(why);
        }
        self.drop_now(SmallVec::from_slice(&[member])).await?;
        Ok(true)
    }

    /// Takes members out; the caller holds `change`.
    async fn drop_now(&self, mut failed: SmallVec<[usize; 4]>) -> Result<(), IoError> {
        loop {
            let members = self.members.load_full();
            failed.retain(|&mut member| members.list[member].serving != Serving::Out);
            if failed.is_empty() {
                return Ok(());
            }
            let next = self.without(&members, &failed);
            if !next.complete() {
                return Err(self.stop("too many members failed"));
            }
            let recorded = next.record.membership != members.record.membership;
            let next = Arc::new(next);
            self.members.store(Arc::clone(&next));
            if let Some(parity) = &self.parity {
                failed.iter().for_each(|&member| parity.leave(member));
            }
            if recorded {
                self.make_durable(&next).await?;
            }
            // A survivor that failed while this was written down goes the same way.
            failed = (0..next.list.len())
                .filter(|&member| {
                    next.writable(member)
                        .is_some_and(|device| device.failure().is_some())
                })
                .collect();
        }
    }

    fn without(&self, members: &Members, failed: &[usize]) -> Members {
        let mut next = members.clone();
        let mut leaves = SmallVec::<[usize; 4]>::new();
        for &member in failed {
            let place = &mut next.list[member];
            if let Some(device) = place.device.take() {
                device.fail("taken out of its RAID group");
                tracing::warn!(group = %members.record.number, member, device = %device.id(), "member is out");
            }
            if place.serving == Serving::InSync {
                leaves.push(member);
            }
            place.serving = Serving::Out;
            place.checks = None;
        }
        if !leaves.is_empty() {
            next.record = members.record.changed(self.journal.ids(), |list| {
                for member in leaves {
                    list[member].status = MemberStatus::Out;
                }
            });
        }
        next
    }

    async fn make_durable(&self, members: &Members) -> Result<(), IoError> {
        let recorded = self
            .journal
            .record(&members.record, &members.in_sync_devices())
            .await;
        if let Err(error) = recorded {
            tracing::error!(group = %members.record.number, %error, "membership cannot be recorded");
            return Err(self.stop("its membership cannot be recorded"));
        }
        self.durable_generation
            .store(members.record.membership.generation, Ordering::Release);
        Ok(())
    }

    /// Resolves when the membership of this generation is durable: before a write made under it is answered.
    pub(super) async fn wait_durable(&self, generation: u64) -> Result<(), IoError> {
        if self.durable_generation.load(Ordering::Acquire) >= generation {
            return Ok(());
        }
        let _change_ended = self.change.lock().await;
        self.check_running()?;
        if self.durable_generation.load(Ordering::Acquire) < generation {
            // Whoever was to record it was dropped in the middle.
            return Err(self.stop("its membership cannot be recorded"));
        }
        Ok(())
    }

    /// Takes a device in at its place, to be copied to. Its region log is written whole; what it lacks is stale.
    pub async fn join(&self, member: usize, device: Arc<DeviceHandle>) -> Result<(), IoError> {
        {
            let _one_change = self.change.lock().await;
            self.check_running()?;
            let mut next = Members::clone(&self.members.load());
            if next.list[member].serving != Serving::Out {
                return Err(IoError::GroupUnavailable {
                    why: "the member is in service",
                });
            }
            if self.parity.is_some() {
                let joined = self.join_journal(&next.record, member, &device).await;
                joined.map_err(|error| IoError::Device(error.to_string()))?;
            }
            next.list[member] = Member {
                serving: Serving::Joining,
                device: Some(device),
                checks: self.checks.as_ref().map(Checks::of_member),
            };
            let blank = next.record.members[member].status == MemberStatus::Blank;
            self.members.store(Arc::new(next));
            if blank {
                self.regions.mark_all_written();
            }
            // After the member is written to: a write that missed it has its mark by now.
            self.regions.stale_all_marked();
            self.regions.rewrite_all();
        }
        self.commit_log().await?;
        self.work.notify_one();
        Ok(())
    }

    /// Puts another device in a member's place; `join` must follow. The old device's content counts no more.
    pub async fn replace(&self, member: usize, with: super::MemberRecord) -> Result<(), IoError> {
        let one_change = self.change.lock().await;
        self.check_running()?;
        let members = self.members.load_full();
        let mut next = Members::clone(&members);
        next.list[member] = Member {
            serving: Serving::Out,
            device: None,
            checks: None,
        };
        if !members.bears_the_loss_of(member) {
            return Err(IoError::GroupUnavailable {
                why: "its last member in sync cannot be replaced",
            });
        }
        next.record = members.record.changed(self.journal.ids(), |list| {
            list[member] = super::MemberRecord {
                status: MemberStatus::Blank,
                ..with
            };
        });
        let next = Arc::new(next);
        self.members.store(Arc::clone(&next));
        if let Some(parity) = &self.parity {
            parity.leave(member);
        }
        self.make_durable(&next).await?;
        drop(one_change);
        // Nothing may reach the old device any more: it may become part of something else.
        self.writes_end().await;
        Ok(())
    }

    /// Resolves when nothing is under way any more that was begun with the members as they were.
    pub async fn writes_end(&self) {
        drop(self.change.lock().await);
        let whole = ByteRange::between(0, self.layout.known_space());
        drop(self.lock.claim(whole, Mode::Exclusive).await);
        self.background_writes_end().await;
    }

    /// Its members are begun with anew: this group changes nothing on them any more.
    pub fn supersede(&self) {
        for (_, device) in self.members.load().all_writable() {
            device.supersede();
        }
    }

    /// Resolves when what was being written beside the requests of hosts, to members as they were, is written.
    async fn background_writes_end(&self) {
        if let Some(checks) = &self.checks {
            checks.writing_ends().await;
        }
        if let Some(parity) = &self.parity {
            parity.freeing_ends().await;
        }
        // A commit that begins now ends after those before it. What fails of it shows in the group's state.
        let _ = self.commit_log().await;
    }

    /// Members that have been joining are in sync, durably. The caller has copied everything and flushed.
    pub(super) async fn finish_joining(&self) -> Result<(), IoError> {
        let _one_change = self.change.lock().await;
        self.check_running()?;
        let members = self.members.load_full();
        let joined: SmallVec<[usize; 4]> = (0..members.list.len())
            .filter(|&member| members.list[member].serving == Serving::Joining)
            .collect();
        let may_finish = self.parity.as_ref().is_none_or(Parity::may_finish_joining);
        if joined.is_empty() || !may_finish || self.regions.next_to_sync(0).is_some() {
            return Ok(());
        }
        let mut next = Members::clone(&members);
        for &member in &joined {
            next.list[member].serving = Serving::InSync;
        }
        next.record = members.record.changed(self.journal.ids(), |list| {
            for &member in &joined {
                list[member].status = MemberStatus::InSync;
            }
        });
        // Recorded first: until then the members are written but not read, which is right in either case.
        self.make_durable(&next).await?;
        self.members.store(Arc::new(next));
        Ok(())
    }
}
