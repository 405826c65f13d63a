//! A file system on a volume survives SIGKILL of the server: ext4 with a real tree, through nbdfuse and a loop mount.
//!
//! Needs root and `/dev/fuse`; says so and passes without them.

use std::fs;
use std::path::{Path, PathBuf};

use ashlar_tests::appliance::{Appliance, MIB, Server, Setup, Store, folder};
use ashlar_tests::process::{LIMIT, Started, command, run, run_any, start};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

/// What is copied.
const TREE: &str = "/usr/share/doc";

/// A named pipe that another program writes to when something has happened.
struct Signal {
    path: PathBuf,
    pipe: fs::File,
}

impl Signal {
    fn make(path: PathBuf) -> Self {
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe can be made");
        // Opened both ways, neither end waits for the other.
        let pipe = fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .expect("a pipe can be opened");
        Self { path, pipe }
    }

    fn wait(&self) {
        let limit = Timespec::try_from(LIMIT).expect("limits are minutes");
        let mut pipes = [PollFd::new(&self.pipe, PollFlags::IN)];
        let told = poll(&mut pipes, Some(&limit)).expect("a pipe can be polled");
        assert!(told > 0, "no sign within {LIMIT:?}: {}", self.path.display());
    }
}

/// The volume as a file, and a place for the file system in it. Unmounts both when dropped.
struct Mounts {
    dir: TempDir,
    nbdfuse: Option<Started>,
}

impl Mounts {
    /// Makes the volume appear as a file.
    fn attach(uri: &str) -> Self {
        let dir = folder(Store::Memory);
        for name in ["fuse", "tree"] {
            fs::create_dir(dir.path().join(name)).expect("a folder can be made");
        }
        // nbdfuse writes its pid there once the file can be used.
        let ready = Signal::make(dir.path().join("ready"));
        let mut nbdfuse = command("nbdfuse", ["--pidfile"]);
        let nbdfuse = start(
            nbdfuse
                .arg(&ready.path)
                .arg(dir.path().join("fuse/disk"))
                .arg(uri),
        );
        let mounts = Self {
            dir,
            nbdfuse: Some(nbdfuse),
        };
        ready.wait();
        mounts
    }

    fn disk(&self) -> PathBuf {
        self.dir.path().join("fuse/disk")
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// Mounts the file system and hands back its root.
    fn mount(&self, options: &str) -> PathBuf {
        run(command("mount", ["-t", "ext4", "-o", options])
            .arg(self.disk())
            .arg(self.tree()));
        self.tree()
    }

    fn unmount(&self) {
        run(command("umount", []).arg(self.tree()));
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        // Each may be gone already, and after a crash nothing can be written back: take down what there is.
        run_any(command("umount", ["--quiet", "--force"]).arg(self.tree()));
        run_any(command("fusermount3", ["-u", "-q", "-z"]).arg(self.dir.path().join("fuse")));
        if let Some(nbdfuse) = self.nbdfuse.take() {
            nbdfuse.finish();
        }
    }
}

fn reason_to_skip() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting needs root");
    }
    if !Path::new("/dev/fuse").exists() {
        return Some("there is no /dev/fuse");
    }
    (!Path::new("/dev/loop-control").exists()).then_some("there are no loop devices")
}

/// The checksums of all files below `root`, in an order that does not depend on the file system.
fn checksums(root: &Path) -> String {
    let script = "set -o pipefail; find . -type f -print0 | sort -z | xargs -0 sha256sum";
    run(command("bash", ["-c", script]).current_dir(root)).stdout
}

/// Keeps a copy of the tree, synced, and kills the server while further copies come and go; the kept files' checksums.
fn kill_while_copying(server: Server) -> String {
    let mounts = Mounts::attach(server.uri());
    run(command("mkfs.ext4", ["-q", "-F"]).arg(mounts.disk()));
    let root = mounts.mount("loop");
    run(command("cp", ["-a", TREE]).arg(root.join("kept")));
    run(command("sync", ["--file-system"]).arg(&root));
    let kept = checksums(&root.join("kept"));

    let lap = Signal::make(mounts.dir.path().join("lap"));
    let script = r#"while cp -a "$0" "$1/more" && sync -f "$1"; do echo lap > "$2"; rm -r "$1/more"; done"#;
    let copying = start(command("bash", ["-c", script, TREE]).arg(&root).arg(&lap.path));
    lap.wait();
    server.kill();
    copying.finish();
    kept
}

#[test]
fn ext4_holding_a_real_tree_is_whole_after_sigkill() {
    if let Some(reason) = reason_to_skip() {
        println!("skipped: {reason}");
        return;
    }
    for level in [0, 1] {
        let appliance = Appliance::create(&Setup {
            store: Store::Direct,
            size: 1024 * MIB,
            ..Setup::new(level)
        });
        let kept = kill_while_copying(appliance.serve(&[]));
        assert!(kept.lines().count() > 100, "{TREE} holds next to nothing");

        let server = appliance.serve(&[]);
        let mounts = Mounts::attach(server.uri());
        // The first mount plays the journal back, as after any crash.
        mounts.mount("loop");
        mounts.unmount();
        run(command("e2fsck", ["-f", "-n"]).arg(mounts.disk()));
        let root = mounts.mount("loop,ro");
        assert!(checksums(&root.join("kept")) == kept, "a file changed");
        mounts.unmount();
        drop(mounts);
        server.stop();
    }
}
