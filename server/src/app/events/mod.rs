//! Events as they are shown: by pages, and as they come ([`feed`], [`follow`]).

pub mod feed;
pub mod follow;
pub mod kinds;

use ashlar_openapi::events::{Event, EventFilter};
use ashlar_openapi::jobs::Subject;
use ashlar_openapi::values::MOST;
use ashlar_openapi::{Bytes, Page, Problem, Timestamp};

use super::{App, cursor, reading};
use crate::catalog::events;

/// An event as the contract has it.
pub fn view(row: events::Event) -> Event {
    let kind = row.subject_kind;
    Event {
        number: Bytes(u64::try_from(row.number).unwrap_or(0)),
        kind: row.kind,
        subject: row.subject_id.map(|id| Subject { kind, id }),
        at: Timestamp(row.at),
        data: row.data,
    }
}

/// A number as the catalog has it: beyond what it counts to there is nothing either way.
fn stored(number: u64) -> i64 {
    i64::try_from(number.min(MOST)).unwrap_or(i64::MAX)
}

fn catalog_filter(filter: &EventFilter) -> events::EventFilter {
    events::EventFilter {
        kinds: filter.kind.clone().into_iter().collect(),
        subject_kinds: Vec::new(),
        subjects: filter.subject.into_iter().collect(),
    }
}

impl App {
    /// One page of events, oldest first: after the cursor, after the number given, or from the oldest that is kept.
    /// Those of accounts are shown to whoever sees accounts.
    ///
    /// # Errors
    /// Where the cursor is none, or the catalog is away.
    pub async fn list_events(
        &self,
        filter: &EventFilter,
        sees_accounts: bool,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Event>, Problem> {
        let after = match cursor {
            Some(cursor) => cursor::to_number(cursor)?,
            None => filter.after.unwrap_or(0),
        };
        let wanted = catalog_filter(filter);
        let wanted_rows = limit.saturating_add(1);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut rows = reading(&self.catalog, async |connection| {
            let mut shown = Vec::new();
            let mut after = stored(after);
            loop {
                let read = events::after(connection, after, &wanted, wanted_rows).await?;
                let last = read.last().filter(|_| read.len() > limit).map(|last| last.number);
                shown.extend(
                    read.into_iter()
                        .filter(|row| sees_accounts || !kinds::concerns_accounts(&row.kind)),
                );
                // What was left out makes room for more.
                match last {
                    Some(last) if shown.len() <= limit => after = last,
                    _ => return Ok(shown),
                }
            }
        })
        .await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let items: Vec<Event> = rows.into_iter().map(view).collect();
        let last = items.last().filter(|_| more);
        Ok(Page {
            next_cursor: last.map(|last| cursor::of_number(last.number.0)),
            items,
        })
    }
}
