# SPDX-License-Identifier: Apache-2.0
"""Pods whose apps come and go: ``app/add``, ``app/start``, ``app/stop``, ``app/rm``, ``app/update``."""

from __future__ import annotations

import secrets

from rkt.conformance import app
from rkt.conformance.pods import Broken, Trial, last_words
from rkt.conformance.subject import LIVE
from rkt.pod import status
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.conformance.bench import Process
    from rkt.conformance.pods import Pods

_APP = "late"
_NAMES = ("live.sandbox", "live.add", "live.start", "live.stop", "live.stopped", "live.again", "live.rm")


def check_live(pods: Pods) -> None:
    """One sandbox, one app."""
    program = pods.subject.program
    if not all(program.has(each) for each in LIVE):
        pods.report.absent(*_NAMES, "live.update", why="no app/add, app/start, app/stop and app/rm")
        return
    trial = _sandbox(pods)
    try:
        _check_app(pods, trial)
    finally:
        trial.process.send(15)
        code = pods.ended(trial)
        pods.report.hold("live.sandbox", code == 0, f"it ended with {code}: {trial.said()}")


def _sandbox(pods: Pods) -> Trial:
    file = f"{pods.bench.base}/sandbox-uuid"
    stage1 = f"--stage1-hash={pods.subject.record.key}"
    process = pods.bench.start("app", "sandbox", stage1, pods.net, f"--uuid-file-save={file}")

    def is_there() -> bool:
        try:
            with open(file, encoding="ascii") as stream:
                uuid = stream.read().strip()
        except FileNotFoundError:
            return not process.is_alive
        pod = pods.bench.open_pod(uuid) if len(uuid) == 36 else None
        if pod is None:
            return not process.is_alive
        with pod:
            return not process.is_alive or (pod.is_running and status.is_ready(pod))

    pods.bench.wait_for(is_there)
    pods.require("live.sandbox", process.is_alive, f"it ended with {process.wait(0)}: {last_words(process)}")
    with open(file, encoding="ascii") as stream:
        uuid = stream.read().strip()
    pod = pods.bench.open_pod(uuid)
    if pod is None:
        raise Broken
    token = f"token-{secrets.token_hex(8)}"
    trial = Trial(uuid, process, pod, token, None)
    ready = trial.is_running and status.is_ready(pod)
    pods.report.hold("live.sandbox", ready, "it does not say that it is ready")
    if not ready:
        pods.finish(trial)
        raise Broken
    return trial


def _check_app(pods: Pods, trial: Trial) -> None:
    bench = pods.bench
    added = bench.run("app", "add", trial.uuid, pods.app_id, f"--name={_APP}", "--", "stay", trial.token)
    pods.require("live.add", added.wait(0) == 0, _said(added))
    made = trial.status_file(f"{_APP}-created")
    pods.report.hold("live.add", made is not None, "there is no rkt/status/APP-created")
    for _ in range(2):
        started = bench.run("app", "start", trial.uuid, f"--app={_APP}")
        pods.require("live.start", started.wait(0) == 0, _said(started))
    bench.wait_for(lambda: trial.is_up(_APP))
    pods.require("live.start", trial.is_up(_APP), "the app did not come up in time")
    made = trial.status_file(f"{_APP}-started")
    pods.report.hold("live.start", made is not None, "there is no rkt/status/APP-started")
    running = bench.processes_of(trial.token)
    pods.report.hold("live.start", len(running) < 2, f"it runs more than once: {running}")
    if pods.subject.program.has(contract.ANNOTATION_APP_UPDATE):
        updated = bench.run("update", trial.uuid, f"--app={_APP}", "--memory=64M")
        pods.report.hold("live.update", updated.wait(0) == 0, _said(updated))
    else:
        pods.report.absent("live.update", why="no app/update")
    stopped = bench.run("app", "stop", trial.uuid, f"--app={_APP}")
    pods.require("live.stop", stopped.wait(0) == 0, _said(stopped))
    left = bench.processes_of(trial.token)
    pods.report.hold("live.stop", not left, f"processes of the app go on: {left}")
    in_time = trial.read("stopped", _APP).count("stopped") == 1
    pods.report.hold("live.stop", in_time, "the app was ended before it could end by itself")
    text = trial.status_file(_APP)
    pods.report.hold("live.stop", text == f"{app.STOPPED}\n", f"rkt/status/APP is {text!r}")
    again = bench.run("app", "stop", trial.uuid, f"--app={_APP}")
    pods.report.hold("live.stopped", "is not running" in again.stderr, _said(again))
    started = bench.run("app", "start", trial.uuid, f"--app={_APP}")
    if pods.report.hold("live.again", started.wait(0) == 0, _said(started)):
        bench.wait_for(lambda: bool(bench.processes_of(trial.token)))
        pods.report.hold("live.again", bool(bench.processes_of(trial.token)), "it does not run")
        pods.report.hold(
            "live.again", trial.status_file(_APP) is None, "rkt/status/APP is that of the time before"
        )
    removed = bench.run("app", "rm", trial.uuid, f"--app={_APP}")
    pods.require("live.rm", removed.wait(0) == 0, _said(removed))
    left_files = [name for name in ("", "-created", "-started") if trial.status_file(_APP + name) is not None]
    pods.report.hold("live.rm", not left_files, f"left: {', '.join('APP' + name for name in left_files)}")


def _said(process: Process) -> str:
    return f"status {process.wait(0)}: {last_words(process)}"
