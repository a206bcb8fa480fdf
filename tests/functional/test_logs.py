# SPDX-License-Identifier: Apache-2.0
"""``rkt logs`` of pods that run, have run or are yet to run (spec runtime §3.9, invariants LG1 to LG3)."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from rkt.stage1.common.log import MAX_FILE_BYTES
from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from tests.lib.images import Images
    from tests.lib.rkt import Result, Rkt, Running

pytestmark = [pytest.mark.root, pods("supervision")]

INSECURE = "--insecure-options=image"


@pytest.fixture
def image(rkt: Rkt, images: Images) -> str:
    """A busybox image in the engine's store, by hash."""
    return fetch(rkt, images.busybox())


def words(image: str, *scripts: str) -> list[str]:
    """Apps a, b and so on, each a shell script."""
    found: list[str] = []
    for name, script in zip("abc", scripts, strict=False):
        found += [image, f"--name={name}", "--exec=/bin/sh", "--", "-c", script, "---"]
    return found


def exited(rkt: Rkt, image: str, *scripts: str) -> str:
    """Run a pod to its end; its UUID."""
    rkt.run("run", INSECURE, *words(image, *scripts), check=0)
    (uuid,) = rkt.pods("run")
    return uuid


def finished(process: Running) -> tuple[str, str]:
    """What a command printed that ends by itself with status 0."""
    assert process.wait(30) == 0, process.stderr_text
    return process.texts()


def test_a_log_that_rotates_while_it_is_followed(rkt: Rkt, image: str) -> None:
    """10,000 lines over several rotations come once each, in order, and the end of the pod ends the command (LG2)."""
    bulk = "x" * (5 * MAX_FILE_BYTES // 2 // 10_000)
    script = f"sleep 1; awk 'BEGIN {{ for (i = 0; i < 10000; i++) print i, \"{bulk}\" }}'"
    run = rkt.popen("run", INSECURE, *words(image, script))
    uuid = rkt.wait_for_pod()
    follow = rkt.popen("logs", "--follow", uuid)
    stdout, stderr = finished(follow)
    assert stderr == ""
    assert [line.partition(" ")[0] for line in stdout.splitlines()] == [str(i) for i in range(10_000)]
    run.wait(30)
    assert os.path.exists(f"{rkt.pod_path(uuid)}/logs/a.log.1")


def test_follow_from_before_the_start_to_the_end(rkt: Rkt, image: str) -> None:
    """A prepared pod is waited for; lines of several apps come in the order of time, each where it belongs."""
    uuid = rkt.run(
        "prepare",
        INSECURE,
        *words(image, "echo a1; sleep 0.6; echo a3", "sleep 0.3; echo b2 >&2; sleep 0.6; echo b4"),
        check=0,
    ).stdout.strip()
    follow = rkt.popen("logs", "-f", uuid)
    formatted = rkt.popen("logs", "-f", "--format=json", uuid)
    time.sleep(0.3)
    rkt.run("run-prepared", uuid, check=0)
    assert finished(follow) == ("[a] a1\n[a] a3\n[b] b4\n", "[b] b2\n")
    entries = [json.loads(line) for line in finished(formatted)[0].splitlines()]
    assert [(e["app"], e["stream"], e["text"], e["partial"]) for e in entries] == [
        ("a", "stdout", "a1", False),
        ("b", "stderr", "b2", False),
        ("a", "stdout", "a3", False),
        ("b", "stdout", "b4", False),
    ]
    assert [e["time"] for e in entries] == sorted(e["time"] for e in entries)


def test_interrupting(rkt: Rkt, image: str) -> None:
    """Ctrl-C ends following with status 130 and without a word; waiting costs next to no processor time."""
    rkt.popen("run", INSECURE, *words(image, "echo ready; exec sleep 60"))
    uuid = rkt.wait_for_pod()
    follow = rkt.popen("logs", "--follow", "--tail=1", uuid)
    wait_for(lambda: follow.stdout_text == "ready\n" or None, "the line")
    before = _ticks(follow.pid)
    time.sleep(1)
    assert _ticks(follow.pid) - before <= 10
    follow.send_signal(signal.SIGINT)
    assert follow.wait(10) == 130
    assert follow.texts() == ("ready\n", "")


def _ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stream:
        fields = stream.read().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def test_exited_pods_by_name_and_apps(rkt: Rkt, image: str) -> None:
    """Of a pod that has exited, or was marked by gc, the apps asked for are shown, by UUID and by name."""
    rkt.run("run", INSECURE, "--name=web", *words(image, "echo of a", "echo of b", "echo of c"), check=0)
    (uuid,) = rkt.pods("run")
    for _ in range(2):
        for word in (uuid, "web"):
            result = rkt.run("logs", "--app=a", "--app=c", word, check=0)
            assert sorted(result.lines) == ["[a] of a", "[c] of c"]
            assert rkt.run("logs", "--app=b", "--follow", word, check=0).stdout == "of b\n"
        rkt.run("gc", check=0)
    assert rkt.pods() == {uuid: "exited-garbage"}
    unknown = rkt.run("logs", "--app=d", uuid, check=254)
    assert f'no app "d" in pod "{uuid}"' in unknown.stderr
    assert "hint: apps: a, b, c" in unknown.stderr


def test_times(rkt: Rkt, image: str) -> None:
    """--since takes a duration or a time, --until likewise, and --tail counts what is between them."""
    uuid = exited(rkt, image, "echo 1; sleep 0.2; echo 2; sleep 0.2; echo 3")
    lines = rkt.run("logs", "--timestamps", uuid, check=0).lines
    stamps = [line.split(" ")[0] for line in lines]

    def shown(*flags: str) -> Result:
        return rkt.run("logs", *flags, uuid, check=0)

    assert shown(f"--since={stamps[1]}").stdout == "2\n3\n"
    assert shown(f"--until={stamps[2]}").stdout == "1\n2\n"
    assert shown(f"--since={stamps[1]}", f"--until={stamps[2]}").stdout == "2\n"
    assert shown(f"--until={stamps[2]}", "--tail=1").stdout == "2\n"
    assert shown("--since=1h").stdout == "1\n2\n3\n"
    assert shown("--until=1h").stdout == ""
    assert shown("--since=2001-01-01T00:00:00+02:00", "--tail=all").stdout == "1\n2\n3\n"
    assert shown("--since=2999-01-01T00:00:00Z").stdout == ""
    assert shown("--tail=0").stdout == ""
    started = time.monotonic()
    assert shown("--follow", f"--until={stamps[2]}").stdout == "1\n2\n"
    assert time.monotonic() - started < 10 * SLOWNESS


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--since=yesterday"], 'invalid value "yesterday" for --since: a duration such as 10m'),
        (["--since=-5m"], 'invalid value "-5m" for --since'),
        (["--until=2026-13-01T00:00:00Z"], 'invalid value "2026-13-01T00:00:00Z" for --until'),
        (["--since=2026-01-01T00:00:00"], "--since=2026-01-01T00:00:00 has no time zone"),
        (["--since=1h", "--until=2h"], "--since must be before --until"),
        (["--tail=-1"], 'invalid value "-1" for --tail: a number of lines, or all, is expected'),
        (["--format=xml"], "Invalid format option: xml"),
        (["-x"], 'unknown shorthand flag: "x" in -x'),
    ],
)
def test_bad_values(rkt: Rkt, flags: list[str], message: str) -> None:
    """A value that makes no sense is named with its flag before any pod is looked for."""
    assert message in rkt.run("logs", *flags, "none", check=254).stderr


def test_bytes(rkt: Rkt, image: str) -> None:
    """Bytes pass on as they are, long lines whole; JSON has them in base64, a terminal sees nothing that moves it (LG3)."""
    script = "printf 'a\\033[2J\\377b\\n'; printf '%040000d\\n' 7; printf end"
    uuid = exited(rkt, image, script)
    command = rkt.command("logs", uuid)
    data = subprocess.run(command, env=rkt.environment(), stdout=subprocess.PIPE, check=True).stdout
    assert data == b"a\033[2J\xffb\n" + b"7".rjust(40_000, b"0") + b"\nend\n"
    first, second, _ = (json.loads(line) for line in rkt.run("logs", "--format=json", uuid, check=0).lines)
    assert first["text"] == "a\033[2J\ufffdb"
    assert first["base64"] == "YRtbMkr/Yg=="
    assert "base64" not in second
    assert len(second["text"]) == 40_000
    assert _on_a_terminal(rkt, "logs", "--tail=3", uuid).startswith(b"a\\x1b[2J\\xffb\r\n0000")


def _on_a_terminal(rkt: Rkt, *args: str) -> bytes:
    pid, master = pty.fork()
    if pid == 0:
        command = rkt.command(*args)
        os.execve(command[0], command, rkt.environment())
    data = b""
    try:
        while chunk := os.read(master, 65536):
            data += chunk
    except OSError:
        pass  # the other side is closed
    os.close(master)
    os.waitpid(pid, 0)
    return data
