//! A device in memory for unit tests: answers at once, keeps everything, fails when told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{Completion, Device, DeviceError, DeviceHandle, DeviceInfo, Request, SlotId, Started, slots};
use crate::io::IoBuf;
use crate::types::{ByteRange, DeviceId};

pub(crate) struct MemoryDevice {
    info: DeviceInfo,
    inner: Mutex<Inner>,
}

/// Power that several devices share: it lasts for so many changes, then all of them fail.
#[derive(Clone)]
pub(crate) struct Power(Arc<AtomicU64>);

impl Power {
    pub(crate) fn for_changes(count: u64) -> Self {
        Self(Arc::new(AtomicU64::new(count)))
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn use_for(&self, request: &Request) -> bool {
        let less = |left: u64| left.checked_sub(u64::from(!matches!(request, Request::Read { .. })));
        !self.is_gone()
            && self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
                .is_ok()
    }
}

struct Inner {
    content: Vec<u8>,
    failing: Option<DeviceError>,
    power: Option<Power>,
    is_full: bool,
    hold_reads: bool,
    held: Vec<(SlotId, u64, IoBuf)>,
    written: Vec<ByteRange>,
    unreadable: Option<ByteRange>,
}

impl MemoryDevice {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Self::with_block(capacity, 512)
    }

    pub(crate) fn with_block(capacity: usize, block: u32) -> Arc<Self> {
        let info = DeviceInfo {
            capacity: capacity as u64,
            block,
            zeroes_fast: true,
            volatile_cache: false,
        };
        let inner = Inner {
            content: vec![0; capacity],
            failing: None,
            power: None,
            is_full: false,
            hold_reads: false,
            held: Vec::new(),
            written: Vec::new(),
            unreadable: None,
        };
        Arc::new(Self {
            info,
            inner: Mutex::new(inner),
        })
    }

    pub(crate) fn open_as(self: &Arc<Self>, id: DeviceId) -> Arc<DeviceHandle> {
        Arc::new(DeviceHandle::new(id, Arc::clone(self) as Arc<dyn Device>))
    }

    /// The same device, opened once more: with its content as it is now.
    pub(crate) fn another_opening(&self) -> Arc<Self> {
        let capacity = usize::try_from(self.info.capacity).unwrap();
        let opened = Self::with_block(capacity, self.info.block);
        opened.scribble(0, &self.content(0, capacity));
        opened
    }

    pub(crate) fn fail_everything(&self, fail: bool) {
        self.fail_with(fail.then_some(DeviceError::Os(5)));
    }

    pub(crate) fn fail_with(&self, error: Option<DeviceError>) {
        self.inner.lock().unwrap().failing = error;
    }

    /// Fails everything once this is used up; `None`: never.
    pub(crate) fn feed(&self, power: Option<Power>) {
        self.inner.lock().unwrap().power = power;
    }

    /// Writes find no space from now on.
    pub(crate) fn fill_up(&self) {
        self.inner.lock().unwrap().is_full = true;
    }

    /// Reads from now on are answered by [`fail_held`](Self::fail_held) or [`answer_held`](Self::answer_held) only.
    pub(crate) fn hold_reads(&self) {
        self.inner.lock().unwrap().hold_reads = true;
    }

    /// Answers reads at once again; those that are held stay so.
    pub(crate) fn release_reads(&self) {
        self.inner.lock().unwrap().hold_reads = false;
    }

    pub(crate) fn fail_held(&self) {
        for (slot, ..) in std::mem::take(&mut self.inner.lock().unwrap().held) {
            let result = Err(DeviceError::Os(5));
            slots::complete(slot, Completion { result, buf: None });
        }
    }

    /// Answers with what is there now.
    pub(crate) fn answer_held(&self) {
        let held = std::mem::take(&mut self.inner.lock().unwrap().held);
        for (slot, at, mut buf) in held {
            let len = buf.len();
            let content = self.content(usize::try_from(at).unwrap(), len);
            buf.as_mut_slice().copy_from_slice(&content);
            let (result, buf) = (Ok(()), Some(buf));
            slots::complete(slot, Completion { result, buf });
        }
    }

    /// Reads that touch `range` fail as a bad place does.
    pub(crate) fn spoil(&self, range: ByteRange) {
        self.inner.lock().unwrap().unreadable = Some(range);
    }

    /// What was written since it was last asked.
    pub(crate) fn take_written(&self) -> Vec<ByteRange> {
        std::mem::take(&mut self.inner.lock().unwrap().written)
    }

    pub(crate) fn content(&self, at: usize, len: usize) -> Vec<u8> {
        self.inner.lock().unwrap().content[at..at + len].to_vec()
    }

    pub(crate) fn scribble(&self, at: usize, bytes: &[u8]) {
        self.inner.lock().unwrap().content[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl Device for MemoryDevice {
    fn info(&self) -> DeviceInfo {
        self.info
    }

    fn submit(&self, request: Request) -> Started {
        let mut inner = self.inner.lock().unwrap();
        let mut completion = Completion {
            result: Ok(()),
            buf: None,
        };
        let has_power = inner.power.as_ref().is_none_or(|power| power.use_for(&request));
        let failing = inner.failing.clone();
        if let Some(error) = failing.or((!has_power).then_some(DeviceError::Os(5))) {
            completion.result = Err(error);
            return Started::Done(completion);
        }
        match request {
            Request::Read { at, buf } if inner.hold_reads => {
                let slot = slots::allocate(None);
                inner.held.push((slot, at, buf));
                return Started::Pending(slot);
            }
            Request::Read { at, buf }
                if inner
                    .unreadable
                    .is_some_and(|bad| bad.overlaps(ByteRange::between(at, at + buf.len() as u64))) =>
            {
                completion.result = Err(DeviceError::Medium);
                completion.buf = Some(buf);
            }
            Request::Read { at, mut buf } => {
                let at = usize::try_from(at).unwrap();
                let len = buf.len();
                buf.as_mut_slice().copy_from_slice(&inner.content[at..at + len]);
                completion.buf = Some(buf);
            }
            Request::Write { .. } | Request::Zero { .. } if inner.is_full => {
                completion.result = Err(DeviceError::NoSpace);
            }
            Request::Write { at, data, .. } => {
                inner.written.push(ByteRange::between(at, at + data.len() as u64));
                let at = usize::try_from(at).unwrap();
                inner.content[at..at + data.len()].copy_from_slice(data.as_slice());
            }
            Request::Zero { range, .. } => {
                let (start, end) = (
                    usize::try_from(range.start()).unwrap(),
                    usize::try_from(range.end()).unwrap(),
                );
                inner.content[start..end].fill(0);
            }
            Request::Flush => {}
        }
        Started::Done(completion)
    }
}
