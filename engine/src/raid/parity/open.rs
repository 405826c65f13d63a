//! Opening the journal at a start: what a crash left is read from all members in sync, and what counts is written to its
//! places again.
//!
//! Invariants: members that are away are durably out of sync before; nothing is served before the new anchors are
//! durable. A member that lost what it had confirmed is taken out, and all is decided anew.

use smallvec::SmallVec;

use super::free::newest_anchor;
use super::journal::frame::StoredPart;
use super::journal::replay::{self, Again, Decision, Undecided};
use super::journal::ring::Ring;
use super::journal::scan::{Scanned, Scanner};
use super::journal::units::{BLOCK, RING_START};
use super::{area, incarnation, journal_range, ring_len};
use crate::device::{DeviceError, DeviceHandle, Io, Request};
use crate::io::{BufSlice, IoBuf, IoError};
use crate::raid::GroupRecord;
use crate::raid::group::Group;
use crate::raid::membership::Members;
use crate::types::ByteRange;

/// Places written at a time.
const AT_A_TIME: usize = 64;

impl Group {
    /// Brings every row to what its newest update in the journal says, and begins the journal anew.
    pub(in crate::raid) async fn open_journal(&self) -> Result<(), IoError> {
        loop {
            let members = self.members.load_full();
            let (scanned, failed) = scan_all(&members).await;
            if !failed.is_empty() {
                self.drop_members(&members, &failed).await?;
                continue;
            }
            let anchors: Vec<(usize, u64)> = (0..)
                .zip(&scanned)
                .filter_map(|(member, scanned)| Some((member, scanned.as_ref()?.anchor.sequence)))
                .collect();
            let decision = match replay::decide(scanned) {
                Ok(decision) => decision,
                Err(Undecided::Lost(lost)) => {
                    let lost: SmallVec<[usize; 4]> = lost.iter().collect();
                    self.drop_members(&members, &lost).await?;
                    continue;
                }
                Err(error @ (Undecided::NoMember | Undecided::Contradiction)) => {
                    tracing::error!(group = %self.number(), %error, "the journal cannot be opened");
                    return Err(IoError::GroupUnavailable {
                        why: "its journal cannot be read",
                    });
                }
            };
            if !self.write_again(&members, &decision).await? {
                continue;
            }
            let ring = Ring::open(
                ring_len(&self.layout),
                incarnation(self.journal.ids()),
                decision.last,
                anchors,
            );
            let freeing = ring.freeing(decision.last);
            *self.parity().ring() = ring;
            self.write_anchors(&members, &freeing.anchors).await?;
            self.parity().ring().freed(&freeing);
            return Ok(());
        }
    }

    /// Writes updates to their places, durably. `false` where a member failed, and is out now.
    async fn write_again(&self, members: &Members, decision: &Decision) -> Result<bool, IoError> {
        let mut failed = SmallVec::<[usize; 4]>::new();
        for Again { parts, .. } in &decision.again {
            for parts in parts.chunks(AT_A_TIME) {
                let mut writes: SmallVec<[(usize, Io); 4]> = SmallVec::new();
                for (member, part) in parts {
                    let device = members.readable(*member).expect("it was scanned");
                    let Some(data) = payload(&members.record, *member, device, part).await else {
                        failed.push(*member);
                        continue;
                    };
                    let at = members.record.members[*member].data_start + part.range.start();
                    let values = self.values_of(part.range.start(), data.as_slice());
                    members.note(*member, part.range.start(), values.as_ref());
                    writes.push((*member, device.start(Request::Write { at, data, fua: false })));
                }
                self.settle_all(members, &mut writes, &mut failed).await;
                self.has_room_for_checks().await?;
            }
        }
        self.write_checks().await?;
        let mut flushes = members.start_flushes();
        self.settle_all(members, &mut flushes, &mut failed).await;
        failed.dedup();
        if failed.is_empty() {
            return Ok(true);
        }
        self.drop_members(members, &failed).await?;
        Ok(false)
    }
}

/// What a part is to write; `None` where it cannot be read as it was written.
async fn payload(
    record: &GroupRecord,
    member: usize,
    device: &DeviceHandle,
    part: &StoredPart,
) -> Option<BufSlice> {
    let ring = journal_range(record, member).start() + RING_START;
    // Payloads are packed more closely than a device's blocks may be.
    let exact = ByteRange::new(part.payload.0, part.range.len())?;
    let blocks = exact.round_out(BLOCK as u64)?;
    let len = |range: ByteRange| usize::try_from(range.len()).expect("a frame fits memory");
    let read = device.read(ring + blocks.start(), len(blocks)).await.ok()?;
    let offset = usize::try_from(exact.start() - blocks.start()).expect("less than a block");
    let data = &read.as_slice()[offset..offset + len(exact)];
    // Copied, because what a device writes from has to be aligned in memory.
    part.is_payload(data)
        .then(|| IoBuf::from_slice(data).into_slice())
}

/// What stands in the rings of the members in sync, and who of them cannot tell.
async fn scan_all(members: &Members) -> (Vec<Option<Scanned>>, SmallVec<[usize; 4]>) {
    let (mut all, mut failed) = (Vec::new(), SmallVec::new());
    for member in 0..members.list.len() {
        let Some(device) = members.readable(member) else {
            all.push(None);
            continue;
        };
        let scanned = scan(&members.record, member, device).await;
        all.push(scanned.as_ref().ok().cloned().flatten());
        if all[member].is_none() {
            tracing::warn!(group = %members.record.number, member, "its journal cannot be read");
            failed.push(member);
        }
    }
    (all, failed)
}

/// `None` where a valid anchor lacks.
async fn scan(
    record: &GroupRecord,
    member: usize,
    device: &DeviceHandle,
) -> Result<Option<Scanned>, DeviceError> {
    let Some(anchor) = newest_anchor(record, member, device).await? else {
        return Ok(None);
    };
    let ring = journal_range(record, member).start() + RING_START;
    let mut scanner = Scanner::new(area(record, member), anchor);
    while let Some(wanted) = scanner.wants() {
        match device.read(ring + wanted.at.0, wanted.len).await {
            Ok(bytes) => scanner.feed(bytes.as_slice()),
            Err(DeviceError::Medium) => scanner.cannot_be_read(),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(scanner.finish()))
}
