//! The client against a server that does as it is told.

mod fake;
mod keeping;
mod trusting;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

use self::fake::{Reply, json as say, over_tcp, over_unix};
use super::{Call, Client, ClientError, Common, Credential, Place, Repeats, Trust};
use crate::devices::{Device, DeviceChange, DeviceFilter};
use crate::document::BASE;
use crate::events::EventFilter;
use crate::operations::{
    ALL, ChangeDevice, ChangePassword, ExpandVolume, FailDevice, GetDevice, GetSupportBundle, IdentifyDevice,
    ListDevices, RemoveDevice,
};
use crate::volumes::Expand;
use crate::{Bytes, Problem, ProblemType};

const QUICK: Repeats = Repeats {
    most: 3,
    pause: Duration::from_millis(1),
};

fn client(url: &str) -> Client {
    let place = Place::Url {
        url: url.to_owned(),
        trust: Trust::System,
    };
    Client::new(&place, Credential::Token("t0ken".to_owned()))
        .unwrap()
        .repeating(QUICK)
}

fn device(number: u32) -> Value {
    json!({
        "id": Uuid::from_u128(number.into()), "number": number, "name": null, "kind": "file", "location": "/d",
        "capacity_bytes": 1 << 30, "block_bytes": 512, "state": "in_service", "failure": null, "membership": null,
        "holds_metadata": true, "taken_out": false, "presence": "present",
        "spare": {"kind": "none"}, "former_raid_group": null, "health": "healthy",
        "errors": {"medium": 0, "checksums": 0, "reads": 0, "writes": 0, "flushes": 0, "timeouts": 0, "mended": 0},
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
    })
}

fn problem(kind: ProblemType) -> Reply {
    let problem = Problem::new(kind, "It is so", "Do otherwise");
    say(problem.status, "", &serde_json::to_value(problem).unwrap())
}

/// The document's operations: id → method, path, statuses.
fn documented() -> BTreeMap<String, (String, String, Vec<String>)> {
    let text = include_str!("../../../openapi.json");
    let document: Value = serde_json::from_str(text).unwrap();
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let statuses = operation["responses"]
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect();
            let id = operation["operationId"].as_str().unwrap().to_owned();
            found.insert(id, (method.to_uppercase(), path.clone(), statuses));
        }
    }
    found
}

#[test]
fn the_table_of_operations_and_the_document_say_the_same() {
    let mut documented = documented();
    for described in ALL {
        let (method, path, statuses) = documented.remove(described.id).expect(described.id);
        assert_eq!(method, described.method.as_str(), "{}", described.id);
        assert_eq!(path, format!("{BASE}{}", described.path), "{}", described.id);
        assert!(
            statuses.contains(&described.status.to_string()),
            "{}",
            described.id
        );
    }
    assert!(
        documented.is_empty(),
        "in the document only: {:?}",
        documented.keys()
    );
}

#[tokio::test]
async fn a_call_says_what_the_contract_says_and_reads_what_came() {
    let (url, log) = over_tcp(|_, _| say(200, "etag: \"e1\"\r\n", &device(3))).await;
    let id = Uuid::from_u128(3);
    let name = Some(Some("fast".parse().unwrap()));
    let call = Call::<ChangeDevice>::with(&[id], DeviceChange { name }).if_match(Some("\"e0\"".to_owned()));
    let answer = client(&url).call(call).await.unwrap();
    assert_eq!(answer.body.number.0, 3);
    assert_eq!((answer.status, answer.etag.as_deref()), (200, Some("\"e1\"")));
    assert_eq!(answer.text, device(3).to_string());
    let seen = &log.lock().unwrap()[0];
    assert_eq!(seen.line, format!("PATCH /api/v1/devices/{id}"));
    assert_eq!(seen.body, r#"{"name":"fast"}"#);
    assert_eq!(seen.header("authorization"), Some("Bearer t0ken"));
    assert_eq!(seen.header("if-match"), Some("\"e0\""));
    assert!(seen.header("idempotency-key").is_some_and(|key| key.len() == 36));
}

#[tokio::test]
async fn the_query_holds_filters_and_what_the_traits_bring() {
    let (url, log) = over_tcp(|number, _| match number {
        0 => say(200, "", &json!({"items": [], "next_cursor": null})),
        _ => say(200, "", &json!({"volume": null, "mapped": [], "trimmed": []})),
    })
    .await;
    let client = client(&url);
    let common = Common {
        limit: Some(7),
        cursor: Some("a&b".to_owned()),
        wait: Some(Duration::from_secs(5)),
        dry_run: true,
    };
    let filter = DeviceFilter {
        number: Some(crate::Natural(0)),
        name: Some("a b".to_owned()),
        ..DeviceFilter::default()
    };
    client
        .call(Call::<ListDevices>::at(&[]).query(filter).common(common.clone()))
        .await
        .unwrap();
    let expand = Expand {
        capacity_bytes: Bytes(1),
        raid_group: None,
    };
    client
        .call(Call::<ExpandVolume>::with(&[Uuid::nil()], expand).common(common))
        .await
        .unwrap();
    let log = log.lock().unwrap();
    assert_eq!(
        log[0].line,
        "GET /api/v1/devices?number=0&name=a+b&limit=7&cursor=a%26b"
    );
    assert_eq!(
        log[1].line,
        format!("POST /api/v1/volumes/{}/expand?dry_run=true", Uuid::nil())
    );
}

#[tokio::test]
async fn an_empty_answer_is_nothing_and_wrong_ids_are_never_sent() {
    let (url, log) =
        over_tcp(|_, _| Reply::Say("HTTP/1.1 204 X\r\nconnection: close\r\n\r\n".to_owned())).await;
    let client = client(&url);
    let answer = client
        .call(Call::<RemoveDevice>::at(&[Uuid::nil()]))
        .await
        .unwrap();
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    for ids in [&[][..], &[Uuid::nil(), Uuid::nil()]] {
        assert!(matches!(
            client.call(Call::<RemoveDevice>::at(ids)).await,
            Err(ClientError::Setting(_))
        ));
    }
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_has_a_key_is_repeated_under_it_until_it_is_answered() {
    let (url, log) = over_tcp(|number, _| match number {
        0 => Reply::HangUp,
        1 => problem(ProblemType::Stopping),
        2 => problem(ProblemType::CatalogUnavailable),
        _ => say(200, "", &device(3)),
    })
    .await;
    client(&url)
        .call(Call::<FailDevice>::at(&[Uuid::nil()]))
        .await
        .unwrap();
    let keys: Vec<_> = log
        .lock()
        .unwrap()
        .iter()
        .map(|seen| seen.header("idempotency-key").unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn repeats_end_and_refusals_are_not_repeated() {
    let (url, log) = over_tcp(|number, _| {
        if number < 4 {
            Reply::HangUp
        } else {
            problem(ProblemType::NameTaken)
        }
    })
    .await;
    let client = client(&url);
    let lost = client.call(Call::<GetDevice>::at(&[Uuid::nil()])).await;
    assert!(matches!(lost, Err(ClientError::Lost { .. })));
    assert_eq!(log.lock().unwrap().len(), 4);
    let refused = client
        .call(Call::<FailDevice>::at(&[Uuid::nil()]).idempotency_key("mine"))
        .await
        .unwrap_err();
    assert_eq!(refused.problem().unwrap().cause, "It is so");
    assert_eq!(log.lock().unwrap().len(), 5);
    assert_eq!(log.lock().unwrap()[4].header("idempotency-key"), Some("mine"));
}

#[tokio::test]
async fn what_has_no_key_is_not_repeated_once_it_was_sent() {
    let (url, log) = over_tcp(|number, _| match number {
        0 => Reply::HangUp,
        _ => problem(ProblemType::CatalogUnavailable),
    })
    .await;
    let client = client(&url);
    for _ in 0..2 {
        let change = crate::accounts::PasswordChange {
            old: String::new(),
            new: String::new(),
        };
        client
            .call(Call::<ChangePassword>::with(&[], change))
            .await
            .unwrap_err();
    }
    assert_eq!(log.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_no_answer_of_an_appliance_is_said_to_be_none() {
    let (url, _) = over_tcp(|number, _| say(if number == 0 { 200 } else { 404 }, "", "<html>")).await;
    let client = client(&url);
    for wanted in [200, 404] {
        let error = client
            .call(Call::<GetDevice>::at(&[Uuid::nil()]))
            .await
            .unwrap_err();
        assert!(
            matches!(error, ClientError::NotOurs { status, ref text, .. } if status == wanted && text == "<html>")
        );
    }
}

#[tokio::test]
async fn where_nobody_listens_the_place_is_named() {
    let url = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let error = client(&url)
        .call(Call::<GetDevice>::at(&[Uuid::nil()]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Connect { ref place, .. } if *place == url),
        "{error}"
    );
}

#[tokio::test]
async fn the_maintenance_socket_takes_the_same_calls_without_a_credential() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ashlar.sock");
    let log = over_unix(&path, |_, _| say(202, "location: /api/v1/jobs/1\r\n", &job()));
    let client = Client::new(&Place::Socket(path), Credential::None).unwrap();
    let identify = crate::devices::Identify { seconds: None };
    let common = Common {
        wait: Some(Duration::from_secs(9)),
        ..Common::default()
    };
    let call = Call::<IdentifyDevice>::with(&[Uuid::nil()], identify).common(common);
    let answer = client.call(call).await.unwrap();
    assert_eq!(answer.location.as_deref(), Some("/api/v1/jobs/1"));
    let seen = &log.lock().unwrap()[0];
    assert_eq!(
        seen.line,
        format!("POST /api/v1/devices/{}/identify?wait=9s", Uuid::nil())
    );
    assert_eq!(seen.header("authorization"), None);
}

fn job() -> Value {
    json!({
        "id": Uuid::nil(), "kind": "device.identify", "state": "queued",
        "subject": {"kind": "device", "id": Uuid::nil()}, "bytes_done": 0, "bytes_total": null,
        "rate_bytes_per_s": null, "eta_s": null, "rate_limit_bytes_per_s": null, "waiting_for": null,
        "waiting_since": null, "failure": null, "result_path": null, "created_at": "2026-01-01T00:00:00Z",
        "started_at": null, "finished_at": null, "updated_at": "2026-01-01T00:00:00Z",
    })
}

#[tokio::test]
async fn a_list_is_walked_to_its_end_with_the_same_filter() {
    let (url, log) = over_tcp(|number, _| {
        let next = (number < 2).then(|| format!("c{number}"));
        say(
            200,
            "",
            &json!({"items": [device(u32::try_from(number).unwrap())], "next_cursor": next}),
        )
    })
    .await;
    let filter = DeviceFilter {
        name: Some("x".to_owned()),
        ..DeviceFilter::default()
    };
    let client = client(&url);
    let pages = client.pages(Call::<ListDevices>::at(&[]).query(filter));
    let found: Vec<Device> = pages
        .flat_map(|page| futures_util::stream::iter(page.unwrap().body.items))
        .collect()
        .await;
    assert_eq!(
        found.iter().map(|device| device.number.0).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    let lines: Vec<_> = log.lock().unwrap().iter().map(|seen| seen.line.clone()).collect();
    assert_eq!(
        lines,
        ["", "&cursor=c0", "&cursor=c1"].map(|more| format!("GET /api/v1/devices?name=x{more}"))
    );
}

#[tokio::test]
async fn events_go_on_behind_the_last_one_after_a_loss() {
    let event = |number: u64| {
        let event = json!({"number": number, "kind": "volume.created", "subject": null, "at": "2026-01-01T00:00:00Z", "data": {}});
        format!("id: {number}\ndata: {event}\n\n")
    };
    let stream = |text: String| {
        Reply::Say(format!(
            "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{text}"
        ))
    };
    let (url, log) = over_tcp(move |number, _| match number {
        // Where the stream begins is said before the first event.
        0 => stream("id: 6\n\n".to_owned()),
        1 => stream(event(7) + &event(8) + "id: 9\ndata: cut"),
        2 => problem(ProblemType::Stopping),
        3 => stream(event(9)),
        _ => problem(ProblemType::NotSignedIn),
    })
    .await;
    let filter = EventFilter {
        kind: Some("volume.".to_owned()),
        after: Some(5),
        ..EventFilter::default()
    };
    let followed: Vec<_> = client(&url).follow_events(filter).collect().await;
    let numbers: Vec<_> = followed
        .iter()
        .filter_map(|event| Some(event.as_ref().ok()?.number.0))
        .collect();
    assert_eq!(numbers, [7, 8, 9]);
    assert_eq!(followed.len(), 4);
    assert!(matches!(followed[3], Err(ClientError::Problem(ref problem)) if problem.status == 401));
    let log = log.lock().unwrap();
    let last: Vec<_> = log.iter().map(|seen| seen.header("last-event-id")).collect();
    assert_eq!(last, [None, Some("6"), Some("8"), Some("8"), Some("9")]);
    assert!(
        log.iter()
            .all(|seen| seen.line == "GET /api/v1/events?kind=volume.&after=5")
    );
    assert_eq!(log[0].header("accept"), Some("text/event-stream"));
}

#[tokio::test]
async fn what_is_not_json_is_fetched_piece_by_piece() {
    let (url, _) = over_tcp(|_, _| say(200, "", "0123456789")).await;
    let mut fetched = client(&url)
        .fetch(Call::<GetSupportBundle>::at(&[Uuid::nil()]))
        .await
        .unwrap();
    let mut whole = Vec::new();
    while let Some(piece) = fetched.piece().await.unwrap() {
        whole.extend(piece);
    }
    assert_eq!(whole, b"0123456789");
}
