# SPDX-License-Identifier: Apache-2.0
"""How OpenPGP programs are found and confined."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time

import pytest

import rkt
from rkt.errors import CannotVerify, HostError
from rkt.linux import landlock
from rkt.privsep.confine import VERIFY_UID_BASE
from rkt.trust import program
from rkt.trust.program import find_program, run_confined, sealed_memory


def test_program_is_found_by_absolute_path() -> None:
    """The path is absolute and its owner root."""
    path = find_program("gpgv", package="gpgv")
    assert os.path.isabs(path)
    assert os.stat(path).st_uid == 0


def test_missing_program_names_its_package() -> None:
    """The hint is the command that installs it."""
    with pytest.raises(HostError, match="no-such-program") as caught:
        find_program("no-such-program", package="some-package")
    assert "some-package" in caught.value.hint


def test_program_that_others_can_change_is_refused(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program below a directory that is not root's alone is not run (HH5)."""
    directory = tmp_path_factory.mktemp("bin")
    path = directory / "gpgv"
    path.write_bytes(b"#!/bin/sh\n")
    path.chmod(0o775)
    monkeypatch.setattr(program, "_DIRECTORIES", (str(directory),))
    with pytest.raises(HostError, match="cannot be trusted"):
        find_program("gpgv", package="gpgv")


def test_sealed_memory_cannot_be_changed() -> None:
    """What a program is given is what it reads."""
    fd = sealed_memory("x", b"content")
    try:
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"other", 0)
        assert os.read(fd, 100) == b"content"
    finally:
        os.close(fd)


def look(code: str, *, timeout_seconds: float = 30) -> bytes:
    """Output of a confined Python program that has the status descriptor as its argument."""
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        return run_confined(
            lambda status: ["/usr/bin/python3", "-ISc", code, str(status)],
            stdin=null,
            descriptors=[],
            timeout_seconds=timeout_seconds,
        ).status_output
    finally:
        os.close(null)


pytestmark = pytest.mark.skipif(
    not os.access("/usr/bin/python3", os.X_OK), reason="no /usr/bin/python3 to look with"
)


def test_confined_program_has_no_rights() -> None:
    """Unused uid without groups, no capabilities, no new privileges, nothing of the environment (HH5)."""
    text = look(
        "import os,sys\n"
        "lines = open('/proc/self/status').read().split('\\n')\n"
        "keep = [l for l in lines if l.split(':')[0] in ('CapEff','CapPrm','CapInh','CapAmb','NoNewPrivs','Groups')]\n"
        "os.write(int(sys.argv[1]), repr((os.getuid(), os.geteuid(), keep, sorted(os.environ), os.getcwd())).encode())"
    ).decode()
    uid, effective, lines, environment, cwd = eval(text)
    fields = {line.split(":")[0]: line.split(":")[1].strip() for line in lines}
    assert fields["NoNewPrivs"] == "1"
    assert {fields[f] for f in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    assert set(environment) <= {"HOME", "LC_ALL", "LC_CTYPE", "PATH"}
    assert cwd == "/"
    assert uid == effective
    if os.geteuid() == 0:
        assert uid == VERIFY_UID_BASE + (os.getpid() & 0xFFFF)
        assert not fields["Groups"]


def test_confined_program_has_only_its_descriptors() -> None:
    """Standard descriptors and the status descriptor, whatever else is open here."""
    extra = os.dup(1)
    os.set_inheritable(extra, True)
    try:
        text = look(
            "import os,sys; os.write(int(sys.argv[1]), repr(sorted(os.listdir('/proc/self/fd'))).encode())"
        )
    finally:
        os.close(extra)
    # Four, and the one that the listing itself uses.
    assert len(eval(text)) == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace of its own needs root")
def test_confined_program_has_no_network() -> None:
    """It sees a loopback device that is down, and no other."""
    text = look(
        "import os,sys; os.write(int(sys.argv[1]), open('/proc/self/net/dev').read().encode())"
    ).decode()
    assert [line.split(":")[0].strip() for line in text.splitlines()[2:]] == ["lo"]


def test_confined_program_can_neither_fork_nor_write_much() -> None:
    """Limits are lowered."""
    text = look(
        "import os,sys\n"
        "try:\n"
        "  os.fork(); said = 'forked'\n"
        "except OSError as e:\n"
        "  said = 'refused'\n"
        "os.write(int(sys.argv[1]), said.encode())"
    )
    assert os.geteuid() != 0 or text == b"refused"


def test_program_that_does_not_end_is_killed() -> None:
    """A deadline holds, and nothing stays behind."""
    with pytest.raises(CannotVerify, match="did not end"):
        look("import time; time.sleep(60)", timeout_seconds=0.3)


def test_program_that_cannot_be_started_fails() -> None:
    """A program that is missing ends with a status of failure and no output."""
    outcome = run_confined(lambda _: ["/nonexistent"], stdin=0, descriptors=[], timeout_seconds=10)
    assert outcome.exit_status != 0
    assert outcome.status_output == b""


def test_confined_program_dies_with_its_parent() -> None:
    """The kernel kills it when rkt is killed."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(program.__file__)))
    code = (
        f"import sys; sys.path.insert(0, {source!r})\n"
        "from rkt.trust.program import run_confined\n"
        "run_confined(lambda _: ['/bin/sleep', '300'], stdin=0, descriptors=[], timeout_seconds=300)"
    )
    with subprocess.Popen([sys.executable, "-ISc", code], stdin=subprocess.DEVNULL) as parent:
        try:
            pid = wait_for_sleep(parent.pid)
            descriptor = os.pidfd_open(pid)
        finally:
            parent.kill()
    try:
        assert select.select([descriptor], [], [], 10)[0], "it lives on"
    finally:
        os.close(descriptor)


def wait_for_sleep(parent: int) -> int:
    """Process ID of the child of ``parent`` once it has become ``sleep``."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as stream:
            for pid in stream.read().split():
                with open(f"/proc/{pid}/comm", encoding="ascii") as comm:
                    if comm.read() == "sleep\n":
                        return int(pid)
    raise AssertionError("sleep was never seen running")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_confined_program_of_root_has_landlock_and_a_filter() -> None:
    """What checks signatures for root reads no file but libraries, makes none, opens no socket, sends no signal, starts nothing (HH1)."""
    if not landlock.abi():
        pytest.skip("this kernel has no Landlock")
    code = (
        "import errno, os, resource, socket, sys\n"
        "def attempt(function):\n"
        "    try: function()\n"
        "    except OSError as e: return errno.errorcode[e.errno]\n"
        "    return 'done'\n"
        "words = [attempt(lambda: open('/etc/passwd')), attempt(lambda: socket.socket(socket.AF_UNIX)),\n"
        "    attempt(socket.socket), attempt(lambda: os.kill(os.getppid(), 0)), attempt(os.fork),\n"
        "    attempt(lambda: os.mkdir('/tmp/x')), attempt(lambda: open('/tmp/x', 'w')), attempt(lambda: os.chmod('/', 0)),\n"
        "    attempt(lambda: os.pidfd_open(os.getppid())), attempt(lambda: resource.prlimit(os.getppid(), 7))]\n"
        "os.write(int(sys.argv[1]), ' '.join(words).encode())\n"
    )
    package_path = os.path.dirname(os.path.dirname(os.path.abspath(rkt.__file__)))
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        outcome = run_confined(
            lambda status: ["/usr/bin/python3", "-ISc", code, str(status)],
            stdin=null,
            descriptors=[],
            timeout_seconds=30,
            package_path=package_path,
        )
    finally:
        os.close(null)
    assert outcome.status_output.decode().split() == [
        *("EACCES", "ENOSYS", "ENOSYS", "ENOSYS", "ENOSYS"),
        *("ENOSYS", "EACCES", "ENOSYS", "ENOSYS", "ENOSYS"),
    ], outcome
