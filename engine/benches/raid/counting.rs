//! A device that counts what is asked of it, by what stands at the address.

use std::ops::{Add, Sub};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ashlar_engine::device::{Device, DeviceInfo, LocalDevice, Request, Started};
use ashlar_engine::raid::GroupRecord;
use ashlar_engine::types::ByteRange;

use crate::pace::Pace;

/// What stands somewhere on a member.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Area {
    /// The data and sums of a group.
    Data,
    Checksums,
    /// The journal, and the region log before it.
    Log,
    /// What is the appliance's own.
    Other,
}

const AREAS: usize = 4;

/// Where a member has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    data: ByteRange,
    checksums: Option<ByteRange>,
    log: ByteRange,
}

impl Places {
    pub(crate) fn of(record: &GroupRecord, member: usize) -> Self {
        Self {
            data: record.data_of(member),
            checksums: record.checksums_of(member),
            log: record.members[member].log,
        }
    }

    fn area(&self, at: u64) -> Area {
        if self.data.contains(at) {
            Area::Data
        } else if self.checksums.is_some_and(|range| range.contains(at)) {
            Area::Checksums
        } else if self.log.contains(at) {
            Area::Log
        } else {
            Area::Other
        }
    }
}

/// What was asked of an area.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) writes: u64,
    pub(crate) written_bytes: u64,
}

impl Tally {
    fn with(self, other: Self, op: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            reads: op(self.reads, other.reads),
            read_bytes: op(self.read_bytes, other.read_bytes),
            writes: op(self.writes, other.writes),
            written_bytes: op(self.written_bytes, other.written_bytes),
        }
    }

    pub(crate) fn requests(self) -> u64 {
        self.reads + self.writes
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    areas: [Tally; AREAS],
    pub(crate) flushes: u64,
}

impl Counts {
    pub(crate) fn of(&self, area: Area) -> Tally {
        self.areas[area as usize]
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.areas.iter().map(|tally| tally.written_bytes).sum()
    }

    fn with(self, other: Self, op: impl Fn(u64, u64) -> u64 + Copy) -> Self {
        Self {
            areas: std::array::from_fn(|area| self.areas[area].with(other.areas[area], op)),
            flushes: op(self.flushes, other.flushes),
        }
    }

    fn add_request(&mut self, request: &Request, places: Places) {
        let (at, read, written) = match request {
            Request::Read { at, buf } => (*at, Some(buf.len() as u64), None),
            Request::Write { at, data, .. } => (*at, None, Some(data.len() as u64)),
            Request::Zero { range, .. } => (range.start(), None, Some(range.len())),
            Request::Flush => {
                self.flushes += 1;
                return;
            }
        };
        let tally = &mut self.areas[places.area(at) as usize];
        tally.reads += u64::from(read.is_some());
        tally.read_bytes += read.unwrap_or(0);
        tally.writes += u64::from(written.is_some());
        tally.written_bytes += written.unwrap_or(0);
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| a - b)
    }
}

pub(crate) struct Counting {
    device: LocalDevice,
    /// Where the device is to be as slow as a disk.
    pace: Option<Pace>,
    /// Nothing is counted, and nothing slow, before the places are known.
    counted: Mutex<(Option<Places>, Counts)>,
}

impl Counting {
    pub(crate) fn new(device: LocalDevice, pace: Option<Pace>) -> Self {
        Self {
            device,
            pace,
            counted: Mutex::default(),
        }
    }

    fn counted(&self) -> MutexGuard<'_, (Option<Places>, Counts)> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_places(&self, places: Places) {
        self.counted().0 = Some(places);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counted().1
    }
}

impl Device for Counting {
    fn info(&self) -> DeviceInfo {
        self.device.info()
    }

    fn submit(&self, request: Request) -> Started {
        let mut counted = self.counted();
        let (Some(places), counts) = &mut *counted else {
            drop(counted);
            return self.device.submit(request);
        };
        counts.add_request(&request, *places);
        drop(counted);
        let bytes = match &request {
            Request::Read { buf, .. } => buf.len() as u64,
            Request::Write { data, .. } => data.len() as u64,
            Request::Zero { .. } | Request::Flush => 0,
        };
        let started = self.device.submit(request);
        match &self.pace {
            Some(pace) => pace.hold_back(bytes, started),
            None => started,
        }
    }
}
