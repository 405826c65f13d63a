//! A group in miniature that is cut off at any step, and starts again with members away: after each start every row has
//! to fit, with what was acknowledged in it, and nothing but that or what was being written.
//!
//! Bugs are planted to show that each rule of the journal is needed, and that its breach is found here.

mod device;
mod model;
mod rows;
mod work;

use model::Model;

/// A rule of the journal, broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    /// Places are written when the commit is begun.
    InPlaceBeforeDurable,
    /// Anchors move without a flush of what they free.
    AnchorsBeforeFlush,
    /// A ring's bytes are used again before the anchors that free them are durable.
    ReuseBeforeAnchors,
    /// An update is written again although a member that is there has no part of it.
    PartMissingCounts,
    /// Each member's frames count from its own anchor on.
    OwnAnchorDecides,
    /// Members that are away stay in sync until the start is through.
    AwayStaysInSync,
    /// Commits begin before the opening's anchors are durable.
    ServeBeforeAnchors,
    /// A member is in sync before the commits from before it joined are freed.
    InSyncBeforeFreed,
}

fn lives_through(seed: u64, planted: Option<Planted>) -> Result<(), String> {
    let mut model = Model::new(seed, planted);
    for _ in 0..8 {
        model.live()?;
        model.crash();
    }
    Ok(())
}

#[test]
fn after_any_crash_rows_fit_and_hold_what_was_acknowledged_or_was_being_written() {
    for seed in 0..200 {
        if let Err(found) = lives_through(seed, None) {
            panic!("seed {seed}: {found}");
        }
    }
}

fn is_found(planted: Planted) {
    let found = (0..4000).find(|&seed| lives_through(seed, Some(planted)).is_err());
    assert!(found.is_some(), "{planted:?} is not found");
}

#[test]
fn writing_places_before_the_commit_is_durable_is_found() {
    is_found(Planted::InPlaceBeforeDurable);
}

#[test]
fn moving_anchors_before_the_places_are_flushed_is_found() {
    is_found(Planted::AnchorsBeforeFlush);
}

#[test]
fn using_a_ring_again_before_its_anchor_is_durable_is_found() {
    is_found(Planted::ReuseBeforeAnchors);
}

#[test]
fn counting_an_update_with_a_part_missing_is_found() {
    is_found(Planted::PartMissingCounts);
}

#[test]
fn counting_from_each_members_own_anchor_is_found() {
    is_found(Planted::OwnAnchorDecides);
}

#[test]
fn leaving_members_in_sync_that_are_away_while_updates_are_written_again_is_found() {
    is_found(Planted::AwayStaysInSync);
}

#[test]
fn serving_before_the_new_anchors_are_durable_is_found() {
    is_found(Planted::ServeBeforeAnchors);
}

#[test]
fn taking_a_member_in_sync_before_older_commits_are_freed_is_found() {
    is_found(Planted::InSyncBeforeFreed);
}
