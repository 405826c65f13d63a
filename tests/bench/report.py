"""Tables of a run, its ratios to the peers, and the targets beside them.

Ratios hold from machine to machine, absolute figures do not: each is taken within one repetition, and the median of the
repetitions counts.
"""
from statistics import median

# section, workload, row, figure, peer ("best" is the best of them in that figure), bound
TARGETS = [
    ("memory, unix", "rr-qd32", "ashlar", "iops", "nbdkit", ">= 1.30"),
    ("memory, unix", "rr-qd32", "ashlar", "cpu_us", "nbdkit", "<= 0.65"),
    ("memory, unix", "rw-qd32", "ashlar", "iops", "nbdkit", ">= 1.10"),
    ("memory, unix", "rw-qd32", "ashlar", "cpu_us", "nbdkit", "<= 0.90"),
    ("memory, unix", "rw-qd32", "ashlar mirror", "cpu_us", "nbdkit", "<= 1.10"),
    ("memory, tcp", "rr-qd32", "ashlar", "cpu_us", "nbdkit", "<= 0.75"),
    ("memory, tcp", "rw-qd32", "ashlar", "cpu_us", "nbdkit", "<= 0.90"),
    ("serial, unix", "rr-qd1", "ashlar", "latency_us", "best", "<= 1.15"),
    ("serial, unix", "rw-qd1", "ashlar", "latency_us", "best", "<= 1.15"),
    ("serial, unix", "rr-qd1", "ashlar polling", "latency_us", "best", "<= 0.60"),
    ("serial, unix", "rw-qd1", "ashlar polling", "latency_us", "best", "<= 0.60"),
    ("memory, unix", "sr-qd8", "ashlar", "mib_per_s", "best", ">= 1.00"),
    ("memory, unix", "sw-qd8", "ashlar", "mib_per_s", "best", ">= 1.00"),
    ("disk, unix", "rr-qd32", "ashlar", "iops", "qemu-storage-daemon", ">= 0.95"),
    ("disk, unix", "rr-qd32", "ashlar", "cpu_us", "qemu-storage-daemon", "<= 0.50"),
    ("disk, unix", "rw-qd32", "ashlar", "iops", "qemu-storage-daemon", ">= 0.95"),
    ("disk, unix", "rw-qd32", "ashlar", "cpu_us", "qemu-storage-daemon", "<= 0.50"),
    ("disk, unix", "rw-qd32", "ashlar mirror", "cpu_us", "qemu-storage-daemon", "<= 0.80"),
    ("disk, unix", "rr-qd1", "ashlar", "latency_us", "qemu-storage-daemon", "<= 1.15"),
    ("disk, unix", "rw-qd1", "ashlar", "latency_us", "qemu-storage-daemon", "<= 1.15"),
    ("disk, unix", "rwf-qd1", "ashlar", "iops", "best", ">= 0.95"),
]
PEERS = ["nbdkit", "qemu-storage-daemon"]
MORE_IS_BETTER = {"iops": True, "mib_per_s": True, "latency_us": False, "cpu_us": False}


def ratio(rows, section, workload, server, figure, peer):
    """The median over repetitions of `server`'s figure to the peer's; None where one of them was not measured."""
    ratios = []
    for repetition in {row["repetition"] for row in rows}:
        here = {row["server"]: row[figure] for row in rows if row["repetition"] == repetition
                and row["section"] == section and row["workload"] == workload}
        candidates = [here[name] for name in (PEERS if peer == "best" else [peer]) if here.get(name)]
        if here.get(server) is None or not candidates:
            continue
        ratios.append(here[server] / (max if MORE_IS_BETTER[figure] else min)(candidates))
    return median(ratios) if ratios else None


def span(values, digits=0):
    """Median and range."""
    values = [value for value in values if value is not None]
    if not values:
        return "–"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def times(value):
    return "–" if value is None else f"{value:.2f}"


def tables(rows):
    lines = []
    for section, workload in dict.fromkeys((row["section"], row["workload"]) for row in rows):
        rate, unit = ("mib_per_s", "MiB/s") if workload.startswith("s") else ("iops", "IOPS")
        lines += [f"\n### {section}: {workload}\n",
                  f"| server | {unit} | latency µs | p99 µs | server CPU µs/op | {unit} ÷ nbdkit | CPU ÷ nbdkit | "
                  f"{unit} ÷ best peer | foreign CPU % |", "|---|---|---|---|---|---|---|---|---|"]
        here = [row for row in rows if (row["section"], row["workload"]) == (section, workload)]
        for server in sorted({row["server"] for row in here}):
            def of(figure):
                return [row[figure] for row in here if row["server"] == server]

            def to(figure, peer):
                return times(ratio(rows, section, workload, server, figure, peer))
            lines.append(f"| {server} | {span(of(rate))} | {span(of('latency_us'), 1)} | {span(of('p99_us'))} | "
                         f"{span(of('cpu_us'), 2)} | {to(rate, 'nbdkit')} | {to('cpu_us', 'nbdkit')} | "
                         f"{to(rate, 'best')} | {span(of('foreign_pct'))} |")
    return lines


def targets(rows):
    lines = ["\n### Targets\n", "| where | workload | row | figure | to | target | measured | |", "|---|---|---|---|---|---|---|---|"]
    missed = 0
    for section, workload, server, figure, peer, bound in TARGETS:
        measured = ratio(rows, section, workload, server, figure, peer)
        verdict = "not measured"
        if measured is not None:
            sign, limit = bound.split()
            met = measured >= float(limit) if sign == ">=" else measured <= float(limit)
            verdict = "OK" if met else "MISSED"
            missed += not met
        lines.append(f"| {section} | {workload} | {server} | {figure} | {peer} | {bound} × | {times(measured)} × | {verdict} |")
    return lines + [f"\n{missed} missed."]
