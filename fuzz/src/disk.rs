//! A disk in memory that is copied cheaply: pages are shared until one of the copies changes them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ashlar_engine::device::{Completion, Device, DeviceError, DeviceInfo, Request, Started};

pub const PAGE: usize = 4096;

type Pages = BTreeMap<u64, Arc<[u8; PAGE]>>;

/// Pages that are not there are zeros.
pub struct Disk {
    capacity: u64,
    pages: Mutex<Pages>,
}

impl Disk {
    /// A disk of `capacity` bytes, whole pages, all zeros.
    pub fn new(capacity: u64) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            pages: Mutex::default(),
        })
    }

    /// Another disk with the same content.
    pub fn copy(&self) -> Arc<Self> {
        Arc::new(Self {
            capacity: self.capacity,
            pages: Mutex::new(self.pages().clone()),
        })
    }

    /// Where records stand, with their magics.
    pub fn records(&self) -> Vec<(u64, [u8; 8])> {
        let pages = self.pages();
        let magic = |page: &Arc<[u8; PAGE]>| *page.first_chunk::<8>().expect("a page is longer");
        pages
            .iter()
            .map(|(number, page)| (number * PAGE as u64, magic(page)))
            .filter(|(_, magic)| magic.starts_with(b"ASHLR"))
            .collect()
    }

    /// Fills `out` from `at`; beyond the end are zeros.
    pub fn peek(&self, at: u64, out: &mut [u8]) {
        out.fill(0);
        let pages = self.pages();
        let end = at + out.len() as u64;
        for (number, page) in pages.range(at / PAGE as u64..end.div_ceil(PAGE as u64)) {
            let start = number * PAGE as u64;
            let (from, to) = (start.max(at), (start + PAGE as u64).min(end));
            out[(from - at) as usize..(to - at) as usize]
                .copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
    }

    /// Writes `bytes` at `at`, without what lies beyond the end.
    pub fn poke(&self, at: u64, bytes: &[u8]) {
        let mut pages = self.pages();
        let end = (at + bytes.len() as u64).min(self.capacity);
        let mut from = at;
        while from < end {
            let number = from / PAGE as u64;
            let start = number * PAGE as u64;
            let to = (start + PAGE as u64).min(end);
            let page = pages.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
            from = to;
        }
        pages.retain(|number, page| *number < at / PAGE as u64 || **page != [0; PAGE]);
    }

    fn clear(&self, start: u64, end: u64) {
        let (first, last) = (start.div_ceil(PAGE as u64), end / PAGE as u64);
        self.poke(start, &vec![0; (end.min(first * PAGE as u64) - start) as usize]);
        if first < last {
            self.pages()
                .retain(|number, _| *number < first || *number >= last);
        }
        if first <= last {
            self.poke(last * PAGE as u64, &vec![0; (end % PAGE as u64) as usize]);
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fits(&self, at: u64, len: u64) -> bool {
        at.checked_add(len).is_some_and(|end| end <= self.capacity)
    }
}

impl Device for Disk {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            capacity: self.capacity,
            block: 512,
            zeroes_fast: true,
            volatile_cache: false,
        }
    }

    fn submit(&self, request: Request) -> Started {
        let mut completion = Completion {
            result: Ok(()),
            buf: None,
        };
        match request {
            Request::Read { at, mut buf } if self.fits(at, buf.len() as u64) => {
                self.peek(at, buf.as_mut_slice());
                completion.buf = Some(buf);
            }
            Request::Write { at, data, .. } if self.fits(at, data.len() as u64) => {
                self.poke(at, data.as_slice())
            }
            Request::Zero { range, .. } if range.end() <= self.capacity => {
                self.clear(range.start(), range.end())
            }
            Request::Flush => {}
            Request::Read { .. } | Request::Write { .. } | Request::Zero { .. } => {
                completion.result = Err(DeviceError::Os(22));
            }
        }
        Started::Done(completion)
    }
}
