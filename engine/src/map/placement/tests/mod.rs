//! What a placement request gets, case by case; random ones in `properties`.

mod properties;

use super::*;
use crate::logical_device::{Allocator, Shortage, SliceLength};
use crate::types::bytes::{GIB, KIB};
use crate::types::geometry::{CkdModel, OpenBlock};

const OPEN: EmulationType = EmulationType::Open(OpenBlock::B512);
const MODEL: CkdModel = CkdModel::M3390M1;
const CKD: EmulationType = EmulationType::Ckd(MODEL);
const PACKED: Layout = Layout::DEFAULT_PACKED;
const VOLUME: VolumeNumber = VolumeNumber(0);
const LARGEST: u64 = crate::types::geometry::LARGEST_VOLUME;

/// Groups with this many slices of these lengths.
fn groups(slices: &[(u64, u32)]) -> Allocators {
    let mut allocators = Allocators::new();
    for (number, (len, count)) in (0..).zip(slices) {
        let len = SliceLength::new(*len, u64::MAX).unwrap();
        allocators.insert(GroupNumber(number), Allocator::new(len, *count));
    }
    allocators
}

fn mib(start: u64, len: u64) -> ByteRange {
    ByteRange::new(start * MIB, len * MIB).unwrap()
}

fn at(range: ByteRange, group: u32) -> Placement {
    Placement {
        range,
        group: GroupNumber(group),
    }
}

fn request(capacity: u64, placements: &[Placement]) -> PlacementRequest {
    PlacementRequest {
        volume: VOLUME,
        emulation: OPEN,
        capacity_before: 0,
        capacity,
        placements: placements.to_vec(),
        rest: None,
        layout: Layout::Aligned,
        exact: false,
    }
}

fn run(volume_start: u64, len: u64, group: u32, group_start: u64) -> Run {
    Run {
        volume_start,
        len,
        group: GroupNumber(group),
        group_start,
    }
}

fn planned(request: &PlacementRequest, map: &mut VolumeMap, allocators: &mut Allocators) -> Planned {
    let planned = plan(request, map, allocators).unwrap();
    *map = map.with_added(&planned.runs).unwrap();
    assert!(map.invariant());
    planned
}

fn mapped(placed: &[Placed]) -> Vec<&[ByteRange]> {
    placed.iter().map(|placed| &placed.mapped[..]).collect()
}

#[test]
fn a_volume_of_one_group_is_one_run_and_its_last_slice_is_hidden_beyond_the_capacity() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(64 * MIB, 10)]));
    let mut request = request(100 * MIB, &[]);
    request.rest = Some(GroupNumber(0));
    let planned = planned(&request, &mut map, &mut allocators);
    assert_eq!(map.runs().collect::<Vec<_>>(), [run(0, 128 * MIB, 0, 0)]);
    assert_eq!(planned.mapped.iter().collect::<Vec<_>>(), [mib(0, 100)]);
    assert_eq!(planned.taken.len(), 1);
    assert_eq!(planned.taken[0].slices.count, 2);
}

#[test]
fn logical_devices_begin_at_the_range_not_on_a_grid() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(2 * MIB, 10)]));
    let planned = planned(&request(GIB, &[at(mib(1, 3), 0)]), &mut map, &mut allocators);
    assert_eq!(mapped(&planned.placed), [[mib(1, 4)]]);
    assert_eq!(map.runs().collect::<Vec<_>>(), [run(MIB, 4 * MIB, 0, 0)]);
}

#[test]
fn a_placement_inside_an_earlier_rounding_begins_after_it_and_the_answer_says_so() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(4 * MIB, 10), (4 * MIB, 10)]));
    let asked = [at(mib(0, 5), 0), at(mib(5, 2), 1), at(mib(7, 2), 1)];
    let planned = planned(&request(GIB, &asked), &mut map, &mut allocators);
    assert_eq!(mapped(&planned.placed), [&[mib(0, 8)][..], &[], &[mib(8, 4)]]);
    assert_eq!(
        planned
            .placed
            .iter()
            .map(|placed| placed.trimmed)
            .collect::<Vec<_>>(),
        [false, true, true]
    );
    assert_eq!(planned.mapped.iter().collect::<Vec<_>>(), [mib(0, 12)]);
}

#[test]
fn exact_refuses_to_lie_in_an_earlier_rounding() {
    let mut allocators = groups(&[(4 * MIB, 10)]);
    let mut request = request(GIB, &[at(mib(0, 5), 0), at(mib(5, 2), 0)]);
    request.exact = true;
    let refusal = plan(&request, &VolumeMap::default(), &mut allocators).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "placement 1: 5MiB+2MiB of 5MiB+2MiB lies in an earlier one's rounding"
    );
    assert_eq!(allocators, groups(&[(4 * MIB, 10)]));
}

#[test]
fn rounding_stops_at_what_is_mapped_already() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(4 * MIB, 10)]));
    let planned = planned(
        &request(GIB, &[at(mib(5, 1), 0), at(mib(0, 5), 0)]),
        &mut map,
        &mut allocators,
    );
    assert_eq!(mapped(&planned.placed), [[mib(5, 4)], [mib(0, 5)]]);
    assert!(planned.placed.iter().all(|placed| !placed.trimmed));
}

#[test]
fn a_placement_that_ends_inside_an_earlier_granule_ends_before_it() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(MIB, 10), (MIB, 10)]));
    let kib = |start: u64, len: u64| ByteRange::new(start * KIB, len * KIB).unwrap();
    let mut request = request(GIB, &[at(kib(100, 4), 0), at(kib(40, 60), 1)]);
    request.layout = PACKED;
    let planned = planned(&request, &mut map, &mut allocators);
    assert_eq!(mapped(&planned.placed), [[kib(64, 64)], [kib(0, 64)]]);
    assert_eq!(
        planned
            .placed
            .iter()
            .map(|placed| placed.trimmed)
            .collect::<Vec<_>>(),
        [false, true]
    );
}

#[test]
fn more_placements_continue_where_the_answer_ended() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(4 * MIB, 10)]));
    planned(&request(GIB, &[at(mib(0, 5), 0)]), &mut map, &mut allocators);
    let mut more = request(GIB, &[at(mib(8, 3), 0)]);
    more.capacity_before = GIB;
    planned(&more, &mut map, &mut allocators);
    assert_eq!(map.runs().collect::<Vec<_>>(), [run(0, 12 * MIB, 0, 0)]);
    more.placements = vec![at(mib(11, 4), 0)];
    let refusal = plan(&more, &map, &mut allocators).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "placement 0: 11MiB+1MiB of 11MiB+4MiB is mapped already"
    );
}

#[test]
fn the_rest_fills_every_gap() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(MIB, 10), (2 * MIB, 20)]));
    let mut request = request(20 * MIB + 512, &[at(mib(5, 2), 0)]);
    request.rest = Some(GroupNumber(1));
    let planned = planned(&request, &mut map, &mut allocators);
    assert_eq!(planned.mapped.total(), request.capacity);
    let expected = [
        run(0, 5 * MIB, 1, 14 * MIB),
        run(5 * MIB, 2 * MIB, 0, 0),
        run(7 * MIB, 14 * MIB, 1, 0),
    ];
    assert_eq!(
        map.runs()
            .map(|run| (run.volume_start, run.len, run.group))
            .collect::<Vec<_>>(),
        expected.map(|run| (run.volume_start, run.len, run.group))
    );
}

#[test]
fn an_expansion_shows_the_hidden_part_first_and_continues_behind_it() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(64 * MIB, 10)]));
    let mut request = request(100 * MIB, &[]);
    request.rest = Some(GroupNumber(0));
    planned(&request, &mut map, &mut allocators);
    request.capacity_before = 100 * MIB;
    request.capacity = 120 * MIB;
    let within = planned(&request, &mut map, &mut allocators);
    assert_eq!(
        (within.runs.len(), within.mapped.iter().collect::<Vec<_>>()),
        (0, vec![mib(100, 20)])
    );
    request.capacity_before = 120 * MIB;
    request.capacity = 200 * MIB;
    let beyond = planned(&request, &mut map, &mut allocators);
    assert_eq!(beyond.mapped.iter().collect::<Vec<_>>(), [mib(120, 80)]);
    assert_eq!(map.runs().collect::<Vec<_>>(), [run(0, 256 * MIB, 0, 0)]);
    request.capacity = 100 * MIB;
    assert!(matches!(
        plan(&request, &map, &mut allocators),
        Err(PlacementError::Shrinks { .. })
    ));
}

#[test]
fn an_expansion_placed_elsewhere_begins_after_the_hidden_part() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(64 * MIB, 10), (64 * MIB, 10)]));
    let mut request = request(100 * MIB, &[]);
    request.rest = Some(GroupNumber(0));
    planned(&request, &mut map, &mut allocators);
    (request.capacity_before, request.capacity, request.rest) = (100 * MIB, 200 * MIB, None);
    request.placements = vec![at(mib(100, 100), 1)];
    let more = planned(&request, &mut map, &mut allocators);
    assert_eq!(
        (&more.placed[0].mapped[..], more.placed[0].trimmed),
        (&[mib(128, 72)][..], true)
    );
    assert_eq!(more.mapped.iter().collect::<Vec<_>>(), [mib(100, 100)]);
}

#[test]
fn scattered_ranges_are_packed_into_no_more_than_their_granules_and_one_logical_device() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(64 * MIB, 1000)]));
    let scattered: Vec<Placement> = (0..100_000)
        .map(|i| at(ByteRange::new(i * 256 * KIB + 4 * KIB, 4 * KIB).unwrap(), 0))
        .collect();
    let mut request = request(64 * GIB, &scattered);
    request.layout = PACKED;
    let planned = planned(&request, &mut map, &mut allocators);
    let slices: u32 = planned.taken.iter().map(|taken| taken.slices.count).sum();
    assert_eq!(u64::from(slices), (100_000 * 64 * KIB).div_ceil(64 * MIB));
    assert_eq!(planned.mapped.total(), 100_000 * 64 * KIB);
}

#[test]
fn later_packed_ranges_use_the_space_that_is_left_in_the_volumes_own_slices() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(MIB, 4)]));
    let mut request = request(GIB, &[at(ByteRange::new(GIB / 2, 512).unwrap(), 0)]);
    request.layout = PACKED;
    assert_eq!(planned(&request, &mut map, &mut allocators).taken.len(), 1);
    request.capacity_before = GIB;
    for granule in 1..16 {
        request.placements = vec![at(ByteRange::new(granule * MIB + 512, 512).unwrap(), 0)];
        let more = planned(&request, &mut map, &mut allocators);
        assert!(more.taken.is_empty());
        assert_eq!(
            more.placed[0].mapped,
            [ByteRange::new(granule * MIB, 64 * KIB).unwrap()]
        );
    }
    request.placements = vec![at(mib(100, 1), 0)];
    let next = planned(&request, &mut map, &mut allocators);
    assert_eq!(next.taken[0].slices.first, 1);
}

#[test]
fn a_logical_device_of_a_count_key_data_volume_holds_whole_cylinders() {
    let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(64 * MIB, 100)]));
    let mut request = request(MODEL.capacity(), &[]);
    (request.emulation, request.rest) = (CKD, Some(GroupNumber(0)));
    planned(&request, &mut map, &mut allocators);
    let usable = 78 * MODEL.cylinder();
    assert_eq!(map.run_count(), 1113usize.div_ceil(78));
    for (index, run) in (0..).zip(map.runs()) {
        assert_eq!(
            (run.volume_start, run.len, run.group_start),
            (index * usable, usable, index * 64 * MIB)
        );
    }
}

#[test]
fn count_key_data_ranges_round_out_to_cylinders_in_both_layouts() {
    let cylinder = MODEL.cylinder();
    let asked = ByteRange::new(3 * cylinder + MODEL.slot(), MODEL.slot()).unwrap();
    for (layout, cylinders) in [(Layout::Aligned, 2), (Layout::Packed { granule: MIB }, 1)] {
        let (mut map, mut allocators) = (VolumeMap::default(), groups(&[(2 * MIB, 100)]));
        let mut request = request(MODEL.capacity(), &[at(asked, 0)]);
        (request.emulation, request.layout) = (CKD, layout);
        let planned = planned(&request, &mut map, &mut allocators);
        assert_eq!(
            planned.placed[0].mapped,
            [ByteRange::new(3 * cylinder, cylinders * cylinder).unwrap()]
        );
    }
}

#[test]
fn bad_requests_are_refused_with_what_would_be_right() {
    let mut allocators = groups(&[(MIB, 4)]);
    let mut refusal = |change: &dyn Fn(&mut PlacementRequest)| {
        let mut request = request(GIB, &[at(mib(0, 1), 0)]);
        change(&mut request);
        let refusal = plan(&request, &VolumeMap::default(), &mut allocators)
            .unwrap_err()
            .to_string();
        assert_eq!(allocators, groups(&[(MIB, 4)]));
        refusal
    };
    let bytes = |start, len| at(ByteRange::new(start, len).unwrap(), 0);
    assert_eq!(
        refusal(&|r| r.placements.clear()),
        "neither placements nor a RAID group for the rest are given"
    );
    assert_eq!(
        refusal(&|r| r.placements = vec![bytes(0, 0)]),
        "placement 0: range 0+0 is empty"
    );
    assert_eq!(
        refusal(&|r| r.placements.push(bytes(2 * MIB, 100))),
        "placement 1: range 2MiB+100 is not a multiple of the block of 512 bytes; the blocks around it are 2MiB+512"
    );
    assert_eq!(
        refusal(&|r| r.placements = vec![at(mib(1023, 2), 0)]),
        "placement 0: range 1023MiB+2MiB ends beyond the capacity of 1GiB"
    );
    assert_eq!(
        refusal(&|r| r.placements = vec![at(mib(4, 4), 0), at(mib(0, 5), 0)]),
        "placements 0 and 1 both ask for 4MiB+1MiB"
    );
    assert_eq!(
        refusal(&|r| r.rest = Some(GroupNumber(3))),
        "there is no RAID group 3"
    );
    assert_eq!(
        refusal(&|r| r.layout = Layout::Packed { granule: 5000 }),
        "granule 5000 is not a multiple of 4KiB up to 1MiB"
    );
    assert_eq!(
        refusal(&|r| r.capacity = 1000),
        "capacity 1000 is not a multiple of the block of 512 bytes; the next one is 1KiB"
    );
    assert!(refusal(&|r| r.capacity = u64::MAX).contains("above the largest volume"));
    assert!(refusal(&|r| r.emulation = CKD).contains("leave the capacity out"));
}

#[test]
fn too_little_space_says_how_much_is_missing_where_and_takes_nothing() {
    for layout in [Layout::Aligned, PACKED] {
        let mut allocators = groups(&[(MIB, 4), (2 * MIB, 1), (MIB, 9)]);
        let mut request = request(
            LARGEST,
            &[
                at(mib(0, 5), 0),
                at(mib(10, 2), 0),
                at(mib(20, 6), 1),
                at(mib(30, 9), 2),
            ],
        );
        request.layout = layout;
        let refusal = plan(&request, &VolumeMap::default(), &mut allocators);
        let short = |group, needed, free, slice| Shortage {
            group: GroupNumber(group),
            needed,
            free,
            slice,
        };
        let shortages = vec![short(0, 7, 4, MIB), short(1, 3, 1, 2 * MIB)];
        assert_eq!(
            refusal,
            Err(PlacementError::Slices(AllocatorsError::NoSpace(shortages)))
        );
        assert_eq!(allocators, groups(&[(MIB, 4), (2 * MIB, 1), (MIB, 9)]));
    }
}

#[test]
fn the_largest_volume_is_refused_for_space_not_by_overflow() {
    let mut allocators = groups(&[(64 * MIB, 4)]);
    let mut request = request(LARGEST, &[]);
    request.rest = Some(GroupNumber(0));
    for layout in [Layout::Aligned, PACKED] {
        request.layout = layout;
        let refusal = plan(&request, &VolumeMap::default(), &mut allocators);
        let expected = Shortage {
            group: GroupNumber(0),
            needed: LARGEST / (64 * MIB),
            free: 4,
            slice: 64 * MIB,
        };
        assert_eq!(
            refusal,
            Err(PlacementError::Slices(AllocatorsError::NoSpace(vec![expected])))
        );
    }
}
