//! Reading and writing pages of checksums.
//!
//! Pages are written before members flush: by who makes something durable, and by who finds too many of them changed. One
//! at a time, so that no page is written twice together.

use std::sync::Arc;

use futures_util::future::join_all;
use smallvec::SmallVec;

use super::cache::{Image, MemberChecks, PageNumber, Reading};
use super::{BLOCK, BLOCK_LEN, ENTRIES, Formula, PAGE, PAGE_LEN, PER_PAGE, Values};
use crate::device::{DeviceError, DeviceHandle, Io, Request};
use crate::io::{IoBuf, IoError};
use crate::planted::{self, Planted};
use crate::raid::GroupRecord;
use crate::raid::group::Group;
use crate::raid::membership::Members;
use crate::types::ByteRange;

/// Pages read or written at a time.
const AT_A_TIME: usize = 64;
/// Bytes read at a time where a page is made up from what it is of.
const PIECE: u64 = 1 << 20;

/// What a group with checksums has besides.
pub(in crate::raid) struct Checks {
    pub(in crate::raid) formula: Formula,
    writing: tokio::sync::Mutex<()>,
}

impl Checks {
    pub(in crate::raid) fn new(formula: Formula) -> Self {
        Self {
            formula,
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// What is known of a member that nothing is known of yet.
    pub(in crate::raid) fn of_member(&self) -> Arc<MemberChecks> {
        Arc::new(MemberChecks::new(self.formula))
    }
}

/// One member with its checksums.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a> {
    pub(super) record: &'a GroupRecord,
    pub(super) member: usize,
    pub(super) device: &'a DeviceHandle,
    pub(super) checks: &'a MemberChecks,
}

impl Members {
    /// A member that is written, where it has checksums.
    pub(super) fn checked(&self, member: usize) -> Option<Checked<'_>> {
        let device = self.writable(member)?;
        let checks = self.list[member].checks.as_ref()?;
        Some(Checked {
            record: &self.record,
            member,
            device,
            checks,
        })
    }

    fn all_checked(&self) -> impl Iterator<Item = Checked<'_>> {
        (0..self.list.len()).filter_map(|member| self.checked(member))
    }
}

impl Checked<'_> {
    fn place_of(&self, page: PageNumber) -> u64 {
        let all = self.record.checksums_of(self.member);
        all.expect("who is checked has checksums").start() + page * PAGE
    }

    /// Reads a page. One that cannot be read is made up from the blocks as they stand: it tells nothing of them, and
    /// everything of what happens to them later.
    pub(super) async fn read_page(&self, page: PageNumber) -> Result<(), DeviceError> {
        let reading = self.checks.begin_reading(page);
        let at = self.place_of(page);
        match self.device.read(at, PAGE_LEN).await {
            Ok(bytes) => {
                let words = bytes.as_slice().as_chunks::<4>().0;
                let values: Vec<u32> = words.iter().map(|&word| u32::from_le_bytes(word)).collect();
                reading.merge(&values);
                Ok(())
            }
            Err(DeviceError::Medium) => self.make_up(page, &reading).await,
            Err(error) => Err(error),
        }
    }

    async fn make_up(&self, page: PageNumber, reading: &Reading<'_>) -> Result<(), DeviceError> {
        tracing::warn!(group = %self.record.number, member = self.member, page, "checksums cannot be read");
        let blocks = page * PER_PAGE * BLOCK..(page + 1) * PER_PAGE * BLOCK;
        let end = blocks.end.min(self.record.layout.member_len);
        let mut values = Vec::new();
        for piece in ByteRange::between(blocks.start, end).split_at_multiples(PIECE) {
            let at = self.record.members[self.member].data_start + piece.start();
            let len = usize::try_from(piece.len()).expect("at most 1 MiB");
            match self.device.read(at, len).await {
                Ok(data) => values.extend(self.checks.formula().values(piece.start(), data.as_slice())),
                // They do not fit, then, where they can be read one by one: that mends them.
                Err(DeviceError::Medium) => values.resize(values.len() + len / BLOCK_LEN, 0),
                Err(error) => return Err(error),
            }
        }
        values.resize(ENTRIES, 0);
        reading.merge_made_up(&values);
        Ok(())
    }

    fn write_page(&self, image: &Image) -> Io {
        let mut bytes = IoBuf::new(PAGE_LEN);
        for (word, value) in bytes
            .as_mut_slice()
            .as_chunks_mut::<4>()
            .0
            .iter_mut()
            .zip(&*image.values)
        {
            *word = value.to_le_bytes();
        }
        self.device.start(Request::Write {
            at: self.place_of(image.page),
            data: bytes.into_slice(),
            fua: false,
        })
    }

    /// What is to be written, whole; fewer where the device fails, which shows when it is written or flushed.
    async fn images(&self, pages: &[PageNumber]) -> Vec<Image> {
        let partial = pages.iter().filter(|&&page| self.checks.is_partial(page));
        join_all(partial.map(|&page| self.read_page(page))).await;
        pages.iter().filter_map(|&page| self.checks.image(page)).collect()
    }
}

impl Group {
    /// Writes the checksums that changed before now. They are durable after the next flush.
    pub(in crate::raid) async fn write_checks(&self) -> Result<(), IoError> {
        let Some(checks) = &self.checks else {
            return Ok(());
        };
        if planted::is(Planted::NoChecksKept) || !self.has_changed_checks() {
            return Ok(());
        }
        let _one_at_a_time = checks.writing.lock().await;
        let members = self.members.load_full();
        for member in members.all_checked() {
            for pages in member.checks.changed().chunks(AT_A_TIME) {
                let images = member.images(pages).await;
                let mut writes: SmallVec<[(usize, Io); 4]> = SmallVec::new();
                writes.extend(
                    images
                        .iter()
                        .map(|image| (member.member, member.write_page(image))),
                );
                self.answer_write(&members, &mut writes).await?;
                images.iter().for_each(|image| member.checks.written(image));
            }
        }
        Ok(())
    }

    /// Whether checksums changed that are not written.
    pub(in crate::raid) fn has_changed_checks(&self) -> bool {
        self.members
            .load()
            .all_checked()
            .any(|it| it.checks.has_changed())
    }

    /// Waits until there is room to change more of them.
    pub(in crate::raid) async fn has_room_for_checks(&self) -> Result<(), IoError> {
        if self.checks.is_some() && self.members.load().all_checked().any(|it| it.checks.is_full()) {
            return self.write_checks().await;
        }
        Ok(())
    }

    /// What the checksums of `data` are, where there are any.
    pub(in crate::raid) fn values_of(&self, at: u64, data: &[u8]) -> Option<Values> {
        self.checks.as_ref().map(|checks| checks.formula.values(at, data))
    }

    pub(in crate::raid) fn values_of_zeros(&self, range: ByteRange) -> Option<Values> {
        self.checks.as_ref().map(|checks| checks.formula.of_zeros(range))
    }
}

impl Members {
    /// Notes what stands on a member, from its address `at` on. To be called just before that is written, with nothing
    /// waited for in between: who is dropped while it waits must not leave one without the other.
    pub(in crate::raid) fn note(&self, member: usize, at: u64, values: Option<&Values>) {
        if let (Some(values), Some(checks)) = (values, &self.list[member].checks) {
            checks.note(at, values);
        }
    }

    /// The same, where zeros are written for what nobody knows: it reads as an error.
    pub(in crate::raid) fn note_lost(&self, member: usize, range: ByteRange) {
        if let Some(checks) = &self.list[member].checks {
            checks.note_lost(range);
        }
    }
}
