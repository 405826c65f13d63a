//! Reads new events once, for everybody who listens.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::app::events::feed::{Frame, Told};
use crate::app::events::view;
use crate::catalog::events::{self, EventFilter};
use crate::catalog::{CatalogError, CatalogState};

/// How often it is looked where nothing calls for it.
const PERIOD: Duration = Duration::from_secs(1);
/// Events that are read at once.
const BATCH: u32 = 500;

/// Tells of events until the appliance stops.
pub async fn run(app: Arc<App>) {
    let (mut changes, mut state) = (app.catalog.changes(), app.catalog.state());
    // Number of the last event that was told; whoever wants older ones reads them.
    let mut last = None;
    loop {
        changes.mark_unchanged();
        match tell(&app, &mut last).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "events wait for the catalog"),
        }
        let is_away = *state.borrow_and_update() != CatalogState::Ready;
        tokio::select! {
            () = app.until_stopping() => return,
            _ = changes.changed(), if !is_away => {}
            _ = state.changed() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Tells of what is new. Returns whether there may be more.
async fn tell(app: &App, last: &mut Option<i64>) -> Result<bool, CatalogError> {
    let read = app.catalog.guard(async {
        let connection = &mut *app.catalog.acquire().await?;
        let newest = events::newest(connection).await?;
        let rows = match *last {
            Some(last) if last < newest => {
                events::after(connection, last, &EventFilter::default(), BATCH).await?
            }
            _ => Vec::new(),
        };
        Ok::<_, CatalogError>((newest, rows))
    });
    let (newest, rows) = read.await?;
    match *last {
        None => app.feed.tell(Told::Begun),
        Some(last) if last > newest => app.feed.tell(Told::WentBack(u64::try_from(newest).unwrap_or(0))),
        Some(_) => {}
    }
    if last.is_none_or(|last| last > newest) {
        *last = Some(newest);
    }
    let more = u32::try_from(rows.len()).is_ok_and(|rows| rows == BATCH);
    for row in rows {
        *last = Some(row.number);
        app.feed.tell(Told::Event(Arc::new(Frame::of(&view(row)))));
    }
    Ok(more)
}
