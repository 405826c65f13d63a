//! What was written, acknowledged and flushed, block by block, and whether what is read afterwards may be there.
//!
//! The rule that it checks is the product's promise about crashes: every sector holds the content of one of its
//! writes that is not older than the newest one whose flush returned, and not newer than the last one submitted.
//! Sequence 0 is the content before any write: zeros.

pub const SECTOR: usize = 512;
pub const BLOCK: usize = 4096;

/// One block's history as far as its end is known.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    submitted: u64,
    acknowledged: u64,
    flushed: u64,
}

/// The history of a set of blocks, numbered from 0.
#[derive(Debug)]
pub struct Ledger {
    entries: Vec<Entry>,
}

impl Ledger {
    pub fn new(blocks: usize) -> Self {
        Self {
            entries: vec![Entry::default(); blocks],
        }
    }

    pub fn blocks(&self) -> usize {
        self.entries.len()
    }

    /// Notes that a write of `block` is about to be sent; its sequence number.
    pub fn submit(&mut self, block: usize) -> u64 {
        let entry = &mut self.entries[block];
        entry.submitted += 1;
        entry.submitted
    }

    pub fn acknowledge(&mut self, block: usize, sequence: u64) {
        self.entries[block].acknowledged = sequence;
    }

    /// What a flush that is sent now makes durable, to be given to [`Ledger::flushed`] when it has returned.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.entries.iter().map(|entry| entry.acknowledged).collect()
    }

    pub fn flushed(&mut self, acknowledged: &[u64]) {
        for (entry, sequence) in self.entries.iter_mut().zip(acknowledged) {
            entry.flushed = entry.flushed.max(*sequence);
        }
    }

    /// Blocks of which some write was flushed.
    pub fn blocks_flushed(&self) -> usize {
        self.entries.iter().filter(|entry| entry.flushed > 0).count()
    }

    /// Blocks whose last write was not flushed.
    pub fn blocks_at_risk(&self) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.flushed < entry.submitted)
            .count()
    }

    /// The lowest sequence found in `bytes`, the whole content of `block`.
    ///
    /// # Errors
    /// Says which sector holds what it must not.
    pub fn check(&self, block: usize, bytes: &[u8]) -> Result<u64, String> {
        let Entry {
            submitted, flushed, ..
        } = self.entries[block];
        let mut lowest = u64::MAX;
        for (sector, found) in bytes.chunks(SECTOR).enumerate() {
            let sequence = sequence_of(block, sector, found).ok_or_else(|| {
                format!(
                    "block {block} sector {sector}: content of no write: {:x?}",
                    &found[..32]
                )
            })?;
            if !(flushed..=submitted).contains(&sequence) {
                return Err(format!(
                    "block {block} sector {sector}: write {sequence}, but {flushed} was flushed and {submitted} the last"
                ));
            }
            lowest = lowest.min(sequence);
        }
        Ok(lowest)
    }

    /// Takes what was read and flushed after a crash as the new ground; what was pending then is no longer.
    pub fn settle(&mut self, block: usize, sequence: u64) {
        let entry = &mut self.entries[block];
        (entry.flushed, entry.acknowledged) = (sequence, sequence);
    }
}

/// What `block` holds after its write number `sequence`.
pub fn content(block: usize, sequence: u64) -> Vec<u8> {
    (0..BLOCK / SECTOR)
        .flat_map(|sector| sector_content(block, sector, sequence))
        .collect()
}

/// Words that tell block, sector and sequence, each mixed so that no part of one sector fits into another.
fn sector_content(block: usize, sector: usize, sequence: u64) -> Vec<u8> {
    if sequence == 0 {
        return vec![0; SECTOR];
    }
    let place = (block as u64) << 8 | sector as u64;
    let mut mixed = place.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ sequence;
    let words = (2..SECTOR as u64 / 8).map(|_| {
        mixed ^= mixed << 13;
        mixed ^= mixed >> 7;
        mixed ^= mixed << 17;
        mixed
    });
    [sequence, place]
        .into_iter()
        .chain(words)
        .flat_map(u64::to_le_bytes)
        .collect()
}

fn sequence_of(block: usize, sector: usize, bytes: &[u8]) -> Option<u64> {
    let sequence = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    (sector_content(block, sector, sequence) == bytes).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Ledger, SECTOR, content};

    /// Block 1 was written twice and flushed after the first write.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(2);
        let first = ledger.submit(1);
        ledger.acknowledge(1, first);
        let before_flush = ledger.acknowledged();
        let second = ledger.submit(1);
        ledger.acknowledge(1, second);
        ledger.flushed(&before_flush);
        ledger
    }

    #[test]
    fn the_flushed_write_and_every_later_one_may_be_there_mixed_by_sector() {
        let mixed = [&content(1, 1)[..SECTOR], &content(1, 2)[SECTOR..]].concat();
        assert_eq!(ledger().check(1, &content(1, 1)), Ok(1));
        assert_eq!(ledger().check(1, &content(1, 2)), Ok(2));
        assert_eq!(ledger().check(1, &mixed), Ok(1));
        assert_eq!(ledger().check(0, &[0; BLOCK]), Ok(0));
    }

    #[test]
    fn older_than_the_flush_newer_than_the_last_write_and_foreign_content_are_found() {
        let mut damaged = content(1, 2);
        damaged[BLOCK - 1] ^= 1;
        for bad in [content(1, 0), content(1, 3), content(0, 1), damaged] {
            assert!(ledger().check(1, &bad).is_err());
        }
    }

    #[test]
    fn a_flush_covers_only_what_was_acknowledged_when_it_was_sent() {
        let mut ledger = ledger();
        assert_eq!((ledger.blocks_flushed(), ledger.blocks_at_risk()), (1, 1));
        let all = ledger.acknowledged();
        ledger.flushed(&all);
        assert_eq!((ledger.blocks_flushed(), ledger.blocks_at_risk()), (1, 0));
        assert!(ledger.check(1, &content(1, 1)).is_err());
    }
}
