# SPDX-License-Identifier: Apache-2.0
"""``rkt events``: what happened to pods, told from their directories."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods("supervision")]

INSECURE = "--insecure-options=image"
HOG = "x=0123456789abcdef; while true; do x=$x$x; done"


def parsed(text: str) -> list[dict[str, Any]]:
    """Whole lines of JSON."""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def kinds(found: list[dict[str, Any]]) -> list[str]:
    """What happened, with app and status where there are any."""
    return [" ".join(str(e[k]) for k in ("event", "app", "status") if k in e) for e in found]


def test_history_is_told_from_disk(rkt: Rkt, images: Images) -> None:
    """Without a process that records anything, a pod's creation, start, statuses, lack of memory and end are told in order, with times."""
    key = fetch(rkt, images.busybox())
    rkt.run(
        *("run", INSECURE, "--name=shop"),
        *(key, "--name=hog", "--memory=16Mi", "--exec=/bin/sh", "--", "-c", HOG, "---"),
    )
    found = parsed(rkt.run("events", "--format=json", check=0).stdout)
    assert kinds(found) == ["created", "started", "oom hog", "app-exited hog 137", "exited 137"]
    assert {e["pod_name"] for e in found} == {"shop"}
    assert [e["time"] for e in found] == sorted(e["time"] for e in found)
    # With version 2 cgroups the kernel counts the process twice if it is still there when its group is killed with it.
    assert re.search(r"^oom-kills-hog=[12]$", rkt.run("status", "shop", check=0).stdout, re.MULTILINE)
    listed = json.loads(rkt.run("list", "--format=json", check=0).stdout)
    assert listed[0]["apps"][0]["oom_kills"] in {1, 2}
    text = rkt.run("events", check=0).lines
    assert len(text) == 5
    assert text[-1].endswith(f"{found[0]['uuid']} exited name=shop status=137")
    prepared = rkt.run("prepare", INSECURE, key, check=0).stdout.strip()
    assert kinds(
        [e for e in parsed(rkt.run("events", "--format=json", check=0).stdout) if e["uuid"] == prepared]
    ) == [
        "created",
        "prepared",
    ]


def test_follow(rkt: Rkt, images: Images) -> None:
    """Following tells each event of a pod once when it happens, a killed supervisor's too, up to its removal; an interrupt ends it with success."""
    key = fetch(rkt, images.busybox())
    sleep = (key, "--name=app", "--exec=/bin/sleep", "--", "100", "---")
    with rkt.popen("events", "--follow", "--format=json") as following:

        def told(uuid: str) -> list[str]:
            return kinds([e for e in parsed(following.stdout_text) if e["uuid"] == uuid])

        running = rkt.popen("run", INSECURE, *sleep)
        first = rkt.wait_for_pod()
        wait_for(lambda: told(first) == ["created", "started"], "the start of the pod")
        rkt.run("stop", first, check=0)
        running.wait(20)
        wait_for(lambda: told(first)[2:] == ["app-exited app 0", "exited 0"], "the end of the pod")
        rkt.run("gc", "--grace-period=0", check=0)
        wait_for(lambda: told(first)[-1] == "removed", "the removal")
        running = rkt.popen("run", INSECURE, *sleep)
        second = rkt.wait_for_pod()
        wait_for(lambda: told(second) == ["created", "started"], "the start of the second pod")
        running.kill()
        wait_for(lambda: told(second)[-1].startswith("exited"), "its end")
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 0
        assert len(told(first)) == len(set(told(first)))
        assert following.stderr_text == ""
