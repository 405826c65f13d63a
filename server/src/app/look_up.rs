//! Where things lie: maps of volumes, logical devices, as pages. All of it comes from the engine, so that it is never
//! older than what serves, and never copied into the catalog.

use ashlar_engine::appliance::{
    LogicalDeviceFilter as EngineFilter, LogicalDeviceRun as EngineRun, LogicalDeviceState as EngineState,
    MapStretch, On,
};
use ashlar_engine::types::geometry::HEADS;
use ashlar_engine::types::{ByteRange, DeviceId, EmulationType, GroupId, VolumeId};
use ashlar_openapi::logical_devices::{LogicalDeviceFilter, LogicalDeviceRun, LogicalDeviceState};
use ashlar_openapi::values::{Track, Tracks};
use ashlar_openapi::volumes::{MapFilter, MapPlace, MapRun, RangesOfFilter};
use ashlar_openapi::{Bytes, Natural, Page, Problem, ProblemType, Range};
use uuid::Uuid;

use super::refusals::{bounded, of_engine, of_range, to_range};
use super::{App, cursor, no_such};

/// Which page of a list that the engine gives.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub limit: u32,
    pub cursor: Option<&'a str>,
}

impl Wanted<'_> {
    /// One more than asked for, which tells whether there is another page.
    fn most(&self) -> usize {
        self.limit as usize + 1
    }

    fn from(&self) -> Result<Option<u64>, Problem> {
        self.cursor.map(cursor::to_number).transpose()
    }

    /// The page of what was found, and where the next one begins.
    fn page<T>(&self, mut found: Vec<T>, begins: impl Fn(&T) -> u64) -> Page<T> {
        let next = found
            .get(self.limit as usize)
            .map(|next| cursor::of_number(begins(next)));
        found.truncate(self.limit as usize);
        Page {
            items: found,
            next_cursor: next,
        }
    }
}

impl App {
    /// A volume's map.
    ///
    /// # Errors
    /// Where there is no such volume, or it has no such range.
    pub async fn volume_map(
        &self,
        id: Uuid,
        filter: &MapFilter,
        wanted: &Wanted<'_>,
    ) -> Result<Page<MapRun>, Problem> {
        let record = self.volume_status(id).await?.record;
        let range = part_of(filter, record.capacity)?;
        let from = wanted.from()?.unwrap_or(0).max(range.start());
        let (to, most) = (range.end(), wanted.most());
        let found = self
            .engine
            .with(async move |appliance| appliance.volume_map(VolumeId(id), from, to, most).await)
            .await
            .map_err(|error| of_engine(&error))?;
        let found = found.ok_or_else(|| no_such("volume", id))?;
        let runs = found
            .into_iter()
            .map(|stretch| map_run(record.emulation, stretch))
            .collect();
        Ok(wanted.page(runs, |run: &MapRun| run.range.offset.0))
    }

    /// A volume's ranges on something.
    ///
    /// # Errors
    /// Where there is no such volume, or not one thing is named.
    pub async fn ranges_of(
        &self,
        id: Uuid,
        filter: &RangesOfFilter,
        wanted: &Wanted<'_>,
    ) -> Result<Page<Range>, Problem> {
        self.volume_status(id).await?;
        let on = match (filter.raid_group, filter.device, filter.logical_device) {
            (Some(group), None, None) => On::Group(GroupId(group)),
            (None, Some(device), None) => On::Device(DeviceId(device)),
            (None, None, Some(number)) => On::LogicalDevice(number.0),
            _ => {
                return Err(Problem::new(
                    ProblemType::InvalidParameter,
                    "not exactly one thing is named that the ranges are to lie on",
                    "give one of raid_group, device and logical_device",
                )
                .allowing(["raid_group", "device", "logical_device"]));
            }
        };
        let (from, most) = (wanted.from()?.unwrap_or(0), wanted.most());
        let found = self
            .engine
            .with(async move |appliance| appliance.ranges_on(VolumeId(id), &on, from, most).await)
            .await
            .map_err(|error| of_engine(&error))?;
        let found = found.ok_or_else(|| {
            Problem::new(
                ProblemType::InvalidParameter,
                "there is no such RAID group, device or logical device",
                "list what there is",
            )
        })?;
        let ranges = found.into_iter().map(to_range).collect();
        Ok(wanted.page(ranges, |range: &Range| range.offset.0))
    }

    /// Logical devices, as runs.
    ///
    /// # Errors
    /// Where the engine is not there, or the cursor is none.
    pub async fn logical_devices(
        &self,
        filter: &LogicalDeviceFilter,
        wanted: &Wanted<'_>,
    ) -> Result<Page<LogicalDeviceRun>, Problem> {
        let filter = EngineFilter {
            group: filter.raid_group.map(GroupId),
            state: filter.state.map(engine_state),
            volume: filter.volume.map(VolumeId),
        };
        let from = u32::try_from(wanted.from()?.unwrap_or(0)).unwrap_or(u32::MAX);
        let most = wanted.most();
        let found = self
            .engine
            .with(async move |appliance| appliance.logical_devices(&filter, from, most).await)
            .await;
        let found = match found {
            Ok(found) => found,
            // Without a device there is no logical one either.
            Err(crate::engine::EngineError::Blank) => Vec::new(),
            Err(error) => return Err(of_engine(&error)),
        };
        let runs = found.into_iter().map(logical_device_run).collect();
        Ok(wanted.page(runs, |run: &LogicalDeviceRun| run.first_number.0.into()))
    }
}

/// The part of a volume that a request names: all of it unless it says otherwise.
fn part_of(filter: &MapFilter, capacity: u64) -> Result<ByteRange, Problem> {
    let offset = filter.offset.unwrap_or(0);
    let length = filter.length.unwrap_or(capacity.saturating_sub(offset));
    let range = bounded(offset, length)?;
    // Without a block of its own: what is looked at need not begin at one.
    ashlar_engine::types::extent::check(range, 1, capacity).map_err(|error| of_range(&error).at("offset"))?;
    Ok(range)
}

fn map_run(emulation: EmulationType, stretch: MapStretch) -> MapRun {
    MapRun {
        tracks: tracks(emulation, stretch.range),
        range: to_range(stretch.range),
        placed: stretch.placed.map(|place| MapPlace {
            raid_group: place.group.0,
            raid_group_offset_bytes: Bytes(place.group_offset),
            first_logical_device: Natural(place.first_logical_device),
            logical_devices: Natural(place.logical_devices),
            devices: place.devices.into_iter().map(|device| device.0).collect(),
        }),
    }
}

/// The range in tracks, where it begins and ends at some.
fn tracks(emulation: EmulationType, range: ByteRange) -> Option<Tracks> {
    let EmulationType::Ckd(model) = emulation else {
        return None;
    };
    let slot = model.slot();
    if range.is_empty() || !range.is_aligned(slot) {
        return None;
    }
    let track = |number: u64| {
        Some(Track {
            cylinder: Natural(u32::try_from(number / u64::from(HEADS)).ok()?),
            head: Natural(u32::try_from(number % u64::from(HEADS)).ok()?),
        })
    };
    Some(Tracks {
        from: track(range.start() / slot)?,
        to: track(range.end() / slot - 1)?,
    })
}

fn engine_state(state: LogicalDeviceState) -> EngineState {
    match state {
        LogicalDeviceState::Free => EngineState::Free,
        LogicalDeviceState::InUse => EngineState::InUse,
        LogicalDeviceState::Clearing => EngineState::Clearing,
    }
}

fn logical_device_run(run: EngineRun) -> LogicalDeviceRun {
    LogicalDeviceRun {
        first_number: Natural(run.first),
        count: Natural(run.count),
        raid_group: run.group.0,
        raid_group_offset_bytes: Bytes(run.group_offset),
        length_bytes: Bytes(run.length),
        state: match run.state {
            EngineState::Free => LogicalDeviceState::Free,
            EngineState::InUse => LogicalDeviceState::InUse,
            EngineState::Clearing => LogicalDeviceState::Clearing,
        },
        volume: run.volume.map(|volume| volume.0),
    }
}
