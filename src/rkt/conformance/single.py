# SPDX-License-Identifier: Apache-2.0
"""Pods of one app: how they come up, are entered, end, start again and are collected."""

from __future__ import annotations

import os
import signal

from rkt.conformance import app
from rkt.conformance.bench import CALLERS
from rkt.conformance.pods import APP, ODD_WORDS, Broken, last_words
from rkt.stage0 import contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.conformance.pods import Pods, Trial

_VARIABLE = "RKT_STAGE1_CHECK_OWN=of the app"
_LIMIT_BYTES = 1 << 16
#: Lines of /proc/PID/status in which a command that was entered may not exceed the app.
_RIGHTS = ("CapEff:", "CapPrm:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:", "Uid:", "Gid:")
#: Argument of run -> the version since which it is passed, and the flag of ``rkt run`` that makes it.
_ARGUMENTS = (
    ("--hostname", 2, "--hostname=rkt-stage1-check"),
    ("--dns-conf-mode", 4, "--dns=192.0.2.1"),
    ("--ipc", 6, "--ipc=private"),
)


def check_life(pods: Pods) -> None:
    """From the start over ``enter``, ``stop`` and another start to SIGTERM and ``gc``."""
    trial = pods.begin("stay", *ODD_WORDS, flags=(f"--environment={_VARIABLE}",), watched=True)
    _check_files(pods, trial)
    _check_app(pods, trial)
    if pods.wants("enter"):
        _check_enter(pods, trial)
    if pods.wants("stop", "start", "signal", "gc"):
        _check_stop(pods, trial)
        _check_again(pods, trial)
        _check_gc(pods, trial, "gc.status", "gc.twice")
    else:
        pods.finish(trial)


def _check_files(pods: Pods, trial: Trial) -> None:
    report, pod, process = pods.report, trial.pod, trial.process
    report.hold("run.process", process.is_alive, "it ended while the pod goes on")
    names = trial.watch.names() if trial.watch else []
    given = [name for name in (contract.PID, contract.PPID) if pod.has(name)]
    if report.hold("run.pid", len(given) == 1, f"there are {' and '.join(given) or 'neither'}"):
        text = (pod.read(given[0]) or b"").decode(errors="replace")
        number = text.removesuffix("\n")
        is_own = number.isdecimal() and (int(number) == process.pid or process.pid in _parents(int(number)))
        report.hold("run.pid", is_own, f"{given[0]} is {text!r}, the pod's process {process.pid}")
        if given[0] == contract.PPID and number.isdecimal():
            children = _read(f"/proc/{number}/task/{number}/children").split()
            report.hold("run.pid", len(children) == 1, f"process {number} has {len(children)} children")
    if pod.has(contract.SUBCGROUP):
        last = max((i for i, name in enumerate(names) if name == contract.SUBCGROUP), default=-1)
        first = min((i for i, name in enumerate(names) if name in given), default=len(names))
        report.hold("run.pid-last", last < first, "subcgroup was written after it")
        path = (pod.read_text(contract.SUBCGROUP) or "").split("\n", 1)[0].strip("/")
        report.hold("run.cgroup", bool(path) and _is_cgroup(path), f"there is no cgroup {path!r}")
    else:
        report.hold("run.pid-last", True, "")
        report.absent("run.cgroup", why="no subcgroup")
    target = trial.supervisor_status()
    if not target:
        pods.bench.wait_for(lambda: bool(trial.supervisor_status()))
        target = trial.supervisor_status()
    report.hold("run.ready", target == "ready", f"it leads to {target!r}" if target else "there is none")
    report.hold("run.lock", trial.is_running, "the pod directory is not locked")


def _check_app(pods: Pods, trial: Trial) -> None:
    report = pods.report
    lines = trial.read(app.REPORT).splitlines()
    report.hold("app.root", bool(lines), "what the app wrote is not there")
    wanted = ["stay", *ODD_WORDS, trial.token]
    found = _arguments(lines)
    report.hold("app.arguments", found == wanted, f"{found} instead of {wanted}")
    variables = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("arg "))
    problems = []
    own, _, value = _VARIABLE.partition("=")
    if variables.get(own) != value:
        problems.append("its own variable is missing")
    if variables.get("AC_APP_NAME") != APP:
        problems.append(f"AC_APP_NAME is {variables.get('AC_APP_NAME')!r}")
    if variables.get("PATH") != contract.DEFAULT_ENVIRONMENT["PATH"]:
        problems.append(f"PATH is {variables.get('PATH')!r}")
    problems += [f"{name} reaches it" for name in (CALLERS, contract.ENV_LOCK_FD) if name in variables]
    report.hold("app.environment", not problems, ", ".join(problems))
    leaked = []
    for pid in pods.bench.processes_of(trial.token):
        try:
            links = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        except OSError:
            continue
        if "statuses" in pods.without:
            # The process has become the app, so the lock is where it must be.
            links = {fd: link for fd, link in links.items() if link != trial.pod.path}
        # A shell keeps its script open.
        leaked += [
            f"{fd}: {link}" for fd, link in links.items() if int(fd) > 2 and not link.endswith("/check")
        ]
    report.hold("app.descriptors", not leaked, ", ".join(leaked))
    pods.bench.wait_for(lambda: app.HELLO in trial.process.stdout)
    report.hold("app.output", app.HELLO in trial.process.stdout, f"{trial.process.stdout[-200:]!r}")


def _check_enter(pods: Pods, trial: Trial) -> None:
    report = pods.report
    if not pods.subject.program.has(contract.ANNOTATION_ENTER):
        names = ("enter.status", "enter.arguments", "enter.root", "enter.streams", "enter.confined")
        report.absent(*names, why="no enter")
        return
    words = ["inside", *ODD_WORDS]
    entered = pods.bench.run("enter", trial.uuid, "/check", "entered", *words, stdin=b"through the streams\n")
    said = last_words(entered)
    code = entered.wait(0)
    report.hold("enter.status", code == 9, f"{code} instead of 9: {said}")
    lines = trial.read("entered").splitlines()
    found = _arguments(lines)
    report.hold("enter.arguments", found == words, f"{found} instead of {words}")
    report.hold("enter.root", "sees the app" in entered.stdout, "a file that the app made is not there")
    report.hold("enter.streams", "through the streams" in entered.stdout, f"{entered.stdout[-200:]!r}")
    more = []
    mine, its = _rights(lines), _rights(trial.read(app.REPORT).splitlines())
    for name in _RIGHTS:
        if name.startswith("Cap"):
            exceeds = int(mine.get(name, "0"), 16) & ~int(its.get(name, "0"), 16)
        elif name in {"NoNewPrivs:", "Seccomp:"}:
            exceeds = mine.get(name, "0") < its.get(name, "0")
        else:
            exceeds = mine.get(name) != its.get(name)
        if exceeds:
            more.append(f"{name} {mine.get(name)} instead of {its.get(name)}")
    if not mine:
        more.append("the command left no word of its rights")
    report.hold("enter.confined", not more, ", ".join(more))


def _check_stop(pods: Pods, trial: Trial) -> None:
    report = pods.report
    if not pods.subject.program.has(contract.ANNOTATION_STOP):
        report.absent("stop.status", why="no stop")
        trial.process.send(signal.SIGTERM)
        pods.ended(trial)
    else:
        asked = pods.bench.run("stop", trial.uuid)
        ended = pods.ended(trial)
        code = asked.wait(0)
        report.hold("stop.status", code == 0, f"{code}: {asked.stderr.strip()}")
        report.hold("stop.status", ended is not None, "the pod goes on")
    if not trial.process.is_alive:
        _check_time(pods, trial, "stop.time", 1)
    if trial.is_running or trial.process.is_alive:
        pods.finish(trial)
        raise Broken


def _check_time(pods: Pods, trial: Trial, promise: str, times: int) -> None:
    pods.bench.wait_for(lambda: not pods.bench.processes_of(trial.token))
    stopped = trial.read("stopped").count("stopped")
    pods.report.hold(promise, stopped == times, "the app was ended before it could end by itself")
    left = pods.bench.processes_of(trial.token)
    pods.report.hold(promise, not left, f"processes of the pod go on: {left}")


def _check_again(pods: Pods, trial: Trial) -> None:
    report = pods.report
    trial.forget(app.REPORT)
    trial.process = pods.bench.start("start", trial.uuid)
    pods.wait_up(trial, "start.again")
    report.hold("start.again", trial.status_file() is None, "rkt/status/APP is that of the run before")
    trial.process.send(signal.SIGTERM)
    code = pods.ended(trial)
    report.hold("signal.term", code is not None, "the pod goes on")
    if code is None:
        pods.finish(trial)
        raise Broken
    _check_time(pods, trial, "signal.term", 2)
    report.hold("signal.term", code == app.STOPPED, f"its status is {code}, the app's {app.STOPPED}")


def _check_gc(pods: Pods, trial: Trial, *promises: str) -> None:
    """Call ``gc`` of a pod that is over as often as there are promises."""
    for promise in promises:
        done = pods.bench.call(lambda: _take_back(pods, trial))
        said = done.stderr.strip()
        pods.report.hold(promise, done.wait(0) == 0 and not said, said or f"status {done.wait(0)}")


def _take_back(pods: Pods, trial: Trial) -> int:
    """In a child: what ``rkt gc`` does before it deletes a pod."""
    from rkt.stage0.gc import take_back, try_lock

    with pods.bench.open_pod(trial.uuid) or trial.pod as pod:
        if not try_lock(pod):
            os.write(2, b"the pod is locked")
            return 1
        problems = take_back(pods.bench.settings.replace(command="gc"), pod)
    os.write(2, "; ".join(problems).encode())
    return 1 if problems else 0


def check_ends(pods: Pods) -> None:
    """Exit statuses of apps that end by themselves."""
    report = pods.report
    first = pods.run("exit", "0")
    code = first.process.wait(0)
    report.hold("status.zero", code == 0, f"{code}: {first.said()}")
    failing = pods.run("exit", "5")
    code = failing.process.wait(0)
    report.hold("status.app", code == 5, f"{code} instead of 5: {failing.said()}")
    text = failing.status_file()
    if "statuses" in pods.without:
        report.absent("status.file", why="not enforced: statuses")
    else:
        report.hold("status.file", text == "5\n", "there is none" if text is None else f"{text!r}")
    killed = pods.run("signal", "KILL")
    code, text = killed.process.wait(0), killed.status_file()
    if "statuses" in pods.without:
        # The process is the app, and for whoever waits for it a signal ended it.
        report.hold("status.signal", code == -signal.SIGKILL, f"{code}: {killed.said()}")
    else:
        report.hold("status.signal", code == 137, f"{code} instead of 137: {killed.said()}")
        report.hold("status.signal", text == "137\n", f"rkt/status/APP is {text!r}")
    _check_several(pods)


def _check_several(pods: Pods) -> None:
    if "several-apps" in pods.without:
        pods.report.absent("status.several", why="not enforced: several-apps")
        return
    trial = pods.run_two(["stay"], ["exit", "5"], "status.several")
    code = trial.process.wait(0)
    pods.report.hold("status.several", code == 5, f"{code} instead of 5: {trial.said()}")
    left = pods.bench.processes_of(trial.token)
    pods.report.hold("status.several", not left, f"processes of the pod go on: {left}")


def check_versions(pods: Pods) -> None:
    """All arguments that the interface version has, at once; of those that it has not rkt tells."""
    version = pods.subject.program.interface_version
    arguments = [each for each in _ARGUMENTS if each[0].lstrip("-") not in pods.without]
    trial = pods.run("exit", "0", run_flags=tuple(flag for _, _, flag in arguments))
    code, told = trial.process.wait(0), trial.process.stderr
    problems = [] if code == 0 else [f"the pod ended with {code}: {trial.said()}"]
    for name, since, _ in arguments:
        warned = f"{name} option is not supported by stage1" in told
        if warned != (version < since):
            problems.append(f"{name} was {'left out' if warned else 'passed'} at version {version}")
    pods.report.hold("run.arguments", not problems, "; ".join(problems))


def check_force(pods: Pods) -> None:
    """An app that does not listen."""
    if not pods.subject.program.has(contract.ANNOTATION_STOP):
        pods.report.absent("stop.force", why="no stop")
        return
    trial = pods.begin("stubborn")
    asked = pods.bench.run("stop", "--force", trial.uuid)
    code, ended = asked.wait(0), pods.ended(trial)
    pods.bench.wait_for(lambda: not pods.bench.processes_of(trial.token))
    left = pods.bench.processes_of(trial.token)
    pods.report.hold("stop.force", code == 0, f"{code}: {asked.stderr.strip()}")
    pods.report.hold("stop.force", ended is not None and not left, f"goes on: {left or 'the pod'}")
    pods.finish(trial)


def check_kill(pods: Pods) -> None:
    """SIGKILL of the process that is the pod."""
    trial = pods.begin("stubborn")
    trial.process.send(signal.SIGKILL)
    trial.process.wait(pods.bench.seconds)
    if "processes" not in pods.without:
        pods.bench.wait_for(lambda: not pods.bench.processes_of(trial.token) and not trial.is_running)
    left = pods.bench.processes_of(trial.token)
    if "processes" in pods.without:
        pods.report.absent("signal.kill", why="not enforced: processes")
        pods.bench.run("stop", "--force", trial.uuid)
        pods.bench.wait_for(lambda: not trial.is_running)
    else:
        pods.report.hold("signal.kill", not left, f"processes go on: {left}")
        pods.report.hold("signal.kill", not trial.is_running, "the pod directory stays locked")
    if not trial.is_running:
        _check_gc(pods, trial, "gc.killed")


def _parents(pid: int) -> list[int]:
    """Processes from which one descends, the nearest first."""
    found: list[int] = []
    while pid > 1:
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(fields) < 2:
            break
        pid = int(fields[1])
        found.append(pid)
    return found


def _is_cgroup(path: str) -> bool:
    places = ["/sys/fs/cgroup", *(f"/sys/fs/cgroup/{name}" for name in _names("/sys/fs/cgroup"))]
    return any(os.path.isdir(f"{place}/{path}") for place in places)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(_LIMIT_BYTES)
    except OSError:
        return ""


def _arguments(lines: list[str]) -> list[str]:
    return [line[5:-1] for line in lines if line.startswith("arg [") and line.endswith("]")]


def _rights(lines: list[str]) -> dict[str, str]:
    words = [line.split() for line in lines if line.startswith("status ")]
    return {each[1]: " ".join(each[2:]) for each in words if len(each) > 2 and each[1] in _RIGHTS}
