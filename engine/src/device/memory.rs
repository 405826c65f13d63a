//! A device in memory for unit tests: answers at once, keeps everything, fails when told.

use std::sync::{Arc, Mutex};

use super::{Completion, Device, DeviceError, DeviceHandle, DeviceInfo, Request, Started};
use crate::types::{DeviceId, IdSource};

pub(crate) struct MemoryDevice {
    info: DeviceInfo,
    inner: Mutex<Inner>,
}

struct Inner {
    content: Vec<u8>,
    fail_all: bool,
    fail_writes_after: Option<u64>,
    writes: u64,
}

impl MemoryDevice {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        let info = DeviceInfo { capacity: capacity as u64, block: 512, zeroes_fast: true, volatile_cache: false };
        let inner = Inner { content: vec![0; capacity], fail_all: false, fail_writes_after: None, writes: 0 };
        Arc::new(Self { info, inner: Mutex::new(inner) })
    }

    /// A handle as the appliance would make it when it opens the device.
    pub(crate) fn open(self: &Arc<Self>, ids: &IdSource) -> Arc<DeviceHandle> {
        self.open_as(DeviceId::random(ids))
    }

    pub(crate) fn open_as(self: &Arc<Self>, id: DeviceId) -> Arc<DeviceHandle> {
        Arc::new(DeviceHandle::new(id, Arc::clone(self) as Arc<dyn Device>))
    }

    pub(crate) fn fail_everything(&self, fail: bool) {
        self.inner.lock().unwrap().fail_all = fail;
    }

    /// The write with this number, counted from now, and all later ones fail.
    pub(crate) fn fail_writes_after(&self, count: u64) {
        let mut inner = self.inner.lock().unwrap();
        inner.fail_writes_after = Some(inner.writes + count);
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
        let mut completion = Completion { result: Ok(()), buf: None };
        let changes = matches!(request, Request::Write { .. } | Request::Zero { .. });
        inner.writes += u64::from(changes);
        if inner.fail_all || (changes && inner.fail_writes_after.is_some_and(|limit| inner.writes > limit)) {
            completion.result = Err(DeviceError::Os(5));
            return Started::Done(completion);
        }
        match request {
            Request::Read { at, mut buf } => {
                let at = usize::try_from(at).unwrap();
                let len = buf.len();
                buf.as_mut_slice().copy_from_slice(&inner.content[at..at + len]);
                completion.buf = Some(buf);
            }
            Request::Write { at, data, .. } => {
                let at = usize::try_from(at).unwrap();
                inner.content[at..at + data.len()].copy_from_slice(data.as_slice());
            }
            Request::Zero { range, .. } => {
                let (start, end) = (usize::try_from(range.start()).unwrap(), usize::try_from(range.end()).unwrap());
                inner.content[start..end].fill(0);
            }
            Request::Flush => {}
        }
        Started::Done(completion)
    }
}
