//! How a device is, from what failed on it.
//!
//! ```text
//!              too many lost places                   out of service
//!   Healthy ────────────────────────────► Suspect ──────────────────► Failed
//!      ▲ │      more of them are borne       │  ▲                      │ ▲ │
//!      │ └───────────────────────────────────┘  └──────taken back──────┘ │ │
//!      │         └────────────────────out of service─────────────────────┘ │
//!      └───────────────────────────taken back──────────────────────────────┘
//! ```

/// How a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Healthy,
    /// It serves, and lost more places than is to be borne: it is expected to fail.
    Suspect,
    /// Out of service.
    Failed,
}

/// What is seen of a device at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    pub(super) is_out: bool,
    pub(super) lost_places: u64,
    /// That many are borne.
    pub(super) borne: u32,
}

impl Health {
    /// What the device is after it was seen so.
    pub(super) fn next(self, seen: Sight) -> Self {
        let too_many = seen.lost_places > u64::from(seen.borne);
        match self {
            _ if seen.is_out => Self::Failed,
            // Also of one that was taken back: its medium is the same.
            Self::Healthy | Self::Failed if too_many => Self::Suspect,
            Self::Suspect | Self::Failed if !too_many => Self::Healthy,
            same => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_goes_from_healthy_over_suspect_to_failed_and_back_only_for_a_reason() {
        let seen = |is_out, lost_places| Sight {
            is_out,
            lost_places,
            borne: 3,
        };
        let mut health = Health::Healthy;
        let steps = [
            (seen(false, 3), Health::Healthy),
            (seen(false, 4), Health::Suspect),
            (seen(false, 9), Health::Suspect),
            (seen(true, 9), Health::Failed),
            (seen(true, 9), Health::Failed),
            (seen(false, 9), Health::Suspect),
            (
                Sight {
                    borne: 10,
                    ..seen(false, 9)
                },
                Health::Healthy,
            ),
            (seen(true, 0), Health::Failed),
            (seen(false, 0), Health::Healthy),
        ];
        for (sight, expected) in steps {
            health = health.next(sight);
            assert_eq!(health, expected, "{sight:?}");
        }
    }
}
