//! The engine's objects: devices, RAID groups, logical devices, volumes, exports.

pub mod devices;
pub mod exports;
pub mod raid_groups;
pub mod volumes;

use ashlar_openapi::{Natural, Page, Problem, ProblemType};
use uuid::Uuid;

use super::Routes;
use super::incoming::Paging;
use crate::app::{cursor, no_such};
use crate::catalog::{self, Part, Presence};

pub fn routes(routes: Routes) -> Routes {
    let routes = devices::routes(routes);
    let routes = raid_groups::routes(routes);
    let routes = volumes::routes(routes);
    exports::routes(routes)
}

/// A part of a list of the catalog, in the order of `sort`.
pub(super) fn part<S>(paging: &Paging, sort: S) -> Result<Part<S>, Problem> {
    Ok(Part {
        sort,
        descending: false,
        after: paging.cursor.as_deref().map(cursor::to_row).transpose()?,
        limit: paging.limit,
    })
}

/// A page of the contract from one of the catalog.
pub(super) fn page<T>(items: Vec<T>, next: Option<&catalog::After>) -> Page<T> {
    Page {
        items,
        next_cursor: next.map(cursor::of_row),
    }
}

/// Whether an object that the catalog has can be changed: not where the devices do not know it.
fn check_present(kind: &str, id: Uuid, presence: Option<Presence>) -> Result<(), Problem> {
    match presence {
        None => Err(no_such(kind, id)),
        Some(Presence::Missing) => Err(Problem::new(
            ProblemType::ObjectMissing,
            format!("{kind} {id} is in the catalog and not on the devices"),
            "bring devices back that know it, or make the catalog's records anew",
        )),
        Some(Presence::Present | Presence::Adopted) => Ok(()),
    }
}

/// The id that a new object gets.
fn chosen(id: Option<Uuid>) -> Uuid {
    id.unwrap_or_else(Uuid::new_v4)
}

fn wire_presence(presence: Option<ashlar_openapi::devices::Presence>) -> Option<Presence> {
    presence.and_then(|presence| presence.as_str().parse().ok())
}

/// Numbers of the catalog end there.
fn number(number: Option<Natural>) -> Option<i32> {
    number.map(|number| i32::try_from(number.0).unwrap_or(i32::MAX))
}
