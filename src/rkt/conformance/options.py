# SPDX-License-Identifier: Apache-2.0
"""What a stage1 says by further annotations that it can do, as far as that can be tried without a network."""

from __future__ import annotations

from rkt.conformance.pods import APP
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.conformance.pods import Pods


def check_options(pods: Pods) -> None:
    """Restart policies and limits of logs."""
    program = pods.subject.program
    if program.has(contract.ANNOTATION_RESTARTS):
        _check_restart(pods)
    else:
        pods.report.absent("options.restart", why="no restart-policy")
    if program.has(contract.ANNOTATION_LOGS):
        _check_logs(pods)
    else:
        pods.report.absent("options.logs", why="no log-options")


def _check_restart(pods: Pods) -> None:
    trial = pods.begin("again", flags=("--restart=on-failure",), promise="options.restart", up=False)
    path = f"appsinfo/{APP}/{contract.RESTARTS}"
    pods.bench.wait_for(lambda: (trial.is_running and trial.pod.has(path)) or not trial.process.is_alive)
    text = trial.pod.read(path) if trial.pod.refresh() else None
    pods.report.hold("options.restart", text == b"1 3\n", f"{path} is {text!r}: {trial.said()}")
    pods.bench.wait_for(lambda: bool(pods.bench.processes_of("sleep")) and trial.is_running)
    pods.report.hold("options.restart", trial.is_running, f"the pod ended: {trial.said()}")
    pods.finish(trial)


def _check_logs(pods: Pods) -> None:
    flags = ("--log-size=64Ki", "--log-files=2")
    trial = pods.begin("fill", flags=flags, promise="options.logs", up=False)
    older = f"{contract.LOGS}/{APP}.log.1"
    pods.bench.wait_for(lambda: (trial.is_running and trial.pod.has(older)) or not trial.process.is_alive)
    pods.report.hold("options.logs", trial.pod.has(older), f"no {older}: {trial.said()}")
    pods.finish(trial)
