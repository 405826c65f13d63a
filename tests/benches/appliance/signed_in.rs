//! An appliance under measurement: plain HTTP on the loopback address, asked with a token as automation does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ashlar_tests::api::Api;
use ashlar_tests::appliance::Store;
use ashlar_tests::server::{Home, Managed};
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::load::{self, Connection, Make};

const SCOPES: [&str; 6] = [
    "raid-groups:read",
    "volumes:read",
    "volumes:operate",
    "webhooks:operate",
    "events:read",
    "metrics:read",
];
/// What is edited without the engine: so many that clients do not wait for each other's rows.
pub(crate) const WEBHOOKS: u64 = 64;
/// Bytes of a logical device, and of a small volume.
const SLICE: u64 = 1 << 20;

pub(crate) struct SignedIn {
    // Before the folder that it serves from.
    pub(crate) server: Managed,
    pub(crate) home: Home,
    token: String,
    /// From the program's start to its line that it is ready.
    pub(crate) took: Duration,
}

impl SignedIn {
    pub(crate) fn start(home: Home) -> Self {
        let begun = Instant::now();
        let server = Managed::start(home.command(&["--http"]), &home.data());
        let server = server.unwrap_or_else(|exited| panic!("{exited:?}"));
        let took = begun.elapsed();
        let password = std::fs::read_to_string(home.data().join("admin-password"));
        let password = password.expect("the first start has written it");
        let address = server.listens();
        let token = load::clients(sign_in(address, password.trim()));
        Self {
            server,
            home,
            token,
            took,
        }
    }

    /// Stopped in order, and started on what it left.
    pub(crate) fn start_again(self) -> Self {
        self.server.stop();
        Self::start(self.home)
    }

    /// Over the maintenance socket.
    pub(crate) fn api(&self) -> Api {
        self.server.api()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.listens()
    }

    /// A request with the token. What changes something carries a key of its own.
    pub(crate) fn request(&self, method: &str, path: &str, body: &Value) -> Request<Full<Bytes>> {
        request(&self.token, method, path, body)
    }

    /// What is measured of the appliance.
    pub(crate) fn metrics(&self) -> Request<Full<Bytes>> {
        let bearer = format!("Bearer {}", self.token);
        load::request("GET", "/metrics", &[("authorization", &bearer)], &Value::Null)
    }

    /// Reads a volume, each time another one of so many.
    pub(crate) fn read_volume(&self, volumes: u64) -> Make {
        self.make("GET", move |n| {
            (format!("/volumes/{}", crate::floor::id(n % volumes)), Value::Null)
        })
    }

    /// Reads the first page of the volumes.
    pub(crate) fn read_page(&self) -> Make {
        self.make("GET", |_| ("/volumes".into(), Value::Null))
    }

    /// Renames a webhook.
    pub(crate) fn rename_webhook(&self) -> Make {
        self.make("PATCH", |n| {
            let path = format!("/webhooks/{}", crate::floor::id(n % WEBHOOKS));
            (path, json!({"name": format!("webhook-{n}")}))
        })
    }

    /// Renames a volume, which the engine does.
    pub(crate) fn rename_volume(&self, volumes: u64) -> Make {
        self.make("PATCH", move |n| {
            let path = format!("/volumes/{}", crate::floor::id(n % volumes));
            (path, json!({"name": format!("renamed-{n}")}))
        })
    }

    fn make(
        &self,
        method: &'static str,
        of: impl Fn(u64) -> (String, Value) + Send + Sync + 'static,
    ) -> Make {
        let token = self.token.clone();
        std::sync::Arc::new(move |n| {
            let (path, body) = of(n);
            request(&token, method, &path, &body)
        })
    }

    /// A mirror on two files, with room for volumes of so many bytes together.
    pub(crate) fn mirror(&self, store: Store, folder: &std::path::Path, bytes: u64) {
        let api = self.api();
        let cache = if store == Store::Direct {
            "direct"
        } else {
            "buffered"
        };
        let add = |number: u64| {
            let path = folder.join(format!("device-{number}"));
            let source =
                json!({"kind": "file", "path": path, "size_bytes": bytes + (256 << 20), "cache": cache});
            api.post(
                "/devices",
                &json!({"id": crate::floor::id(number), "source": source}),
            )
            .granted();
            crate::floor::id(number)
        };
        let members = [add(0), add(1)];
        api.with("if-match", "*")
            .patch("/appliance", &json!({"smallest_volume_bytes": SLICE}))
            .granted();
        let group = json!({
            "id": crate::floor::id(0), "level": "1", "members": members, "slice_length_bytes": SLICE,
        });
        api.post("/raid-groups", &group).granted();
    }

    /// Makes a volume on the mirror.
    pub(crate) fn volume(&self, number: u64, bytes: u64) {
        let new = json!({
            "id": crate::floor::id(number), "name": format!("volume-{number}"), "capacity_bytes": bytes,
            "raid_group": crate::floor::id(0),
        });
        self.api().post("/volumes", &new).granted();
    }

    /// Makes so many volumes of one logical device each, and the webhooks.
    pub(crate) fn fill(&self, volumes: u64) {
        for number in 0..volumes {
            self.volume(number, SLICE);
        }
        self.webhooks();
    }

    /// Makes webhooks that nobody is sent anything by.
    pub(crate) fn webhooks(&self) {
        for number in 0..WEBHOOKS {
            let new = json!({
                "id": crate::floor::id(number), "name": format!("webhook-{number}"), "enabled": false,
                "url": "https://localhost/",
            });
            self.api().post("/webhooks", &new).granted();
        }
    }
}

fn request(token: &str, method: &str, path: &str, body: &Value) -> Request<Full<Bytes>> {
    let (bearer, key) = (format!("Bearer {token}"), uuid::Uuid::new_v4().to_string());
    let mut headers = vec![("authorization", bearer.as_str())];
    if method != "GET" {
        headers.extend([("if-match", "*"), ("idempotency-key", key.as_str())]);
    }
    load::request(method, &format!("/api/v1{path}"), &headers, body)
}

/// A token of the first administrator's.
async fn sign_in(address: SocketAddr, password: &str) -> String {
    let mut connection = Connection::open(address).await;
    let body = json!({"name": "admin", "password": password});
    let answer = connection
        .ask(load::request("POST", "/api/v1/auth/login", &[], &body))
        .await;
    let access = text(&answer, "access_token");
    let name = format!("bench-{}", uuid::Uuid::new_v4().simple());
    let body = json!({"name": name, "scopes": SCOPES});
    let answer = connection.ask(request(&access, "POST", "/tokens", &body)).await;
    text(&answer, "secret")
}

fn text(answer: &[u8], field: &str) -> String {
    let answer: Value = serde_json::from_slice(answer).expect("answers are JSON");
    let text = answer[field].as_str();
    text.unwrap_or_else(|| panic!("no {field} in {answer}"))
        .to_owned()
}
