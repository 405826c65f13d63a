//! `ashlar logical-device`

use ashlar_openapi::client::Call;
use ashlar_openapi::logical_devices::{LogicalDeviceFilter, LogicalDeviceRun, LogicalDeviceState};
use ashlar_openapi::operations::ListLogicalDevices;
use clap::Subcommand;

use super::raid_group::RaidGroups;
use super::volume::Volumes;
use crate::Context;
use crate::failure::Failure;
use crate::find::find_some;
use crate::format;
use crate::list::{Length, Names, Reference, Row, list};
use crate::values::word;

const STATES: &[&str] = &["free", "in_use", "clearing"];

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the logical devices, as runs
    List {
        /// Only of this RAID group
        #[arg(long, value_name = "RAID-GROUP")]
        raid_group: Option<String>,
        /// Only in this state
        #[arg(long, value_parser = word::<LogicalDeviceState>(STATES))]
        state: Option<LogicalDeviceState>,
        /// Only of this volume
        #[arg(long, value_name = "VOLUME")]
        volume: Option<String>,
        #[command(flatten)]
        length: Length,
    },
}

impl Verb {
    pub(crate) async fn run(self, cx: &Context) -> Result<(), Failure> {
        let Self::List {
            raid_group,
            state,
            volume,
            length,
        } = self;
        let filter = LogicalDeviceFilter {
            raid_group: find_some::<RaidGroups>(&cx.client, raid_group.as_deref()).await?,
            state,
            volume: find_some::<Volumes>(&cx.client, volume.as_deref()).await?,
        };
        list(cx, Call::<ListLogicalDevices>::at(&[]).query(filter), &length).await
    }
}

impl Row for LogicalDeviceRun {
    const HEADERS: &'static [&'static str] = &[
        "FIRST",
        "COUNT",
        "RAID GROUP",
        "OFFSET",
        "LENGTH",
        "STATE",
        "VOLUME",
    ];

    /// Number of the first one.
    fn key(&self) -> String {
        self.first_number.0.to_string()
    }

    fn refers(&self) -> Vec<Reference> {
        let volume = self.volume.map(Reference::Volume);
        volume
            .into_iter()
            .chain([Reference::RaidGroup(self.raid_group)])
            .collect()
    }

    fn cells(&self, names: &Names) -> Vec<String> {
        vec![
            self.first_number.0.to_string(),
            self.count.0.to_string(),
            names.of(Reference::RaidGroup(self.raid_group)),
            format::size(self.raid_group_offset_bytes),
            format::size(self.length_bytes),
            format::word(&self.state),
            format::or_nothing(self.volume.map(|volume| names.of(Reference::Volume(volume)))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_that_is_offered_is_one_of_the_contract() {
        for word in STATES {
            assert_eq!(
                format::word(&serde_json::from_value::<LogicalDeviceState>((*word).into()).unwrap()),
                *word
            );
        }
    }
}
