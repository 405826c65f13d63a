//! Bugs that the simulation plants on purpose, to prove that it would find them. Outside the simulation none exists,
//! and the checks compile to nothing.

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// A host's FLUSH is answered without flushing the devices.
    AckBeforeFlush,
    /// The write intent is cleared as soon as the write is acknowledged.
    ClearIntentAtAck,
    /// A group starts from whatever member is present, however old.
    NewestPresentWins,
    /// A member that returns is taken as equal without copying what it missed.
    SkipResync,
    /// Freed space keeps its content for the next owner.
    ReuseFreedUncleared,
}

/// Whether this bug is planted in this run.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub fn is(_bug: Planted) -> bool {
    false
}

/// Whether this bug is planted in this run: its name is in the environment variable `PLANT`.
#[cfg(feature = "sim")]
pub fn is(bug: Planted) -> bool {
    static PLANT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let name = PLANT.get_or_init(|| std::env::var("PLANT").unwrap_or_default());
    !name.is_empty() && *name == format!("{bug:?}")
}
