//! Events, by pages and as they come.

use std::pin::Pin;
use std::sync::Arc;

use ashlar_openapi::ProblemType;
use ashlar_openapi::events::{Event, EventFilter};
use ashlar_server::app::change::NewEvent;
use ashlar_server::app::events::feed::KEPT;
use ashlar_server::app::events::follow::follow;
use futures_util::{Stream, StreamExt as _};
use uuid::Uuid;

use crate::cluster::within;
use crate::life::{Life, until};

/// Somebody who follows the events.
struct Listener {
    stream: Pin<Box<dyn Stream<Item = Result<axum::body::Bytes, std::convert::Infallible>> + Send>>,
}

impl Listener {
    fn of(life: &Life, filter: EventFilter, after: Option<u64>) -> Self {
        Self {
            stream: Box::pin(follow(Arc::clone(&life.app), filter, true, after, async || true)),
        }
    }

    /// The next event with its id, comments passed over; `None` at the end.
    async fn next(&mut self) -> Option<(u64, Event)> {
        within(self.next_event()).await
    }

    async fn next_event(&mut self) -> Option<(u64, Event)> {
        loop {
            let chunk = self.stream.next().await?.unwrap();
            let text = std::str::from_utf8(&chunk).unwrap();
            if text.starts_with(':') {
                continue;
            }
            let mut lines = text.lines();
            let id = lines
                .next()
                .unwrap()
                .strip_prefix("id: ")
                .unwrap()
                .parse()
                .unwrap();
            let kind = lines.next().unwrap().strip_prefix("event: ").unwrap();
            let event: Event =
                serde_json::from_str(lines.next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!((event.kind.as_str(), lines.next()), (kind, Some("")));
            return Some((id, event));
        }
    }

    async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            numbers.push(self.next().await.unwrap().0);
        }
        numbers
    }
}

fn all() -> EventFilter {
    EventFilter::default()
}

fn kind(kind: &str) -> EventFilter {
    EventFilter {
        kind: Some(kind.into()),
        ..all()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_that_come_and_go_under_many_writers_miss_nothing_and_hear_nothing_twice() {
    const WRITERS: usize = 4;
    const EACH: usize = 60;
    let life = Arc::new(Life::busy().await);
    let total = WRITERS * EACH;
    let mut listeners = tokio::task::JoinSet::new();
    for listener in 0..5 {
        let life = Arc::clone(&life);
        listeners.spawn(async move {
            let mut heard = Vec::new();
            // Each leaves after some events and comes back with the last number that it saw.
            while heard.len() < total {
                let mut now = Listener::of(&life, all(), Some(heard.last().copied().unwrap_or(0)));
                let stay = (total - heard.len()).min(17 + 11 * listener);
                heard.extend(now.numbers(stay).await);
            }
            heard
        });
    }
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let life = Arc::clone(&life);
        writers.spawn(async move { life.append("volume.changed", EACH).await });
    }
    within(writers.join_all()).await;
    let wanted: Vec<u64> = (1..=total as u64).collect();
    for heard in within(listeners.join_all()).await {
        assert_eq!(heard, wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_too_slow_reads_what_it_lacks_from_the_catalog() {
    let life = Life::busy().await;
    let mut slow = Listener::of(&life, all(), None);
    let mut picky = Listener::of(&life, kind("export."), None);
    // Both are there before anything happens.
    within(slow.stream.next()).await;
    within(picky.stream.next()).await;
    life.append("volume.created", 1).await;
    assert_eq!(slow.numbers(1).await, [1]);
    // More than a listener may be behind, told while nobody takes them.
    let more = KEPT + 300;
    life.database
        .run(&format!(
            "with n as (update event_counter set last = last + {more} returning last) \
             insert into events (number, kind, subject_kind, at, data) \
             select g, 'volume.changed', 'volume', now(), '{{}}' from n, generate_series(2, {more} + 1) as g"
        ))
        .await;
    let mut other = Listener::of(&life, all(), Some(more as u64));
    life.append("export.created", 1).await;
    let last = more as u64 + 2;
    assert_eq!(other.numbers(2).await, [last - 1, last], "all was told by now");
    assert_eq!(slow.numbers(more + 1).await, (2..=last).collect::<Vec<_>>());
    assert_eq!(picky.numbers(1).await, [last]);
    life.append("volume.created", 1).await;
    assert_eq!(slow.numbers(1).await, [last + 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_before_the_events_are_told_to_anybody_is_not_passed_over() {
    let mut life = Life::idle().await;
    let mut early = Listener::of(&life, all(), None);
    within(early.stream.next()).await;
    life.append("volume.created", 1).await;
    life.start();
    assert_eq!(early.numbers(1).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pruned_is_said_to_be_lost_and_so_are_numbers_that_an_older_catalog_does_not_have() {
    let life = Life::busy().await;
    life.append("volume.created", 10).await;
    life.database.run("delete from events where number <= 4").await;
    let mut listener = Listener::of(&life, all(), Some(2));
    let (id, lost) = listener.next().await.unwrap();
    assert_eq!((id, lost.kind.as_str()), (4, "events.lost"));
    assert_eq!(lost.data, serde_json::json!({"from": 3, "to": 4}));
    assert_eq!(listener.numbers(6).await, [5, 6, 7, 8, 9, 10]);
    let mut ahead = Listener::of(&life, all(), Some(50));
    let (id, lost) = ahead.next().await.unwrap();
    assert_eq!((id, lost.data), (10, serde_json::json!({"from": 11, "to": 50})));
    life.append("volume.created", 1).await;
    assert_eq!(ahead.numbers(1).await, [11]);
    life.database.run("delete from events").await;
    let mut late = Listener::of(&life, all(), Some(9));
    let (id, lost) = late.next().await.unwrap();
    assert_eq!((id, lost.data), (11, serde_json::json!({"from": 10, "to": 11})));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_filtered_and_end_with_the_appliance() {
    let mut life = Life::busy().await;
    let subject = Uuid::new_v4();
    let mut by_kind = Listener::of(&life, kind("raid_group."), Some(0));
    let about = EventFilter {
        subject: Some(subject),
        ..kind("raid_group.changed")
    };
    let mut by_both = Listener::of(&life, about, Some(0));
    life.append("volume.created", 2).await;
    life.append("raid_group.changed", 1).await;
    life.append_event(NewEvent {
        kind: "raid_group.changed",
        subject_kind: "raid_group",
        subject,
        data: serde_json::json!({}),
    })
    .await;
    assert_eq!(by_kind.numbers(2).await, [3, 4]);
    assert_eq!(by_both.numbers(1).await, [4]);
    life.stop().await;
    assert!(by_kind.next().await.is_none() && by_both.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_the_catalog_s_absence() {
    let life = Life::busy().await;
    life.append("volume.created", 1).await;
    let mut listener = Listener::of(&life, all(), Some(0));
    assert_eq!(listener.numbers(1).await, [1]);
    // Every connection breaks, and nobody is let in for a moment.
    let name = life.database.name.clone();
    let server = &life.database.server;
    server
        .run(
            "postgres",
            &format!("alter database {name} with allow_connections false"),
        )
        .await;
    let kick = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
    server.run("postgres", &kick).await;
    let mut state = life.app.catalog.state();
    within(state.wait_for(|state| matches!(state, ashlar_server::catalog::CatalogState::Away { .. })))
        .await
        .unwrap();
    server
        .run(
            "postgres",
            &format!("alter database {name} with allow_connections true"),
        )
        .await;
    within(state.wait_for(|state| *state == ashlar_server::catalog::CatalogState::Ready))
        .await
        .unwrap();
    until(async || life.app.catalog.acquire().await.ok().map(drop)).await;
    life.append("volume.created", 2).await;
    assert_eq!(listener.numbers(2).await, [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_from_the_oldest_on_and_a_cursor_that_is_none_is_refused() {
    let life = Life::idle().await;
    life.append("volume.created", 3).await;
    life.append("export.created", 2).await;
    let numbers = |page: &ashlar_openapi::Page<Event>| -> Vec<u64> {
        page.items.iter().map(|event| event.number.0).collect()
    };
    let first = life.app.list_events(&all(), true, None, 2).await.unwrap();
    assert_eq!(numbers(&first), [1, 2]);
    let second = life
        .app
        .list_events(&all(), true, first.next_cursor.as_deref(), 2)
        .await
        .unwrap();
    assert_eq!(numbers(&second), [3, 4]);
    let last = life
        .app
        .list_events(&all(), true, second.next_cursor.as_deref(), 2)
        .await
        .unwrap();
    assert_eq!((numbers(&last), last.next_cursor), (vec![5], None));
    let after = EventFilter {
        after: Some(1),
        ..kind("volume.")
    };
    let some = life.app.list_events(&after, true, None, 100).await.unwrap();
    assert_eq!(numbers(&some), [2, 3]);
    let wrong = life
        .app
        .list_events(&all(), true, Some("x"), 1)
        .await
        .unwrap_err();
    assert_eq!(wrong.kind, ProblemType::InvalidCursor);
}
