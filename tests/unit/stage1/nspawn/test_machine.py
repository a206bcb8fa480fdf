# SPDX-License-Identifier: Apache-2.0
"""The process of systemd-nspawn as its supervisor sees it, with shell scripts in its place."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

import pytest

from rkt.errors import Stage1Error
from rkt.linux import libc
from rkt.linux.cgroup import Joiner
from rkt.stage1.common.arguments import parse_run
from rkt.stage1.nspawn import command
from rkt.stage1.nspawn.machine import Machine

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

    Prepare = Callable[[str], tuple[list[str], dict[str, str]]]

UUID = "0f24dc2d-f4c5-4a71-b2b6-b2d7bd7ac2c5"
#: Says what it is told on the socket of its environment.
NOTIFY = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
for text in sys.argv[1:]:
    s.send(text.replace("OWN", str(os.getpid())).encode())
"""


@pytest.fixture(autouse=True)
def pod_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory of a supervisor."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def machine() -> Iterator[Callable[[Prepare], Machine]]:
    """Makes one that runs what it is told; a supervisor keeps its descriptors until it ends itself."""
    made = []

    def make(prepare: Prepare) -> Machine:
        made.append(Machine(f"rkt-{UUID}", prepare, Joiner(-1, -1, []), debug=False))
        return made[-1]

    yield make
    for each in made:
        for fd in {each.pidfd, each.leader_pidfd, each._said} - {-1}:
            os.close(fd)


def program(*words: str) -> Prepare:
    """A command that knows where to send its words."""
    return lambda address: (list(words), {"NOTIFY_SOCKET": address, "PATH": os.environ["PATH"]})


def wait_ready(each: Machine) -> bool:
    """As a supervisor that nobody wakes."""
    read_end, write_end = os.pipe()
    try:
        return each.wait_ready(read_end)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_what_it_said_last_explains_why_there_is_no_pod(machine: Callable[[Prepare], Machine]) -> None:
    """A systemd-nspawn that ends before the pod is up is an error that has its own words."""
    with pytest.raises(Stage1Error, match="did not start the pod: Failed to boom"):
        wait_ready(machine(program("/bin/sh", "-c", "echo Failed to boom >&2; exit 1")))
    assert not os.listdir(".")


def test_what_it_says_whatever_failed_is_no_reason(machine: Callable[[Prepare], Machine]) -> None:
    """That a directory is not in memory, of which it complains each time, is left out."""
    script = 'echo "Attempted to remove disk file system under x" >&2; echo Failed to boom >&2; exit 1'
    with pytest.raises(Stage1Error, match=r"did not start the pod: Failed to boom$"):
        wait_ready(machine(program("/bin/sh", "-c", script)))


def test_want_of_inotify_instances_is_named(
    machine: Callable[[Prepare], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room for those of the pod's systemd the setting is said that gives it, and what was made to find out is closed."""
    made: list[int] = []

    def init(_flags: int) -> int:
        if len(made) == 2:
            raise OSError(errno.EMFILE, "Too many open files")
        made.append(os.open("/dev/null", os.O_RDONLY))
        return made[-1]

    monkeypatch.setattr(libc, "inotify_init1", init)
    with pytest.raises(
        Stage1Error, match=r"its systemd wants 3 inotify instances, and of the [0-9]+ "
    ) as caught:
        wait_ready(machine(program("/bin/sh", "-c", "exit 1")))
    assert caught.value.hint == "sysctl -w fs.inotify.max_user_instances=1024, or fewer pods at once"
    for fd in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_what_is_refused_before_it_starts_is_said_as_it_is(machine: Callable[[Prepare], Machine]) -> None:
    """An error of the child that prepares the pod is the supervisor's, with its hint."""

    def prepare(_address: str) -> tuple[list[str], dict[str, str]]:
        raise Stage1Error("no such thing", hint="rkt help")

    with pytest.raises(Stage1Error, match=r"^no such thing$") as caught:
        wait_ready(machine(prepare))
    assert caught.value.hint == "rkt help"


def test_it_is_ready_when_it_says_so(machine: Callable[[Prepare], Machine]) -> None:
    """The pod's pid 1 is what systemd-nspawn names, and the pod is up when it says READY."""
    each = machine(program(sys.executable, "-c", NOTIFY, "STATUS=up", "X_NSPAWN_LEADER_PID=OWN", "READY=1"))
    assert wait_ready(each)
    assert each.leader == each.pid
    each.wait()


def test_nobody_else_can_say_so(machine: Callable[[Prepare], Machine]) -> None:
    """Messages of another process, which runs as root too, count for nothing."""
    words = ["-c", f"{sys.executable} -c '{NOTIFY}' X_NSPAWN_LEADER_PID=1 READY=1; exit 3"]
    with pytest.raises(Stage1Error, match="did not start the pod"):
        wait_ready(machine(program("/bin/sh", *words)))


def test_the_command_line_names_nothing_of_an_image() -> None:
    """Arguments of systemd-nspawn are options with values of the engine's own: mounts and networks are there before it."""
    arguments = parse_run(["--net=none", "--private-users=65536:65536", "--hostname=h", UUID])
    words = command.build_arguments("/usr/bin/systemd-nspawn", "/pod", arguments, 1 << 12)
    assert words[0] == "/usr/bin/systemd-nspawn"
    assert all(word.startswith("--") for word in words[1:])
    options = {word.partition("=")[0]: word.partition("=")[2] for word in words[1 : words.index("--")]}
    assert not [name for name in options if name.startswith(("--bind", "--network", "--overlay"))]
    assert options["--capability"] == "CAP_NET_ADMIN"
    assert options["--private-users"] == "65536:65536"
    assert options["--hostname"] == "h"


def test_a_host_without_it_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no systemd-nspawn, the error names the package."""
    monkeypatch.setattr(command, "_PLACES", ())
    with pytest.raises(Stage1Error, match="no systemd-nspawn") as caught:
        command.find_nspawn()
    assert "systemd-container" in caught.value.hint
