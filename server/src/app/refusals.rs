//! The engine's refusals as problems of the closed list, with what would have been right. The only place that knows both.

use ashlar_engine::appliance::{Appliance, VerbError};
use ashlar_engine::export::registry::RegistryError;
use ashlar_engine::logical_device::{AllocatorsError, Shortage};
use ashlar_engine::map::PlacementError;
use ashlar_engine::metadata::StoreError;
use ashlar_engine::types::extent::ExtentError;
use ashlar_engine::types::{ByteRange, ByteSize};
use ashlar_openapi::problem::MissingSpace;
use ashlar_openapi::values::MOST;
use ashlar_openapi::{Bytes, Natural, Problem, ProblemType, Range};
use uuid::Uuid;

use super::internal;
use crate::engine::EngineError;
use crate::engine::source::SourceError;

/// The problem that the lack of an engine is.
pub fn of_engine(error: &EngineError) -> Problem {
    match error {
        EngineError::Blank => Problem::new(
            ProblemType::ApplianceBlank,
            "the appliance has no device yet",
            "add a device first",
        ),
        EngineError::Unavailable(why) => Problem::new(
            ProblemType::ApplianceUnavailable,
            format!("the appliance's devices could not be opened: {why}"),
            "bring the devices back and start the appliance again",
        ),
        EngineError::Stopping => Problem::new(
            ProblemType::Stopping,
            "the appliance is stopping",
            "try again when it runs again",
        ),
    }
}

/// The problem that a device is that cannot be opened.
pub fn of_source(error: &SourceError) -> Problem {
    match error {
        SourceError::Stopping => of_engine(&EngineError::Stopping),
        other => Problem::new(
            ProblemType::DeviceCannotBeOpened,
            other.to_string(),
            "check path or URI, permissions, and that nothing else uses the device",
        )
        .at("/source"),
    }
}

/// The problem that a refused verb is, said by the appliance that refused it.
pub fn of_verb_on(appliance: &Appliance, error: &VerbError) -> Problem {
    let mut problem = of_verb(error);
    if let VerbError::Placement(PlacementError::Slices(AllocatorsError::NoSpace(shortages))) = error {
        problem.correction.missing = shortages
            .iter()
            .filter_map(|shortage| Some(missing(appliance.group(shortage.group)?.id().0, *shortage)))
            .collect();
    }
    problem
}

/// The problem that a refused verb is.
pub fn of_verb(error: &VerbError) -> Problem {
    let (kind, correction) = match error {
        VerbError::Placement(refused) => return of_placement(refused),
        VerbError::Capacity(_) => (
            ProblemType::CapacityInvalid,
            "give a capacity that the type allows",
        ),
        VerbError::MetadataUnavailable(_) | VerbError::Store(StoreError::Full(_)) => (
            ProblemType::MetadataUnavailable,
            "bring devices back that hold the metadata, and start the appliance again",
        ),
        VerbError::Store(_) | VerbError::Membership(_) => {
            tracing::warn!(%error, "a change could not be made durable");
            (
                ProblemType::MetadataNotDurable,
                "bring devices back that hold the metadata",
            )
        }
        VerbError::Superblock(_) | VerbError::Device(_) | VerbError::Io(_) | VerbError::NoSuperblock => {
            tracing::warn!(%error, "a device failed while it was changed");
            (
                ProblemType::DeviceCannotBeOpened,
                "look at the device, and use another one",
            )
        }
        VerbError::OperationReused(_)
        | VerbError::ApplianceMade(_)
        | VerbError::NoDevices
        | VerbError::Numbering(_) => {
            tracing::error!(%error, "the engine refused what should not have been asked");
            return internal();
        }
        other => of_object(other),
    };
    Problem::new(kind, error.to_string(), correction)
}

/// Refusals that name an object or its neighbours.
fn of_object(error: &VerbError) -> (ProblemType, &'static str) {
    match error {
        VerbError::IdTaken(_) => (ProblemType::IdTaken, "choose another id, or leave it out"),
        VerbError::NumberTaken(_) => (ProblemType::NumberTaken, "choose another number, or leave it out"),
        VerbError::NameTaken(_) | VerbError::Registry(RegistryError::Exists(_)) => {
            (ProblemType::NameTaken, "choose another name")
        }
        VerbError::Registry(RegistryError::NameTooLong) => {
            (ProblemType::InvalidValue, "choose a shorter name")
        }
        VerbError::Name(_) => (ProblemType::InvalidValue, "choose a name of that kind"),
        VerbError::NoSuchDevice(_)
        | VerbError::NoSuchGroup(_)
        | VerbError::NoSuchVolume(_)
        | VerbError::NoSuchExport(_) => (ProblemType::UnknownReference, "list what there is"),
        VerbError::GroupWaits(_) => (ProblemType::RaidGroupWaiting, "bring its members back"),
        VerbError::ScrubRuns(_) => (
            ProblemType::ScrubRunning,
            "wait for its job to end, or cancel that first",
        ),
        VerbError::GroupInUse { .. } => (ProblemType::RaidGroupInUse, "delete the volumes first"),
        VerbError::VolumeExported { .. } => (ProblemType::VolumeExported, "delete the exports first"),
        VerbError::VolumeWaits { .. } => (
            ProblemType::VolumeNotServing,
            "bring the members of its RAID group back",
        ),
        VerbError::VolumeUnsound(_) => (ProblemType::VolumeNotServing, "look into the appliance's log"),
        VerbError::Block { .. } => (
            ProblemType::BlockMismatch,
            "use open-4096, or a RAID group of smaller blocks",
        ),
        VerbError::ClientRange(_) => (
            ProblemType::InvalidValue,
            "give addresses like 192.0.2.7 or 192.0.2.0/24",
        ),
        VerbError::SliceLength(_) => (
            ProblemType::InvalidValue,
            "give a power of two from 1 MiB to the smallest volume",
        ),
        other => of_device(other),
    }
}

/// Refusals about devices and members.
fn of_device(error: &VerbError) -> (ProblemType, &'static str) {
    match error {
        VerbError::DeviceTooSmall { .. } => (ProblemType::DeviceTooSmall, "use a larger device"),
        VerbError::ForeignAppliance(_) => (
            ProblemType::DeviceForeignAppliance,
            "use another device, or force to give its content up",
        ),
        VerbError::DeviceWasMember(_) => (
            ProblemType::DeviceForeignAppliance,
            "use another device, or force to give its content up",
        ),
        VerbError::ForeignContent(_) => (
            ProblemType::DeviceForeignContent,
            "use another device, or force to give its content up",
        ),
        VerbError::DeviceKnown(_) => (
            ProblemType::DeviceKnown,
            "list the devices: it is there; return it where it had failed",
        ),
        VerbError::LastDevice(_) => (ProblemType::LastDevice, "add another device first"),
        VerbError::NotRedundant { .. } => (
            ProblemType::WouldLoseData,
            "replace the device, or move the data away first",
        ),
        VerbError::DeviceAbsent(_) => (ProblemType::DeviceAbsent, "bring it back first"),
        VerbError::DeviceTakenOut(_) => (
            ProblemType::DeviceAbsent,
            "return it first, or use another device",
        ),
        VerbError::DeviceServes(_) => (
            ProblemType::DeviceInService,
            "there is nothing to return: it serves",
        ),
        VerbError::DeviceIsSpare(_) => (
            ProblemType::DeviceIsSpare,
            "use another device, or make it no spare first",
        ),
        VerbError::DeviceSuspect(_) => (
            ProblemType::WouldLoseData,
            "use another device: this one is expected to fail",
        ),
        VerbError::NoRedundancy(_) => (
            ProblemType::NoRedundancy,
            "name a RAID group whose level bears a loss",
        ),
        VerbError::DeviceInUse { .. } => (ProblemType::DeviceInUse, "use a device that is in no RAID group"),
        other => of_members(other),
    }
}

/// Refusals about the members of a RAID group. What comes to the end of this has no problem: every refusal is named, so
/// that a new one is given its own.
fn of_members(error: &VerbError) -> (ProblemType, &'static str) {
    match error {
        VerbError::NotAMember { .. } => (ProblemType::NotAMember, "name one of the group's members"),
        VerbError::DeviceTwice(_) => (ProblemType::MemberTwice, "name each device once"),
        VerbError::TooFewMembers { .. } | VerbError::OddMembers { .. } => {
            (ProblemType::TooFewMembers, "name more devices")
        }
        VerbError::TooManyMembers { .. } => (ProblemType::TooManyMembers, "name fewer devices"),
        VerbError::Unit { .. } => (
            ProblemType::InvalidValue,
            "give a power of two from 4 KiB to 1 MiB",
        ),
        VerbError::NoRoom { .. } => (
            ProblemType::NoRoom,
            "use larger devices, or shorter logical devices",
        ),
        VerbError::MemberTooSmall { .. } => (ProblemType::MemberTooSmall, "use a device at least as large"),
        VerbError::MemberBlock { .. } => (ProblemType::MemberBlock, "use a device with blocks as small"),
        VerbError::Placement(_)
        | VerbError::Capacity(_)
        | VerbError::Store(_)
        | VerbError::MetadataUnavailable(_)
        | VerbError::Membership(_)
        | VerbError::Superblock(_)
        | VerbError::Device(_)
        | VerbError::Io(_)
        | VerbError::NoSuperblock
        | VerbError::OperationReused(_)
        | VerbError::ApplianceMade(_)
        | VerbError::NoDevices
        | VerbError::Numbering(_)
        | VerbError::IdTaken(_)
        | VerbError::NumberTaken(_)
        | VerbError::NameTaken(_)
        | VerbError::Registry(_)
        | VerbError::Name(_)
        | VerbError::NoSuchDevice(_)
        | VerbError::NoSuchGroup(_)
        | VerbError::NoSuchVolume(_)
        | VerbError::NoSuchExport(_)
        | VerbError::GroupWaits(_)
        | VerbError::ScrubRuns(_)
        | VerbError::GroupInUse { .. }
        | VerbError::VolumeExported { .. }
        | VerbError::VolumeWaits { .. }
        | VerbError::VolumeUnsound(_)
        | VerbError::Block { .. }
        | VerbError::ClientRange(_)
        | VerbError::SliceLength(_)
        | VerbError::DeviceTooSmall { .. }
        | VerbError::ForeignAppliance(_)
        | VerbError::DeviceWasMember(_)
        | VerbError::ForeignContent(_)
        | VerbError::DeviceKnown(_)
        | VerbError::LastDevice(_)
        | VerbError::NotRedundant { .. }
        | VerbError::DeviceAbsent(_)
        | VerbError::DeviceTakenOut(_)
        | VerbError::DeviceServes(_)
        | VerbError::DeviceIsSpare(_)
        | VerbError::DeviceSuspect(_)
        | VerbError::NoRedundancy(_)
        | VerbError::DeviceInUse { .. } => {
            tracing::error!(%error, "a refusal was given to no function that knows its problem");
            (ProblemType::Internal, "look into the appliance's log")
        }
    }
}

/// The problem that a placement is which cannot be made.
fn of_placement(error: &PlacementError) -> Problem {
    let cause = error.to_string();
    match error {
        PlacementError::Nothing => Problem::new(
            ProblemType::NoPlacement,
            cause,
            "name a RAID group for all of it, or placements",
        ),
        PlacementError::Capacity(_) => Problem::new(
            ProblemType::CapacityInvalid,
            cause,
            "give a capacity that the type allows",
        )
        .at("/capacity_bytes"),
        PlacementError::Shrinks { .. } => Problem::new(
            ProblemType::VolumeShrinks,
            cause,
            "give at least the capacity that it has",
        )
        .at("/capacity_bytes"),
        PlacementError::Granule { .. } => Problem::new(
            ProblemType::InvalidValue,
            cause,
            "give a multiple of 4096 up to 1 MiB",
        ),
        PlacementError::Range { index, source } => of_range(source).at(format!("/placements/{index}/range")),
        PlacementError::Overlap { second, .. } => {
            Problem::new(ProblemType::RangesOverlap, cause, "name every address once")
                .at(format!("/placements/{second}/range"))
        }
        PlacementError::Mapped { index, .. } => Problem::new(
            ProblemType::RangeMapped,
            cause,
            "name addresses that are not mapped",
        )
        .at(format!("/placements/{index}/range")),
        PlacementError::NotExact { index, .. } => Problem::new(
            ProblemType::RangesOverlap,
            cause,
            "begin after the earlier placement's rounding, or leave `exact` out",
        )
        .at(format!("/placements/{index}/range")),
        PlacementError::Slices(_) => Problem::new(
            ProblemType::NotEnoughSpace,
            cause,
            "use another RAID group, or ask for less",
        ),
    }
}

fn missing(raid_group: Uuid, shortage: Shortage) -> MissingSpace {
    MissingSpace {
        raid_group,
        missing_bytes: Bytes(shortage.missing().saturating_mul(shortage.slice).min(MOST)),
        free_bytes: Bytes(u64::from(shortage.free).saturating_mul(shortage.slice)),
        missing_logical_devices: Natural(u32::try_from(shortage.missing()).unwrap_or(u32::MAX >> 1)),
    }
}

/// The problem that a range is which is none of its volume.
pub fn of_range(error: &ExtentError) -> Problem {
    let cause = error.to_string();
    let nearest = |mut problem: Problem, range: ByteRange| {
        problem.correction.nearest_range = Some(to_range(range));
        problem
    };
    match error {
        ExtentError::Empty { .. } => Problem::new(ProblemType::RangeEmpty, cause, "give a length"),
        ExtentError::Misaligned { around, .. } => nearest(
            Problem::new(ProblemType::RangeMisaligned, cause, "begin and end at blocks"),
            *around,
        ),
        ExtentError::OutOfBounds { range, capacity } => {
            let start = range.start().min(capacity.0);
            nearest(
                Problem::new(ProblemType::RangeOutOfBounds, cause, "stay within the volume"),
                ByteRange::between(start, capacity.0),
            )
        }
        ExtentError::NoTracks(_) | ExtentError::NoSuchTrack { .. } | ExtentError::Backwards { .. } => {
            Problem::new(
                ProblemType::TrackInvalid,
                cause,
                "give tracks that the volume has, in their order",
            )
        }
    }
}

/// The range, where its end is a number that the API can say.
///
/// # Errors
/// [`ProblemType::RangeOverflow`].
pub fn bounded(offset: u64, length: u64) -> Result<ByteRange, Problem> {
    let range = ByteRange::new(offset, length).filter(|range| range.end() <= MOST);
    range.ok_or_else(|| overflow(offset, length))
}

fn overflow(offset: u64, length: u64) -> Problem {
    Problem::new(
        ProblemType::RangeOverflow,
        format!(
            "offset {} and length {} add up to more than any volume has",
            ByteSize(offset),
            ByteSize(length)
        ),
        "stay within the volume",
    )
}

/// A range as the contract has it.
pub fn to_range(range: ByteRange) -> Range {
    Range {
        offset: Bytes(range.start()),
        length: Bytes(range.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_engine::types::GroupId;
    use ashlar_engine::types::OperationId;

    #[test]
    fn what_force_or_another_name_would_mend_is_the_clients_to_correct() {
        let was_member = of_verb(&VerbError::DeviceWasMember(GroupId(Uuid::nil())));
        assert_eq!(was_member.kind, ProblemType::DeviceForeignAppliance);
        assert!(was_member.correction.text.contains("force"));
        let offered = of_verb(&RegistryError::Exists("vol0".into()).into());
        assert_eq!(offered.kind, ProblemType::NameTaken);
        let long = of_verb(&RegistryError::NameTooLong.into());
        assert_eq!(long.kind, ProblemType::InvalidValue);
    }

    #[test]
    fn what_should_not_have_been_asked_is_a_mistake_of_the_appliance_s_own() {
        let problem = of_verb(&VerbError::OperationReused(OperationId(Uuid::nil())));
        assert_eq!((problem.kind, problem.status), (ProblemType::Internal, 500));
        assert!(problem.cause.contains("log") && problem.correction.text.contains("support bundle"));
        // Nothing of what went wrong leaks.
        assert!(!problem.to_string().contains(&Uuid::nil().to_string()));
    }
}
