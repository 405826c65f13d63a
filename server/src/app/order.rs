//! Orders of lists: those of the contract as those of the catalog, and pages whose cursors belong to one order.

use ashlar_openapi::sort::{NamedKey, NumberedKey, Sort, SortKey, TimedKey};
use ashlar_openapi::{Page, Problem};

use super::cursor;
use super::look_up::Wanted;
use crate::catalog::{
    self, Part, api_tokens, devices, exports, jobs, raid_groups, users, volumes, webhook_deliveries, webhooks,
};

/// A part of a list of the catalog, in this order.
///
/// # Errors
/// Where the cursor is none of this list in this order.
pub fn part<K: SortKey, S: From<K>>(wanted: &Wanted<'_>, order: Sort<K>) -> Result<Part<S>, Problem> {
    let after = wanted.cursor.map(|given| cursor::to_row(order.word(), given));
    Ok(Part {
        sort: order.key.into(),
        descending: order.descending,
        after: after.transpose()?,
        limit: wanted.limit,
    })
}

/// A page of the contract from one of the catalog, which has this order.
pub fn page<K: SortKey, T>(items: Vec<T>, order: Sort<K>, next: Option<&catalog::After>) -> Page<T> {
    Page {
        items,
        next_cursor: next.map(|after| cursor::of_row(order.word(), after)),
    }
}

/// What tables call the keys of the contract.
macro_rules! orders {
    ($key:ident $variants:tt => $($sort:path),*) => {
        $(orders!(@of $sort, $key $variants);)*
    };
    (@of $sort:path, $key:ident { $($variant:ident),* }) => {
        impl From<$key> for $sort {
            fn from(key: $key) -> Self {
                match key {
                    $($key::$variant => Self::$variant,)*
                }
            }
        }
    };
}

orders!(NumberedKey { Number, Name, Capacity, CreatedAt } =>
    devices::DeviceSort, raid_groups::RaidGroupSort, volumes::VolumeSort);
orders!(NamedKey { Name, CreatedAt } =>
    exports::ExportSort, users::UserSort, api_tokens::ApiTokenSort, webhooks::WebhookSort);
orders!(TimedKey { CreatedAt } => jobs::JobSort, webhook_deliveries::DeliverySort);
