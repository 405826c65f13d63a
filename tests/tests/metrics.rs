//! What monitoring reads: counted by the server, compared with what a host has done.

use std::collections::BTreeMap;
use std::process::Command;

use ashlar_tests::ground::{VOLUME, small};
use ashlar_tests::nbd::Client;
use ashlar_tests::process::run;
use ashlar_tests::server::Home;

/// Values by names with labels, as they stand in the text.
struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn read(home: &Home) -> Self {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--unix-socket"])
            .arg(home.data().join("ashlar.sock"))
            .arg("http://ashlar/metrics");
        let text = run(&mut curl).stdout;
        let mut values = BTreeMap::new();
        let (mut family, mut ended) = (String::new(), false);
        for line in text.lines() {
            assert!(!ended, "after the end: {line}");
            match line.split_once(' ').expect("a line has parts") {
                ("#", "EOF") => ended = true,
                ("#", comment) => {
                    let name = comment.split(' ').nth(1).expect("a comment is about a family");
                    family = name.to_owned();
                }
                (name, value) => {
                    assert!(name.starts_with(&family), "{name} stands among {family}");
                    let value = value.parse().expect("a value is a number");
                    let before = values.insert(name.to_owned(), value);
                    assert!(before.is_none(), "{name} stands there twice");
                }
            }
        }
        assert!(ended, "the text is cut off");
        Self(values)
    }

    fn of(&self, name: &str) -> f64 {
        let found = self.0.get(name);
        *found.unwrap_or_else(|| panic!("no {name} among {:#?}", self.0))
    }

    fn is(&self, name: &str, expected: f64) {
        let found = self.of(name);
        assert!(
            (found - expected).abs() < 1e-9,
            "{name} is {found}, not {expected}"
        );
    }

    /// Those that begin so.
    fn all(&self, beginning: &str) -> Vec<f64> {
        let of = self.0.iter().filter(|(name, _)| name.starts_with(beginning));
        of.map(|(_, value)| *value).collect()
    }
}

#[test]
fn what_a_host_does_is_counted_for_its_export_its_volume_the_group_and_the_devices() {
    let home = Home::new();
    let server = home.start();
    small(&home, &server.api());
    let idle = Metrics::read(&home);
    let asked = idle.all("ashlar_volume_requests_total");
    assert!(asked.is_empty(), "nobody asked anything: {asked:?}");
    let mut host = Client::attach(&server.nbd(), "vol0").expect("it is offered");
    let block = vec![7; 64 * 1024];
    for at in 0..40 {
        host.write(at * 65536, &block).expect("it is written");
    }
    host.read(0, 4096).expect("it is read");
    host.flush().expect("it is flushed");
    host.read(VOLUME, 512).expect_err("it is beyond the end");

    let now = Metrics::read(&home);
    for object in ["volume", "export"] {
        let who = match object {
            "volume" => "number=\"0\",name=\"vol0\"",
            _ => "name=\"vol0\"",
        };
        let of = |what: &str, kind: &str| format!("ashlar_{object}_{what}_total{{{who},kind=\"{kind}\"}}");
        now.is(&of("requests", "write"), 40.0);
        now.is(&of("bytes", "write"), 40.0 * 65536.0);
        now.is(&of("errors", "write"), 0.0);
        now.is(&of("bytes", "read"), 4096.0 + 512.0);
        now.is(&of("errors", "read"), 1.0);
        now.is(&of("requests", "flush"), 1.0);
        let timed = now.of(&format!(
            "ashlar_{object}_request_seconds_count{{{who},kind=\"write\"}}"
        ));
        assert!(timed >= 1.0, "the first one is timed");
        now.is(
            &format!("ashlar_{object}_request_seconds_bucket{{le=\"+Inf\",{who},kind=\"write\"}}"),
            timed,
        );
    }
    let group = now.of("ashlar_raid_group_bytes_total{number=\"0\",name=\"\",kind=\"write\"}");
    let devices: Vec<_> = [0, 1]
        .map(|number| {
            now.of(&format!(
                "ashlar_device_bytes_total{{number=\"{number}\",name=\"\",kind=\"write\"}}"
            ))
        })
        .into();
    assert!(
        devices.iter().all(|bytes| *bytes >= 40.0 * 65536.0),
        "each member holds all: {devices:?}"
    );
    assert!((group - devices.iter().sum::<f64>()).abs() < 1e-9);
    now.is(
        "ashlar_raid_group_state{number=\"0\",name=\"\",state=\"optimal\"}",
        1.0,
    );
    server.stop();
}
