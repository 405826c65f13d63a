//! How the engine's objects are: sizes, and one series for each state that an object can be in.

use std::collections::BTreeMap;

use ashlar_engine::appliance::{DeviceState, ExportStatus, GroupStatus, Health, VolumeStatus};
use ashlar_engine::device::ErrorCounts;
use ashlar_engine::raid::{GroupState, ScrubFindings};
use ashlar_engine::types::{DeviceId, ExportId, GroupId, VolumeId};

use super::taken::{Series, Taken};

const DEVICE_STATES: [&str; 3] = ["in_service", "absent", "failed"];
const GROUP_STATES: [&str; 5] = ["optimal", "degraded", "rebuilding", "failed", "waiting"];

/// Everything there is, at one moment.
pub(super) struct Objects {
    pub(super) devices: Vec<DeviceState>,
    pub(super) groups: Vec<GroupStatus>,
    pub(super) volumes: Vec<VolumeStatus>,
    pub(super) exports: Vec<ExportStatus>,
}

/// What objects are told by.
pub(super) struct Known {
    pub(super) devices: BTreeMap<DeviceId, Series>,
    pub(super) groups: BTreeMap<GroupId, Series>,
    pub(super) volumes: BTreeMap<VolumeId, Series>,
    pub(super) exports: BTreeMap<ExportId, Series>,
}

fn series(number: u32, name: Option<&str>) -> Series {
    Series::of(vec![
        ("number", number.to_string()),
        ("name", name.unwrap_or_default().to_owned()),
    ])
}

/// What failed on a device, by kind.
fn errors(object: &Series, errors: ErrorCounts) -> [(Series, u64); 6] {
    [
        ("medium", errors.medium),
        ("checksum", errors.unfit),
        ("read", errors.reads),
        ("write", errors.writes),
        ("flush", errors.flushes),
        ("timeout", errors.timeouts),
    ]
    .map(|(kind, count)| (object.with("kind", kind), count))
}

/// One gauge per state: 1 for the one that the object is in.
fn states<'a>(
    object: &'a Series,
    all: &'a [&'static str],
    is: &'static str,
) -> impl Iterator<Item = (Series, u64)> {
    let one = move |state: &&'static str| (object.with("state", state), u64::from(*state == is));
    all.iter().map(one)
}

impl Objects {
    /// Tells how they are.
    pub(super) fn tell(&self, taken: &mut Taken) -> Known {
        Known {
            devices: self.devices(taken),
            groups: self.groups(taken),
            volumes: self.volumes(taken),
            exports: self.exports(taken),
        }
    }

    fn devices(&self, taken: &mut Taken) -> BTreeMap<DeviceId, Series> {
        let named = |device: &DeviceState| series(device.record.number.0, device.name.as_deref());
        let all: Vec<_> = self.devices.iter().map(|one| (named(one), one)).collect();
        let is = |device: &DeviceState| match (device.present, &device.failure) {
            (_, Some(_)) => "failed",
            (true, None) => "in_service",
            (false, None) => "absent",
        };
        taken.gauges(
            "device_state",
            "1 for the state that a device is in",
            all.iter()
                .flat_map(|(series, device)| states(series, &DEVICE_STATES, is(device))),
        );
        taken.gauges(
            "device_capacity_bytes",
            "Capacity of a device",
            all.iter()
                .map(|(series, device)| (series.clone(), device.record.capacity)),
        );
        taken.gauges(
            "device_suspect",
            "1 where a device has lost more places than is borne",
            all.iter()
                .map(|(series, device)| (series.clone(), u64::from(device.health == Health::Suspect))),
        );
        taken.counters(
            "device_failures",
            "Operations that failed on a device since it was added",
            all.iter()
                .flat_map(|(series, device)| errors(series, device.errors)),
        );
        taken.counters(
            "device_mended_places",
            "Lost places of a device that were written anew",
            all.iter()
                .map(|(series, device)| (series.clone(), device.errors.mended)),
        );
        all.into_iter()
            .map(|(series, one)| (one.record.id, series))
            .collect()
    }

    fn groups(&self, taken: &mut Taken) -> BTreeMap<GroupId, Series> {
        let named = |group: &GroupStatus| series(group.record.number.0, group.name.as_deref());
        let all: Vec<_> = self.groups.iter().map(|one| (named(one), one)).collect();
        let is = |group: &GroupStatus| match group.state {
            Some(GroupState::Optimal) => "optimal",
            Some(GroupState::Degraded) => "degraded",
            Some(GroupState::Rebuilding) => "rebuilding",
            Some(GroupState::Failed) => "failed",
            None => "waiting",
        };
        taken.gauges(
            "raid_group_state",
            "1 for the state that a RAID group is in",
            all.iter()
                .flat_map(|(series, group)| states(series, &GROUP_STATES, is(group))),
        );
        let mut gauges = |name: &str, help, value: fn(&GroupStatus) -> u64| {
            let of = all.iter().map(|(series, group)| (series.clone(), value(group)));
            taken.gauges(name, help, of);
        };
        gauges("raid_group_capacity_bytes", "Capacity of a RAID group", |group| {
            group.record.layout.capacity()
        });
        gauges("raid_group_free_bytes", "What is free of a RAID group", |group| {
            u64::from(group.free_slices) * group.record.slice
        });
        gauges(
            "raid_group_spares",
            "Devices that may take a member's place",
            |group| group.spares.len() as u64,
        );
        gauges(
            "raid_group_unequal_bytes",
            "What must still be copied before all members are equal",
            |group| group.regions_to_sync as u64 * group.record.region,
        );
        self.scrubs(taken, &all);
        all.into_iter()
            .map(|(series, one)| (one.record.id, series))
            .collect()
    }

    /// Of groups that were ever scrubbed: the one that is under way, else the last.
    fn scrubs(&self, taken: &mut Taken, groups: &[(Series, &GroupStatus)]) {
        let newest = |group: &GroupStatus| {
            let running = group.scrub.running.as_ref().map(|run| run.findings.clone());
            running.or_else(|| group.scrub.last.as_ref().map(|last| last.findings.clone()))
        };
        let mut gauges = |name: &str, help, value: fn(&ScrubFindings) -> u64| {
            let of = groups
                .iter()
                .filter_map(|(series, group)| Some((series.clone(), value(&newest(group)?))));
            taken.gauges(name, help, of);
        };
        gauges(
            "raid_group_scrub_mismatched_blocks",
            "Blocks of 4 KiB that did not fit, in the scrub that is under way or was the last",
            |findings| findings.mismatched,
        );
        gauges(
            "raid_group_scrub_unreadable_blocks",
            "Places of 4 KiB that could not be read, in the scrub that is under way or was the last",
            |findings| findings.unreadable,
        );
        gauges(
            "raid_group_scrub_done_bytes",
            "How far that scrub came",
            |findings| findings.done,
        );
        gauges(
            "raid_group_scrub_total_bytes",
            "What it had to walk over",
            |findings| findings.total,
        );
        let ended = |group: &GroupStatus| group.scrub.last.as_ref()?.ended_at;
        taken.gauges(
            "raid_group_scrub_ended_timestamp_seconds",
            "When the last scrub ended",
            groups
                .iter()
                .filter_map(|(series, group)| Some((series.clone(), ended(group)?))),
        );
    }

    fn volumes(&self, taken: &mut Taken) -> BTreeMap<VolumeId, Series> {
        let named = |volume: &VolumeStatus| series(volume.record.number.0, Some(&volume.record.name));
        let all: Vec<_> = self.volumes.iter().map(|one| (named(one), one)).collect();
        let mut gauges = |name: &str, help, value: fn(&VolumeStatus) -> u64| {
            let of = all.iter().map(|(series, volume)| (series.clone(), value(volume)));
            taken.gauges(name, help, of);
        };
        gauges("volume_serving", "1 where hosts can use a volume", |volume| {
            u64::from(volume.serving)
        });
        gauges("volume_capacity_bytes", "Capacity of a volume", |volume| {
            volume.record.capacity
        });
        gauges("volume_mapped_bytes", "What is mapped of a volume", |volume| {
            volume.mapped
        });
        gauges("volume_map_runs", "Runs in a volume's map", |volume| {
            volume.runs as u64
        });
        all.into_iter()
            .map(|(series, one)| (one.record.id, series))
            .collect()
    }

    fn exports(&self, taken: &mut Taken) -> BTreeMap<ExportId, Series> {
        let named = |export: &ExportStatus| Series::of(vec![("name", export.record.name.clone())]);
        let all: Vec<_> = self.exports.iter().map(|one| (named(one), one)).collect();
        let mut gauges = |name: &str, help, value: fn(&ExportStatus) -> u64| {
            let of = all.iter().map(|(series, export)| (series.clone(), value(export)));
            taken.gauges(name, help, of);
        };
        gauges("export_offered", "1 where hosts can attach an export", |export| {
            u64::from(export.offered)
        });
        gauges("export_connections", "Connections of an export", |export| {
            export.connections as u64
        });
        all.into_iter()
            .map(|(series, one)| (one.record.id, series))
            .collect()
    }
}
