//! The engine's objects: devices, RAID groups, logical devices, volumes, exports.

pub mod devices;
pub mod exports;
pub mod raid_groups;
pub mod volumes;

use ashlar_openapi::{Natural, Problem, ProblemType};
use uuid::Uuid;

use super::Routes;
use crate::app::no_such;
use crate::catalog::Presence;

pub fn routes(routes: Routes) -> Routes {
    let routes = devices::routes(routes);
    let routes = raid_groups::routes(routes);
    let routes = volumes::routes(routes);
    exports::routes(routes)
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
