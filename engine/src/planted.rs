//! Bugs planted on purpose, to show that the simulation finds their kind.
//!
//! Invariant: without the feature `sim` [`is`] is the constant `false`, and the planted branches are compiled away.

/// A bug that the simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Answer a flush before the devices have flushed.
    AckBeforeFlush,
    /// Clear the write-intent entry when the write is acknowledged, not when it is flushed everywhere (R2).
    ClearIntentAtAck,
    /// Start from the newest metadata among the devices present, whoever is missing (R6).
    NewestPresentWins,
    /// Take a member that returns as in sync (R2, R3).
    SkipResync,
    /// Hand out freed space with its former owner's content (R12).
    ReuseFreedUncleared,
    /// Do again what an operation did already (R10).
    RepeatVerbs,
    /// Take a device that an administrator took out into service again at a start.
    ForgetTakenOut,
    /// Write the places of an update without the journal (R25).
    NoJournal,
    /// Believe whatever a member gives.
    NoVerification,
    /// Change checksums in memory only.
    NoChecksKept,
}

impl Planted {
    pub const ALL: [Self; 10] = [
        Self::AckBeforeFlush,
        Self::ClearIntentAtAck,
        Self::NewestPresentWins,
        Self::SkipResync,
        Self::ReuseFreedUncleared,
        Self::RepeatVerbs,
        Self::ForgetTakenOut,
        Self::NoJournal,
        Self::NoVerification,
        Self::NoChecksKept,
    ];

    /// The bug of this name, spelled as the variant.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| format!("{bug:?}") == name)
    }
}

/// Whether this bug is planted in the running process: only in a simulation, by `PLANT=<name>` in its environment.
#[inline]
pub fn is(bug: Planted) -> bool {
    #[cfg(feature = "sim")]
    {
        use std::sync::OnceLock;
        static CHOSEN: OnceLock<Option<Planted>> = OnceLock::new();
        *CHOSEN.get_or_init(|| std::env::var("PLANT").ok().as_deref().and_then(Planted::named)) == Some(bug)
    }
    #[cfg(not(feature = "sim"))]
    {
        let _ = bug;
        false
    }
}
