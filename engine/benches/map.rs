//! What one address translation costs: below 100 ns in a map of 100 runs, below 300 ns in one of a million.
//!
//! Addresses are random over the whole volume, so a large map is met with cold caches.

use std::hint::black_box;

use ashlar_engine::map::{Run, VolumeMap};
use ashlar_engine::types::{ByteRange, GroupNumber, IdSource};
use criterion::{Criterion, criterion_group, criterion_main};

const SLICE: u64 = 64 << 20;
const ADDRESSES: usize = 1 << 20;

/// A map whose neighbouring runs never join.
fn map_of(runs: u32) -> VolumeMap {
    let run = |index: u32| Run {
        volume_start: u64::from(index) * SLICE,
        len: SLICE,
        group: GroupNumber(index % 7),
        group_start: u64::from(runs - index) * SLICE,
    };
    VolumeMap::new((0..runs).map(run).collect()).expect("the runs lie one after the other")
}

fn translation(criterion: &mut Criterion) {
    let ids = IdSource::from_seed(1);
    for runs in [1, 100, 10_000, 1_000_000] {
        let map = map_of(runs);
        let addresses: Vec<u64> = (0..ADDRESSES)
            .map(|_| ids.below(u64::from(runs) * SLICE))
            .collect();
        let mut at = addresses.iter().cycle();
        criterion.bench_function(&format!("lookup in {runs} runs"), |bench| {
            bench.iter(|| map.lookup(black_box(*at.next().expect("the addresses repeat"))));
        });
        criterion.bench_function(&format!("pieces of 1 MiB in {runs} runs"), |bench| {
            bench.iter(|| {
                let address = black_box(*at.next().expect("the addresses repeat"));
                map.pieces(ByteRange::between(address, address + (1 << 20)))
                    .map(black_box)
                    .count()
            });
        });
    }
}

criterion_group!(benches, translation);
criterion_main!(benches);
