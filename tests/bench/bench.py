# SPDX-License-Identifier: Apache-2.0
"""``make bench``: start latency, memory and listing beside the peers that are installed, as ratios of one run.

Absolute times differ from machine to machine and from hour to hour; so runs of the engines alternate, and each run of
rkt is divided by the run of the peer right beside it. The median of these ratios is held against the budget.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.bench import fetch, peers, pull
from tests.bench.rows import Row
from tests.lib import host
from tests.lib.nethost import NetHost
from tests.lib.rkt import ROOT, remove_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Budgets (docs/performance.md).
LIST_BUDGET = 3.0
MEMORY_BUDGET_MIB = 6.0
#: Of what an engine runs at once, its time for all beside theirs.
PARALLEL_BUDGET = 0.5
PARALLEL = 50
PODS = 1000
FETCH_ROUNDS = 3
DOCUMENT = os.path.join(ROOT, "docs", "performance.md")
BEGIN = "<!-- make bench writes from here -->"
END = "<!-- to here -->"


def verdict(figure: float, budget: float) -> str:
    """Whether a budget is kept."""
    if not budget:
        return ""
    return "yes" if figure <= budget else "NO"


def available(
    base: str,
    rootfs: str,
    kinds: Mapping[type[peers.Peer], str],
    place: NetHost | None = None,
    *,
    about: str = "",
) -> tuple[list[peers.Peer], list[Row]]:
    """Peers that ran once, in their order, and a row for each that cannot; with their networks if they are given a place.

    Args:
        base: directory for all that they need.
        rootfs: what they run.
        kinds: them, each with the program that it needs, if any; rkt is not missed.
        place: the host whose networks they use.
        about: what the rows of those that cannot end with.
    """
    usable: list[peers.Peer] = []
    rows = []
    for kind, program in kinds.items():
        reason = program and host.missing(program)
        if reason:
            rows.append(Row(f"{kind.name}{about}", f"skipped: {reason}"))
            continue
        peer = kind(base, rootfs, place)
        try:
            peer.prepare()
            # Also warms the page cache, the compiled byte code and the peers' own caches.
            peer.start_once()
        except peers.Unavailable as e:
            peer.close()
            if issubclass(kind, peers.RktPeer):
                raise
            rows.append(Row(f"{kind.name}{about}", f"skipped: {e}"))
            continue
        usable.append(peer)
        print(f"  {peer.version()}", file=sys.stderr)
    return usable, rows


def measure_start(
    usable: list[peers.Peer],
    rounds: int,
    *,
    with_network: bool = False,
    what: str = "start of /bin/true",
) -> list[Row]:
    """Latency of ``/bin/true``, alternating."""
    times: dict[str, list[float]] = {peer.name: [] for peer in usable}
    for number in range(rounds):
        # Turned around every other time, so that nobody always runs in another's wake.
        for peer in usable if number % 2 == 0 else usable[::-1]:
            times[peer.name].append(peer.start_once())
    rows = []
    for peer in usable:
        value = f"{statistics.median(times[peer.name]) * 1000:.0f} ms"
        if peer.name == "rkt":
            rows.append(Row(f"{what}: rkt", value))
            continue
        ratio = statistics.median(
            ours / theirs for ours, theirs in zip(times["rkt"], times[peer.name], strict=True)
        )
        budget = peer.network_budget if with_network else peer.start_budget
        rows.append(
            Row(
                f"{what}: {peer.name}",
                value,
                f"{ratio:.2f}",
                f"{budget:.2f}" if budget else "",
                verdict(ratio, budget),
            )
        )
    return rows


def measure_parallel(usable: Sequence[peers.Peer], rounds: int, count: int) -> list[Row]:
    """Time until all of ``count`` containers that are started at once have run ``/bin/true``; each has to succeed."""
    own = 0.0
    rows = []
    for peer in usable:
        what = f"{count} at once: {peer.name}"
        try:
            median = statistics.median(peer.start_many(count) for _ in range(rounds))
        except peers.Unavailable as e:
            if peer.name == "rkt":
                raise
            rows.append(Row(what, f"failed: {e}"))
            continue
        value = f"{median:.2f} s"
        if peer.name == "rkt":
            own = median
            rows.append(Row(what, value))
            continue
        budget = PARALLEL_BUDGET if peer.name == "podman" else 0
        ratio = own / median
        rows.append(
            Row(what, value, f"{ratio:.2f}", f"{budget:.2f}" if budget else "", verdict(ratio, budget))
        )
    return rows


def measure_networks(base: str, rootfs: str, rounds: int) -> list[Row]:
    """Latency of ``/bin/true`` with the network that an engine gives without a word; nothing of the host's is touched."""
    with NetHost(os.path.join(base, "host")) as place:
        usable: list[peers.Peer] = []
        try:
            kinds = {peers.RktPeer: "", peers.Podman: "podman", peers.Docker: "docker"}
            usable, skipped = available(base, rootfs, kinds, place, about=", default network")
            what = "start with the default network"
            return measure_start(usable, rounds, with_network=True, what=what) + skipped
        finally:
            for peer in usable:
                peer.close()


def measure_flavors(base: str, rootfs: str, rounds: int) -> list[Row]:
    """Latency of ``/bin/true`` in the flavours beside the default one, each beside what it is to be compared with."""
    rows = []
    for flavor, (own, others) in peers.FLAVORS.items():
        about = f", flavour {flavor}"
        # Without what it is compared with, or stands on, there is nothing to say.
        if reason := host.missing(*(program for program in others.values() if program)):
            rows.append(Row(f"rkt{about}", f"skipped: {reason}"))
            continue
        usable: list[peers.Peer] = []
        try:
            usable, skipped = available(os.path.join(base, flavor), rootfs, {own: "", **others}, about=about)
            rows += measure_start(usable, rounds, what=f"start of /bin/true{about}") + skipped
        finally:
            for peer in usable:
                peer.close()
    return rows


def measure_memory(usable: list[peers.Peer]) -> list[Row]:
    """Memory beyond the app of one of several sleeping containers."""
    rows = []
    figures = {peer.name: peer.overhead(peers.CONTAINERS) for peer in usable}
    own = figures["rkt"][0]
    for peer in usable:
        proportional, private = figures[peer.name]
        value = f"{proportional:.1f} MiB PSS ({private:.1f} private)"
        what = f"memory beyond the app: {peer.name}"
        if peer.name == "rkt":
            rows.append(Row(what, value, "", f"{MEMORY_BUDGET_MIB:.0f} MiB", verdict(own, MEMORY_BUDGET_MIB)))
        else:
            rows.append(Row(what, value, f"{own / proportional:.2f}" if proportional >= 0.1 else ""))
    return rows


def measure_list(peer: peers.RktPeer, rounds: int, pods: int) -> list[Row]:
    """``rkt list`` with many pods beside ``rkt version``."""
    engine = peer.engine

    def prepare(_: int) -> None:
        engine.run("prepare", peer.key, check=0)

    with ThreadPoolExecutor(os.cpu_count()) as executor:
        list(executor.map(prepare, range(pods)))
    found = len(engine.run("list", "--no-legend", check=0).lines)
    if found != pods:
        raise SystemExit(f"{pods} pods were prepared, {found} are listed")
    lists: list[float] = []
    versions: list[float] = []
    for _ in range(rounds):
        for verb, times in (("list", lists), ("version", versions)):
            started = time.monotonic_ns()
            subprocess.run(engine.command(verb), check=True, capture_output=True, env=engine.environment())
            times.append((time.monotonic_ns() - started) / 1e9)
    ratio = statistics.median(a / b for a, b in zip(lists, versions, strict=True))
    return [
        Row(
            f"rkt list, {pods} pods",
            f"{statistics.median(lists) * 1000:.0f} ms",
            f"{ratio:.2f}",
            f"{LIST_BUDGET:.2f}" if pods == PODS else "",
            verdict(ratio, LIST_BUDGET if pods == PODS else 0),
        ),
        Row("rkt version", f"{statistics.median(versions) * 1000:.0f} ms"),
    ]


def table(rows: list[Row]) -> str:
    """The rows in Markdown, aligned for a terminal too."""
    head = ("what", "median", "rkt / this", "budget", "kept")
    cells = [head, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def machine() -> str:
    """What the figures were measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as stream:
        model = re.search(r"model name\s*: (.*)", stream.read())
    with open("/etc/os-release", encoding="utf-8") as stream:
        system = re.search(r'PRETTY_NAME="(.*)"', stream.read())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{system[1] if system else 'Linux'}, kernel {platform.release()}, Python {platform.python_version()}"
    )


def write_document(text: str) -> None:
    """Replace what an earlier run wrote."""
    with open(DOCUMENT, encoding="utf-8") as stream:
        before, _, rest = stream.read().partition(BEGIN)
    _, _, after = rest.partition(END)
    with open(DOCUMENT, "w", encoding="utf-8") as stream:
        stream.write(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> int:
    """Measure, print, and say by the exit status whether every budget is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="runs of each engine")
    parser.add_argument("--pods", type=int, default=PODS, help="pods for rkt list")
    parser.add_argument("--fetch-mib", type=int, default=100, help="size of the image that is fetched")
    parser.add_argument("--fetch-files", type=int, default=1500, help="number of its files")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/performance.md")
    parser.add_argument("--strict", action="store_true", help="fail when a budget is not kept")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: run as root, containers are started for real", file=sys.stderr)
        return 1
    base = tempfile.mkdtemp(prefix="rkt-bench-")
    usable: list[peers.Peer] = []
    try:
        rootfs = os.path.join(base, "rootfs")
        peers.make_rootfs(rootfs)
        usable, rows = available(base, rootfs, {peers.RktPeer: "", **peers.PROGRAMS})
        versions = "; ".join(peer.version() for peer in usable)
        rows = measure_start(usable, options.rounds) + rows
        many = [peer for peer in usable if isinstance(peer, (peers.RktPeer, peers.Podman, peers.Docker))]
        rows += measure_parallel(many, min(options.rounds, FETCH_ROUNDS), PARALLEL)
        rows += measure_flavors(os.path.join(base, "flavors"), rootfs, options.rounds)
        rows += measure_networks(os.path.join(base, "networks"), rootfs, options.rounds)
        rows += measure_memory(usable)
        own = usable[0]
        assert isinstance(own, peers.RktPeer)
        rows += measure_list(own, options.rounds, options.pods)
        rows += fetch.measure(min(options.rounds, FETCH_ROUNDS), options.fetch_mib, options.fetch_files)
        rows += pull.measure(min(options.rounds, FETCH_ROUNDS), options.fetch_mib, options.fetch_files)
    finally:
        for peer in usable:
            peer.close()
        remove_tree(base)
    text = "\n".join(
        [
            table(rows),
            "",
            f"Machine: {machine()}.",
            f"Versions: {versions}.",
            f"Runs: {options.rounds} of each.",
        ]
    )
    print(text)
    if options.write:
        write_document(text)
    return int(options.strict and any(row.kept == "NO" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
