use proptest::prelude::*;
use uuid::Uuid;

use super::cache::{Compared, MemberChecks};
use super::*;

fn formula() -> Formula {
    Formula::of(GroupId(Uuid::from_u128(7)))
}

fn block(fill: u8) -> Vec<u8> {
    vec![fill; BLOCK_LEN]
}

#[test]
fn a_block_fits_its_place_only() {
    let data = block(1);
    let formula = formula();
    let here = formula.values(0, &data);
    for other in [1, 2, 1023, 1024, 1 << 20] {
        assert_ne!(formula.values(other * BLOCK, &data), here);
    }
    assert_ne!(Formula::of(GroupId(Uuid::from_u128(8))).values(0, &data), here);
    let zeros = formula.of_zeros(ByteRange::between(0, 2 * BLOCK));
    assert_eq!(formula.values(0, &[0; 2 * BLOCK_LEN]), zeros);
}

#[test]
fn what_was_noted_is_not_replaced_by_what_was_read() {
    let checks = MemberChecks::new(formula());
    let (old, new) = (formula().values(0, &block(1)), formula().values(0, &block(2)));
    let reading = checks.begin_reading(0);
    checks.note(0, &new);
    reading.merge(&[old[0]; ENTRIES]);
    assert_eq!(checks.compare(0, &new), Compared::Unfit(SmallVec::new()));
    assert_eq!(
        checks.compare(0, &old),
        Compared::Unfit(SmallVec::from_slice(&[0]))
    );
}

#[test]
fn what_is_noted_while_a_page_is_written_has_it_written_again() {
    let checks = MemberChecks::new(formula());
    checks.begin_reading(0).merge(&[0; ENTRIES]);
    assert!(!checks.has_changed());
    checks.note(0, &[1]);
    let image = checks.image(0).unwrap();
    checks.note(BLOCK, &[2]);
    checks.written(&image);
    assert_eq!(checks.changed(), [0]);
    let image = checks.image(0).unwrap();
    assert_eq!(image.values[..3], [1, 2, 0]);
    checks.written(&image);
    assert!(!checks.has_changed() && checks.changed().is_empty());
}

#[test]
fn a_page_known_in_part_is_read_before_it_is_written() {
    let checks = MemberChecks::new(formula());
    checks.note(5 * BLOCK, &[9]);
    assert!(checks.is_partial(0) && checks.image(0).is_none());
    checks.begin_reading(0).merge(&[3; ENTRIES]);
    let image = checks.image(0).unwrap();
    assert_eq!(image.values[4..7], [3, 9, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn pages_in_memory_are_bounded_but_for_those_changed(pages in proptest::collection::vec(0u64..20_000, 1..200)) {
        let checks = MemberChecks::new(formula());
        for &page in &pages {
            checks.note(page * PER_PAGE * BLOCK, &[7]);
        }
        for page in 20_000..30_000 {
            checks.begin_reading(page).merge(&[0; ENTRIES]);
        }
        for &page in &pages {
            let value = SmallVec::from_slice(&[7]);
            prop_assert_eq!(checks.compare(page * PER_PAGE * BLOCK, &value), Compared::Unfit(SmallVec::new()));
        }
        prop_assert!(checks.pages_in_memory() <= cache::KEPT + pages.len() + 1);
    }
}
