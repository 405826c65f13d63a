use super::*;
use crate::types::geometry::{CkdModel, OpenBlock};
use proptest::prelude::*;

const OPEN: EmulationType = EmulationType::Open(OpenBlock::B4096);
const CKD: EmulationType = EmulationType::Ckd(CkdModel::M3390M1);
const TOTAL: u32 = 24;

fn run(first: u32, count: u32) -> Slices {
    Slices { first, count }
}

fn group() -> Allocator {
    Allocator::new(SliceLength::DEFAULT, TOTAL)
}

/// A group in which only these runs are free.
fn with_free(free: &[Slices]) -> Allocator {
    let mut allocator = group();
    allocator.take(VolumeNumber(99), OPEN, TOTAL, None).unwrap();
    for slices in free {
        allocator.free(VolumeNumber(99), *slices).unwrap();
    }
    allocator
}

fn taken(allocator: &mut Allocator, count: u32, after: Option<u32>) -> Vec<Slices> {
    let taken = allocator.take(VolumeNumber(0), OPEN, count, after).unwrap();
    assert!(allocator.invariant());
    taken.into_iter().map(|taken| taken.slices).collect()
}

#[test]
fn a_volume_continues_right_after_its_last_slice() {
    let mut allocator = with_free(&[run(2, 3), run(10, 8)]);
    assert_eq!(taken(&mut allocator, 2, Some(9)), [run(10, 2)]);
    assert_eq!(taken(&mut allocator, 4, Some(1)), [run(2, 3), run(12, 1)]);
}

#[test]
fn the_smallest_run_that_holds_all_is_taken() {
    let mut allocator = with_free(&[run(0, 6), run(8, 4), run(14, 4)]);
    assert_eq!(taken(&mut allocator, 3, None), [run(8, 3)]);
    assert_eq!(taken(&mut allocator, 1, None), [run(11, 1)]);
}

#[test]
fn without_a_run_that_holds_all_the_largest_come_first() {
    let mut allocator = with_free(&[run(0, 2), run(4, 5), run(12, 3)]);
    assert_eq!(taken(&mut allocator, 9, None), [run(4, 5), run(12, 3), run(0, 1)]);
}

#[test]
fn too_few_free_slices_change_nothing() {
    let mut allocator = with_free(&[run(0, 2), run(4, 5)]);
    let before = allocator.clone();
    assert_eq!(allocator.take(VolumeNumber(0), OPEN, 8, Some(1)), None);
    assert_eq!(allocator, before);
}

#[test]
fn slices_formatted_for_another_type_come_marked_for_formatting() {
    let mut allocator = group();
    allocator.set_formatted(run(0, 2), CKD).unwrap();
    allocator.set_formatted(run(2, 3), OPEN).unwrap();
    assert_eq!(
        allocator.to_format(OPEN).collect::<Vec<_>>(),
        [run(0, 2), run(5, 19)]
    );
    let taken = allocator.take(VolumeNumber(0), OPEN, 6, None).unwrap();
    let expected = [(run(0, 2), true), (run(2, 3), false), (run(5, 1), true)];
    assert_eq!(
        taken,
        expected.map(|(slices, needs_format)| Taken { slices, needs_format })
    );
}

#[test]
fn a_freed_slice_is_formatted_again_before_its_next_use() {
    let mut allocator = group();
    allocator.take(VolumeNumber(0), OPEN, 2, None).unwrap();
    assert_eq!(allocator.free_all(VolumeNumber(0)), [run(0, 2)]);
    assert!(allocator.take(VolumeNumber(1), OPEN, 2, None).unwrap()[0].needs_format);
}

#[test]
fn what_does_not_fit_the_slices_state_is_refused() {
    let mut allocator = group();
    allocator.take(VolumeNumber(0), OPEN, 2, None).unwrap();
    let before = allocator.clone();
    assert!(matches!(
        allocator.free(VolumeNumber(0), run(1, 2)),
        Err(SliceError::NotOwned { .. })
    ));
    assert!(matches!(
        allocator.free(VolumeNumber(1), run(0, 1)),
        Err(SliceError::NotOwned { .. })
    ));
    assert!(matches!(
        allocator.set_formatted(run(1, 2), CKD),
        Err(SliceError::InUse { .. })
    ));
    for beyond in [run(TOTAL, 1), run(1, u32::MAX), run(0, TOTAL + 1)] {
        assert!(matches!(
            allocator.free(VolumeNumber(0), beyond),
            Err(SliceError::OutOfBounds { .. })
        ));
    }
    assert_eq!(allocator, before);
}

#[test]
fn stored_slices_with_gaps_or_without_a_format_are_refused() {
    let state = |first, count, owner| SliceState {
        slices: run(first, count),
        owner,
        formatted_for: None,
    };
    let restore = |states: &[SliceState]| Allocator::restore(SliceLength::DEFAULT, states);
    let gap = restore(&[state(0, 2, None), state(3, 1, None)]);
    assert_eq!(
        gap,
        Err(SliceError::NotInOrder {
            slices: run(3, 1),
            expected: 2
        })
    );
    let overflow = restore(&[state(0, u32::MAX, None), state(u32::MAX, 1, None)]);
    assert!(matches!(overflow, Err(SliceError::NotInOrder { .. })));
    let unformatted = restore(&[state(0, 1, Some(VolumeNumber(1)))]);
    assert!(matches!(unformatted, Err(SliceError::Unformatted { .. })));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Take {
        volume: u32,
        count: u32,
        after: Option<u32>,
        ckd: bool,
    },
    Free {
        volume: u32,
        slices: Slices,
    },
    FreeAll {
        volume: u32,
    },
    Format {
        slices: Slices,
        ckd: bool,
    },
}

fn a_step() -> impl Strategy<Value = Step> {
    let slices = || (0..TOTAL, 0u32..8).prop_map(|(first, count)| run(first, count));
    prop_oneof![
        (0u32..3, 0u32..10, proptest::option::of(0..TOTAL), any::<bool>()).prop_map(
            |(volume, count, after, ckd)| Step::Take {
                volume,
                count,
                after,
                ckd
            }
        ),
        (0u32..3, slices()).prop_map(|(volume, slices)| Step::Free { volume, slices }),
        (0u32..3).prop_map(|volume| Step::FreeAll { volume }),
        (slices(), any::<bool>()).prop_map(|(slices, ckd)| Step::Format { slices, ckd }),
    ]
}

/// One entry per slice, changed the slow way.
type Oracle = Vec<(Option<VolumeNumber>, Option<EmulationType>)>;

fn emulation(ckd: bool) -> EmulationType {
    if ckd { CKD } else { OPEN }
}

fn step(allocator: &mut Allocator, oracle: &mut Oracle, step: Step) -> Result<(), TestCaseError> {
    let in_bounds = |slices: Slices| slices.end() <= TOTAL;
    let indexes = |slices: Slices| slices.first as usize..slices.end() as usize;
    match step {
        Step::Take {
            volume,
            count,
            after,
            ckd,
        } => {
            let (volume, emulation) = (VolumeNumber(volume), emulation(ckd));
            let free = oracle.iter().filter(|(owner, _)| owner.is_none()).count();
            let taken = allocator.take(volume, emulation, count, after);
            prop_assert_eq!(taken.is_some(), count as usize <= free);
            let mut got = 0;
            for Taken { slices, needs_format } in taken.into_iter().flatten() {
                for slot in &mut oracle[indexes(slices)] {
                    prop_assert_eq!(slot.0, None);
                    prop_assert_eq!(slot.1 != Some(emulation), needs_format);
                    *slot = (Some(volume), Some(emulation));
                    got += 1;
                }
            }
            prop_assert!(got == 0 || got == count);
        }
        Step::Free { volume, slices } => {
            let volume = VolumeNumber(volume);
            let all_owned = in_bounds(slices)
                && oracle[indexes(slices)]
                    .iter()
                    .all(|(owner, _)| *owner == Some(volume));
            prop_assert_eq!(allocator.free(volume, slices).is_ok(), all_owned);
            if all_owned {
                oracle[indexes(slices)].fill((None, None));
            }
        }
        Step::FreeAll { volume } => {
            allocator.free_all(VolumeNumber(volume));
            for slot in oracle
                .iter_mut()
                .filter(|(owner, _)| *owner == Some(VolumeNumber(volume)))
            {
                *slot = (None, None);
            }
        }
        Step::Format { slices, ckd } => {
            let all_free =
                in_bounds(slices) && oracle[indexes(slices)].iter().all(|(owner, _)| owner.is_none());
            prop_assert_eq!(allocator.set_formatted(slices, emulation(ckd)).is_ok(), all_free);
            if all_free {
                oracle[indexes(slices)].fill((None, Some(emulation(ckd))));
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_allocator_agrees_with_an_entry_per_slice(steps in proptest::collection::vec(a_step(), 0..40)) {
        let mut allocator = group();
        let mut oracle: Oracle = vec![(None, None); TOTAL as usize];
        for next in steps {
            step(&mut allocator, &mut oracle, next)?;
            prop_assert!(allocator.invariant());
            let flat: Oracle = allocator
                .states()
                .flat_map(|state| vec![(state.owner, state.formatted_for); state.slices.count as usize])
                .collect();
            prop_assert_eq!(&flat, &oracle);
        }
        let states: Vec<SliceState> = allocator.states().collect();
        prop_assert!(states.windows(2).all(|pair| (pair[0].owner, pair[0].formatted_for) != (pair[1].owner, pair[1].formatted_for)));
        let stored = postcard::to_allocvec(&states).unwrap();
        let states: Vec<SliceState> = postcard::from_bytes(&stored).unwrap();
        prop_assert_eq!(Allocator::restore(SliceLength::DEFAULT, &states), Ok(allocator));
    }
}
