//! Who has the processor first where it is short.

use std::fs;

use ashlar_tests::ground::small;
use ashlar_tests::server::Home;

/// Niceness of a process or thread: the 17th field after its name, which is in parentheses.
fn niceness(stat: &str) -> i32 {
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let niceness = fields.split_whitespace().nth(16).expect("there are more fields");
    niceness.parse().expect("it is a number")
}

#[test]
fn hosts_come_before_the_api_and_its_database() {
    let own = niceness(&fs::read_to_string("/proc/self/stat").expect("it is there"));
    let home = Home::new();
    let server = home.start();
    // Requests, so that threads are there that only they start.
    small(&home, &server.api());
    let mut seen = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs") {
        let thread = thread.expect("it runs").path();
        // A thread may have ended.
        let (Ok(name), Ok(stat)) = (
            fs::read_to_string(thread.join("comm")),
            fs::read_to_string(thread.join("stat")),
        ) else {
            continue;
        };
        seen.push((name.trim().to_owned(), niceness(&stat)));
    }
    let of = |name: &str| -> Vec<i32> {
        let named = seen.iter().filter(|(thread, _)| thread.starts_with(name));
        named.map(|(_, niceness)| *niceness).collect()
    };
    let behind = own.max(19);
    for (name, expected) in [("data-", own), ("control", behind)] {
        let found = of(name);
        assert!(!found.is_empty(), "no {name} among {seen:?}");
        assert!(found.iter().all(|niceness| *niceness == expected), "{seen:?}");
    }
    for process in home.postgres_processes() {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())) else {
            continue;
        };
        assert_eq!(niceness(&stat), behind, "{stat}");
    }
    server.stop();
}
