# SPDX-License-Identifier: Apache-2.0
"""Standard streams of a running app: ``attach``."""

from __future__ import annotations

import signal

from rkt.conformance.pods import APP
from rkt.errors import RktError
from rkt.schema import jsontext
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.conformance.pods import Pods, Trial

_FLAGS = ("--stdin=stream", "--stdout=stream")


def check_attach(pods: Pods) -> None:
    """An app that says what it hears."""
    if not pods.subject.program.has(contract.ANNOTATION_ATTACH):
        pods.report.absent("attach.list", "attach.streams", why="no attach")
        return
    trial = pods.begin("echo", flags=_FLAGS, promise="attach.list", up=False)
    try:
        _check(pods, trial)
    finally:
        pods.finish(trial)


def _check(pods: Pods, trial: Trial) -> None:
    path = f"{contract.ENDPOINTS}/{APP}/endpoints"
    pods.bench.wait_for(
        lambda: (trial.is_running and trial.pod.has(path)) or not trial.process.is_alive,
    )
    pods.require("attach.list", trial.is_running and trial.pod.has(path), f"no {path}: {trial.said()}")
    listed = pods.bench.run("attach", "--mode=list", trial.uuid)
    said = f"status {listed.wait(0)}: {listed.stdout[-200:]!r} {listed.stderr.strip()}"
    try:
        names = {each["name"] for each in jsontext.parse(listed.stdout, what="endpoints")["targets"]}
    except (RktError, KeyError, TypeError):
        names = set()
    pods.require("attach.list", {"stdin", "stdout"} <= names, said)
    client = pods.bench.start("attach", "--mode=stdin,stdout", trial.uuid, stdin=b"one line\n")
    pods.bench.wait_for(lambda: "got one line" in client.stdout)
    heard = client.stdout
    client.send(signal.SIGKILL)
    client.wait(pods.bench.seconds)
    pods.report.hold("attach.streams", "got one line" in heard, f"{heard[-200:]!r} {client.stderr.strip()}")
