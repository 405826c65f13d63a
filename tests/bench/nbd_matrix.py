#!/usr/bin/env python3
"""NBD servers side by side: Ashlar, nbdkit, qemu-storage-daemon, and fio on the file itself, interleaved in one run.

Parameters, from the environment:
SECS, REPS    seconds of a random run (2), repetitions (3)
SIZE          bytes of a volume (1 GiB)
SHM_DIR       a folder on a tmpfs (/dev/shm)
DISK_DIR      a folder on a disk (/var/tmp)
SECTIONS      of "memory serial disk sparse" (all)
PEERS         of "nbdkit qemu-storage-daemon" (both)
POLL_US       microseconds that the polling row polls (50)
ENGINE        the binary (target/release/ashlar-engine)
JSON          a file that gets every single figure
FOREIGN_MAX   per cent of a core that others may use before a run is done again (15), RETRIES times (3)

Compare rows of one run only. The CPU is the server's, per operation. On a disk nbdkit works through
the page cache and cannot do otherwise: of its writes there only rwf-* (a flush after each) compares like with like. Rows of 1 MiB on a disk are not steady. Work files go into a temporary folder under
SHM_DIR and DISK_DIR, removed at the end.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

import measure
import report
from servers import Ashlar, Server, peer, run

RANDOM = ["rr-qd1", "rr-qd32", "rw-qd1", "rw-qd32"]
SEQUENTIAL = ["sr-qd8", "sw-qd8"]
TIB = 1 << 40


def env(name, default):
    return os.environ.get(name, default)


ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENGINE = env("ENGINE", os.path.join(env("CARGO_TARGET_DIR", f"{ROOT}/target"), "release/ashlar-engine"))
SECS, REPS, SIZE = int(env("SECS", "2")), int(env("REPS", "3")), int(env("SIZE", str(1 << 30)))
PEERS = env("PEERS", "nbdkit qemu-storage-daemon").split()
LIMITS = {"retries": int(env("RETRIES", "3")), "foreign_max": float(env("FOREIGN_MAX", "15"))}


class Section:
    """Servers on one kind of storage, measured together, once each."""

    def __init__(self, name, base, repetition):
        self.name, self.repetition, self.servers, self.rows = name, repetition, [], []
        self.folder = tempfile.mkdtemp(prefix="ashlar-bench.", dir=base)
        self.image = os.path.join(self.folder, "image")

    def add(self, server):
        self.servers.append(server)
        server.start()
        return server

    def ashlar(self, name, level, members, cache, more=(), transports=None, size=SIZE):
        folder = os.path.join(self.folder, name.replace(" ", "-"))
        return self.add(Ashlar(name, ENGINE, folder, size, level, members, cache, more, transports))

    def peers(self, names, transports, direct):
        for name in names:
            for transport in transports:
                self.add(peer(name, transport, self.image, self.folder, direct))

    def measure(self, transport, workloads, file_options=None):
        """Each workload on each server, in an order of its own every time."""
        for workload in workloads:
            order = [server for server in self.servers if transport in server.transports]
            order += ["file"] if file_options else []
            random.Random(f"{transport} {workload} {self.repetition}").shuffle(order)
            for server in order:
                self.one(server, transport, workload, file_options)

    def one(self, server, transport, workload, file_options):
        files, pid, name = [self.image], None, "fio on the file"
        target = [f"--filename={self.image}", f"--size={SIZE}", *(file_options or [])]
        if isinstance(server, Server):
            files, pid, name = server.files, server.pid, server.name
            target = ["--ioengine=nbd", f"--uri={server.uris[transport]}"]
        measure.cold(files)
        row = measure.fio(workload, target, SECS, pid, **LIMITS)
        row.update(section=f"{self.name}, {transport}", server=name, repetition=self.repetition)
        self.rows.append(row)
        print(f"{row['section']}: {workload} {name}: {row['iops']:.0f} IOPS", file=sys.stderr)

    def fill(self):
        """The same random content everywhere, through NBD, so that all read real data."""
        for server in self.servers:
            if isinstance(server, Ashlar):
                run(["nbdcopy", "--flush", self.image, server.uris["unix"]])

    def close(self):
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def memory(section):
    measure.random_image(section.image, SIZE)
    section.peers(PEERS, ["unix", "tcp"], direct=False)
    section.ashlar("ashlar", 0, 1, "buffered")
    section.ashlar("ashlar mirror", 1, 2, "buffered")
    section.fill()
    section.measure("unix", ["rr-qd32", "rw-qd32", *SEQUENTIAL], ["--ioengine=io_uring"])
    section.measure("tcp", RANDOM)


def serial(section):
    """One request at a time, with every way of waiting for the next one."""
    measure.random_image(section.image, SIZE)
    section.peers(PEERS, ["unix"], direct=False)
    ways = {"ashlar": [], "ashlar polling": ["--poll-us", env("POLL_US", "50")], "ashlar never polling": ["--poll-us", "0"]}
    for name, more in ways.items():
        section.ashlar(name, 0, 1, "buffered", more, ["unix"])
    section.fill()
    section.measure("unix", ["rr-qd1", "rw-qd1"], ["--ioengine=psync"])


def disk(section):
    measure.random_image(section.image, SIZE)
    section.peers(PEERS, ["unix"], direct=True)
    section.ashlar("ashlar", 0, 1, "direct")
    section.ashlar("ashlar mirror", 1, 2, "direct")
    section.fill()
    section.measure("unix", [*RANDOM, "rwf-qd1", *SEQUENTIAL], ["--ioengine=io_uring", "--direct=1"])


def sparse(section):
    """Random writes over a terabyte of which nothing was written: no target, but to be known."""
    with open(section.image, "wb") as file:
        file.truncate(TIB)
    section.peers(["qemu-storage-daemon"], ["unix"], direct=True)
    section.ashlar("ashlar", 0, 1, "direct", size=TIB)
    section.ashlar("ashlar mirror", 1, 2, "direct", size=TIB)
    section.measure("unix", ["rw-qd32"])


def main():
    kinds = {"memory": (memory, env("SHM_DIR", "/dev/shm")), "serial": (serial, env("SHM_DIR", "/dev/shm")),
             "disk": (disk, env("DISK_DIR", "/var/tmp")), "sparse": (sparse, env("DISK_DIR", "/var/tmp"))}
    rows = []
    for name in env("SECTIONS", "memory serial disk sparse").split():
        measured, base = kinds[name]
        for repetition in range(REPS):
            # With new files each time: where in the machine's memory a file lies decides how fast it is.
            section = Section(name, base, repetition)
            try:
                measured(section)
            finally:
                section.close()
            rows += section.rows
    machine = subprocess.run(["uname", "-srm"], capture_output=True, text=True).stdout.strip()
    print(f"## NBD servers side by side\n\n{os.cpu_count()} cores, {machine}; {REPS} × {SECS} s, volumes of {SIZE >> 20} MiB; "
          "median (range)")
    print("\n".join(report.tables(rows) + report.targets(rows)))
    if env("JSON", ""):
        with open(env("JSON", ""), "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
