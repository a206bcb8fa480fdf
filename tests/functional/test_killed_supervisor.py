# SPDX-License-Identifier: Apache-2.0
"""A supervisor that is killed by SIGKILL: its apps die with it, what is said of the pod is true, and gc leaves nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rkt.linux import cgroupfs
from tests.lib.flavors import pods
from tests.lib.inspect import INSECURE, inspect_image, shell_app, stored
from tests.lib.old_host import hide_version_2
from tests.lib.rkt import Rkt, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lib.images import Images
    from tests.lib.rkt import Running

pytestmark = [pytest.mark.root, pods("supervision")]

SLEEP = "sleep 300 & wait"
#: Kind of pod -> flags of run, apps that run when the supervisor dies, exit statuses of those that have ended before.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], dict[str, int]]] = {
    "one app": ((), ("app",), {}),
    "no overlay": (("--no-overlay",), ("app",), {}),
    "several apps": ((), ("app", "second"), {"done": 0}),
    "private users": (("--private-users",), ("app", "second"), {}),
    "paused": ((), ("app",), {}),
    "sandbox": ((), ("app",), {"done": 0, "failed": 12}),
    "empty sandbox": ((), (), {}),
}


def start(rkt: Rkt, images: Images, kind: str) -> tuple[Running, str]:
    """A pod of that kind in which everything is as ``KINDS`` says."""
    flags, running, ended = KINDS[kind]
    image = stored(rkt, inspect_image(images))
    scripts = dict.fromkeys(running, SLEEP) | {name: f"exit {code}" for name, code in ended.items()}
    if "sandbox" in kind:
        process = rkt.popen("app", "sandbox", INSECURE, *flags)
        uuid = rkt.wait_for_pod()
        for name, script in scripts.items():
            words = (f"--name={name}", "--exec=/bin/sh", "--", "-c", script)
            rkt.run("app", "add", INSECURE, uuid, image, *words, check=0)
            rkt.run("app", "start", uuid, f"--app={name}", check=0)
    else:
        words_of_all = [word for name, script in scripts.items() for word in shell_app(image, name, script)]
        process = rkt.popen("run", INSECURE, *flags, *words_of_all)
        uuid = rkt.wait_for_pod()

    def is_so() -> bool:
        apps = json.loads(rkt.run("status", "--format=json", uuid, check=0).stdout).get("apps", [])
        return {app["name"]: app["exit_code"] for app in apps if "exit_code" in app} == ended

    wait_for(is_so, "end of the apps that end")
    wait_for(lambda: processes(rkt, uuid) == 2 * len(running) or None, "processes of the others")
    if kind == "paused":
        if cgroupfs.detect().unified is None:
            pytest.skip("the host has no cgroup hierarchy of version 2")
        rkt.run("pause", uuid, check=0)
    return process, uuid


def processes(rkt: Rkt, uuid: str) -> int:
    """How many processes the pod's apps have."""
    found = json.loads(rkt.run("top", "--format=json", uuid, check=0).stdout)
    return sum(bool(each["app"]) for each in found)


def is_alive(pid: int) -> bool:
    """Whether a process runs and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(rkt: Rkt, process: Running, uuid: str) -> None:
    """Kill the supervisor; returns when nothing of the pod runs."""
    top = json.loads(rkt.run("top", "--format=json", uuid, check=0).stdout)
    process.kill()
    assert process.wait(20) == -9
    wait_for(lambda: not any(is_alive(each["pid"]) for each in top), "end of all processes")


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_said_of_the_pod(rkt: Rkt, images: Images, kind: str) -> None:
    """Every process dies with the supervisor; the pod is over and killed, no app that ran gets an exit status; gc leaves nothing (runtime L9, rkt#2384)."""
    process, uuid = start(rkt, images, kind)
    _, running, ended = KINDS[kind]
    kill(rkt, process, uuid)
    lines = rkt.run("status", uuid, check=0).lines
    assert lines[0] == "state=exited"
    assert lines[-2 - len(ended) :][:2] == ["exited=true", "killed=true"]
    assert sorted(lines[-len(ended) :] if ended else []) == sorted(f"app-{a}={c}" for a, c in ended.items())
    (pod,) = json.loads(rkt.run("list", "--format=json", check=0).stdout)
    assert pod["killed"] is True
    assert "paused" not in pod
    assert {app["name"]: app.get("exit_code") for app in pod.get("apps", [])} == {
        **dict.fromkeys(running),
        **ended,
    }
    assert all(app["state"] == "exited" for app in pod.get("apps", []))
    assert "\texited\t" in rkt.run("list", check=0).lines[1]
    code = next((code for code in ended.values() if code), 254)
    assert rkt.run("wait", uuid, check=code).stdout == f"{code}\n"
    assert "already stopped" in rkt.run("stop", uuid, check=0).stdout
    assert f'pod "{uuid}" is not running' in rkt.run("top", uuid, check=254).stderr
    assert rkt.run("enter", uuid, "/bin/true", check=254).stdout == ""
    events = [json.loads(line) for line in rkt.run("events", "--format=json", check=0).lines]
    assert events[-1]["event"] == "exited"
    assert events[-1].get("status", 254) == code
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.pods() == {}
    assert rkt.leaks() == []


@pytest.mark.parametrize("kind", ["several apps", "private users", "sandbox"])
def test_it_can_be_started_again(rkt: Rkt, images: Images, kind: str) -> None:
    """A pod whose supervisor was killed starts again as any other that is over, at once, and is not killed any more."""
    process, uuid = start(rkt, images, kind)
    process.kill()
    process.wait(20)
    again = rkt.popen("start", uuid)
    count = 0 if kind == "sandbox" else 2 * len(KINDS[kind][1])
    wait_for(lambda: "state=running" in rkt.run("status", uuid).lines, "the pod")
    rkt.run("wait", "--ready", uuid, check=0)
    wait_for(lambda: processes(rkt, uuid) == count or None, "its processes")
    assert "killed" not in rkt.run("status", uuid, check=0).stdout
    rkt.run("stop", uuid, check=0)
    again.wait(20)
    assert "killed" not in rkt.run("status", uuid, check=0).stdout


def test_a_pod_that_ends_was_not_killed(rkt: Rkt, images: Images) -> None:
    """Whoever ends by itself, by a failing app, by stop or by SIGTERM is not said to be killed; by stop --force it is."""
    image = stored(rkt, inspect_image(images))
    endings: dict[str, tuple[str, Callable[[Running, str], object], bool]] = {
        "by itself": ("exit 0", lambda _p, _u: None, False),
        "failing": ("exit 3", lambda _p, _u: None, False),
        "stop": (SLEEP, lambda _p, uuid: rkt.run("stop", uuid, check=0), False),
        "signal": (SLEEP, lambda process, _u: process.terminate(), False),
        "force": (SLEEP, lambda _p, uuid: rkt.run("stop", "--force", uuid, check=0), True),
    }
    for name, (script, end, killed) in endings.items():
        process = rkt.popen("run", INSECURE, *shell_app(image, "app", script))
        uuid = rkt.wait_for_pod()
        end(process, uuid)
        process.wait(20)
        shown = rkt.run("status", uuid, check=0).stdout
        assert ("killed=true" in shown) == killed, (name, shown)
        rkt.run("rm", uuid, check=0)


# Hosts with version 1 alone --------------------------------------------------------------------------------------------


@pytest.fixture
def old_rkt(rkt: Rkt) -> Rkt:
    """An engine to which the host's cgroup hierarchy of version 2 does not exist."""
    hide_version_2(rkt)
    return rkt


@pytest.mark.parametrize("way", ["unpause", "stop", "force", "signal", "kill", "start"])
def test_the_freezer_of_version_1(old_rkt: Rkt, images: Images, way: str) -> None:
    """Without version 2 pods are paused by the freezer of version 1; they go on, stop, and even killed ones are collected."""
    rkt = old_rkt
    image = stored(rkt, inspect_image(images))
    count = "trap 'exit 7' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done"
    process = rkt.popen("run", INSECURE, *shell_app(image, "app", count))
    uuid = rkt.wait_for_pod()

    def lines() -> int:
        return rkt.log(uuid, "app").count("\n")

    wait_for(lambda: lines() > 2, "output")
    assert rkt.run("pause", uuid, check=0).stdout == f'"{uuid}"\n'
    before = lines()
    assert rkt.run("status", uuid, check=0).lines[:2] == ["state=running", "paused=true"]
    (head, row) = (line.rstrip("\t").split("\t") for line in rkt.run("list", check=0).lines)
    assert (head[-1], row[-1]) == ("PAUSED", "yes")
    assert row[3:][0].strip() or "running" in row
    assert lines() - before <= 1
    if way == "unpause":
        rkt.run("unpause", uuid, check=0)
        wait_for(lambda: lines() > before + 2, "more output")
        assert "PAUSED" not in rkt.run("list", check=0).stdout
        return
    if way in {"stop", "force"}:
        rkt.run("stop", *(["--force"] if way == "force" else []), uuid, check=0)
    elif way == "signal":
        process.terminate()
    else:
        process.kill()
    assert process.wait(20) == (7 if way in {"stop", "signal"} else -9)
    if way == "start":
        again = rkt.popen("start", uuid)
        wait_for(lambda: lines() > before + 5, "output of the next run")
        rkt.run("stop", uuid, check=0)
        assert again.wait(20) == 7
    rkt.run("gc", "--grace-period=0", check=0)
    assert rkt.pods() == {}
    assert rkt.leaks() == []
