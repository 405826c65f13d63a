//! `ashlar device`

use ashlar_openapi::client::Call;
use ashlar_openapi::devices::{
    Cache, Device, DeviceChange, DeviceErrors, DeviceFilter, DeviceHealth, DeviceKind, DeviceSource,
    DeviceState, Examine, Identify, NewDevice, Presence, Spare, SpareChange,
};
use ashlar_openapi::operations::{
    AddDevice, ChangeDevice, ExamineDevice, FailDevice, GetDevice, IdentifyDevice, ListDevices, RemoveDevice,
    ReturnDevice, SetSpare,
};
use ashlar_openapi::sort::NumberedKey;
use ashlar_openapi::{Bytes, Name, Natural};
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::raid_group::RaidGroups;
use super::{Gone, One, end, show};
use crate::Context;
use crate::edit::edit;
use crate::failure::Failure;
use crate::find::{Handle, Noun, find, number};
use crate::format;
use crate::list::{Length, Names, Order, Reference, Row, list};
use crate::progress::{Waiting, made};
use crate::values::{size, word};

pub(crate) const PRESENCES: &[&str] = &["present", "adopted", "missing"];
const KINDS: &[&str] = &["file", "block", "nbd"];
const CACHES: &[&str] = &["direct", "buffered"];

/// Where a device is found.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// Path of a file, or of a disk below /dev; or nbd://HOST[:PORT]/NAME, nbd+unix:///NAME?socket=PATH
    #[arg(value_name = "PATH|URI")]
    at: String,
    /// Whether hosts' data passes the page cache [default: buffered for files, direct for disks]
    #[arg(long, value_parser = word::<Cache>(CACHES))]
    cache: Option<Cache>,
}

impl Source {
    /// `local`: relative paths mean here what they mean to the appliance. `size`: of a file to be made.
    fn contract(self, local: bool, size: Option<Bytes>) -> Result<DeviceSource, Failure> {
        let Self { at, cache } = self;
        if at.starts_with("nbd://") || at.starts_with("nbd+unix://") {
            return match (size, cache) {
                (None, None) => Ok(DeviceSource::Nbd { uri: at }),
                _ => Err(Failure::usage("--size and --cache are for files and disks")),
            };
        }
        let path = absolute(&at, local)?;
        match size {
            None if path.starts_with("/dev/") => Ok(DeviceSource::Block { path, cache }),
            size_bytes => Ok(DeviceSource::File {
                path,
                size_bytes,
                cache,
            }),
        }
    }
}

/// A path as the appliance takes it.
fn absolute(path: &str, local: bool) -> Result<String, Failure> {
    if !local && !path.starts_with('/') {
        return Err(Failure::usage(format!(
            "{path:?}: the appliance may be on another machine, give an absolute path"
        )));
    }
    let absolute = std::path::absolute(path).map_err(|error| Failure::file(path, error))?;
    let text = absolute.into_os_string().into_string();
    text.map_err(|path| Failure::usage(format!("{} is no text", path.display())))
}

/// What a path or URI names, with the settings that follow from it.
pub(crate) fn source(at: &str, local: bool) -> Result<DeviceSource, Failure> {
    Source {
        at: at.to_owned(),
        cache: None,
    }
    .contract(local, None)
}

/// A device to be added.
#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    source: Source,
    /// Make the file, with this size
    #[arg(long, value_parser = size)]
    size: Option<Bytes>,
    /// What to call it
    #[arg(long)]
    name: Option<Name>,
    /// Give up whatever the device holds
    #[arg(long)]
    force: bool,
}

/// A device to be made a spare, or none any more.
#[derive(Debug, Args)]
pub(crate) struct Keep {
    #[command(flatten)]
    one: One,
    /// For this RAID group alone [default: for all of them]
    #[arg(long = "for", value_name = "RAID GROUP")]
    group: Option<String>,
    /// Make it none any more
    #[arg(long, conflicts_with = "group")]
    off: bool,
}

/// A device to be made seen.
#[derive(Debug, Args)]
pub(crate) struct Blink {
    #[command(flatten)]
    one: One,
    /// For so long [default: 30]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Add a device
    Add(Add),
    /// List the devices
    List {
        /// Only of this kind
        #[arg(long, value_parser = word::<DeviceKind>(KINDS))]
        kind: Option<DeviceKind>,
        /// Only those that catalog and devices agree on, or not
        #[arg(long, value_parser = word::<Presence>(PRESENCES))]
        presence: Option<Presence>,
        #[command(flatten)]
        order: Order<NumberedKey>,
        #[command(flatten)]
        length: Length,
    },
    /// Look at a device
    Show(One),
    /// Name a device
    Set {
        #[command(flatten)]
        one: One,
        /// What to call it
        #[arg(long, required_unless_present = "no_name")]
        name: Option<Name>,
        /// Take its name away
        #[arg(long, conflicts_with = "name")]
        no_name: bool,
    },
    /// Look what a device is, changing nothing
    Examine(Source),
    /// Give a device back; it is blank afterwards
    Remove(Gone),
    /// Take a device out of service
    Fail(Gone),
    /// Take an absent or failed device into service again
    Return(One),
    /// Make a device a spare: it takes a lost member's place by itself
    Spare(Keep),
    /// Keep a device busy with reads so that its light shows where it is
    Identify(Blink),
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        let one = async |text: &str| find::<Devices>(&cx.client, text).await;
        match self {
            Self::Add(add) => add.run(cx).await,
            Self::List {
                kind,
                presence,
                order,
                length,
            } => {
                let filter = DeviceFilter {
                    kind,
                    sort: order.sort,
                    presence,
                    ..DeviceFilter::default()
                };
                list(cx, Call::<ListDevices>::at(&[]).query(filter), &length).await
            }
            Self::Show(named) => {
                let id = one(&named.object).await?;
                show::<GetDevice>(cx, &[id], id).await
            }
            Self::Set {
                one: named,
                name,
                no_name,
            } => {
                let id = one(&named.object).await?;
                let change = DeviceChange {
                    name: (no_name || name.is_some()).then_some(name),
                };
                let answer = edit::<GetDevice, ChangeDevice>(&cx.client, &[id], change).await?;
                cx.out.object(&answer.text, &id.to_string())
            }
            Self::Examine(source) => {
                let examine = Examine {
                    source: source.contract(cx.local, None)?,
                };
                let answer = cx.client.call(Call::<ExamineDevice>::with(&[], examine)).await?;
                let device = answer.body.appliance_device.map(|found| found.device.to_string());
                cx.out.object(&answer.text, &device.unwrap_or_default())
            }
            Self::Remove(gone) => {
                let id = one(&gone.object).await?;
                gone.confirm("Give back and clear the device")?;
                end::<RemoveDevice>(cx, id, "removed").await
            }
            Self::Fail(gone) => {
                let id = one(&gone.object).await?;
                gone.confirm("Take out of service the device")?;
                show::<FailDevice>(cx, &[id], id).await
            }
            Self::Return(named) => {
                let id = one(&named.object).await?;
                show::<ReturnDevice>(cx, &[id], id).await
            }
            Self::Spare(keep) => keep.run(cx).await,
            Self::Identify(blink) => blink.run(cx).await,
        }
    }
}

impl Add {
    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let Self {
            source,
            size,
            name,
            force,
        } = self;
        let new = NewDevice {
            id: None,
            name,
            source: source.contract(cx.local, size)?,
            force,
        };
        let answer = cx.client.call(Call::<AddDevice>::with(&[], new)).await?;
        cx.out.object(&answer.text, &answer.body.id.to_string())
    }
}

impl Keep {
    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let id = find::<Devices>(&cx.client, &self.one.object).await?;
        let spare = match &self.group {
            _ if self.off => Spare::None,
            None => Spare::Shared,
            Some(group) => Spare::RaidGroup {
                raid_group: find::<RaidGroups>(&cx.client, group).await?,
            },
        };
        let call = Call::<SetSpare>::with(&[id], SpareChange { spare });
        let answer = cx.client.call(call).await?;
        cx.out.object(&answer.text, &id.to_string())
    }
}

impl Blink {
    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let id = find::<Devices>(&cx.client, &self.one.object).await?;
        let body = Identify {
            seconds: self.seconds.map(Natural),
        };
        let answer = cx.client.call(Call::<IdentifyDevice>::with(&[id], body)).await?;
        made(cx, answer, &self.waiting).await
    }
}

/// Devices, to be found.
pub(crate) struct Devices;

impl Noun for Devices {
    const WHAT: &'static str = "device";
    type Item = Device;
    type List = ListDevices;

    fn queries(text: &str) -> Vec<DeviceFilter> {
        let by_name = DeviceFilter {
            name: Some(text.to_owned()),
            ..DeviceFilter::default()
        };
        let by_number = number(text).map(|number| DeviceFilter {
            number: Some(ashlar_openapi::Natural(number)),
            ..DeviceFilter::default()
        });
        by_number.into_iter().chain([by_name]).collect()
    }

    fn handle(item: &Device) -> Handle {
        Handle {
            id: item.id,
            name: item.name.as_ref().map(ToString::to_string),
            number: Some(item.number.0),
        }
    }
}

impl Row for Device {
    const HEADERS: &'static [&'static str] = &[
        "NUMBER",
        "NAME",
        "KIND",
        "CAPACITY",
        "STATE",
        "RAID GROUP",
        "MEMBER",
        "ERRORS",
        "LOCATION",
    ];

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn refers(&self) -> Vec<Reference> {
        group(self).map(Reference::RaidGroup).into_iter().collect()
    }

    fn cells(&self, names: &Names) -> Vec<String> {
        let member = self.membership.as_ref();
        vec![
            self.number.0.to_string(),
            format::or_nothing(self.name.as_ref()),
            self.kind.as_str().to_owned(),
            format::size(self.capacity_bytes),
            match (self.state, self.health) {
                (DeviceState::InService, DeviceHealth::Suspect) => state(&self.health, self.presence),
                _ => state(&self.state, self.presence),
            },
            match self.spare {
                Spare::Shared => "any".to_owned(),
                _ => format::or_nothing(group(self).map(|group| names.of(Reference::RaidGroup(group)))),
            },
            match (member, self.spare) {
                (Some(member), _) => format::word(&member.state),
                (None, Spare::None) => format::or_nothing(self.former_raid_group.map(|_| "former")),
                (None, _) => "spare".to_owned(),
            },
            errors(&self.errors).to_string(),
            if self.location.is_empty() {
                format::NOTHING.to_owned()
            } else {
                self.location.clone()
            },
        ]
    }
}

/// The RAID group that a device is in, is kept for, or was in.
fn group(device: &Device) -> Option<Uuid> {
    match device.spare {
        Spare::RaidGroup { raid_group } => Some(raid_group),
        _ => device
            .membership
            .as_ref()
            .map(|member| member.raid_group)
            .or(device.former_raid_group),
    }
}

/// All that failed.
pub(crate) fn errors(errors: &DeviceErrors) -> u64 {
    let DeviceErrors {
        medium,
        checksums,
        reads,
        writes,
        flushes,
        timeouts,
        mended: _,
    } = errors;
    let counts = [medium, checksums, reads, writes, flushes, timeouts];
    counts.into_iter().map(|count| count.0).sum()
}

/// A state, unless catalog and devices do not agree that the object exists.
pub(crate) fn state(state: &impl serde::Serialize, presence: Presence) -> String {
    match presence {
        Presence::Present => format::word(state),
        Presence::Adopted => format!("{} (adopted)", format::word(state)),
        Presence::Missing => presence.as_str().to_owned(),
    }
}

/// Ids of the devices that `texts` name, separated by spaces or commas.
pub(crate) async fn find_devices(cx: &Context, texts: &[String]) -> Result<Vec<Uuid>, Failure> {
    let texts: Vec<_> = texts
        .iter()
        .flat_map(|text| text.split(','))
        .map(str::to_owned)
        .collect();
    crate::find::find_all::<Devices>(&cx.client, &texts).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_is_follows_from_where_it_is() {
        let here = std::env::current_dir()
            .unwrap()
            .join("disk")
            .into_os_string()
            .into_string()
            .unwrap();
        let file = |path: &str| DeviceSource::File {
            path: path.to_owned(),
            size_bytes: None,
            cache: None,
        };
        assert_eq!(source("/srv/disk", true).unwrap(), file("/srv/disk"));
        assert_eq!(source("disk", true).unwrap(), file(&here));
        assert_eq!(
            source("/dev/sdb", true).unwrap(),
            DeviceSource::Block {
                path: "/dev/sdb".to_owned(),
                cache: None
            }
        );
        for uri in ["nbd://host/name", "nbd+unix:///name?socket=/s"] {
            assert_eq!(
                source(uri, true).unwrap(),
                DeviceSource::Nbd { uri: uri.to_owned() }
            );
        }
        assert!(source("disk", false).is_err());
        let remote = Source {
            at: "nbd://host/name".to_owned(),
            cache: None,
        };
        assert!(remote.contract(true, Some(Bytes(1))).is_err());
    }

    #[test]
    fn every_word_that_is_offered_is_one_of_the_contract() {
        for word in KINDS {
            assert_eq!(
                format::word(&serde_json::from_value::<DeviceKind>((*word).into()).unwrap()),
                *word
            );
        }
        for word in CACHES {
            assert_eq!(
                format::word(&serde_json::from_value::<Cache>((*word).into()).unwrap()),
                *word
            );
        }
        for word in PRESENCES {
            assert_eq!(
                format::word(&serde_json::from_value::<Presence>((*word).into()).unwrap()),
                *word
            );
        }
    }
}
