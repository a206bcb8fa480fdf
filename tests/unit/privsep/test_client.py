# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import Installation
from rkt.errors import FetchError, ImageError, RktError
from rkt.privsep import client, wire

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

_HEAD = """
import os, socket, sys
from rkt.privsep import wire
def main():
    connection = socket.socket(fileno=int(sys.argv[3]))
    message = wire.Receiver(connection).receive()
    def say(**words): wire.send(connection, words)
"""


def installation(tmp_path: Path, body: str) -> Installation:
    """An installation whose worker is a stand-in that speaks the real protocol."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(client.__file__)))
    package = tmp_path / "package"
    (package / "rkt").mkdir(parents=True)
    for name in os.listdir(f"{source}/rkt"):
        if name != "privsep":
            os.symlink(f"{source}/rkt/{name}", package / "rkt" / name)
    (package / "rkt" / "privsep").mkdir()
    for name in ("__init__.py", "wire.py"):
        os.symlink(f"{source}/rkt/privsep/{name}", package / "rkt" / "privsep" / name)
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    (package / "rkt" / "privsep" / "worker.py").write_text(_HEAD + lines)
    return Installation(package_path=str(package), library_paths=[], stage1_images_path="")


def run(tmp_path: Path, body: str, *, deadline_seconds: float = 20, **options: Any) -> dict[str, Any]:
    """Let the stand-in work."""
    return client.run_worker(
        "fetch",
        {"n": 1},
        options.pop("fds", {}),
        installation(tmp_path, body),
        deadline_seconds=deadline_seconds,
        **options,
    )


def test_request_events_and_result(tmp_path: Path) -> None:
    """The worker gets the request, its events arrive in order, its result is returned."""
    events: list[dict[str, Any]] = []
    body = "say(event={'n': 1}); say(event={'n': 2}); say(result={'got': message['request']})"
    assert run(tmp_path, body, on_event=events.append) == {"got": {"n": 1}}
    assert events == [{"n": 1}, {"n": 2}]


def test_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has the descriptors it was given, its socket and /dev/null; its environment is its own."""
    monkeypatch.setenv("SECRET", "x")
    with open(tmp_path / "given", "w+b") as given, open(tmp_path / "secret", "wb") as secret:
        os.set_inheritable(secret.fileno(), True)
        body = (
            "os.write(message['fds']['file'], b'hello')\n"
            "targets = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')]\n"
            "say(result={'targets': targets, 'env': sorted(os.environ), 'cwd': os.getcwd(), 'flags': [sys.flags.isolated, sys.flags.no_site]})"
        )
        result = run(tmp_path, body, fds={"file": given.fileno()})
        given.seek(0)
        assert given.read() == b"hello"
    files = {target for target in result["targets"] if target.startswith("/") and "/proc" not in target}
    assert files == {"/dev/null", str(tmp_path / "given")}
    assert result["env"] == ["LC_ALL", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "PATH"]
    assert result["cwd"] == "/"
    assert result["flags"] == [1, 1]


@pytest.mark.parametrize(
    ("code", "error"),
    [("fetch", FetchError), ("image", ImageError), ("not-verified", RktError), ("x", RktError)],
)
def test_errors_keep_their_kind(tmp_path: Path, code: str, error: type[RktError]) -> None:
    """An error of the closed list arrives as itself, any other as a failure of the worker."""
    with pytest.raises(RktError, match="it broke") as caught:
        run(tmp_path, f"say(error={{'code': {code!r}, 'message': 'it broke', 'hint': 'mend it'}})")
    assert type(caught.value) is error
    assert caught.value.hint == "mend it"


def test_texts_are_made_printable(tmp_path: Path) -> None:
    """What a worker says cannot move the cursor, and has an end."""
    with pytest.raises(FetchError) as caught:
        run(
            tmp_path, r"say(error={'code': 'fetch', 'message': '\x1b[2J\n\udc80' + 'x' * 100000, 'hint': ''})"
        )
    assert caught.value.message.isprintable()
    assert len(caught.value.message) <= 2000


@pytest.mark.parametrize(
    "body",
    [
        "",
        "os._exit(3)",
        "os.kill(os.getpid(), 9)",
        "connection.close()",
        "connection.sendall(b'x' * 5000000)",
        "connection.sendall(b'not json\\n')",
        "connection.sendall(b'[]\\n')",
        "connection.sendall(b'{}\\n')",
        'connection.sendall(b\'{"a":1,"a":2}\\n\')',
        "say(result=[])",
        "say(error='broken')",
        "say(result=None)",
    ],
)
def test_broken_workers_are_errors(tmp_path: Path, body: str) -> None:
    """Whatever a worker does instead of answering is an error, and never a result."""
    with pytest.raises(RktError):
        run(tmp_path, body or "pass")


def test_the_deadline(tmp_path: Path) -> None:
    """A worker that does not answer in time is killed, also when it keeps talking."""
    for body in (
        "import time; time.sleep(60)",
        "import time\nwhile True: say(event={}); time.sleep(0.01)",
        "import time\nwhile True: connection.sendall(b' '); time.sleep(0.01)",
    ):
        start = time.monotonic()
        with pytest.raises(RktError, match="took longer than"):
            run(tmp_path / str(hash(body)), body, deadline_seconds=0.5)
        assert time.monotonic() - start < 10


def test_an_interrupted_command_leaves_no_worker(tmp_path: Path) -> None:
    """When the command stops waiting, the worker is gone before anything else happens."""

    class Stop(Exception):
        pass

    seen: list[int] = []

    def stop(event: dict[str, Any]) -> None:
        seen.append(event["pid"])
        raise Stop

    with pytest.raises(Stop):
        run(tmp_path, "import time; say(event={'pid': os.getpid()}); time.sleep(60)", on_event=stop)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_messages_survive_any_cut() -> None:
    """A receiver puts messages together however the stream was cut."""
    left, right = socket.socketpair()
    with left, right:
        data = b'{"a":1}\n{"b":"\xc3\xa4"}\n'
        receiver = wire.Receiver(right)
        for i in range(len(data)):
            left.sendall(data[i : i + 1])
        left.close()
        assert receiver.receive() == {"a": 1}
        assert receiver.receive() == {"b": "ä"}
        assert receiver.receive() is None


def test_without_an_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker cannot be started when nobody knows by what."""
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(RktError, match="interpreter is not known"):
        run(tmp_path, "pass")


def children() -> set[str]:
    """Process numbers of the children of this thread, those that nobody has waited for among them."""
    with open("/proc/thread-self/children", encoding="ascii") as stream:
        return set(stream.read().split())


def test_nobody_is_left_when_the_caller_cannot_go_on(tmp_path: Path) -> None:
    """What fails when the worker has started ends the worker, too."""

    def fail() -> None:
        raise OSError(5, "no")

    # Children of tests that came before are none of this one's.
    before = children()
    with pytest.raises(OSError, match="no"):
        run(tmp_path, "import time; time.sleep(600)", on_start=fail)
    assert children() <= before
