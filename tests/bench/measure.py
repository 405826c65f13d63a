"""One run of fio against one server: what was done, how long it took, whose CPU it cost."""
import json
import os
import subprocess
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")

# name: (rw, block size, depth, further options of fio)
WORKLOADS = {
    "rr-qd1": ("randread", "4k", 1, []),
    "rr-qd32": ("randread", "4k", 32, []),
    "rw-qd1": ("randwrite", "4k", 1, []),
    "rw-qd32": ("randwrite", "4k", 32, []),
    "rwf-qd1": ("randwrite", "4k", 1, ["--fsync=1"]),
    # One pass: a second one would read a buffering server's cache. The writing one ends in a flush.
    "sr-qd8": ("read", "1m", 8, []),
    "sw-qd8": ("write", "1m", 8, ["--end_fsync=1"]),
}


def stat_fields(pid):
    """The fields of /proc/PID/stat after the name, or none where the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()
    except OSError:
        return []


def cpu_s(pid):
    """User and system seconds of `pid`, its descendants and those of them that ended."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat_fields(name)):
            children.setdefault(int(fields[1]), []).append(int(name))
    total, pending = 0, [pid]
    while pending:
        one = pending.pop()
        total += sum(int(ticks) for ticks in stat_fields(one)[11:15])
        pending += children.get(one, [])
    return total / TICK


def machine_cpu_s():
    """Busy seconds of all cores."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, irq, softirq = (int(ticks) for ticks in file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICK


def quiet_run(argv, pid, retries, foreign_max):
    """Runs a client; its output and the server's CPU seconds.

    Another job on the machine spoils a run: one in which more than `foreign_max` per cent of a core went neither to the
    client nor to the server is done again, `retries` times at most, and the quietest one counts.
    """
    best = None
    for _ in range(1 + retries):
        server, machine, start = cpu_s(pid) if pid else 0, machine_cpu_s(), time.monotonic()
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            text = output.read()
        if process.returncode:
            raise SystemExit(f"failed: {' '.join(argv)}\n{text[-2000:]}")
        wall, machine = time.monotonic() - start, machine_cpu_s() - machine
        server = cpu_s(pid) - server if pid else 0
        foreign = max(0, machine - server - usage.ru_utime - usage.ru_stime) / wall * 100
        if best is None or foreign < best[2]:
            best = text, server, foreign
        if foreign <= foreign_max:
            break
    return best


def fio(workload, target, seconds, pid=None, retries=3, foreign_max=15):
    """One row of figures. `target` is fio's options that name what is measured."""
    rw, block, depth, more = WORKLOADS[workload]
    argv = ["fio", "--name=b", f"--rw={rw}", f"--bs={block}", f"--iodepth={depth}", "--thread", "--randrepeat=0",
            "--norandommap", "--output-format=json", *target, *more]
    if rw.startswith("rand"):
        argv += ["--time_based", f"--runtime={seconds}"]
    text, server_s, foreign = quiet_run(argv, pid, retries, foreign_max)
    job = json.JSONDecoder().raw_decode(text[text.index("{"):])[0]["jobs"][0]
    side = job["read" if rw.endswith("read") else "write"]
    operations = max(1, side["total_ios"])
    # With a flush after each write, an operation is both; fio's latency is the write's alone.
    latency = 1e6 / side["iops"] if workload.startswith("rwf") else side["lat_ns"]["mean"] / 1e3
    percentiles = side["clat_ns"].get("percentile", {})
    return {
        "workload": workload, "iops": side["iops"], "mib_per_s": side["bw_bytes"] / 2**20, "latency_us": latency,
        "p99_us": percentiles.get("99.000000", 0) / 1e3, "cpu_us": server_s * 1e6 / operations if pid else None,
        "foreign_pct": foreign,
    }


def cold(files):
    """Writes the files back and drops them from the page cache, so that every run starts alike."""
    for path in files:
        fd = os.open(path, os.O_RDWR)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def random_image(path, size):
    """A file of random bytes, so that nothing along the path can take a shortcut for zeros."""
    piece = os.urandom(8 << 20)
    with open(path, "wb") as file:
        for at in range(0, size, len(piece)):
            file.write(piece[:size - at])
        file.flush()
        os.fsync(file.fileno())
