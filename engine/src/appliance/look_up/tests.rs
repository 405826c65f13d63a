use super::*;
use crate::appliance::records::{DeviceRecord, Record, VolumeRecord};
use crate::appliance::tests::{Bench, GROUP, MIB, VOLUME, run};
use crate::map::VolumeMap;
use crate::metadata::State as _;
use crate::raid::record::NewGroup;
use crate::raid::record::log_len;
use crate::raid::{Layout, Level, MemberRecord, MemberStatus};
use crate::types::{DeviceNumber, IdSource, LogicalDeviceNumber, VolumeNumber};
use proptest::prelude::*;
use uuid::Uuid;

const PAGE: u64 = 4096;
const SLICE: u64 = 4 * PAGE;
const MEMBER: u64 = 64 * PAGE;
const CAPACITY: u64 = 50 * PAGE;

fn volume_id(number: u32) -> VolumeId {
    VolumeId(Uuid::from_u128(0xf0 + u128::from(number)))
}

fn device_id(number: u32) -> DeviceId {
    DeviceId(Uuid::from_u128(0xd0 + u128::from(number)))
}

fn group_id(number: u32) -> GroupId {
    GroupId(Uuid::from_u128(0x90 + u128::from(number)))
}

fn group(number: u32, level: Level, devices: std::ops::Range<u32>, first: u32) -> Record {
    let layout = Layout {
        level,
        members: devices.len().try_into().unwrap(),
        unit: 2 * PAGE,
        member_len: MEMBER,
    };
    let log = log_len(&layout, PAGE, SLICE, false);
    let member = |number| MemberRecord {
        device: device_id(number),
        status: MemberStatus::InSync,
        log: ByteRange::between(0, log),
        data_start: log,
    };
    let new = NewGroup {
        id: group_id(number),
        number: GroupNumber(number),
        layout,
        granule: PAGE,
        region: SLICE,
        slice: SLICE,
        first_logical_device: LogicalDeviceNumber(first),
        checksums: false,
        members: devices.map(member).collect(),
    };
    Record::Group(GroupRecord::new(new, &IdSource::from_seed(1)))
}

fn a_volume(number: u32) -> Record {
    Record::Volume(VolumeRecord {
        number: VolumeNumber(number),
        id: volume_id(number),
        name: format!("vol{number}"),
        emulation: "open".parse().unwrap(),
        capacity: CAPACITY,
        partial: true,
    })
}

/// A mirror of devices 0 and 1, stripes over 2 to 4, and device 5. The mirror's logical devices come after the stripes'.
fn truth() -> Truth {
    let mut truth = Truth::default();
    for number in 0..6 {
        truth.apply(Record::Device(DeviceRecord {
            number: DeviceNumber(number),
            id: device_id(number),
            capacity: 1 << 30,
        }));
    }
    truth.apply(group(0, Level::Raid1, 0..2, 60));
    truth.apply(group(1, Level::Raid0, 2..5, 10));
    (0..3).for_each(|number| truth.apply(a_volume(number)));
    assert!(truth.invariant());
    truth
}

/// Runs of whole pages; in each group upwards, with steps.
fn runs() -> impl Strategy<Value = Vec<Run>> {
    let parts = proptest::collection::vec((0u64..3, 1u64..9, 0u32..2, 0u64..2), 0..12);
    parts.prop_map(|parts| {
        let (mut at, mut next) = (0, [0, 0]);
        let run = |(gap, len, group, step): (u64, u64, u32, u64)| {
            let run = Run {
                volume_start: (at + gap) * PAGE,
                len: len * PAGE,
                group: GroupNumber(group),
                group_start: (next[group as usize] + step) * PAGE,
            };
            at += gap + len;
            next[group as usize] += step + len;
            (next[group as usize] <= MEMBER / PAGE).then_some(run)
        };
        parts.into_iter().map_while(run).collect()
    })
}

/// Whether what lies at this place of a group lies there.
fn lies_on(truth: &Truth, on: &On, group: GroupNumber, start: u64) -> bool {
    let group = truth.groups.get(group).unwrap();
    match *on {
        On::Group(id) => group.id == id,
        On::LogicalDevice(number) => {
            u64::from(group.first_logical_device.0) + start / SLICE == u64::from(number)
        }
        On::Device(id) => {
            let page = ByteRange::between(start, start + PAGE);
            let piece = group.layout.pieces(page).next().unwrap();
            let mut members = group.layout.column_members(piece.first_member);
            members.any(|member| group.members[member].device == id)
        }
    }
}

proptest! {
    #[test]
    fn a_map_page_by_page_is_the_whole_map(
        runs in runs(),
        from in 0..60 * PAGE,
        to in 0..60 * PAGE,
        limit in 1usize..4,
    ) {
        let mut truth = truth();
        let map = VolumeMap::new(runs.clone()).unwrap();
        truth.apply(Record::AddRuns { volume: VolumeNumber(0), runs });
        let volume = truth.volumes.find(volume_id(0)).unwrap();
        let all: Vec<_> = stretches(&truth, volume, from, to).collect();
        let mut at = from;
        let mut paged = Vec::new();
        loop {
            let page: Vec<_> = stretches(&truth, volume, at, to).take(limit).collect();
            let Some(last) = page.last() else { break };
            at = last.range.end();
            paged.extend(page);
        }
        prop_assert_eq!(&paged, &all);
        prop_assert_eq!(at, to.min(CAPACITY).max(from));
        for stretch in all {
            let place = map.lookup(stretch.range.start());
            prop_assert_eq!(stretch.placed.is_some(), place.is_some());
            let (Some(placed), Some(place)) = (stretch.placed, place) else { continue };
            prop_assert_eq!((placed.group_number, placed.group_offset), (place.group, place.start));
            prop_assert!(place.len >= stretch.range.len());
            let (first, devices) = if placed.group == group_id(0) { (60, 0..2) } else { (10, 2..5) };
            let slices = (place.start / SLICE, (place.start + stretch.range.len() - 1) / SLICE);
            prop_assert_eq!(u64::from(placed.first_logical_device), first + slices.0);
            prop_assert_eq!(u64::from(placed.logical_devices), slices.1 - slices.0 + 1);
            prop_assert_eq!(placed.devices, devices.map(device_id).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_ranges_on_a_place_are_those_whose_every_page_lies_there(runs in runs(), from in 0..60 * PAGE) {
        let mut truth = truth();
        let map = VolumeMap::new(runs.clone()).unwrap();
        truth.apply(Record::AddRuns { volume: VolumeNumber(0), runs });
        let volume = truth.volumes.find(volume_id(0)).unwrap();
        let groups = (0..2).map(|number| On::Group(group_id(number)));
        let devices = (0..6).map(|number| On::Device(device_id(number)));
        let numbers = (10..20).chain(60..70).map(On::LogicalDevice);
        for on in groups.chain(devices).chain(numbers) {
            let found: Vec<_> = joined(ranges_on(&truth, volume, &on, from).unwrap()).collect();
            prop_assert!(found.windows(2).all(|pair| pair[0].end() < pair[1].start()));
            let from_page = from.next_multiple_of(PAGE);
            for page in (from_page..CAPACITY).step_by(4096) {
                let there = map.lookup(page).is_some_and(|place| lies_on(&truth, &on, place.group, place.start));
                prop_assert_eq!(found.iter().any(|range| range.contains(page)), there, "{:?} {}", on, page);
            }
            prop_assert!(found.iter().all(|range| range.start() >= from && range.end() <= CAPACITY));
        }
    }

    #[test]
    fn logical_devices_are_told_in_order_of_their_numbers(
        owned in proptest::collection::vec((0u32..2, 0u32..15, 1u32..4, 0u32..3), 0..12),
        removed in 0u32..4,
        from in 0u32..80,
    ) {
        let mut truth = truth();
        let mut oracle = std::collections::BTreeMap::new();
        oracle.extend((10..58).chain(60..76).map(|number| (number, (LogicalDeviceState::Free, None))));
        for (group, first, count, volume) in owned {
            let base = if group == 0 { 60 } else { 10 };
            let numbers = base + first..(base + first + count).min(base + 16);
            let count = u32::try_from(numbers.len()).unwrap();
            if numbers.clone().any(|number| oracle[&number].1.is_some()) {
                continue;
            }
            let slices = GroupSlices { group: GroupNumber(group), slices: Slices { first, count } };
            truth.apply(Record::AddSlices { volume: VolumeNumber(volume), slices: vec![slices] });
            for number in numbers {
                oracle.insert(number, (LogicalDeviceState::InUse, Some(volume_id(volume))));
            }
        }
        truth.apply(Record::RemoveVolume(VolumeNumber(removed)));
        prop_assert!(truth.invariant());
        for state in oracle.values_mut().filter(|(_, volume)| *volume == Some(volume_id(removed))) {
            *state = (LogicalDeviceState::Clearing, None);
        }
        let states = [None, Some(LogicalDeviceState::Free), Some(LogicalDeviceState::InUse), Some(LogicalDeviceState::Clearing)];
        for state in states {
            for group in [None, Some(group_id(1))] {
                for volume in [None, Some(volume_id(1))] {
                    let filter = LogicalDeviceFilter { group, state, volume };
                    let mut found = Vec::new();
                    for run in logical_devices(&truth, &filter, from) {
                        let first = if run.group == group_id(0) { 60 } else { 10 };
                        prop_assert_eq!(run.group_offset, u64::from(run.first - first) * SLICE);
                        found.extend((run.first..run.first + run.count).map(|number| (number, (run.state, run.volume))));
                    }
                    let expected: Vec<_> = oracle.iter().map(|(number, it)| (*number, *it)).filter(|(number, it)| {
                        *number >= from
                            && state.is_none_or(|state| state == it.0)
                            && (group.is_none() || *number < 60)
                            && volume.is_none_or(|volume| Some(volume) == it.1)
                    }).collect();
                    prop_assert_eq!(found, expected, "{:?}", filter);
                }
            }
        }
    }
}

#[test]
fn what_is_not_there_is_told_apart_from_what_holds_nothing() {
    let truth = truth();
    let volume = truth.volumes.find(volume_id(0)).unwrap();
    let found = |on| ranges_on(&truth, volume, &on, 0).map(Iterator::count);
    assert_eq!(found(On::Device(device_id(5))), Some(0));
    assert_eq!(found(On::Device(device_id(6))), None);
    assert_eq!(found(On::Group(group_id(2))), None);
    assert_eq!(found(On::LogicalDevice(9)), None);
}

#[test]
fn indices_follow_a_member_that_is_replaced_and_a_group_that_is_removed() {
    let mut truth = truth();
    let mut record = truth.groups.get(GroupNumber(0)).unwrap().clone();
    record.members[1].device = device_id(5);
    truth.apply(Record::Group(record));
    assert!(truth.invariant());
    let group_of = |truth: &Truth, number| truth.group_of(device_id(number)).map(|group| group.number);
    assert_eq!(group_of(&truth, 1), None);
    assert_eq!(group_of(&truth, 5), Some(GroupNumber(0)));
    truth.apply(Record::RemoveGroup(GroupNumber(0)));
    assert!(truth.invariant());
    assert_eq!((group_of(&truth, 0), group_of(&truth, 5)), (None, None));
}

#[test]
fn a_page_of_a_map_tells_of_a_volume_whose_group_waits() {
    run(async {
        let bench = Bench::new(2);
        drop(bench.create(Level::Raid1, 2).await);
        let appliance = bench.open(&[0]).await;
        assert!(appliance.volume(VolumeNumber(0)).is_none());
        let map = appliance.volume_map(VOLUME, MIB, u64::MAX, 10).await.unwrap();
        let [stretch] = &map[..] else { panic!("{map:?}") };
        assert_eq!(stretch.range, ByteRange::between(MIB, 6 * MIB));
        let place = stretch.placed.as_ref().unwrap();
        assert_eq!((place.group, place.logical_devices), (GROUP, 5));
        let on = On::Device(crate::appliance::tests::device_id(1));
        let ranges = appliance.ranges_on(VOLUME, &on, 0, 10).await.unwrap();
        assert_eq!(ranges, [ByteRange::between(0, 6 * MIB)]);
        assert!(appliance.find_volume(VOLUME).await.is_some());
    });
}
