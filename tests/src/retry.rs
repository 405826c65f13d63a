//! A request that is cut off by a crash at each of its steps, and sent again.
//!
//! What it must come to is seen from a run that nothing cuts off: the same answer, the same objects, the same rows in
//! the catalog, the same files.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::api::{Answer, Api};
use crate::server::{Home, KILL_AT_STEP, Managed, Saved};

/// More steps than any request has.
const MANY: u32 = 30;
/// How long copying to a member may take.
const QUIET: Duration = Duration::from_secs(60);
/// What differs from run to run and tells nothing.
const VOLATILE: [&str; 11] = [
    "began_at",
    "due_at",
    "ended_at",
    "created_at",
    "updated_at",
    "started_at",
    "finished_at",
    "epoch",
    "nbd_uri",
    "uri",
    "request_id",
];

/// A request that changes something, and the appliance that it is sent to.
pub struct Case {
    pub method: &'static str,
    pub path: String,
    pub body: Value,
    /// It makes an object, which the client may give an id.
    pub creates: bool,
    /// A device's file that is away when the server starts first, and there when the request is sent.
    away: Option<String>,
    home: Home,
    ground: Saved,
}

/// How a client makes sure that a repeated request is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// A key.
    Key,
    /// The id of the new object.
    Id,
    /// Nothing: the request itself says what is to be.
    Nothing,
}

impl Case {
    /// A request to an appliance that `prepare` has brought to where it can be made.
    pub fn new(method: &'static str, path: impl Into<String>, prepare: impl FnOnce(&Home, &Api)) -> Self {
        let home = Home::new();
        let server = home.start();
        prepare(&home, &server.api());
        server.stop();
        let ground = home.save();
        Self {
            method,
            path: path.into(),
            body: Value::Null,
            creates: false,
            away: None,
            home,
            ground,
        }
    }

    /// A request to a blank appliance, with the devices beside it that `prepare` has made with another one.
    pub fn beside(method: &'static str, path: &str, prepare: impl FnOnce(&Home, &Api)) -> Self {
        let mut case = Self::new(method, path, prepare);
        case.home.postgres_is_gone();
        std::fs::remove_dir_all(case.home.data()).expect("nobody uses the folder");
        case.home.start().stop();
        case.ground = case.home.save();
        case
    }

    /// While this device's file was not there at the start.
    #[must_use]
    pub fn with_device_away(mut self, name: &str) -> Self {
        let aside = self.home.device("away");
        std::fs::rename(self.home.device(name), aside).expect("the device is a file");
        self.ground = self.home.save();
        self.away = Some(name.to_owned());
        self
    }

    /// With a body, made for where the devices lie.
    #[must_use]
    pub fn body(mut self, body: impl FnOnce(&Home) -> Value) -> Self {
        self.body = body(&self.home);
        self
    }

    /// Makes an object, which the client may give an id.
    #[must_use]
    pub fn creates(mut self) -> Self {
        self.creates = true;
        self
    }

    /// Cuts the request off at every step there is, in every way.
    ///
    /// # Panics
    /// Where it does not come to what it comes to without.
    pub fn survives_every_crash(&self) {
        let expected = self.undisturbed();
        self.at_every_step(By::Key, &expected);
        let other = if self.creates { By::Id } else { By::Nothing };
        self.at_every_step(other, &expected);
        self.crashing_again_and_again(&expected);
    }

    /// Many clients send the same at once.
    ///
    /// # Panics
    /// Where not all get the same answer, or more came of it than of one request.
    pub fn is_made_once_for_many_at_once(&self) {
        let expected = self.undisturbed();
        self.at_once(By::Key, &expected);
        if self.creates {
            self.at_once(By::Id, &expected);
        }
    }

    fn at_once(&self, by: By, expected: &Outcome) {
        self.home.restore(&self.ground);
        let server = self.home.start();
        self.bring_device();
        let request = Request::of(self, by);
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| request.send(&server).expect("the server answers")))
                .collect();
            senders
                .into_iter()
                .map(|sender| {
                    sender
                        .join()
                        .expect("a sender panics only where there is no answer")
                })
                .collect()
        });
        let told: BTreeSet<String> = answers.iter().map(shown).collect();
        assert_eq!(told.len(), 1, "the same request was answered in different ways");
        self.check(&server, &request, &answers[0], expected, by);
        server.stop();
    }

    fn bring_device(&self) {
        let aside = self.home.device("away");
        if let Some(name) = self.away.as_ref().filter(|_| aside.exists()) {
            std::fs::rename(&aside, self.home.device(name)).expect("the device is a file");
        }
    }

    /// What comes of it without a crash.
    fn undisturbed(&self) -> Outcome {
        self.home.restore(&self.ground);
        let server = self.home.start();
        self.bring_device();
        let request = Request::of(self, By::Key);
        let answer = request.send(&server).expect("the server answers");
        assert!(answer.status < 300, "{} {:#}", answer.status, answer.body);
        let outcome = self.outcome(&server, &request, &answer);
        server.stop();
        outcome
    }

    fn at_every_step(&self, by: By, expected: &Outcome) {
        for step in 1..MANY {
            self.home.restore(&self.ground);
            let request = Request::of(self, by);
            let at = step.to_string();
            if let Ok(server) = self.home.try_start(&[(KILL_AT_STEP, &at)]) {
                self.bring_device();
                if let Ok(answer) = request.send(&server) {
                    assert!(step > 1, "the request has no steps");
                    self.check(&server, &request, &answer, expected, by);
                    server.stop();
                    return;
                }
                server.was_killed();
            }
            println!("{by:?}: killed at step {step}");
            self.repeat(&request, expected, by);
        }
        panic!("the request has no end of steps");
    }

    /// The first crash comes as early as can be; then each start is killed one step later, until one is not.
    fn crashing_again_and_again(&self, expected: &Outcome) {
        self.home.restore(&self.ground);
        let request = Request::of(self, By::Key);
        for step in 1..MANY {
            let at = step.to_string();
            let Ok(server) = self.home.try_start(&[(KILL_AT_STEP, &at)]) else {
                println!("killed at step {step} before it was ready");
                continue;
            };
            self.bring_device();
            if request.send(&server).is_ok() {
                server.stop();
                self.repeat(&request, expected, By::Key);
                return;
            }
            server.was_killed();
            println!("killed at step {step}");
        }
        panic!("the request has no end of steps");
    }

    /// After a crash: once more, and once more.
    fn repeat(&self, request: &Request, expected: &Outcome, by: By) {
        let server = self.home.start();
        let second = request.send(&server).expect("the server answers");
        self.check(&server, request, &second, expected, by);
        let third = request.send(&server).expect("the server answers");
        if by != By::Nothing {
            assert_eq!(
                shown(&second),
                shown(&third),
                "the repeated request is answered otherwise"
            );
        }
        server.stop();
        let exited = self.home.postgres();
        assert!(exited.is_none(), "the private Postgres goes on after the server");
    }

    fn check(&self, server: &Managed, request: &Request, answer: &Answer, expected: &Outcome, by: By) {
        let found = self.outcome(server, request, answer);
        if by == By::Nothing {
            // What was done already may be refused, and then stands in the audit log.
            let gone = matches!(answer.status, 404 | 409 | 422);
            assert!(
                gone || answer.status == expected.status,
                "{} {:#}",
                answer.status,
                answer.body
            );
            assert_same("what there is", &found.objects, &expected.objects);
            assert_same("files", &found.files, &expected.files);
            assert!(!found.rows.to_string().contains("running"), "{:#}", found.rows);
            return;
        }
        assert_eq!(found.status, expected.status, "{:#}", answer.body);
        assert_same("rows", &found.rows, &expected.rows);
        assert_same("the answer", &found.answer, &expected.answer);
        assert_same("what there is", &found.objects, &expected.objects);
        assert_same("files", &found.files, &expected.files);
    }

    /// What has come of the request so far.
    fn outcome(&self, server: &Managed, request: &Request, answer: &Answer) -> Outcome {
        let api = server.api();
        until_quiet(&api);
        let mut files: Vec<_> = std::fs::read_dir(self.home.devices())
            .expect("the folder is ours")
            .map(|entry| entry.expect("the folder can be read").file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        files.sort_unstable();
        let list = std::fs::read(self.home.data().join("devices.json")).unwrap_or(b"[]".to_vec());
        let list: Value = serde_json::from_slice(&list).expect("the list of devices is JSON");
        let objects = json!({
            "appliance": api.get("/appliance").granted(),
            "devices": api.get("/devices").granted()["items"],
            "raid_groups": api.get("/raid-groups").granted()["items"],
            "volumes": api.get("/volumes").granted()["items"],
            "exports": api.get("/exports").granted()["items"],
        });
        let named = request.named(answer);
        Outcome {
            status: answer.status,
            answer: plain(&answer.body, &named),
            objects: plain(&objects, &named),
            rows: plain(&self.rows(request), &named),
            files: plain(&json!({"files": files, "list": sorted(list)}), &named),
        }
    }

    /// What the catalog holds of the request's traces.
    fn rows(&self, request: &Request) -> Value {
        let text = self.home.query(
            "select 'operation ' || kind || ' ' || state from operations \
             union all select 'event ' || kind || ' ' || coalesce(subject_id::text, '') from events \
                where engine_epoch is null \
             union all select 'audited ' || operation || ' ' || coalesce(problem, '') from audit_log \
             union all select 'job ' || kind || ' ' || subject_id from jobs \
             union all select 'key ' || count(*) from idempotency_keys \
             union all select 'event numbers' || case when count(*) = last then '' else ' with gaps' end \
                from event_counter left join events on true group by last \
             order by 1",
        );
        let keys = request
            .headers
            .iter()
            .filter(|(name, _)| *name == "idempotency-key")
            .count();
        text.lines()
            .filter(|line| *line != format!("key {keys}"))
            .collect()
    }
}

/// What came of a request.
#[derive(Debug)]
struct Outcome {
    status: u16,
    answer: Value,
    objects: Value,
    rows: Value,
    files: Value,
}

/// A request that is always sent in the same words.
struct Request<'a> {
    case: &'a Case,
    headers: Vec<(&'static str, String)>,
    body: Value,
    /// What is called the new object whatever its id.
    id: Option<String>,
}

impl<'a> Request<'a> {
    fn of(case: &'a Case, by: By) -> Self {
        let mut headers = Vec::new();
        if case.method == "PATCH" {
            headers.push(("if-match", "*".to_owned()));
        }
        let mut body = case.body.clone();
        let mut id = None;
        match by {
            By::Key => headers.push(("idempotency-key", Uuid::new_v4().to_string())),
            By::Id => {
                let chosen = Uuid::new_v4().to_string();
                body["id"] = json!(chosen);
                id = Some(chosen);
            }
            By::Nothing => {}
        }
        Self {
            case,
            headers,
            body,
            id,
        }
    }

    fn send(&self, server: &Managed) -> std::io::Result<Answer> {
        let mut api = server.api();
        for (name, value) in &self.headers {
            api = api.with(name, value);
        }
        api.request(self.case.method, &self.case.path, &self.body)
    }

    /// Ids that the server or the client made up for this request: each has one name in all runs.
    fn named(&self, answer: &Answer) -> Vec<(String, &'static str)> {
        let mut named = Vec::new();
        let location = answer
            .header("location")
            .rsplit_once('/')
            .map(|(_, id)| id.to_owned());
        named.extend(self.id.clone().or(location).map(|id| (id, "NEW")));
        named
    }
}

/// An answer in all that a client can see of it and that is not of this one exchange.
fn shown(answer: &Answer) -> String {
    let (etag, location) = (answer.header("etag"), answer.header("location"));
    format!("{} {etag} {location} {}", answer.status, answer.body)
}

fn assert_same(what: &str, found: &Value, expected: &Value) {
    assert!(
        found == expected,
        "{what}: found {found:#}\nexpected {expected:#}"
    );
}

/// Waits until nothing is copied any more, and the jobs for that have ended.
fn until_quiet(api: &Api) {
    let begun = Instant::now();
    let any = |path: &str, states: &[&str]| {
        let listed = api.get(path).granted();
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .any(|item| states.iter().any(|state| item["state"] == *state))
    };
    while any("/raid-groups", &["rebuilding"]) || any("/jobs", &["queued", "running"]) {
        assert!(
            begun.elapsed() < QUIET,
            "something is still being done after {QUIET:?}"
        );
    }
}

/// Without what differs from run to run, and ids by their names.
fn plain(value: &Value, named: &[(String, &'static str)]) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields
                .iter()
                .filter(|(name, _)| !VOLATILE.contains(&name.as_str()));
            let kept: Map<_, _> = kept
                .map(|(name, value)| (name.clone(), plain(value, named)))
                .collect();
            Value::Object(kept)
        }
        Value::Array(items) => items.iter().map(|item| plain(item, named)).collect(),
        Value::String(text) => {
            let plain = named
                .iter()
                .fold(text.clone(), |text, (id, name)| text.replace(id, name));
            Value::String(plain)
        }
        other => other.clone(),
    }
}

/// In an order that does not depend on when what was added.
fn sorted(list: Value) -> Value {
    let mut items: Vec<Value> = match list {
        Value::Array(items) => items,
        other => vec![other],
    };
    items.sort_by_key(ToString::to_string);
    items.into()
}
