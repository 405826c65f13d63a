//! Lists, walked page by page in every order that they have, over the API and from the command line.

use std::cmp::Ordering;

use ashlar_openapi::sort::{NamedKey, NumberedKey, SortKey, TimedKey};
use serde_json::{Value, json};

use ashlar_tests::api::Api;
use ashlar_tests::binaries;
use ashlar_tests::ground::{create_export, device_id, volume_id, whole};
use ashlar_tests::process::run;
use ashlar_tests::server::Home;

/// More of what the ground has one or none of.
fn fill(api: &Api) {
    create_export(api, 1, 1);
    create_export(api, 2, 2);
    for name in ["zoe", "Bert", "anna"] {
        let user = json!({"name": name, "password": "correct horse battery", "role": "viewer"});
        api.post("/users", &user).granted();
        let webhook = json!({"name": name, "url": "http://127.0.0.1:9/", "kinds": ["job."]});
        api.post("/webhooks", &webhook).granted();
        let identify = format!("/devices/{}/identify?wait=30s", device_id(0));
        api.post(&identify, &json!({"seconds": 1})).granted();
    }
}

/// The whole list, two at a time.
fn walk(api: &Api, path: &str, order: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{path}?limit=2&sort={order}{cursor}")).granted();
        let found = page["items"].as_array().expect("a page has items");
        assert!(found.len() <= 2);
        items.extend(found.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

fn compare(one: &Value, other: &Value) -> Ordering {
    // Without the end of times, whose fractions are of different lengths. Who has no name comes first.
    let text = |value: &Value| {
        value
            .as_str()
            .unwrap_or_default()
            .trim_end_matches('Z')
            .to_owned()
    };
    match (one.as_u64(), other.as_u64()) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => text(one).cmp(&text(other)),
    }
}

#[test]
fn every_list_can_be_walked_in_every_order_and_no_cursor_serves_another_one() {
    let home = Home::new();
    let server = home.start();
    let api = server.api();
    whole(&home, &api);
    fill(&api);
    let lists = [
        ("/devices", NumberedKey::WORDS),
        ("/raid-groups", NumberedKey::WORDS),
        ("/volumes", NumberedKey::WORDS),
        ("/exports", NamedKey::WORDS),
        ("/users", NamedKey::WORDS),
        ("/webhooks", NamedKey::WORDS),
        ("/jobs", TimedKey::WORDS),
    ];
    for (path, words) in lists {
        for word in words {
            let items = walk(&api, path, word);
            assert!(items.len() >= 3, "{path} has {}", items.len());
            let mut ids: Vec<_> = items.iter().map(|item| item["id"].to_string()).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), items.len(), "{path} {word}: each once");
            let key = word.trim_start_matches('-');
            let ordered = |pair: &[Value]| match word.starts_with('-') {
                true => compare(&pair[0][key], &pair[1][key]).is_ge(),
                false => compare(&pair[0][key], &pair[1][key]).is_le(),
            };
            assert!(items.windows(2).all(ordered), "{path} {word}: {items:#?}");
        }
        let page = api.get(&format!("{path}?limit=1&sort={}", words[0])).granted();
        let cursor = page["next_cursor"].as_str().expect("there are more");
        let other = api.get(&format!("{path}?limit=1&sort={}&cursor={cursor}", words[1]));
        assert_eq!(other.refused(), "invalid-cursor");
        assert!(
            other.body["cause"].to_string().contains("another order"),
            "{}",
            other.body
        );
        let none = api.get(&format!("{path}?sort=colour"));
        assert_eq!(
            (none.refused(), &none.body["pointer"]),
            ("invalid-parameter", &json!("sort"))
        );
        assert!(none.body["cause"].to_string().contains(words[0]), "{}", none.body);
    }
    let mut program = binaries::ashlar();
    program.arg("--data").arg(home.data());
    program.args(["volume", "list", "--quiet", "--sort", "-name"]);
    let listed = run(&mut program).stdout;
    let wanted = [0, 1, 2].map(volume_id);
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        [&wanted[0], &wanted[1], &wanted[2]]
    );
    server.stop();
}
