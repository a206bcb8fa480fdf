# SPDX-License-Identifier: Apache-2.0
"""Pods of nspawn on a host that systemd runs: machinectl lists them, the journal has them, and both forget them."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lib import flavors, host
from tests.lib.images import fetch
from tests.lib.rkt import Rkt, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lib.images import Images
    from tests.lib.rkt import Running

FLAVOR = "nspawn"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.path.isdir("/run/systemd/system"), reason="systemd is not process 1"),
    pytest.mark.skipif(
        bool(host.missing("systemd-nspawn", "machinectl", "busctl")),
        reason=host.missing("systemd-nspawn", "machinectl", "busctl"),
    ),
    pytest.mark.skipif(FLAVOR not in flavors.built(), reason=f"{FLAVOR} is not built"),
]
#: Says a line on each stream, and what it was told at its end.
TALKS = "trap 'echo over; exit 0' TERM; echo from-{0}; echo alas-{0} >&2; echo up >/out/{0}; while :; do sleep 0.1; done"


class Pod:
    """A pod of two apps that talk, started by whoever runs the tests."""

    def __init__(self, rkt: Rkt, image: str) -> None:
        self.rkt = rkt
        out = f"{rkt.base}/out"
        os.mkdir(out)
        words = ["run", "--insecure-options=image", "--net=none", f"--volume=out,kind=host,source={out}"]
        for name in ("one", "two"):
            words += [image, f"--name={name}", "--mount=volume=out,target=/out", "--exec=/bin/sh"]
            words += ["--", "-c", TALKS.format(name), "---"]
        self.process: Running = rkt.popen(*words[:-1])
        wait_for(lambda: self.process.poll() is not None or len(os.listdir(out)) == 2, "both apps")
        assert self.process.poll() is None, self.process.texts()
        (self.uuid,) = rkt.pods("run")
        self.machine = f"rkt-{self.uuid}"


def say(*words: str) -> str:
    """Standard output of a program that has to succeed."""
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory, images: Images) -> Iterator[Pod]:
    """One pod for all that is looked at while it runs."""
    base = os.fspath(tmp_path_factory.mktemp("machine"))
    engine = Rkt(base, flavor=FLAVOR)
    try:
        yield Pod(engine, fetch(engine, images.busybox()))
    finally:
        engine.close()


def test_machinectl_lists_the_pod(pod: Pod) -> None:
    """The list of machinectl has the pod as a container, with its own first process as the leader."""
    lines = [line.split() for line in say("machinectl", "list", "--no-legend", "--no-pager").splitlines()]
    assert [line[:3] for line in lines if line[0] == pod.machine] == [[pod.machine, "container", "rkt"]]
    assert say("machinectl", "show", "--value", "--property=Leader", pod.machine).strip() == str(
        pod.rkt.pid(pod.uuid)
    )
    assert say("machinectl", "show", "--value", "--property=State", pod.machine).strip() == "running"
    assert pod.machine in say("machinectl", "status", "--no-pager", pod.machine)


@pytest.mark.parametrize("app", ["one", "two"])
def test_the_journal_of_the_pod_has_what_an_app_says(pod: Pod, app: str) -> None:
    """With -M, journalctl finds the lines of an app by its unit, of both streams, and of no other app."""
    words = ("journalctl", "-M", pod.machine, "-u", app, "-o", "cat", "--no-pager")

    def lines() -> list[str] | None:
        found = say(*words).splitlines()
        return found if f"from-{app}" in found and f"alas-{app}" in found else None

    found = wait_for(lines, "lines of the app")
    assert not any(line.startswith(("from-", "alas-")) and not line.endswith(app) for line in found)
    assert f"from-{app}" in pod.rkt.run("logs", pod.uuid, f"--app={app}", check=0).stdout


def test_the_units_of_the_pod_are_seen_from_within(pod: Pod) -> None:
    """In the pod's own root systemctl lists one service for each app."""
    shown = pod.rkt.run(
        "enter",
        "--pod",
        pod.uuid,
        "systemctl",
        "list-units",
        "--type=service",
        "--plain",
        "--no-legend",
        check=0,
    )
    running = {line.split()[0] for line in shown.stdout.splitlines() if " running " in line}
    assert {"one.service", "two.service"} <= running


def test_nothing_is_registered_afterwards(images: Images, tmp_path: Path) -> None:
    """When the pod has ended, or was killed, machined and the host's run-time files know nothing of it."""
    engine = Rkt(os.fspath(tmp_path), flavor=FLAVOR)
    try:
        ended = Pod(engine, fetch(engine, images.busybox()))
        engine.run("stop", ended.uuid, check=0)
        assert ended.process.wait() == 0
        assert ended.machine not in say("machinectl", "list", "--no-legend", "--no-pager")
    finally:
        engine.close()
    left = [name for name in _names("/run/systemd/machines", "/run/systemd/nspawn") if ended.uuid in name]
    assert left == []
    journals = [name for name in _names("/var/log/journal") if ended.uuid.replace("-", "") in name]
    assert journals == []


def _names(*directories: str) -> list[str]:
    return [
        os.path.join(path, name)
        for directory in directories
        for path, below, files in os.walk(directory)
        for name in (*below, *files)
    ]
