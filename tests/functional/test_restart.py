# SPDX-License-Identifier: Apache-2.0
"""``--restart``: apps that are started again when they have ended, and what is said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib.flavors import pods
from tests.lib.inspect import INSECURE, inspect_image, shell_app, stored
from tests.lib.pace import SLOWNESS
from tests.lib.pods import APP, FLAGS, StubPods
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods("restart policies")]

#: So many restarts later the next pause is longer than a few commands take: a stop meets the app waiting.
SETTLED = 3 if SLOWNESS < 2 else 6
#: Fails so often, then succeeds; what it wrote stays from run to run.
FAIL_TWICE = "echo run >> /count; n=$(wc -l < /count); echo $n; [ $n -gt 2 ] || exit 4"


def app_of(rkt: Rkt, uuid: str) -> dict[str, Any]:
    """The first app in ``status --format=json``."""
    found: dict[str, Any] = json.loads(rkt.run("status", "--format=json", uuid, check=0).stdout)["apps"][0]
    return found


@pytest.mark.parametrize(
    ("way", "flags"),
    [
        ("run", ()),
        ("run", ("--private-users", "--volume=kept,kind=empty", "--mount=volume=kept,target=/kept")),
        ("run-prepared", ("--no-overlay",)),
    ],
    ids=["plain", "users", "prepared"],
)
def test_an_app_is_started_again(rkt: Rkt, images: Images, way: str, flags: tuple[str, ...]) -> None:
    """With on-failure an app runs until it succeeds, its files and log go on, and status, JSON and events count; a later start counts anew."""
    image = stored(rkt, inspect_image(images))
    handlers = [image, "--name=app", "--restart=on-failure:3", "--exec=/bin/sh", "--", "-c", FAIL_TWICE]
    if way == "run":
        output = rkt.run("run", INSECURE, *flags, *handlers, check=0).lines
    else:
        prepared = rkt.run("prepare", INSECURE, *flags, *handlers, check=0).stdout.strip()
        output = rkt.run("run-prepared", prepared, check=0).lines
    assert output == ["1", "2", "3"]
    (uuid,) = rkt.pods("run")
    app = app_of(rkt, uuid)
    assert (app["restart_policy"], app["restarts"], app["last_exit_code"], app["exit_code"]) == (
        "on-failure:3",
        2,
        4,
        0,
    )
    assert rkt.run("status", uuid, check=0).lines[-2:] == ["app-app=0", "restarts-app=2"]
    assert "restarts=2\n" in rkt.run("app", "status", uuid, "--app=app", check=0).stdout
    events = [json.loads(line) for line in rkt.run("events", "--format=json", check=0).lines]
    assert [(e["event"], e.get("status"), e.get("restarts")) for e in events[-3:]] == [
        ("restarting", 4, 2),
        ("app-exited", 0, None),
        ("exited", 0, None),
    ]
    assert "restarting" in rkt.run("events", check=0).stdout
    assert rkt.run("start", uuid, check=0).lines == ["4"]
    assert "restarts" not in app_of(rkt, uuid)
    assert rkt.run("logs", uuid, check=0).lines == ["1", "2", "3", "4"]


def test_the_pod_goes_on_and_can_be_entered(rkt: Rkt, images: Images) -> None:
    """An app that is always started again has a new process that enter finds, a limit that holds, and ends when the pod is stopped."""
    image = stored(rkt, inspect_image(images))
    flags = ("--restart=always", "--pids-limit=20", "--exec=/bin/sh")
    script = "echo run >> /count; [ $(wc -l < /count) -gt 2 ] || exit 0; trap 'exit 0' TERM; sleep 100 & wait"
    process = rkt.popen("run", INSECURE, image, "--name=app", *flags, "--", "-c", script)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: app_of(rkt, uuid).get("restarts") == 2, "two restarts")
    assert app_of(rkt, uuid)["state"] == "running"
    shown = wait_for(lambda: rkt.run("enter", uuid, "/bin/cat", "/count").lines or None, "an entrance")
    assert shown == ["run"] * 3
    pids = {
        each["pid"]
        for each in json.loads(rkt.run("top", "--format=json", uuid, check=0).stdout)
        if each["app"]
    }
    assert len(pids) == 2
    rkt.run("stop", uuid, check=0)
    assert process.wait(20) == 0
    assert app_of(rkt, uuid)["exit_code"] == 0


def test_a_stop_while_it_waits(rkt: Rkt, images: Images) -> None:
    """A pod whose only app waits to be started again is running, stops at once, and has the status of the app's last end."""
    image = stored(rkt, inspect_image(images))
    process = rkt.popen(
        "run", INSECURE, image, "--name=app", "--restart=always", "--exec=/bin/sh", "--", "-c", "exit 9"
    )
    uuid = rkt.wait_for_pod()
    wait_for(lambda: app_of(rkt, uuid).get("restarts", 0) > SETTLED, "some restarts")
    assert "state=running\n" in rkt.run("status", uuid, check=0).stdout
    rkt.run("stop", uuid, check=0)
    assert process.wait(5) == 9
    assert "app-app=9\n" in rkt.run("status", uuid, check=0).stdout


def test_apps_of_a_sandbox(rkt: Rkt, images: Images) -> None:
    """In a sandbox an app is started again until it is stopped, also while it waits; then app start begins anew, and rm leaves nothing."""
    image = stored(rkt, inspect_image(images))
    process = rkt.popen("app", "sandbox", INSECURE)
    uuid = rkt.wait_for_pod()

    def add(name: str, policy: str, script: str) -> None:
        words = (f"--name={name}", f"--restart={policy}", "--exec=/bin/sh", "--", "-c", script)
        rkt.run("app", "add", INSECURE, uuid, image, *words, check=0)
        rkt.run("app", "start", uuid, f"--app={name}", check=0)

    def app(name: str) -> dict[str, Any]:
        shown = rkt.run("app", "status", uuid, f"--app={name}", "--format=json", check=0).stdout
        found: dict[str, Any] = json.loads(shown)
        return found

    add("loop", "always", "exit 5")
    add("mends", "on-failure", FAIL_TWICE)
    add("fails", "on-failure:1", "exit 6")
    wait_for(lambda: app("mends").get("exit_code") == 0, "success")
    assert app("mends")["restarts"] == 2
    wait_for(lambda: app("fails").get("exit_code") == 6, "failure")
    assert app("fails")["restarts"] == 1
    wait_for(lambda: app("loop").get("restarts", 0) > SETTLED, "some restarts")
    assert app("loop")["state"] == "running"
    rkt.run("app", "stop", uuid, "--app=loop", check=0)
    assert (app("loop")["state"], app("loop")["exit_code"]) == ("exited", 5)
    assert "is not running" in rkt.run("app", "stop", uuid, "--app=loop", check=254).stderr
    rkt.run("app", "start", uuid, "--app=loop", check=0)
    wait_for(lambda: 0 < app("loop").get("restarts", 0) < 4, "a restart of the new start")
    rkt.run("app", "start", uuid, "--app=loop", check=0)
    for name in ("loop", "mends", "fails"):
        rkt.run("app", "rm", uuid, f"--app={name}", check=0)
    assert rkt.run("app", "list", "--no-legend", uuid, check=0).stdout == "\n"
    rkt.run("stop", uuid, check=0)
    assert process.wait(20) == 0


@pytest.mark.parametrize(
    "text", ["sometimes", "on-failure:", "on-failure:0", "on-failure:x", "always:3", "no:1", ""]
)
def test_policies_that_are_refused(rkt: Rkt, images: Images, text: str) -> None:
    """What is no policy is noticed before there is a pod, and the policies are named."""
    refused = rkt.run("prepare", INSECURE, images.busybox(), f"--restart={text}", check=254)
    assert "invalid value in --restart flag" in refused.stderr
    assert "hint: no, on-failure, on-failure:N or always\n" in refused.stderr
    assert rkt.pods() == {}


def test_who_cannot_have_a_policy(rkt: Rkt, images: Images) -> None:
    """An interactive app, one of a stage1 that knows no policies, and one of a pod manifest with nonsense are refused before there is a pod."""
    image = stored(rkt, inspect_image(images))
    words = shell_app(image, "app", "true", "--restart=always")
    refused = rkt.run("run", INSECURE, "--interactive", *words, check=254)
    assert "--interactive and --restart exclude each other" in refused.stderr
    StubPods(rkt)
    refused = rkt.run("prepare", *FLAGS, APP, "--restart=on-failure", check=254)
    assert "example.com/stage1-stub does not know" in refused.stderr
    refused = rkt.run(
        "prepare", INSECURE, image, "--annotation=coreos.com/rkt/restart-policy=never", check=254
    )
    assert 'invalid restart policy "never"' in refused.stderr
    assert rkt.pods() == {}
    rkt.run("prepare", *FLAGS, APP, "--restart=no", check=0)
