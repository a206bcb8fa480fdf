# SPDX-License-Identifier: Apache-2.0
"""All checks of one image, from finding it to taking everything back."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rkt.conformance import app
from rkt.conformance.attaching import check_attach
from rkt.conformance.bench import open_bench
from rkt.conformance.live import check_live
from rkt.conformance.options import check_options
from rkt.conformance.pods import Pods
from rkt.conformance.promises import Finding, Report
from rkt.conformance.single import check_ends, check_force, check_kill, check_life, check_versions
from rkt.conformance.subject import obtain
from rkt.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.config.settings import Settings
    from rkt.conformance.bench import Bench

_SETTLE_SECONDS = 3.0
#: What looks at pods, and the groups that it serves; in order.
_ROUNDS: tuple[tuple[Callable[[Pods], None], tuple[str, ...]], ...] = (
    (check_life, ("run", "app", "enter", "stop", "start", "signal", "gc")),
    (check_ends, ("status", "app")),
    (check_versions, ("run",)),
    (check_force, ("stop",)),
    (check_kill, ("signal", "gc")),
    (check_live, ("live",)),
    (check_attach, ("attach",)),
    (check_options, ("options",)),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What was found of an image."""

    name: str
    image_id: str
    interface_version: str
    findings: list[Finding]


def check(
    word: str,
    settings: Settings,
    rkt: Callable[[list[str]], int],
    *,
    groups: tuple[str, ...],
    seconds: float,
) -> Result:
    """Try an image.

    Args:
        word: what the user calls it.
        settings: the user's.
        rkt: the program: its words to its exit status. It is called in children of this process.
        groups: of promises that are to be looked at.
        seconds: how long any step may take.
    Raises:
        RktError: the image cannot be had, or this host cannot run the app.
    """
    report = Report()
    with open_bench(rkt, settings, seconds) as bench:
        subject = obtain(word, settings, bench.settings, bench.base)
        version = "?"
        if subject.check(report):
            version = str(subject.program.interface_version)
            app.write_image(f"{bench.base}/app.aci")
            fetched = bench.run("fetch", f"{bench.base}/app.aci")
            if fetched.wait(0) != 0:
                raise HostError(f"the app of the pods cannot be fetched: {fetched.stderr.strip()}")
            pods = Pods(bench, subject, fetched.stdout.strip(), report, groups)
            for act, served in _ROUNDS:
                if set(served) & set(groups):
                    pods.attempt(act)
            _check_host(bench, report)
        else:
            report.obstacle = "its manifest keeps pods from being made"
        record = subject.record
        name = str(record.full_name)
    return Result(name, str(record.image_id), version, report.finish(groups))


def _check_host(bench: Bench, report: Report) -> None:
    collected = bench.run("gc", "--grace-period=0", "--expire-prepared=0")
    said = "" if collected.wait(0) == 0 else f"; rkt gc: {collected.stderr.strip() or collected.wait(0)}"
    bench.forget_commands()
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (left := bench.leftovers()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if pods := bench.pods():
        left += [f"pod {uuid}" for uuid in pods]
    report.hold("host.clean", not left, "; ".join(left) + said)
