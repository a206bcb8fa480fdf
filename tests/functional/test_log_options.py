# SPDX-License-Identifier: Apache-2.0
"""How an app's log is kept: size, number of files, rate, and the journal (spec runtime §3.9, invariants LG1 and LG2)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lib.flavors import pods
from tests.lib.images import fetch
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods("log options")]

INSECURE = "--insecure-options=image"
#: Shows a directory of the test where the host has, or would have, its journal's socket.
WITH_JOURNAL = """#!/bin/sh
exec unshare --mount --propagation private -- /bin/sh -c '
mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind {journal} /run/systemd/journal && exec {binary} "$@"
' rkt "$@"
"""


@pytest.fixture(scope="module")
def image(images: Images) -> str:
    """An image with a shell."""
    return images.busybox("example.com/talks")


def script(text: str) -> tuple[str, ...]:
    """An app that is a shell script."""
    return ("--exec=/bin/sh", "--", "-c", text)


def test_sizes_and_files(rkt: Rkt, image: str) -> None:
    """A log is rotated at the size asked for, into as many files; rkt logs reads them all, and app rm removes them all."""
    key = fetch(rkt, image)
    rkt.popen("app", "sandbox", INSECURE)
    uuid = rkt.wait_for_pod()
    flags = ("--name=talks", "--log-size=64Ki", "--log-files=4")
    line = "x" * 1000
    rkt.run(
        "app",
        "add",
        INSECURE,
        uuid,
        key,
        *flags,
        *script(f"for i in $(seq 1000); do echo $i {line}; done"),
        check=0,
    )
    rkt.run("app", "start", uuid, "--app=talks", check=0)
    wait_for(lambda: "exited" in rkt.run("app", "list", uuid).stdout, "the end of the app")
    logs = f"{rkt.pod_path(uuid)}/logs"
    wait_for(lambda: rkt.run("logs", "--tail=1", uuid).stdout.startswith("1000 "), "the last line")
    assert sorted(os.listdir(logs)) == ["talks.log", "talks.log.1", "talks.log.2", "talks.log.3"]
    assert all(os.path.getsize(f"{logs}/{name}") <= 64 << 10 for name in os.listdir(logs))
    numbers = [int(each.split()[0]) for each in rkt.run("logs", uuid, check=0).lines]
    assert numbers == list(range(1001 - len(numbers), 1001))
    assert 3 * 55 < len(numbers) < 4 * 64
    rkt.run("app", "rm", uuid, "--app=talks", check=0)
    assert os.listdir(logs) == []
    rkt.run("stop", uuid, check=0)


def test_a_rate(rkt: Rkt, image: str) -> None:
    """What an app says beyond its rate reaches whoever started the pod, not the log, which says how much is missing."""
    talk = "for i in $(seq 500); do echo $i; done"
    result = rkt.run("run", INSECURE, image, "--log-rate=100", *script(talk), check=0)
    assert [line for line in result.lines if line.isdecimal()] == [str(number) for number in range(1, 501)]
    (uuid,) = rkt.pods("run")
    lines = rkt.run("logs", uuid, check=0).stdout.splitlines()
    kept = [line for line in lines if line.isdecimal()]
    said = [line for line in (*lines, *rkt.run("logs", uuid).stderr.splitlines()) if line.startswith("rkt: ")]
    assert 100 <= len(kept) < 500
    assert kept[:100] == [str(number) for number in range(1, 101)]
    assert said
    assert sum(int(line.split()[1]) for line in said) == 500 - len(kept)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--log-size=1K", '"1K" is not between 64Ki and 64Gi'),
        ("--log-size=much", "much"),
        ("--log-files=1", '"1" is not a number from 2 to 100'),
        ("--log-rate=0", '"0" is not a number from 1 to 1000000'),
        ("--log-driver=syslog", "syslog"),
        ("--annotation=coreos.com/rkt/log-files=x", '"x" is not a number'),
    ],
)
def test_refusals(module_rkt: Rkt, image: str, flag: str, words: str) -> None:
    """What is no option of a log is refused before there is a pod."""
    result = module_rkt.run("run", INSECURE, image, flag, check=254)
    assert words in result.stderr, result
    assert module_rkt.pods() == {}


class Journal:
    """A socket that takes what journald takes."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "socket")
        self.listen()

    def listen(self) -> None:
        """Begin."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(20 * SLOWNESS)

    def receive(self) -> dict[str, bytes]:
        """The fields of one message, which has no field twice."""
        fields: dict[str, bytes] = {}
        for line in self._socket.recv(1 << 20).removesuffix(b"\n").split(b"\n"):
            name, equals, value = line.partition(b"=")
            assert equals, line
            assert name.decode() not in fields, line
            fields[name.decode()] = value
        return fields

    def close(self) -> None:
        """End, and leave nothing."""
        self._socket.close()
        os.unlink(self.path)


@pytest.fixture
def journal(rkt: Rkt, tmp_path: Path) -> Iterator[Journal]:
    """A journal that the engine takes for the host's."""
    directory = tmp_path / "journal"
    directory.mkdir()
    each = Journal(directory)
    wrapper = tmp_path / "rkt"
    wrapper.write_text(WITH_JOURNAL.format(journal=directory, binary=rkt.binary))
    wrapper.chmod(0o755)
    probe = subprocess.run([wrapper, "version"], check=False, capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"unshare(1) cannot make a mount namespace: {probe.stderr}")
    binary, rkt.binary = rkt.binary, str(wrapper)
    yield each
    rkt.binary = binary
    each.close()


def test_lines_in_the_journal(rkt: Rkt, image: str, journal: Journal) -> None:
    """Where the host has a journal, each line is there with the fields that find it, and in the log and on the streams too."""
    talk = r"echo out; echo err >&2; printf 'raw \033[1m\001\377 MESSAGE=no\n'; printf unfinished"
    result = rkt.run("run", INSECURE, "--name=shop", image, "--name=web", *script(talk), check=0)
    assert result.lines[-1] == "unfinished"
    (uuid,) = rkt.pods("run")
    messages = [journal.receive() for _ in range(4)]
    by_text = {each["MESSAGE"]: each for each in messages}
    assert set(by_text) == {b"out", b"err", b"raw \033[1m\001\377 MESSAGE=no", b"unfinished"}
    assert by_text[b"out"] == {
        "MESSAGE": b"out",
        "PRIORITY": b"6",
        "RKT_STREAM": b"stdout",
        "SYSLOG_IDENTIFIER": b"web",
        "CONTAINER_ID": uuid.encode(),
        "CONTAINER_NAME": b"shop/web",
        "RKT_POD_UUID": uuid.encode(),
        "RKT_POD_NAME": b"shop",
        "RKT_APP": b"web",
        "RKT_IMAGE": b"example.com/talks",
    }
    assert (by_text[b"err"]["PRIORITY"], by_text[b"err"]["RKT_STREAM"]) == (b"3", b"stderr")
    assert "out" in rkt.run("logs", uuid, check=0).lines


def test_a_line_that_is_too_long(rkt: Rkt, image: str, journal: Journal) -> None:
    """A line over 16 KiB comes in pieces that say so."""
    rkt.run(
        "run",
        INSECURE,
        image,
        *script('awk \'BEGIN { for (i = 0; i < 20000; i++) printf "x"; print "" }\''),
        check=0,
    )
    first, second = journal.receive(), journal.receive()
    assert first["CONTAINER_PARTIAL_MESSAGE"] == b"true"
    assert "CONTAINER_PARTIAL_MESSAGE" not in second
    assert len(first["MESSAGE"]) + len(second["MESSAGE"]) == 20000


def test_a_journal_that_does_not_read(rkt: Rkt, image: str, journal: Journal) -> None:
    """Nobody waits for a journal: what it does not take is in the log, and the journal is told how much it missed; one that comes back is found."""
    talk = "for i in $(seq 2000); do echo $i; done; while ! test -e /go; do sleep 0.05; done; echo more; sleep 0.1; echo last"
    process = rkt.popen("run", INSECURE, image, *script(talk))
    uuid = rkt.wait_for_pod()
    wait_for(lambda: rkt.run("logs", "--tail=1", uuid).lines == ["2000"], "all lines in the log")
    texts = [journal.receive()["MESSAGE"]]
    while texts[-1] == str(len(texts)).encode() and len(texts) < 5:
        texts.append(journal.receive()["MESSAGE"])
    journal.close()
    journal.listen()
    rkt.run("enter", uuid, "/bin/touch", "/go", check=0)
    said = journal.receive()
    assert said["PRIORITY"] == b"4"
    assert b"lines did not reach the journal" in said["MESSAGE"]
    assert journal.receive()["MESSAGE"] == b"more"
    assert journal.receive()["MESSAGE"] == b"last"
    assert process.wait(20) == 0


def test_drivers(rkt: Rkt, image: str, journal: Journal) -> None:
    """With file nothing reaches the journal; with journald there must be one."""
    words = script("echo text")
    rkt.run("run", INSECURE, image, "--log-driver=file", *words, check=0)
    rkt.run("run", INSECURE, image, "--log-driver=journald", *words, check=0)
    assert journal.receive()["MESSAGE"] == b"text"
    journal.close()
    refused = rkt.run("run", INSECURE, image, "--log-driver=journald", *words, check=254)
    assert "there is no journal at /run/systemd/journal/socket" in refused.stderr
    journal.listen()
    assert json.loads(rkt.run("list", "--format=json", check=0).stdout)


def test_a_stream_that_is_the_journal(rkt: Rkt, image: str, journal: Journal) -> None:
    """Of a unit whose output is in the journal already, a line comes once, with its fields."""
    with open("/dev/null", "wb") as null:
        status = os.fstat(null.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb") as reader:
        status = os.fstat(write_fd)
        for said, expected in ((stream, b"text\n"), (f"{status.st_dev}:{status.st_ino}", b"")):
            process = subprocess.Popen(
                rkt.command("run", INSECURE, image, *script("echo text")),
                env=rkt.environment({"JOURNAL_STREAM": said}),
                stdout=write_fd,
                stderr=subprocess.DEVNULL,
            )
            assert process.wait(60) == 0
            os.set_blocking(reader.fileno(), False)
            assert (reader.read() or b"") == expected
            assert journal.receive()["MESSAGE"] == b"text"
        os.close(write_fd)
