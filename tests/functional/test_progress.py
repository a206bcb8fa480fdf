# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import write_aci
from tests.lib.server import Page, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"


@pytest.fixture
def server() -> Iterator[Server]:
    """A plain server."""
    with Server() as running:
        yield running


def serve(rkt: Rkt, server: Server) -> tuple[str, int]:
    """URL and size of an image that takes half a second."""
    path = f"{rkt.base}/app.aci"
    write_aci(path, ["/bin/app"], files={"data": os.urandom(1 << 20)})
    with open(path, "rb") as file:
        body = file.read()
    return server.put("/app.aci", Page(body, pace_seconds=0.03)), len(body)


def test_events_for_programs(rkt: Rkt, server: Server) -> None:
    """Every line on stderr is an object; figures rise to the whole size, and the image is named at the end."""
    url, size = serve(rkt, server)
    result = rkt.run(INSECURE, "fetch", "--progress=json", "--full", url, check=0)
    events = [json.loads(line) for line in result.stderr.splitlines()]
    downloads = [event for event in events if event["event"] == "download"]
    assert {event["url"] for event in downloads} == {url}
    assert {event["total_bytes"] for event in downloads} == {size}
    figures = [event["done_bytes"] for event in downloads]
    assert figures == sorted(figures)
    assert figures[-1] == size
    assert len(figures) > 2
    (image,) = [event for event in events if event["event"] == "image"]
    assert image["reference"] == url
    assert image["name"] == "example.com/app"
    assert image["id"].startswith(result.stdout.strip())


def test_no_progress(rkt: Rkt, server: Server) -> None:
    """None means none, warnings are still shown."""
    url, _ = serve(rkt, server)
    result = rkt.run(INSECURE, "fetch", "--progress=none", url, check=0)
    assert "Downloading" not in result.stderr
    assert "warning: " in result.stderr


def test_a_bar_on_a_terminal(rkt: Rkt, server: Server) -> None:
    """A terminal gets a bar that is redrawn, and plain figures when asked for."""
    url, _ = serve(rkt, server)
    for style, redrawn in (("auto", True), ("plain", False)):
        main_fd, terminal_fd = pty.openpty()
        try:
            process = subprocess.Popen(
                rkt.command(INSECURE, "fetch", f"--progress={style}", url),
                env=rkt.environment({"TERM": "xterm"}),
                stdout=subprocess.DEVNULL,
                stderr=terminal_fd,
            )
            os.close(terminal_fd)
            seen = b""
            while True:
                try:
                    data = os.read(main_fd, 4096)
                except OSError:
                    break
                if not data:
                    break
                seen += data
            assert process.wait(20) == 0
        finally:
            os.close(main_fd)
        assert b"Downloading ACI" in seen
        assert (b"\x1b[2K" in seen) is redrawn


def test_other_words_are_refused(rkt: Rkt) -> None:
    """An unknown style is refused before anything is fetched."""
    assert "progress" in rkt.run("fetch", "--progress=loud", "./x.aci", check=254).stderr
