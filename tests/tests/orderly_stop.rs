//! The appliance stops: what was asked is answered, and who asks nothing is sent away.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ashlar_tests::held::HeldRequest;
use ashlar_tests::server::Home;

#[test]
fn an_answer_under_way_is_finished_and_an_idle_connection_is_closed() {
    let home = Home::new();
    let server = home.start();
    let socket = home.data().join("ashlar.sock");
    let mut idle = UnixStream::connect(&socket).expect("the server listens");
    idle.set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a limit can be set");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: ashlar\r\n\r\n")
        .expect("the server reads");
    let mut told = Vec::new();
    let mut byte = [0];
    while !told.ends_with(b"\r\n\r\nok\n") {
        idle.read_exact(&mut byte).expect("the server answers");
        told.push(byte[0]);
    }
    let held = HeldRequest::begin(&socket, "/volumes");
    server.begin_to_stop();
    idle.read_to_end(&mut told).expect("the server hangs up");
    let answer = held.finish();
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    server.stop();
}
