//! A device that may lose, keep or tear at 512 bytes whatever was written to it since its last flush.

use std::collections::BTreeMap;

use rand::RngExt as _;
use rand::rngs::StdRng;

pub(super) const SECTOR: usize = 512;

pub(super) struct Device {
    durable: Vec<u8>,
    /// What each sector was written with since the last flush, oldest first.
    volatile: BTreeMap<usize, Vec<[u8; SECTOR]>>,
}

impl Device {
    pub(super) fn new(len: usize) -> Self {
        Self {
            durable: vec![0; len],
            volatile: BTreeMap::new(),
        }
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        for (sector, bytes) in (Self::sector(at)..).zip(bytes.chunks_exact(SECTOR)) {
            let bytes = bytes.try_into().expect("a sector");
            self.volatile.entry(sector).or_default().push(bytes);
        }
    }

    pub(super) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let first = Self::sector(at);
        let sectors = first..first + len / SECTOR;
        sectors.flat_map(|sector| *self.newest(sector)).collect()
    }

    pub(super) fn flush(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.volatile) {
            let newest = versions.last().expect("it was written");
            self.keep(sector, newest);
        }
    }

    pub(super) fn crash(&mut self, rng: &mut StdRng) {
        let keep = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        for (sector, versions) in std::mem::take(&mut self.volatile) {
            if rng.random_bool(keep) {
                self.keep(sector, &versions[rng.random_range(0..versions.len())]);
            }
        }
    }

    fn keep(&mut self, sector: usize, bytes: &[u8; SECTOR]) {
        self.durable[sector * SECTOR..][..SECTOR].copy_from_slice(bytes);
    }

    fn newest(&self, sector: usize) -> &[u8; SECTOR] {
        let durable = || self.durable[sector * SECTOR..].first_chunk();
        let volatile = self.volatile.get(&sector).and_then(|versions| versions.last());
        volatile.or_else(durable).expect("the device has this sector")
    }

    fn sector(at: u64) -> usize {
        usize::try_from(at).expect("small") / SECTOR
    }
}
