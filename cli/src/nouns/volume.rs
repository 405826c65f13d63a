//! `ashlar volume`

use ashlar_openapi::client::{Call, Common};
use ashlar_openapi::devices::Presence;
use ashlar_openapi::operations::{
    ChangeVolume, CreateVolume, DeleteVolume, ExpandVolume, GetVolume, ListVolumes, MapVolume, PlaceVolume,
    VolumeRangesOf,
};
use ashlar_openapi::sort::NumberedKey;
use ashlar_openapi::volumes::{
    Expand, MapFilter, MapRun, MorePlacements, NewVolume, Placement, PlacementLayout, RangesOfFilter, Volume,
    VolumeChange, VolumeFilter,
};
use ashlar_openapi::{Bytes, Name, Natural, Range};
use clap::{Args, Subcommand};

use super::device::{Devices, PRESENCES, state};
use super::raid_group::RaidGroups;
use super::{DryRun, Gone, One, end, show};
use crate::Context;
use crate::edit::edit;
use crate::failure::Failure;
use crate::find::{Handle, Noun, find, find_some, number};
use crate::format;
use crate::list::{Length, Names, Order, Reference, Row, list};
use crate::values::{Placing, placing, range, size, word};

const LAYOUTS: &[&str] = &["aligned", "packed"];

/// A volume to be made.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What to call it
    name: Name,
    /// Its capacity; follows from a count-key-data type
    #[arg(long, value_name = "SIZE", value_parser = size)]
    capacity: Option<Bytes>,
    /// Where everything lies that no placement names; without it the volume is partial
    #[arg(long, value_name = "RAID-GROUP", required_unless_present = "place")]
    raid_group: Option<String>,
    #[command(flatten)]
    placing: Placements,
    /// open-512, open-4096, or a count-key-data type like 3390-3 [default: open-512]
    #[arg(long = "type", value_name = "TYPE")]
    emulation_type: Option<String>,
    /// Its number [default: the lowest free one]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=i64::from(i32::MAX)))]
    number: Option<u32>,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Ranges and where they are to lie.
#[derive(Debug, Args)]
pub(crate) struct Placements {
    /// Ranges, separated by commas or in a file as @FILE, and the RAID group they are to lie on; may be repeated
    #[arg(long, value_name = "RANGES=RAID-GROUP", value_parser = placing)]
    place: Vec<Placing>,
    /// Whether a logical device holds one contiguous range, or several
    #[arg(long, default_value = "aligned", value_parser = word::<PlacementLayout>(LAYOUTS))]
    layout: PlacementLayout,
    /// Refuse a range that would begin or end inside an earlier one's rounding
    #[arg(long)]
    exact: bool,
}

impl Placements {
    async fn contract(&self, cx: &Context) -> Result<Vec<Placement>, Failure> {
        let mut found = Vec::new();
        for placing in &self.place {
            let raid_group = find::<RaidGroups>(&cx.client, &placing.raid_group).await?;
            found.extend(placing.ranges.iter().map(|range| Placement {
                range: *range,
                raid_group,
            }));
        }
        Ok(found)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a volume
    Create(Create),
    /// List the volumes
    List {
        /// Only those that catalog and devices agree on, or not
        #[arg(long, value_parser = word::<Presence>(PRESENCES))]
        presence: Option<Presence>,
        #[command(flatten)]
        order: Order<NumberedKey>,
        #[command(flatten)]
        length: Length,
    },
    /// Look at a volume
    Show(One),
    /// See where a volume's addresses lie
    Map {
        #[command(flatten)]
        one: One,
        /// Only this range
        #[arg(long, value_parser = range)]
        range: Option<Range>,
        #[command(flatten)]
        length: Length,
    },
    /// See which ranges of a volume lie on a RAID group, device or logical device
    RangesOf {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        on: On,
        #[command(flatten)]
        length: Length,
    },
    /// Map more ranges of a partial volume
    Place {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        placing: Placements,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Give a volume more capacity, in use or not
    Expand {
        #[command(flatten)]
        one: One,
        /// What it is to have in all
        #[arg(long, value_name = "SIZE", value_parser = size)]
        capacity: Bytes,
        /// Where the new addresses lie; left out for a partial volume
        #[arg(long, value_name = "RAID-GROUP")]
        raid_group: Option<String>,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Rename a volume
    Rename {
        #[command(flatten)]
        one: One,
        /// What to call it
        new: Name,
    },
    /// Delete a volume; nobody will ever read what it held
    Delete(Gone),
}

/// Where to look for ranges.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct On {
    /// Ranges on this RAID group
    #[arg(long, value_name = "RAID-GROUP")]
    raid_group: Option<String>,
    /// Ranges on the RAID group that this device is a member of
    #[arg(long)]
    device: Option<String>,
    /// Ranges on the logical device with this number
    #[arg(long, value_name = "NUMBER")]
    logical_device: Option<u32>,
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        let one = async |text: &str| find::<Volumes>(&cx.client, text).await;
        match self {
            Self::Create(create) => create.run(cx).await,
            Self::List {
                presence,
                order,
                length,
            } => {
                let filter = VolumeFilter {
                    sort: order.sort,
                    presence,
                    ..VolumeFilter::default()
                };
                list(cx, Call::<ListVolumes>::at(&[]).query(filter), &length).await
            }
            Self::Show(named) => {
                let id = one(&named.object).await?;
                show::<GetVolume>(cx, &[id], id).await
            }
            Self::Map {
                one: named,
                range,
                length,
            } => {
                let id = one(&named.object).await?;
                let filter = MapFilter {
                    offset: range.map(|range| range.offset.0),
                    length: range.map(|range| range.length.0),
                };
                list(cx, Call::<MapVolume>::at(&[id]).query(filter), &length).await
            }
            Self::RangesOf {
                one: named,
                on,
                length,
            } => {
                let id = one(&named.object).await?;
                let filter = on.contract(cx).await?;
                list(cx, Call::<VolumeRangesOf>::at(&[id]).query(filter), &length).await
            }
            Self::Place {
                one,
                placing,
                dry_run,
            } => place(cx, &one, &placing, dry_run).await,
            Self::Expand {
                one: named,
                capacity,
                raid_group,
                dry_run,
            } => expand(cx, &named, capacity, raid_group.as_deref(), dry_run).await,
            Self::Rename { one: named, new } => {
                let id = one(&named.object).await?;
                let change = VolumeChange { name: Some(new) };
                let answer = edit::<GetVolume, ChangeVolume>(&cx.client, &[id], change).await?;
                cx.out.object(&answer.text, &id.to_string())
            }
            Self::Delete(gone) => {
                let id = one(&gone.object).await?;
                gone.confirm("Delete, with all that it holds, the volume")?;
                end::<DeleteVolume>(cx, id, "deleted").await
            }
        }
    }
}

fn common(dry_run: DryRun) -> Common {
    Common {
        dry_run: dry_run.dry_run,
        ..Common::default()
    }
}

async fn expand(
    cx: &Context,
    one: &One,
    capacity_bytes: Bytes,
    raid_group: Option<&str>,
    dry_run: DryRun,
) -> Result<(), Failure> {
    let id = find::<Volumes>(&cx.client, &one.object).await?;
    let body = Expand {
        capacity_bytes,
        raid_group: find_some::<RaidGroups>(&cx.client, raid_group).await?,
    };
    let call = Call::<ExpandVolume>::with(&[id], body).common(common(dry_run));
    cx.out
        .made(&cx.client.call(call).await?.text, "volume", &id.to_string())
}

async fn place(cx: &Context, one: &One, placing: &Placements, dry_run: DryRun) -> Result<(), Failure> {
    if placing.place.is_empty() {
        return Err(Failure::usage("say what to place: --place RANGES=RAID-GROUP"));
    }
    let id = find::<Volumes>(&cx.client, &one.object).await?;
    let placements = placing.contract(cx).await?;
    let more = MorePlacements {
        placements,
        layout: placing.layout,
        exact: placing.exact,
    };
    let call = Call::<PlaceVolume>::with(&[id], more).common(common(dry_run));
    cx.out
        .made(&cx.client.call(call).await?.text, "volume", &id.to_string())
}

impl Create {
    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let new = NewVolume {
            id: None,
            number: self.number.map(Natural),
            name: self.name,
            emulation_type: self.emulation_type,
            capacity_bytes: self.capacity,
            raid_group: find_some::<RaidGroups>(&cx.client, self.raid_group.as_deref()).await?,
            placements: self.placing.contract(cx).await?,
            layout: self.placing.layout,
            exact: self.placing.exact,
        };
        let call = Call::<CreateVolume>::with(&[], new).common(common(self.dry_run));
        let answer = cx.client.call(call).await?;
        let id = answer
            .body
            .volume
            .map(|volume| volume.id.to_string())
            .unwrap_or_default();
        cx.out.made(&answer.text, "volume", &id)
    }
}

impl On {
    async fn contract(self, cx: &Context) -> Result<RangesOfFilter, Failure> {
        Ok(RangesOfFilter {
            raid_group: find_some::<RaidGroups>(&cx.client, self.raid_group.as_deref()).await?,
            device: find_some::<Devices>(&cx.client, self.device.as_deref()).await?,
            logical_device: self.logical_device.map(ashlar_openapi::Natural),
        })
    }
}

/// Volumes, to be found.
pub(crate) struct Volumes;

impl Noun for Volumes {
    const WHAT: &'static str = "volume";
    type Item = Volume;
    type List = ListVolumes;

    fn queries(text: &str) -> Vec<VolumeFilter> {
        let by_name = VolumeFilter {
            name: Some(text.to_owned()),
            ..VolumeFilter::default()
        };
        let by_number = number(text).map(|number| VolumeFilter {
            number: Some(ashlar_openapi::Natural(number)),
            ..VolumeFilter::default()
        });
        by_number.into_iter().chain([by_name]).collect()
    }

    fn handle(item: &Volume) -> Handle {
        Handle {
            id: item.id,
            name: Some(item.name.to_string()),
            number: Some(item.number.0),
        }
    }
}

impl Row for Volume {
    const HEADERS: &'static [&'static str] = &["NUMBER", "NAME", "TYPE", "CAPACITY", "MAPPED", "STATE"];

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self, _: &Names) -> Vec<String> {
        vec![
            self.number.0.to_string(),
            self.name.to_string(),
            self.emulation_type.clone(),
            format::size(self.capacity_bytes),
            format::size(self.mapped_bytes),
            state(&self.state, self.presence),
        ]
    }
}

impl Row for MapRun {
    const HEADERS: &'static [&'static str] = &[
        "RANGE",
        "RAID GROUP",
        "AT",
        "FIRST LOGICAL DEVICE",
        "COUNT",
        "DEVICES",
    ];

    fn key(&self) -> String {
        format::range(self.range)
    }

    fn refers(&self) -> Vec<Reference> {
        let places = self.placed.iter();
        places
            .flat_map(|place| {
                place
                    .devices
                    .iter()
                    .map(|id| Reference::Device(*id))
                    .chain([Reference::RaidGroup(place.raid_group)])
            })
            .collect()
    }

    fn cells(&self, names: &Names) -> Vec<String> {
        let place = self.placed.as_ref();
        let devices = |ids: &[uuid::Uuid]| {
            ids.iter()
                .map(|id| names.of(Reference::Device(*id)))
                .collect::<Vec<_>>()
                .join(",")
        };
        vec![
            format::range(self.range),
            format::or_nothing(place.map(|place| names.of(Reference::RaidGroup(place.raid_group)))),
            format::or_nothing(place.map(|place| format::size(place.raid_group_offset_bytes))),
            format::or_nothing(place.map(|place| place.first_logical_device.0)),
            format::or_nothing(place.map(|place| place.logical_devices.0)),
            format::or_nothing(place.map(|place| devices(&place.devices))),
        ]
    }
}

impl Row for Range {
    const HEADERS: &'static [&'static str] = &["RANGE", "LENGTH"];

    /// As it can be given to other commands, also in a file.
    fn key(&self) -> String {
        format::range(*self)
    }

    fn cells(&self, _: &Names) -> Vec<String> {
        vec![format::range(*self), format::size(self.length)]
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{Cli, Command};

    fn create(line: &str) -> Result<Create, clap::Error> {
        match Cli::try_parse_from(format!("ashlar volume create {line}").split(' '))?.command {
            Command::Volume(Verb::Create(create)) => Ok(create),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_volume_is_made_with_sizes_and_placements_as_people_write_them() {
        let create =
            create("vol0 --capacity 1.5TiB --place 0+10GiB,20GiB+1GiB=fast --place 1TiB+1GiB=3").unwrap();
        assert_eq!(create.capacity, Some(Bytes(3 << 39)));
        let groups: Vec<_> = create
            .placing
            .place
            .iter()
            .map(|placing| placing.raid_group.as_str())
            .collect();
        assert_eq!(groups, ["fast", "3"]);
        assert_eq!(create.placing.place[0].ranges.len(), 2);
        assert_eq!(create.placing.layout, PlacementLayout::Aligned);
    }

    #[test]
    fn a_volume_that_would_lie_nowhere_is_wrong_usage() {
        for wrong in [
            "vol0 --capacity 1GiB",
            "vol0 --raid-group g --capacity 1GB",
            "-vol --raid-group g",
            "v --raid-group g --layout x",
        ] {
            assert!(create(wrong).is_err(), "{wrong}");
        }
        assert!(create("vol0 --capacity 1GiB --raid-group 0").is_ok());
    }

    #[test]
    fn ranges_are_looked_for_in_one_place() {
        let parse =
            |line: &str| Cli::try_parse_from(format!("ashlar volume ranges-of v {line}").trim().split(' '));
        assert!(parse("--raid-group 0").is_ok());
        assert!(parse("").is_err());
        assert!(parse("--raid-group 0 --device 1").is_err());
    }
}
