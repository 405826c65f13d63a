//! Changes that the engine made, or may have made, and whose outcome could not be written: they are brought to their end
//! without a restart, and in the order in which they were asked for.

use std::time::{Duration, Instant};

use serde_json::json;

use ashlar_tests::ground::{small, volume_id};
use ashlar_tests::server::Home;

/// How long bringing a change to its end may take.
const LIMIT: Duration = Duration::from_secs(60);

fn volume() -> String {
    format!("/volumes/{}", volume_id(0))
}

fn until_nothing_is_unfinished(home: &Home) {
    let begun = Instant::now();
    while home
        .query("select count(*) from operations where state = 'running'")
        .trim()
        != "0"
    {
        assert!(begun.elapsed() < LIMIT, "a change is not brought to its end");
    }
}

#[test]
fn a_change_whose_outcome_could_not_be_written_is_brought_to_its_end_when_it_can() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    let api = server.api().with("if-match", "*");
    // Has the name for as long as it stands there; the engine knows nothing of it.
    home.query(
        "insert into volumes (id, number, name, emulation, capacity, partial, presence) \
         select gen_random_uuid(), 99, 'renamed', emulation, capacity, partial, presence from volumes",
    );
    let renamed = api.patch(&volume(), &json!({"name": "renamed"}));
    assert_eq!(renamed.refused(), "internal");
    home.query("delete from volumes where number = 99");
    until_nothing_is_unfinished(&home);
    assert_eq!(api.get(&volume()).granted()["name"], "renamed");
    server.stop();
}

#[test]
fn what_was_begun_with_an_object_before_is_not_done_after_what_is_asked_for_now() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    let api = server.api().with("if-match", "*");
    for name in ["first", "second"] {
        api.patch(&volume(), &json!({"name": name})).granted();
    }
    // As a crash after the intent leaves it.
    home.query(
        "insert into operations (id, kind, intent, actor, object_kind, object_id) \
         select gen_random_uuid(), kind, intent, actor, object_kind, object_id from operations \
         where intent ->> 'name' = 'first'",
    );
    api.patch(&volume(), &json!({"name": "third"})).granted();
    until_nothing_is_unfinished(&home);
    server.stop();
    let server = home.start();
    assert_eq!(server.api().get(&volume()).granted()["name"], "third");
    server.stop();
}
