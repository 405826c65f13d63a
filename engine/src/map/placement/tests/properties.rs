//! Random requests for several volumes over shared groups: what must hold after every one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Several volumes over two groups, and what must hold of them at any time.
struct World {
    allocators: Allocators,
    volumes: BTreeMap<VolumeNumber, (EmulationType, u64, VolumeMap)>,
}

#[derive(Debug, Clone)]
enum Step {
    Place {
        volume: u32,
        placements: Vec<(u64, u64, u32)>,
        rest: Option<u32>,
        grow: u64,
        packed: bool,
        exact: bool,
    },
    Delete {
        volume: u32,
    },
}

fn a_step() -> impl Strategy<Value = Step> {
    let placement = (0u64..600, 1u64..60, 0u32..2);
    let rest = proptest::option::weighted(0.2, 0u32..2);
    prop_oneof![
        8 => (0u32..4, proptest::collection::vec(placement, 0..4), rest, 0u64..60, any::<bool>(), any::<bool>())
            .prop_map(|(volume, placements, rest, grow, packed, exact)| {
                Step::Place { volume, placements, rest, grow, packed, exact: exact && grow > 30 }
            }),
        1 => (0u32..4).prop_map(|volume| Step::Delete { volume }),
    ]
}

impl World {
    fn new() -> Self {
        Self {
            allocators: groups(&[(MIB, 60), (4 * MIB, 30)]),
            volumes: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Delete { volume } => {
                self.volumes.remove(&VolumeNumber(volume));
                self.allocators.free_all(VolumeNumber(volume));
            }
            Step::Place {
                volume,
                placements,
                rest,
                grow,
                packed,
                exact,
            } => {
                // The last volume number stands for a count-key-data disk, on a coarser grid of addresses.
                let emulation = if volume == 3 { CKD } else { OPEN };
                let unit = if volume == 3 { MODEL.slot() } else { 512 * 33 };
                let number = VolumeNumber(volume);
                let (_, before, map) =
                    self.volumes
                        .get(&number)
                        .cloned()
                        .unwrap_or((emulation, 0, VolumeMap::default()));
                let capacity = if volume == 3 {
                    MODEL.capacity()
                } else {
                    before.max(600 * 512 * 33) + grow * 512
                };
                let range = |start, len| ByteRange::new(start * unit, len * unit).unwrap();
                let request = PlacementRequest {
                    volume: number,
                    emulation,
                    capacity_before: before,
                    capacity,
                    placements: placements
                        .iter()
                        .map(|(start, len, group)| at(range(*start, *len), *group))
                        .collect(),
                    rest: rest.map(GroupNumber),
                    layout: if packed { PACKED } else { Layout::Aligned },
                    exact,
                };
                self.place(&request, &map)?;
            }
        }
        self.check()
    }

    fn place(&mut self, request: &PlacementRequest, map: &VolumeMap) -> Result<(), TestCaseError> {
        let before = self.allocators.clone();
        let Ok(planned) = plan(request, map, &mut self.allocators) else {
            prop_assert_eq!(&self.allocators, &before);
            return Ok(());
        };
        let after = map.with_added(&planned.runs).unwrap();
        let seen = |map: &VolumeMap, capacity| {
            map.mapped()
                .within(ByteRange::between(0, capacity))
                .collect::<RangeSet>()
        };
        let now = seen(&after, request.capacity);
        prop_assert_eq!(
            now.difference(&seen(map, request.capacity_before)),
            planned.mapped.clone()
        );
        for (placement, placed) in request.placements.iter().zip(&planned.placed) {
            prop_assert_eq!(placed.asked, *placement);
            prop_assert!(now.covers(placement.range));
            prop_assert!(placed.mapped.iter().all(|range| planned.mapped.covers(*range)));
            prop_assert!(!(placed.trimmed && request.exact));
            prop_assert!(placed.trimmed || placed.mapped.iter().any(|range| range.covers(placement.range)));
        }
        prop_assert!(request.rest.is_none() || now.covers(ByteRange::between(0, request.capacity)));
        self.check_thrift(request, map, &planned)?;
        self.volumes
            .insert(request.volume, (request.emulation, request.capacity, after));
        Ok(())
    }

    /// No more slices than the rounding rules allow.
    fn check_thrift(
        &self,
        request: &PlacementRequest,
        map: &VolumeMap,
        planned: &Planned,
    ) -> Result<(), TestCaseError> {
        for (group, allocator) in self.allocators.iter() {
            let of_group = planned.taken.iter().filter(|taken| taken.group == group);
            let taken: u64 = of_group.map(|taken| u64::from(taken.slices.count)).sum();
            let usable = allocator.slice_length().usable(request.emulation);
            let laid = |map: &VolumeMap| {
                map.runs()
                    .filter(|run| run.group == group)
                    .map(|run| run.len)
                    .sum::<u64>()
            };
            let new = laid(&VolumeMap::new(planned.runs.clone()).unwrap());
            match request.layout {
                Layout::Packed { .. } => prop_assert!(taken <= new.div_ceil(usable)),
                Layout::Aligned => {
                    let ranges = planned.placed.len() + 2 + map.run_count();
                    prop_assert!(taken <= new / usable + ranges as u64);
                }
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let mut spaces: BTreeMap<GroupNumber, RangeSet> = BTreeMap::new();
        for (&number, (emulation, _, map)) in &self.volumes {
            prop_assert!(map.invariant());
            for run in map.runs() {
                let allocator = self.allocators.get(run.group).unwrap();
                let (unit, len) = (emulation.mapping_unit(), allocator.slice_length().bytes());
                prop_assert!(run.volume_range().is_aligned(unit));
                prop_assert_eq!(run.group_start % PAGE, 0);
                let owner = |slice| allocator.owner(u32::try_from(slice).unwrap());
                prop_assert!(
                    run.group_range()
                        .units(len)
                        .all(|slice| owner(slice) == Some(number))
                );
                if let EmulationType::Ckd(_) = emulation {
                    prop_assert_eq!(run.group_range().units(len).count(), 1);
                    prop_assert_eq!(run.group_start % len % unit, 0);
                }
                let space = spaces.entry(run.group).or_default();
                prop_assert!(!space.overlaps(run.group_range()));
                space.insert(run.group_range());
            }
        }
        prop_assert!(self.allocators.iter().all(|(_, allocator)| allocator.invariant()));
        Ok(())
    }
}

proptest! {
    #[test]
    fn whatever_is_planned_is_covered_thrifty_and_nobody_elses(steps in proptest::collection::vec(a_step(), 1..25)) {
        let mut world = World::new();
        for step in steps {
            world.step(step)?;
        }
    }
}
