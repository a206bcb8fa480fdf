# SPDX-License-Identifier: Apache-2.0
"""``rkt stats``: what running pods use, as tables, JSON and pictures."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
import xml.etree.ElementTree as ET
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
MEBIBYTE = 1 << 20
#: Holds 8 MiB of memory.
HOLD = "x=0123456789abcdef; for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do x=$x$x; done; sleep 1000; :"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def pod(module_rkt: Rkt, images: Images) -> Iterator[str]:
    """A pod in which one app is busy and another one, with a limit, holds memory."""
    key = fetch(module_rkt, images.busybox())
    process = module_rkt.popen(
        *("run", INSECURE, "--name=shop"),
        *(key, "--name=busy", "--exec=/bin/sh", "--", "-c", "while :; do :; done", "---"),
        *(key, "--name=holds", "--memory=64Mi", "--exec=/bin/sh", "--", "-c", HOLD, "---"),
    )
    uuid = module_rkt.wait_for_pod()
    wait_for(
        lambda: [x for x in stats(module_rkt, "shop") if x["memory_bytes"] > 8 * MEBIBYTE], "8 MiB of memory"
    )
    yield uuid
    module_rkt.run("stop", "--force", uuid, check=0)
    process.wait(20)


def stats(rkt: Rkt, *words: str) -> list[dict[str, Any]]:
    """What JSON says of a short interval."""
    done = rkt.run("stats", "--format=json", "--interval=200ms", *words, check=0)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pods("several apps", "cgroups")
def test_a_pod_and_its_apps(module_rkt: Rkt, pod: str, flavor: str) -> None:
    """CPU, memory with its limit, and processes are shown for the pod and for each app, near to what they do."""
    whole, busy, holds = stats(module_rkt, "--apps", pod)
    assert (whole["uuid"], whole["pod_name"]) == (pod, "shop")
    assert "app" not in whole
    assert (busy["app"], holds["app"]) == ("busy", "holds")
    assert busy["cpu_percent"] > 5 * holds["cpu_percent"]
    assert whole["cpu_percent"] >= 0.8 * busy["cpu_percent"]
    assert holds["memory_limit_bytes"] == 64 * MEBIBYTE
    assert 8 * MEBIBYTE <= holds["memory_bytes"] <= 40 * MEBIBYTE
    assert busy["memory_bytes"] < 8 * MEBIBYTE
    assert holds["memory_bytes"] * 0.9 <= whole["memory_bytes"]
    assert whole["memory_limit_bytes"] > 64 * MEBIBYTE
    assert (busy["pids"], holds["pids"]) == (1, 2)
    # Of the pod itself: its init, or systemd-nspawn and systemd.
    assert whole["pids"] == 3 + (2 if flavor == "nspawn" else 1)
    assert whole["pids_limit"] == 4096
    assert "memory" not in holds["estimated"]


@pods("several apps", "cgroups")
def test_a_table_once_without_a_terminal(module_rkt: Rkt, pod: str) -> None:
    """Without a terminal the table of all running pods is printed once; what is summed up over processes is marked."""
    lines = module_rkt.run("stats", "--apps", "--interval=100ms", check=0).lines
    assert [line.split("\t")[0] for line in lines] == ["POD", "shop", "shop", "shop"]
    assert lines[0].split() == ["POD", "APP", "CPU", "MEMORY", "LIMIT", "MEM", "%", "PIDS", "READ", "WRITTEN"]
    assert "64MiB" in lines[3]


@pods("several apps", "cgroups")
def test_a_stream_until_it_is_interrupted(module_rkt: Rkt, pod: str) -> None:
    """Asked to stream, JSON is one array a line, and an interrupt ends it with success."""
    with module_rkt.popen("stats", "--no-stream=false", "--interval=50ms", "--format=json", pod) as process:
        wait_for(lambda: process.stdout_text.count("\n") >= 3, "three lines")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert all(json.loads(line)[0]["uuid"] == pod for line in process.stdout_text.splitlines())


@pods("several apps", "cgroups")
def test_pictures(module_rkt: Rkt, pod: str) -> None:
    """A graph of dots and a picture have one line of CPU and memory for each, axes with units, and a legend."""
    path = os.path.join(module_rkt.base, "use.svg")
    done = module_rkt.run("stats", "--apps", "--plot", f"--svg={path}", "--duration=1s", pod, check=0)
    assert [line for line in done.lines if line.endswith("CPU")] == [
        "shop  CPU",
        "shop/busy  CPU",
        "shop/holds  CPU",
    ]
    assert "of 64 MiB" in done.stdout
    assert any(0x2800 < ord(c) < 0x2900 for c in done.stdout)
    tree = ET.parse(path)
    assert len(tree.findall(f".//{SVG}polyline")) == 6
    texts = [element.text or "" for element in tree.iter(f"{SVG}text")]
    assert {"shop", "shop/busy", "shop/holds", "seconds", "0%", "0"} <= set(texts)
    assert any(text.endswith(" MiB") for text in texts)
    with open(path, encoding="utf-8") as file:
        assert "prefers-color-scheme: dark" in file.read()


@pods("several apps", "cgroups")
def test_what_cannot_be_sampled(module_rkt: Rkt, pod: str) -> None:
    """Intervals that make no sense, pods that are not there and pods that do not run are refused by name."""
    for words, said in (
        (("--interval=1ms", pod), "--interval of 0.001 s is too short"),
        (("--plot", "--duration=1s", "--interval=1s", pod), "--duration of 1 s does not fit"),
        (("ffffffff-0000",), 'no matches found for "ffffffff-0000"'),
    ):
        refused = module_rkt.run("stats", *words, check=254)
        assert said in refused.stderr


def test_nothing_runs(rkt: Rkt) -> None:
    """Where no pod runs the table is empty, JSON is an empty array, and a picture is refused."""
    assert json.loads(rkt.run("stats", "--format=json", check=0).stdout) == []
    assert len(rkt.run("stats", check=0).lines) == 1
    assert "no pod ran long enough" in rkt.run("stats", "--plot", "--duration=1s", check=254).stderr


@pods("several apps", "cgroups")
def test_drawn_over_on_a_terminal(module_rkt: Rkt, pod: str) -> None:
    """On a terminal what is drawn again and again never scrolls, and at the end the whole graph stands there."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 12, 60, 0, 0))
    words = module_rkt.command("stats", "--apps", "--plot", "--duration=600ms", "--interval=200ms", pod)
    with subprocess.Popen(words, stdin=slave, stdout=slave, env=module_rkt.environment()) as process:
        os.close(slave)
        text = b""
        while True:
            try:
                text += os.read(master, 65536)
            except OSError:  # the last user of the other side is gone
                break
        assert process.wait(20) == 0
    os.close(master)
    *frames, last = text.decode().split("\x1b[J")[1:]
    assert frames
    assert max(frame.count("\n") for frame in frames) <= 11
    assert last.count("\n") > 60
    assert max(map(len, last.splitlines())) <= 60
