//! Making room in the journal: what is in place and flushed on every member need not be written again.
//!
//! Order: everything up to a point is in place → the checksums of it are written → all members flush → their anchors are
//! durable → the room is used again.

use std::sync::PoisonError;

use smallvec::SmallVec;

use super::journal::anchor::{self, Anchor};
use super::journal::units::{BLOCK, CommitSequence, Incarnation, RING_START, RingOffset};
use super::{area, journal_range};
use crate::device::{DeviceError, DeviceHandle, Io, Request};
use crate::io::IoError;
use crate::raid::GroupRecord;
use crate::raid::group::Group;
use crate::raid::membership::Members;
use crate::types::ByteRange;

impl Group {
    /// Frees everything that was begun before now.
    pub(in crate::raid) async fn free_journal(&self) -> Result<(), IoError> {
        let latest = self.parity().ring().latest();
        self.free_to(latest).await
    }

    /// Resolves when the journal is so full that something should be freed; never where there is none.
    pub async fn journal_fills(&self) {
        match &self.parity {
            Some(parity) => parity.fills.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Frees what is in the journal now, so that it does not run full, and a start has less to write again.
    pub async fn empty_journal(&self) -> Result<(), IoError> {
        match &self.parity {
            Some(_) => self.free_journal().await,
            None => Ok(()),
        }
    }

    /// Frees what may be needed again if `range`, member addresses, is forgotten.
    pub(super) async fn free_range(&self, range: ByteRange) -> Result<(), IoError> {
        let held = self.parity().ring().holds(range);
        match held {
            Some(point) => self.free_to(point).await,
            None => Ok(()),
        }
    }

    async fn free_to(&self, point: CommitSequence) -> Result<(), IoError> {
        let parity = self.parity();
        let _one_at_a_time = parity.freeing.lock().await;
        while !parity.ring().is_freed(point) {
            self.check_running()?;
            self.free_settled().await?;
        }
        Ok(())
    }

    /// Frees what is in place; waits until something is.
    async fn free_settled(&self) -> Result<(), IoError> {
        let parity = self.parity();
        let point = loop {
            let settled = parity.settled.notified();
            let point = parity.ring().freeable();
            if let Some(point) = point {
                break point;
            }
            self.check_running()?;
            settled.await;
        };
        self.write_checks().await?;
        let members = self.members.load_full();
        let mut failed = SmallVec::<[usize; 4]>::new();
        let mut flushes = members.start_flushes();
        self.settle_all(&members, &mut flushes, &mut failed).await;
        if !failed.is_empty() {
            self.drop_members(&members, &failed).await?;
        }
        let (members, freeing) = {
            // Seen while the ring is held, so that every anchor is written to the device whose ring it is.
            let ring = parity.ring();
            let members = self.members.load_full();
            let mut freeing = ring.freeing(point);
            // Who is about to join has its own: the next one goes to the slot that this does not stand in.
            freeing
                .anchors
                .retain(|(member, _)| members.writable(*member).is_some());
            (members, freeing)
        };
        // Who is out of these may not have flushed: it must not come back as in sync once the journal has it no more.
        self.wait_durable(members.record.membership.generation).await?;
        self.write_anchors(&members, &freeing.anchors).await?;
        parity.ring().freed(&freeing);
        Ok(())
    }

    pub(super) async fn write_anchors(
        &self,
        members: &Members,
        anchors: &[(usize, Anchor)],
    ) -> Result<(), IoError> {
        let mut writes: SmallVec<[(usize, Io); 4]> = SmallVec::new();
        for (member, anchor) in anchors {
            if let Some(device) = members.writable(*member) {
                let request = anchor_request(&members.record, *member, anchor);
                writes.push((*member, device.start(request)));
            }
        }
        self.answer_write(members, &mut writes).await
    }

    /// Gives a device a ring, before it is written as this member.
    pub(in crate::raid) async fn join_journal(
        &self,
        record: &GroupRecord,
        member: usize,
        device: &DeviceHandle,
    ) -> Result<(), DeviceError> {
        let found = newest_anchor(record, member, device).await?;
        let sequence = found.map_or(0, |anchor| anchor.sequence);
        let anchor = {
            let parity = self.parity();
            let mut ring = parity.ring();
            *parity.joined_at.lock().unwrap_or_else(PoisonError::into_inner) = ring.latest();
            ring.join(member, sequence)
        };
        let written = device.run(anchor_request(record, member, &anchor)).await.result;
        if written.is_err() {
            self.parity().leave(member);
        }
        written
    }
}

fn anchor_request(record: &GroupRecord, member: usize, anchor: &Anchor) -> Request {
    Request::Write {
        at: journal_range(record, member).start() + anchor.place(),
        data: anchor::encode(&area(record, member), anchor),
        fua: true,
    }
}

/// The newest anchor on a member; `None` where there is none that is valid.
pub(super) async fn newest_anchor(
    record: &GroupRecord,
    member: usize,
    device: &DeviceHandle,
) -> Result<Option<Anchor>, DeviceError> {
    let start = journal_range(record, member).start();
    let mut slots = Vec::new();
    for slot in 0..RING_START / BLOCK as u64 {
        match device.read(start + slot * BLOCK as u64, BLOCK).await {
            Ok(block) => slots.extend_from_slice(block.as_slice()),
            // The other one counts then: an older anchor only has more read than needed.
            Err(DeviceError::Medium) => slots.resize(slots.len() + BLOCK, 0xff),
            Err(error) => return Err(error),
        }
    }
    Ok(anchor::newest(&area(record, member), &slots))
}

/// Gives a new member its first anchor.
pub(in crate::raid) async fn format_journal(
    record: &GroupRecord,
    member: usize,
    device: &DeviceHandle,
) -> Result<(), DeviceError> {
    let anchor = Anchor {
        sequence: 1,
        incarnation: Incarnation(0),
        first: CommitSequence(1),
        offset: RingOffset(0),
    };
    device.run(anchor_request(record, member, &anchor)).await.result
}
