# SPDX-License-Identifier: Apache-2.0
"""What runs before and after an app (spec runtime §3.4, §6.1 R10, spec cli §10.8 R17)."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.inspect import INSECURE, by_app, inspect_image, shell_app
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import wait_for
from tests.lib.terminal import Operator

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods("event handlers")]


def handlers(images: Images, file: str, *, pre: str = "", post: str = "", **app: object) -> str:
    """An image of user 1000 with handlers that are shell scripts."""
    listed = [
        {"name": name, "exec": ["/bin/sh", "-c", script]}
        for name, script in (("pre-start", pre), ("post-stop", post))
        if script
    ]
    return inspect_image(
        images,
        f"handlers-{file}",
        name=f"example.com/{file}",
        app={"user": "1000", "group": "100", "eventHandlers": listed, **app},
    )


@pytest.mark.parametrize("flags", [(), ("--private-users",), ("--no-overlay",)], ids=" ".join)
def test_handlers_run_as_root_of_the_image_around_the_app(
    rkt: Rkt, images: Images, flags: tuple[str, ...]
) -> None:
    """Before an app of user 1000 and after it its handlers run as 0:0, in its root, volumes, environment and directory (runtime R10, cli R17)."""
    image = handlers(
        images,
        "around",
        pre="echo pre $(id -u):$(id -g) $(pwd) $AC_APP_NAME $VAR_FROM_MANIFEST; echo made | tee /v/x > /made",
        post="echo post $(id -u):$(id -g) $(cat /made) $(cat /tmp/by-app) $(cat /v/x)",
        workingDirectory="/dir1",
    )
    result = rkt.run(
        "run",
        INSECURE,
        *flags,
        "--volume=v,kind=empty",
        "--mount=volume=v,target=/v",
        image,
        "--",
        "-c",
        "echo app $(id -u):$(id -g) $(cat /made /v/x | wc -l); echo here > /tmp/by-app; exit 6",
        check=6,
    )
    assert result.lines == [
        "pre 0:0 /dir1 around manifest",
        "app 1000:100 2",
        "post 0:0 made here made",
    ]
    (uuid,) = rkt.pods("run")
    assert rkt.run("logs", uuid, check=0).lines == result.lines
    assert "app-around=6\n" in rkt.run("status", uuid, check=0).stdout


def test_handlers_are_as_confined_as_the_app(rkt: Rkt, images: Images) -> None:
    """A handler has the app's capabilities, filter, no_new_privs, namespaces, cgroup and masks, and no group of the host (design §9.4)."""
    look = (
        "{ grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; cat /proc/self/cgroup; tty; "
        "for n in pid net ipc uts; do readlink /proc/self/ns/$n; done; ls /proc/self/fd | wc -l; "
        "head -c1 /proc/kcore && echo read; umount /proc && echo gone; echo -; } 2> /dev/null"
    )
    image = handlers(images, "confined", pre=look, post=look, user="0", group="0")
    words = ("--caps-retain=CAP_CHOWN,CAP_NET_BIND_SERVICE", "--", "-c", look)
    result = rkt.run("run", INSECURE, image, *words, check=0)
    pre, app, post, rest = result.stdout.split("-\n")
    assert pre == app == post
    assert rest == ""
    for line in ("CapBnd:\t0000000000000401", "CapInh:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in app
    assert "read" not in app
    assert "gone" not in app


def test_an_app_whose_pre_start_handler_fails_does_not_start(rkt: Rkt, images: Images) -> None:
    """It counts as the app's failure, named on stderr: the pod ends with that status, other apps are stopped, post-stop still runs."""
    failing = handlers(images, "failing", pre="echo no; exit 7", post="echo cleaned")
    bystander = fetch(rkt, images.busybox())
    words = [
        *shell_app(bystander, "other", "trap 'echo stopped; exit 0' TERM; while :; do sleep 0.02; done"),
        *shell_app(failing, "failing", "echo started"),
    ]
    started = time.monotonic()
    result = rkt.run("run", INSECURE, *words, check=7)
    assert time.monotonic() - started < 9 * SLOWNESS
    assert by_app(result.stdout)["failing"] == "no\ncleaned\n"
    assert (
        "app 'failing': the pre-start handler ended with status 7, so the app is not started" in result.stderr
    )
    (uuid,) = rkt.pods("run")
    status = rkt.run("status", uuid, check=0).stdout
    assert "app-failing=7\n" in status
    assert "app-other=0\n" in status


def test_a_handler_that_is_not_there(rkt: Rkt, images: Images) -> None:
    """A missing program is named as an app's own is; after the app it changes nothing but is reported."""
    missing = ["/no-handler"]
    for name, status, message in (
        ("pre-start", 203, "the pre-start handler ended with status 203"),
        ("post-stop", 0, "the post-stop handler ended with status 203"),
    ):
        image = inspect_image(
            images,
            f"handlers-missing-{name}",
            app={"eventHandlers": [{"name": name, "exec": missing}]},
        )
        result = rkt.run("run", INSECURE, image, "--", "-c", "true", check=status)
        assert 'Error: Unable to open "/no-handler": No such file or directory' in result.stderr
        assert message in result.stderr


@pytest.mark.parametrize("names", [["pre-start", "pre-start"], ["at-night"], ["pre-start", ""]])
def test_handlers_that_make_no_sense_are_refused(rkt: Rkt, images: Images, names: list[str]) -> None:
    """A handler given twice, of an unknown name, or without a program is noticed before a pod exists."""
    listed = [{"name": name or "post-stop", "exec": ["/bin/true"] if name else []} for name in names]
    image = inspect_image(images, f"handlers-bad-{'-'.join(names)}", app={"eventHandlers": listed})
    result = rkt.run("run", INSECURE, image, "--", "-c", "true", check=254)
    assert "event handler" in result.stderr
    assert rkt.pods() == {}


def test_nothing_of_a_pre_start_handler_runs_beside_the_app(rkt: Rkt, images: Images) -> None:
    """What a handler leaves running is ended before the app starts, and the app may have processes of its own (R10)."""
    image = handlers(
        images, "orphan", pre="(trap '' TERM HUP; exec sleep 1000) > /dev/null 2>&1 & sleep 0.05; echo pre"
    )
    script = "for p in /proc/[0-9]*/comm; do cat $p; done; /bin/busybox id -u"
    result = rkt.run("run", INSECURE, image, "--", "-c", script, check=0)
    assert result.lines[0] == "pre"
    assert "sleep" not in result.lines
    assert result.lines[-1] == "1000"


def test_stopping_a_pod_runs_its_post_stop_handlers(rkt: Rkt, images: Images) -> None:
    """Stop waits for the handler, which may take its time but not forever; TERM does not reach it."""
    image = handlers(images, "stopped", pre="echo pre", post="sleep 0.3; echo cleaned", user="0", group="0")
    process = rkt.popen("run", INSECURE, image, "--", "-c", "echo up; exec sleep 1000")
    wait_for(lambda: "up\n" in process.stdout_text, "app")
    uuid = rkt.wait_for_pod()
    rkt.run("stop", uuid, check=0)
    assert process.wait(10) == 0
    assert process.stdout_text.splitlines() == ["pre", "up", "cleaned"]


def test_a_pod_can_be_stopped_while_a_handler_runs(rkt: Rkt, images: Images) -> None:
    """TERM ends a pre-start handler and the app is not started; a second one ends a post-stop handler that hangs."""
    image = handlers(images, "hanging", pre="echo pre; exec sleep 1000", post="echo post; exec sleep 1000")
    process = rkt.popen("run", INSECURE, image, "--", "-c", "echo up")
    wait_for(lambda: "pre\n" in process.stdout_text, "handler")
    uuid = rkt.wait_for_pod()
    refused = rkt.run("enter", uuid, "/bin/true", check=254)
    assert "is not running" in refused.stderr
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: "post\n" in process.stdout_text, "other handler")
    process.send_signal(signal.SIGTERM)
    assert process.wait(8) == 0
    assert process.stdout_text.splitlines() == ["pre", "post"]
    assert "the post-stop handler ended with status 137" in process.stderr_text


@pods("event handlers", "own terminals")
def test_handlers_of_an_app_with_a_terminal(rkt: Rkt, images: Images) -> None:
    """What the handlers around an interactive app say is on the operator's terminal."""
    image = handlers(images, "terminal", pre="echo before", post="echo after", user="0", group="0")
    operator = Operator(rkt, INSECURE, "run", "--interactive", image, "--", "-c", "echo during; exit 5")
    assert operator.status() == 5
    assert operator.shown.split()[-3:] == [b"before", b"during", b"after"]


def test_an_app_with_a_pre_start_handler_can_be_entered(rkt: Rkt, images: Images) -> None:
    """What the handler left running is gone when the app runs, and a command that enters the app is not taken for it."""
    image = handlers(images, "entered", pre="sleep 400 & exit 0")
    process = rkt.popen("run", INSECURE, image, "--", "-c", "sleep 300 & wait")
    uuid = rkt.wait_for_pod()
    shown = wait_for(lambda: rkt.run("enter", uuid, "/bin/ps").lines or None, "an entrance")
    assert not any("sleep 400" in line for line in shown)
    rkt.run("stop", uuid, check=0)
    process.wait(20)
