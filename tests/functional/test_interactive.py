# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.kernel import Kernel
from tests.lib.terminal import Operator

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]


@pods("own terminals")
def test_interactive_gives_the_app_a_terminal_and_takes_what_is_typed(rkt: Rkt, images: Images) -> None:
    """With --interactive the app's standard input is a terminal of its own, and its status is the command's (runtime R23, R24, cli R13)."""
    path = images.busybox("example.com/shell", ("/bin/sh",))
    operator = Operator(rkt, "--insecure-options=image", "run", "--interactive", path)
    operator.until("# ")
    operator.type("tty; read word; echo got-$word\r")
    operator.until("/dev/pts/0")
    operator.type("Saluton\r")
    operator.until("got-Saluton")
    operator.type("exit 5\r")
    assert operator.status() == 5


@pods("cgroups", "own terminals")
def test_an_app_with_a_terminal_is_within_its_limits(rkt: Rkt, images: Images) -> None:
    """So is what it forks before anything else, and root starts where it is to (security RN24)."""
    path = images.busybox("example.com/shell", ("/bin/sh",))
    words = ("--interactive", path, "--memory=64Mi", "--working-dir=/bin")
    operator = Operator(
        rkt, "--insecure-options=image", "run", *words, "--", "-c", "sleep 600 & pwd; exec cat"
    )
    operator.until("/bin\r\n")
    kernel = Kernel(rkt, rkt.wait_for_pod())
    assert kernel.memory_limit("shell") == 64 << 20
    pid = kernel.pid("shell")
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        (child,) = file.read().split()
    groups = []
    for each in (pid, child):
        with open(f"/proc/{each}/cgroup", encoding="ascii") as file:
            groups.append(file.read())
    assert groups[0] == groups[1]
    operator.type("\x1d\x1d\x1d")
    assert operator.status() == 0


@pods("own terminals")
def test_three_escapes_stop_an_interactive_pod(rkt: Rkt, images: Images) -> None:
    """``^]`` three times within a second stops the pod, whatever the app does with its keys."""
    path = images.busybox("example.com/cat", ("/bin/cat",))
    operator = Operator(rkt, "--insecure-options=image", "run", "--interactive", path)
    rkt.wait_for_pod()
    operator.type("echoed\r")
    operator.until("echoed\r\nechoed")
    operator.type("\x1d\x1d\x1d")
    assert operator.status() == 0


@pods("own terminals")
def test_without_interactive_there_is_no_terminal(rkt: Rkt, images: Images) -> None:
    """An app that was not given a terminal has none, even when the operator sits at one (runtime R22, cli R12)."""
    path = images.busybox("example.com/shell", ("/bin/sh",))
    operator = Operator(rkt, "--insecure-options=image", "run", path, "--", "-c", "tty; tty <&1; echo end")
    operator.until("end")
    assert operator.shown.count(b"not a tty") == 2
    assert operator.status() == 0


def test_piped_input_reaches_an_interactive_app(rkt: Rkt, images: Images) -> None:
    """--interactive without a terminal hands the caller's standard input to the app."""
    path = images.busybox("example.com/cat", ("/bin/cat",))
    result = rkt.run("--insecure-options=image", "run", "--interactive", path, input="typed\n", check=0)
    assert result.lines == ["typed"]


@pods("own terminals")
def test_entering_at_a_terminal_gives_a_fresh_one(rkt: Rkt, images: Images) -> None:
    """A command entered from a terminal gets a terminal of the app's own devpts, never the operator's."""
    path = images.busybox("example.com/sleeper", ("/bin/sleep", "600"))
    rkt.popen("--insecure-options=image", "run", path)
    uuid = rkt.wait_for_pod()
    operator = Operator(rkt, "enter", uuid, "/bin/sh")
    operator.until("# ")
    operator.type("tty; echo $TERM\r")
    operator.until("/dev/pts/0\r\nxterm\r\n")
    operator.type("exit 6\r")
    assert operator.status() == 6


@pods("several apps")
def test_an_interactive_pod_has_one_app(rkt: Rkt, images: Images) -> None:
    """Two apps cannot share one terminal, and that is said before a pod is made."""
    path = images.busybox("example.com/shell", ("/bin/sh",))
    result = rkt.run("--insecure-options=image", "run", "--interactive", path, path, "--name=two", check=254)
    assert "interactive option only supports one image" in result.stderr
    assert rkt.pods() == {}
