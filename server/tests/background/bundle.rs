//! Support bundles.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use ashlar_openapi::jobs::{Job as View, JobState};
use ashlar_openapi::operations::{CreateSupportBundle, CreateWebhook};
use ashlar_openapi::webhooks::{NewWebhook, WebhookMade};
use ashlar_server::app::support_bundle::keep;
use ashlar_server::auth::{passwords, secrets};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::life::{Life, body};

/// The files of a bundle, by name.
fn unpack(path: &std::path::Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry
            .path()
            .unwrap()
            .iter()
            .skip(1)
            .collect::<std::path::PathBuf>();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name.display().to_string(), text);
    }
    files
}

fn assert_tells_none(files: &BTreeMap<String, String>, secrets: &[&str]) {
    for (name, text) in files {
        for secret in secrets {
            assert!(!text.contains(secret), "{name} tells {secret}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_tells_how_the_appliance_is_and_no_secret() {
    let life = Life::busy().await;
    life.device(64 << 20).await;
    // Secrets wherever this process keeps some.
    let password = "correct horse battery staple";
    let hash = passwords::hash(password.into()).await.unwrap();
    let token = secrets::new("ashlar_").unwrap();
    life.database
        .run(&format!(
            "insert into users (id, name, role, enabled, password_hash) values (gen_random_uuid(), 'anna', 'admin', true, '{hash}')"
        ))
        .await;
    let caller = Life::caller::<CreateWebhook>();
    let new = NewWebhook {
        id: None,
        name: "chat".parse().unwrap(),
        url: "https://127.0.0.1:9/services/T00/hidden-path".into(),
        kinds: vec!["volume.".into()],
        enabled: false,
    };
    let webhook: WebhookMade = body(&life.app.create_webhook(&caller, new).await.unwrap());
    let subscriber = tracing_subscriber::registry().with(life.app.log.clone());
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(authorization = format!("Bearer {token}"), "somebody was careless");
    });
    let keys = std::fs::read_to_string(life.path().join("keys.json")).unwrap();

    let caller = Life::caller::<CreateSupportBundle>();
    let wait = Some(Duration::from_secs(60));
    let made = life.app.create_support_bundle(&caller, wait).await.unwrap();
    let job: View = body(&made);
    assert_eq!((made.status, job.state), (200, JobState::Succeeded), "{job:?}");
    assert_eq!(
        job.result_path,
        Some(format!("/api/v1/support-bundle/{}", job.id))
    );
    let path = keep::path(&life.app.support_folder, job.id);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let files = unpack(&path);
    for name in [
        "versions.json",
        "configuration.json",
        "appliance.json",
        "devices.json",
        "raid-groups.json",
        "volumes.json",
        "exports.json",
        "jobs.json",
        "events.json",
        "audit-log.json",
        "webhooks.json",
        "log.txt",
        "system/meminfo",
        "system/uptime",
        "system/version",
    ] {
        assert!(files.contains_key(name), "{name} of {:?}", files.keys());
    }
    assert!(files["devices.json"].contains("in_service"));
    assert!(files["events.json"].contains("device.added"));
    assert!(files["log.txt"].contains("somebody was careless"));
    let keys: serde_json::Value = serde_json::from_str(&keys).unwrap();
    let key: Vec<u8> = serde_json::from_value(keys[0]["secret"].clone()).unwrap();
    let secrets = [
        password,
        &hash,
        &token,
        &webhook.secret,
        "hidden-path",
        &secrets::hex(&key),
    ];
    assert_tells_none(&files, &secrets);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_bundle_is_being_made_no_other_one_is_begun() {
    let life = Life::idle().await;
    let caller = Life::caller::<CreateSupportBundle>();
    let first: View = body(&life.app.create_support_bundle(&caller, None).await.unwrap());
    let second: View = body(&life.app.create_support_bundle(&caller, None).await.unwrap());
    assert_eq!(first.id, second.id);
    assert_eq!(first.state, JobState::Queued);
}
