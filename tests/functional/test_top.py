# SPDX-License-Identifier: Apache-2.0
"""``rkt top``: processes of running pods, read from the host's side (invariant EN2)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

INSECURE = "--insecure-options=image"
#: A process whose arguments clear the screen, end the line, and are no text.
HOSTILE = "(exec sh -c 'while sleep 1; do :; done' \"$(printf 'a\\033[2J\\nb\\200')\") & wait"


@pytest.fixture(
    scope="module",
    params=[(), pytest.param(("--private-users",), marks=pods("user namespaces"))],
    ids=["plain", "private-users"],
)
def pod(module_rkt: Rkt, images: Images, request: pytest.FixtureRequest) -> Iterator[str]:
    """A pod of two apps, both with processes."""
    key = fetch(module_rkt, images.busybox())
    words = (
        *(key, "--name=one", "--exec=/bin/sh", "--", "-c", HOSTILE, "---"),
        *(key, "--name=two", "--user=1000", "--exec=/bin/sleep", "--", "100", "---"),
    )
    process = module_rkt.popen("run", INSECURE, *request.param, *words)
    uuid = module_rkt.wait_for_pod()
    wait_for(lambda: len(top(module_rkt, uuid)) >= 5, "the processes of the pod")
    yield uuid
    module_rkt.run("stop", "--force", uuid, check=0)
    process.wait(20)
    module_rkt.run("gc", "--grace-period=0", check=0)


def top(rkt: Rkt, *words: str) -> list[dict[str, Any]]:
    """What JSON says."""
    found: list[dict[str, Any]] = json.loads(rkt.run("top", "--format=json", *words, check=0).stdout)
    return found


@pods("several apps")
def test_every_process_is_shown_with_its_app(module_rkt: Rkt, pod: str) -> None:
    """Each process of the pod is there once with app, numbers on the host and in the pod, user, time and memory as /proc has them."""
    found = top(module_rkt, pod)
    assert [p["app"] for p in found] == sorted((p["app"] for p in found), key=["", "one", "two"].index)
    assert (module_rkt.pid(pod), 1) in [(p["pid"], p["pod_pid"]) for p in found if not p["app"]]
    assert all(p["pod_uid"] >= 0 for p in found)
    (two,) = [p for p in found if p["app"] == "two"]
    assert (two["command"], two["pod_uid"], two["threads"]) == ("/bin/sleep 100", 1000, 1)
    assert os.stat(f"/proc/{two['pid']}").st_uid == two["uid"]
    with open(f"/proc/{two['pid']}/comm", encoding="ascii") as file:
        assert file.read() == f"{two['comm']}\n"
    assert two["rss_bytes"] > 0
    assert two["started_at"] > 1_600_000_000 * 10**9


@pods("several apps")
def test_what_processes_call_themselves_is_escaped(module_rkt: Rkt, pod: str) -> None:
    """Control characters and bytes that are no text reach neither the table nor JSON as they are; a process is one line."""
    table = module_rkt.run("top", pod, check=0).stdout
    assert "\x1b" not in table
    assert "a\\x1b[2J\\nb\\x80" in table
    assert len(table.splitlines()) >= 6
    assert all(len(line.split("\t")) > 8 for line in table.splitlines())
    assert any("a\\x1b[2J\\nb\\x80" in p["command"] for p in top(module_rkt, pod))


@pods("several apps")
def test_one_app(module_rkt: Rkt, pod: str) -> None:
    """With the name of an app only its processes are listed; another name is refused with those there are."""
    assert {p["app"] for p in top(module_rkt, pod, "two")} == {"two"}
    refused = module_rkt.run("top", pod, "three", check=254)
    assert 'no app "three"' in refused.stderr
    assert "hint: apps: one, two" in refused.stderr


def test_a_pod_that_does_not_run_has_no_processes(rkt: Rkt, images: Images) -> None:
    """A prepared pod is refused with its state to look at."""
    uuid = rkt.run("prepare", INSECURE, images.busybox(), check=0).stdout.strip()
    refused = rkt.run("top", uuid, check=254)
    assert f'pod "{uuid}" is not running' in refused.stderr
    assert "hint: rkt status" in refused.stderr
