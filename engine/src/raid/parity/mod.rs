//! Groups that keep sums over the members of a row: what closes the hole that a crash leaves in the middle of an update.

#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "the core of the journal stands before what connects it with devices"
    )
)]
pub(super) mod journal;
