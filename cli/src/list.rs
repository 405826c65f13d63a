//! Lists: walked to their end, as tables with names in the place of ids.

use std::collections::BTreeMap;

use ashlar_openapi::client::{Call, Client, Common};
use ashlar_openapi::document::MOST_ITEMS;
use ashlar_openapi::operation::Nothing;
use ashlar_openapi::operations::{GetDevice, GetRaidGroup, GetVolume};
use ashlar_openapi::sort::{Sort, SortKey};
use ashlar_openapi::{Operation, Page};
use clap::Args;
use uuid::Uuid;

use crate::Context;
use crate::failure::Failure;
use crate::output::{Output, lines, table};
use crate::values::word;

#[derive(Debug, Clone, Args)]
pub(crate) struct Length {
    /// List so many at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Order<K: SortKey> {
    /// Sort by this; `-` before it sorts the other way round
    #[arg(long, value_name = "ORDER", allow_hyphen_values = true, value_parser = word::<Sort<K>>(K::WORDS))]
    pub(crate) sort: Option<Sort<K>>,
}

/// An object that a row shows by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reference {
    Device(Uuid),
    RaidGroup(Uuid),
    Volume(Uuid),
}

impl Reference {
    fn id(self) -> Uuid {
        match self {
            Self::Device(id) | Self::RaidGroup(id) | Self::Volume(id) => id,
        }
    }

    /// Name, or else number.
    async fn label(self, client: &Client) -> Option<String> {
        let path = [self.id()];
        let (name, number) = match self {
            Self::Device(_) => {
                let device = client.call(Call::<GetDevice>::at(&path)).await.ok()?.body;
                (device.name, device.number)
            }
            Self::RaidGroup(_) => {
                let group = client.call(Call::<GetRaidGroup>::at(&path)).await.ok()?.body;
                (group.name, group.number)
            }
            Self::Volume(_) => {
                let volume = client.call(Call::<GetVolume>::at(&path)).await.ok()?.body;
                (Some(volume.name), volume.number)
            }
        };
        Some(name.map_or_else(|| number.0.to_string(), |name| name.into_string()))
    }
}

/// What ids are called.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<Reference, String>);

impl Names {
    /// The name that was looked up; the id where there is none.
    pub(crate) fn of(&self, reference: Reference) -> String {
        self.0
            .get(&reference)
            .cloned()
            .unwrap_or_else(|| reference.id().to_string())
    }

    async fn look_up(&mut self, client: &Client, references: Vec<Reference>) {
        for reference in references {
            if !self.0.contains_key(&reference)
                && let Some(label) = reference.label(client).await
            {
                self.0.insert(reference, label);
            }
        }
    }
}

/// An object as a row of a table.
pub(crate) trait Row {
    const HEADERS: &'static [&'static str];

    /// What `--quiet` prints.
    fn key(&self) -> String;
    fn cells(&self, names: &Names) -> Vec<String>;

    /// Objects that the cells name.
    fn refers(&self) -> Vec<Reference> {
        Vec::new()
    }
}

/// Prints a list.
pub(crate) async fn list<O, T>(cx: &Context, call: Call<O>, length: &Length) -> Result<(), Failure>
where
    O: Operation<Body = Nothing, Answer = Page<T>, Query: Clone>,
    T: Row,
{
    let mut left = length.limit.unwrap_or(u32::MAX);
    let (mut texts, mut items) = (Vec::new(), Vec::new());
    let mut call = Some(call);
    while let Some(next) = call.take() {
        let (path, query, cursor) = (next.path, next.query, next.common.cursor);
        let common = Common {
            limit: Some(left.min(MOST_ITEMS)),
            cursor,
            ..Common::default()
        };
        let page = cx
            .client
            .call(Call::<O>::at(&path).query(query.clone()).common(common))
            .await?;
        left = left.saturating_sub(u32::try_from(page.body.items.len()).unwrap_or(u32::MAX));
        if let Some(cursor) = page.body.next_cursor.filter(|_| left > 0) {
            let common = Common {
                cursor: Some(cursor),
                ..Common::default()
            };
            call = Some(Call::at(&path).query(query).common(common));
        }
        texts.push(page.text);
        items.extend(page.body.items);
    }
    match cx.out {
        Output::Json => cx.out.pages(&texts),
        Output::Ids => lines(items.iter().map(Row::key)),
        Output::People => {
            let mut names = Names::default();
            names
                .look_up(&cx.client, items.iter().flat_map(Row::refers).collect())
                .await;
            table(T::HEADERS, items.iter().map(|item| item.cells(&names)).collect())
        }
    }
}
