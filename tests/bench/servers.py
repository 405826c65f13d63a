"""The servers that are measured: started here, ended here, each with its files and the ways to reach it."""
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time

READY_S = 60


class Server:
    """One process. `uris` maps a transport (unix, tcp) to the export; `files` are those that hold its data."""

    def __init__(self, name, argv, uris, files, transports=None):
        self.name, self.argv, self.uris, self.files = name, argv, uris, files
        self.transports = transports or list(uris)
        self.log = tempfile.TemporaryFile("w+")
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + READY_S
        while not all(answers(uri) for uri in self.uris.values()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.fail("did not come up")
            time.sleep(0.05)

    def fail(self, what):
        self.log.seek(0)
        raise SystemExit(f"{self.name} {what}: {' '.join(self.argv)}\n{self.log.read()}")

    def stop(self):
        if not self.process:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Ashlar(Server):
    """An appliance of its own, made here, with one volume on a group of the given level."""

    def __init__(self, name, engine, folder, size, level, members, cache, more=(), transports=None):
        os.makedirs(folder)
        member_size = size + max(size // 16, 256 << 20)
        run([engine, "create", "--dir", folder, "--level", str(level), "--members", str(members), "--cache", cache,
             "--member-size", str(member_size), "--volume", "vol0", "--size", str(size)])
        files = [os.path.join(folder, f"member-{i}.img") for i in range(members)]
        # A socket's path may be no longer than 107 bytes.
        self.sockets = tempfile.TemporaryDirectory(prefix="ashlar-")
        argv = [engine, "serve", "--dir", folder, "--listen", "127.0.0.1:0", "--socket", f"{self.sockets.name}/s", *more]
        super().__init__(name, argv, {}, files, transports or ["unix", "tcp"])

    def start(self):
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log,
                                        text=True)
        readable, _, _ = select.select([self.process.stdout], [], [], READY_S)
        line = self.process.stdout.readline() if readable else ""
        uris = re.match(r"ashlar-engine ready: (nbd://\S+) (nbd\+unix://\S+)", line)
        if not uris:
            self.fail("did not come up")
        self.uris = {"tcp": uris[1], "unix": uris[2]}


def peer(kind, transport, image, folder, direct):
    """Another project's server on `image`; `direct` opens it past the page cache where the server can."""
    path, port = os.path.join(folder, f"{kind}-{transport}.sock"), free_port()
    unix = transport == "unix"
    uri = f"nbd+unix:///disk?socket={path}" if unix else f"nbd://127.0.0.1:{port}/disk"
    listen = ["-U", path] if unix else ["-i", "127.0.0.1", "-p", str(port)]
    if kind == "nbdkit":
        argv = ["nbdkit", "-f", "-e", "disk", *listen, "file", image]
    elif kind == "qemu-storage-daemon":
        address = f"addr.type=unix,addr.path={path}" if unix else f"addr.type=inet,addr.host=127.0.0.1,addr.port={port}"
        argv = [kind, "--object", "iothread,id=t0", "--blockdev",
                f"driver=file,filename={image},node-name=f0,aio=io_uring,discard=unmap,locking=off,"
                f"cache.direct={'on' if direct else 'off'}",
                "--nbd-server", f"{address},max-connections=16",
                "--export", "type=nbd,id=e0,node-name=f0,name=disk,writable=on,iothread=t0"]
    else:
        raise SystemExit(f"unknown peer {kind}")
    return Server(kind, argv, {transport: uri}, [image])


def answers(uri):
    """Whether somebody listens there."""
    unix = re.match(r"nbd\+unix:///.*\?socket=(.*)", uri)
    tcp = re.match(r"nbd://([^:]*):(\d+)/", uri)
    try:
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as sock:
            sock.connect(unix[1] if unix else (tcp[1], int(tcp[2])))
        return True
    except OSError:
        return False


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def run(argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(argv)}\n{done.stdout}{done.stderr}")
