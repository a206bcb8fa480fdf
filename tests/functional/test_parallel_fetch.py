# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import write_aci
from tests.lib.server import Page, Server

if TYPE_CHECKING:
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
FETCHES = 100
WAITING = "another rkt instance is downloading this file, waiting..."


def make(rkt: Rkt) -> bytes:
    """An image of about a megabyte."""
    path = f"{rkt.base}/app.aci"
    write_aci(path, ["/bin/app"], files={"data": os.urandom(1 << 20)})
    with open(path, "rb") as file:
        return file.read()


def test_one_download_for_all(rkt: Rkt) -> None:
    """Many fetches of one image at once all succeed, and the server sends it once; nothing is left but the image."""
    body = make(rkt)
    with Server() as server:
        url = server.put("/app.aci", Page(body, headers={"ETag": '"one"'}, ranges=True, pace_seconds=0.05))
        processes = [rkt.popen(INSECURE, "fetch", url) for _ in range(FETCHES)]
        statuses = [process.wait(120) for process in processes]
        outputs = [process.texts() for process in processes]
        failed = [output for status, output in zip(statuses, outputs, strict=True) if status]
        assert failed == []
        assert server.sent["/app.aci"] <= 2 * len(body)
    assert len({out for out, _ in outputs}) == 1
    assert any(WAITING in err for _, err in outputs)
    assert len(rkt.run("image", "list", "--no-legend", check=0).lines) == 1
    assert os.listdir(f"{rkt.data}/cas/partial") == []
    assert os.listdir(f"{rkt.data}/cas/tmp") == []
    assert rkt.leaks() == []


def test_whoever_waited_takes_over(rkt: Rkt) -> None:
    """When the downloading command is killed, one that waits goes on with its bytes."""
    body = make(rkt)
    with Server() as server:
        slow = Page(body, headers={"ETag": '"one"'}, ranges=True, stall=len(body) // 2)
        url = server.put("/app.aci", slow)
        first = rkt.popen(INSECURE, "fetch", url)
        while server.sent["/app.aci"] < len(body) // 2:
            assert first.poll() is None
        second = rkt.popen(INSECURE, "fetch", url)
        while WAITING not in second.stderr_text:
            assert second.poll() is None
        server.put("/app.aci", Page(body, headers={"ETag": '"one"'}, ranges=True))
        first.kill()
        first.wait(20)
        assert second.wait(60) == 0
        assert server.sent["/app.aci"] <= len(body) * 1.1
