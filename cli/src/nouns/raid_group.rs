//! `ashlar raid-group`

use ashlar_openapi::client::{Call, Common};
use ashlar_openapi::devices::Presence;
use ashlar_openapi::operations::{
    ChangeRaidGroup, CreateRaidGroup, DeleteRaidGroup, FormatRaidGroup, GetRaidGroup, ListRaidGroups,
    ReplaceMember, ScrubRaidGroup,
};
use ashlar_openapi::raid_groups::{
    Member, MemberCondition, NewRaidGroup, RaidGroup, RaidGroupChange, RaidGroupFilter, RaidLevel, Replace,
};
use ashlar_openapi::scrubs::{Scrub, ScrubMode, ScrubSchedule};
use ashlar_openapi::sort::NumberedKey;
use ashlar_openapi::{Bytes, Name, Natural};
use clap::{Args, Subcommand};

use super::device::{Devices, PRESENCES, errors, find_devices, state};
use super::{DryRun, Gone, One, end};
use crate::Context;
use crate::edit::edit;
use crate::failure::Failure;
use crate::find::{Handle, Noun, find, number};
use crate::format;
use crate::list::{Length, Names, Order, Row, list};
use crate::progress::{Waiting, begun, made};
use crate::values::{Every, Limit, Wait, every, limit, size, wait, word};

const LEVELS: &[&str] = &["0", "1", "3", "5", "6", "10"];

/// A RAID group to be made.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// RAID level
    #[arg(long, value_parser = word::<RaidLevel>(LEVELS))]
    level: RaidLevel,
    /// The devices, in the order of their roles
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<String>,
    /// What to call it
    #[arg(long)]
    name: Option<Name>,
    /// A power of two from 4KiB to 1MiB [default: 64KiB, at level 3 4KiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    stripe_unit: Option<Bytes>,
    /// Length of a logical device: a power of two from 1MiB up to the smallest volume [default: as large as that]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    slice_length: Option<Bytes>,
    /// Keep no checksums of what the members hold: silent damage is not found then
    #[arg(long)]
    no_checksums: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Settings of a RAID group.
#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Settings {
    /// What to call it
    #[arg(long)]
    name: Option<Name>,
    /// Take its name away
    #[arg(long, conflicts_with = "name")]
    no_name: bool,
    /// Most that is copied to its members per second, or `none`
    #[arg(long, value_name = "SIZE|none", value_parser = limit)]
    rate_limit: Option<Limit>,
    /// Compare what its members hold so often, like 12h or 30d, or `none`
    #[arg(long, value_name = "TIME|none", value_parser = every)]
    scrub_every: Option<Every>,
    /// Mend what these scrubs find
    #[arg(long, requires = "scrub_every")]
    scrub_repair: bool,
    /// How long a member is out before a spare takes its place; `usual`: a minute where it is merely absent
    #[arg(long, value_name = "SECONDS|usual", value_parser = wait)]
    spare_after: Option<Wait>,
    /// Whether a spare takes the place of a suspect member while all are in sync and no other is suspect [default: false]
    #[arg(long, value_name = "true|false")]
    replace_suspect: Option<bool>,
    /// Places that a member may lose, unreadable or unfit for their checksums; with more it is suspect
    #[arg(long, value_name = "PLACES", value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    suspect_after: Option<u32>,
}

/// A scrub to be begun.
#[derive(Debug, Args)]
pub(crate) struct StartScrub {
    #[command(flatten)]
    one: One,
    /// Mend what does not fit
    #[arg(long)]
    repair: bool,
    /// Most that is read per second
    #[arg(long, value_name = "SIZE", value_parser = size)]
    rate_limit: Option<Bytes>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a RAID group of devices that are in none
    Create(Create),
    /// List the RAID groups
    List {
        /// Only those that catalog and devices agree on, or not
        #[arg(long, value_parser = word::<Presence>(PRESENCES))]
        presence: Option<Presence>,
        #[command(flatten)]
        order: Order<NumberedKey>,
        #[command(flatten)]
        length: Length,
    },
    /// Look at a RAID group
    Show(One),
    /// Name a RAID group, bound how fast it copies, have it scrubbed by a schedule, or say when spares take members' places
    Set(Set),
    /// Delete a RAID group; its devices are free afterwards
    Delete(Gone),
    /// Make the free logical devices blank on the devices
    Format {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        dry_run: DryRun,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Compare what the members hold
    Scrub(StartScrub),
    /// Put a free device in the place of a member
    Replace {
        #[command(flatten)]
        one: One,
        /// The member
        #[arg(long, value_name = "DEVICE")]
        old: String,
        /// The free device
        #[arg(long, value_name = "DEVICE")]
        new: String,
        #[command(flatten)]
        waiting: Waiting,
    },
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        let one = async |text: &str| find::<RaidGroups>(&cx.client, text).await;
        match self {
            Self::Create(create) => create.run(cx).await,
            Self::List {
                presence,
                order,
                length,
            } => {
                let filter = RaidGroupFilter {
                    sort: order.sort,
                    presence,
                    ..RaidGroupFilter::default()
                };
                list(cx, Call::<ListRaidGroups>::at(&[]).query(filter), &length).await
            }
            Self::Show(named) => {
                let id = one(&named.object).await?;
                let answer = cx.client.call(Call::<GetRaidGroup>::at(&[id])).await?;
                let table = (MEMBER_HEADERS, member_rows(&answer.body));
                cx.out
                    .detail(&answer.text, &id.to_string(), &["members", "spares"], table)
            }
            Self::Set(set) => set.run(cx).await,
            Self::Delete(gone) => {
                let id = one(&gone.object).await?;
                gone.confirm("Delete the RAID group")?;
                end::<DeleteRaidGroup>(cx, id, "deleted").await
            }
            Self::Format {
                one: named,
                dry_run,
                waiting,
            } => {
                let id = one(&named.object).await?;
                let common = Common {
                    dry_run: dry_run.dry_run,
                    ..Common::default()
                };
                let call = Call::<FormatRaidGroup>::at(&[id]).common(common);
                let answer = cx.client.call(call).await?;
                match &answer.body.job {
                    Some(job) => begun(cx, job.id, &answer.text, &waiting).await,
                    None => cx.out.object(&answer.text, &id.to_string()),
                }
            }
            Self::Scrub(scrub) => scrub.run(cx).await,
            Self::Replace {
                one: named,
                old,
                new,
                waiting,
            } => {
                let id = one(&named.object).await?;
                let old = find::<Devices>(&cx.client, &old).await?;
                let new = find::<Devices>(&cx.client, &new).await?;
                let call = Call::<ReplaceMember>::with(&[id], Replace { old, new });
                made(cx, cx.client.call(call).await?, &waiting).await
            }
        }
    }
}

impl Set {
    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let id = find::<RaidGroups>(&cx.client, &self.one.object).await?;
        let Settings {
            name,
            no_name,
            rate_limit,
            scrub_every,
            scrub_repair,
            spare_after,
            replace_suspect,
            suspect_after,
        } = self.settings;
        let schedule = |every_hours| ScrubSchedule {
            every_hours,
            mode: scrub_mode(scrub_repair),
        };
        let change = RaidGroupChange {
            scrub_schedule: scrub_every.map(|Every(hours)| hours.map(schedule)),
            name: (no_name || name.is_some()).then_some(name),
            rate_limit_bytes_per_s: rate_limit.map(|Limit(limit)| limit),
            spare_after_seconds: spare_after.map(|Wait(seconds)| seconds),
            replace_suspect,
            suspect_after: suspect_after.map(Natural),
        };
        let answer = edit::<GetRaidGroup, ChangeRaidGroup>(&cx.client, &[id], change).await?;
        cx.out.object(&answer.text, &id.to_string())
    }
}

impl StartScrub {
    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let id = find::<RaidGroups>(&cx.client, &self.one.object).await?;
        let scrub = Scrub {
            mode: scrub_mode(self.repair),
            rate_limit_bytes_per_s: self.rate_limit,
        };
        let call = Call::<ScrubRaidGroup>::with(&[id], scrub);
        made(cx, cx.client.call(call).await?, &self.waiting).await
    }
}

fn scrub_mode(repair: bool) -> ScrubMode {
    match repair {
        true => ScrubMode::Repair,
        false => ScrubMode::Check,
    }
}

const MEMBER_HEADERS: &[&str] = &["ROLE", "DEVICE", "STATE", "HOLDS", "ERRORS"];

/// Members by their roles, then the spares.
fn member_rows(group: &RaidGroup) -> Vec<Vec<String>> {
    let members = group.members.iter().map(|member| {
        vec![
            member.role.0.to_string(),
            device(member),
            format::word(&member.condition),
            format::word(&member.holds),
            errors(&member.errors).to_string(),
        ]
    });
    let spares = group.spares.iter().map(|spare| {
        let state = if spare.shared { "spare (shared)" } else { "spare" };
        let nothing = || format::NOTHING.to_owned();
        vec![
            nothing(),
            spare.device_number.0.to_string(),
            state.to_owned(),
            nothing(),
            nothing(),
        ]
    });
    members.chain(spares).collect()
}

fn device(member: &Member) -> String {
    format::or_nothing(member.device_number.map(|number| number.0))
}

impl Create {
    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let new = NewRaidGroup {
            id: None,
            name: self.name,
            level: self.level,
            members: find_devices(cx, &self.devices).await?,
            stripe_unit_bytes: self.stripe_unit,
            slice_length_bytes: self.slice_length,
            checksums: self.no_checksums.then_some(false),
        };
        let common = Common {
            dry_run: self.dry_run.dry_run,
            ..Common::default()
        };
        let answer = cx
            .client
            .call(Call::<CreateRaidGroup>::with(&[], new).common(common))
            .await?;
        let id = answer
            .body
            .raid_group
            .map(|group| group.id.to_string())
            .unwrap_or_default();
        cx.out.made(&answer.text, "raid_group", &id)
    }
}

/// RAID groups, to be found.
pub(crate) struct RaidGroups;

impl Noun for RaidGroups {
    const WHAT: &'static str = "RAID group";
    type Item = RaidGroup;
    type List = ListRaidGroups;

    fn queries(text: &str) -> Vec<RaidGroupFilter> {
        let by_name = RaidGroupFilter {
            name: Some(text.to_owned()),
            ..RaidGroupFilter::default()
        };
        let by_number = number(text).map(|number| RaidGroupFilter {
            number: Some(ashlar_openapi::Natural(number)),
            ..RaidGroupFilter::default()
        });
        by_number.into_iter().chain([by_name]).collect()
    }

    fn handle(item: &RaidGroup) -> Handle {
        Handle {
            id: item.id,
            name: item.name.as_ref().map(ToString::to_string),
            number: Some(item.number.0),
        }
    }
}

impl Row for RaidGroup {
    const HEADERS: &'static [&'static str] = &[
        "NUMBER", "NAME", "LEVEL", "CAPACITY", "FREE", "STATE", "DEVICES", "TO SYNC",
    ];

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self, _: &Names) -> Vec<String> {
        let members = self.members.iter().map(|member| match member.condition {
            MemberCondition::InSync => device(member),
            condition => format!("{}({})", device(member), format::word(&condition)),
        });
        let spares = self.spares.iter().filter(|spare| !spare.shared);
        let spares = spares.map(|spare| format!("{}(spare)", spare.device_number.0));
        vec![
            self.number.0.to_string(),
            format::or_nothing(self.name.as_ref()),
            format::word(&self.level),
            format::size(self.capacity_bytes),
            format::size(self.free_bytes),
            state(&self.state, self.presence),
            members.chain(spares).collect::<Vec<_>>().join(","),
            format::size(self.bytes_to_sync),
        ]
    }
}
