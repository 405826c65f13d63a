//! The test server that loses what was not flushed when it is killed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ashlar_engine::nbd::NbdUri;

use crate::{connect, flush, on_data_thread, read, write, write_durably, zero};

/// Starts the server and waits until it listens.
fn start(folder: &Path) -> Child {
    let here = std::env::current_exe().unwrap();
    let built = here
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/forgetful_nbd");
    let mut child = Command::new(&built)
        .args(["socket", "disk", "1048576"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run {} (cargo builds it with --examples): {error}",
                built.display()
            )
        });
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn after_a_kill_flushed_writes_are_there_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let uri: NbdUri = format!("nbd+unix:///?socket={}", folder.path().join("socket").display())
        .parse()
        .unwrap();
    let server = start(folder.path());
    on_data_thread(async {
        let device = connect(&uri).await;
        write(&device, 0, &[1; 4096]).await.unwrap();
        write(&device, 8192, &[1; 4096]).await.unwrap();
        flush(&device).await.unwrap();
        write(&device, 0, &[2; 512]).await.unwrap();
        write(&device, 4096, &[2; 4096]).await.unwrap();
        write_durably(&device, 4608, &[3; 512]).await.unwrap();
        zero(&device, 8192, 12288, true).await.unwrap();
        assert_eq!(read(&device, 0, 512).await.unwrap(), [2; 512]);
        assert_eq!(read(&device, 8192, 4096).await.unwrap(), [0; 4096]);
        kill(server);
    });
    let server = start(folder.path());
    on_data_thread(async {
        let device = connect(&uri).await;
        assert_eq!(read(&device, 0, 4096).await.unwrap(), [1; 4096]);
        assert_eq!(read(&device, 4096, 512).await.unwrap(), [0; 512]);
        assert_eq!(read(&device, 4608, 512).await.unwrap(), [3; 512]);
        assert_eq!(read(&device, 8192, 4096).await.unwrap(), [1; 4096]);
    });
    kill(server);
}
