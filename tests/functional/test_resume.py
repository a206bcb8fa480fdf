# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import write_aci
from tests.lib.keys import KeyRing
from tests.lib.pace import SLOWNESS
from tests.lib.server import Page, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
NAME = "example.com/app"
TAG = {"ETag": '"one"'}


@pytest.fixture
def server() -> Iterator[Server]:
    """A plain server."""
    with Server() as running:
        yield running


def make(rkt: Rkt, size_bytes: int = 8 << 20) -> bytes:
    """An image of about this size."""
    path = f"{rkt.base}/app.aci"
    write_aci(path, ["/bin/app"], name=NAME, files={"data": os.urandom(size_bytes)})
    with open(path, "rb") as file:
        return file.read()


def partial_bytes(rkt: Rkt) -> int:
    """How many bytes of downloads are kept, validators left aside."""
    directory = f"{rkt.data}/cas/partial"
    if not os.path.isdir(directory):
        return 0
    return sum(
        os.stat(f"{directory}/{name}").st_size
        for name in os.listdir(directory)
        if not name.endswith(".validators")
    )


def kill_at(rkt: Rkt, server: Server, page: Page, count: int) -> None:
    """Let a fetch receive so many bytes, and kill it."""
    url = server.put("/app.aci", Page(page.body, headers=page.headers, stall=count, ranges=True))
    process = rkt.popen(INSECURE, "fetch", url)
    deadline = time.monotonic() + 20 * SLOWNESS
    while partial_bytes(rkt) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait(20)
    assert partial_bytes(rkt) == count
    server.put("/app.aci", page)


@pytest.mark.parametrize("percent", [10, 50, 90])
def test_a_killed_fetch_goes_on(rkt: Rkt, server: Server, percent: int) -> None:
    """At most a tenth is downloaded twice, whenever the fetch was killed; nothing of it stays afterwards."""
    body = make(rkt)
    page = Page(body, headers=TAG, ranges=True)
    kill_at(rkt, server, page, len(body) * percent // 100)
    result = rkt.run(INSECURE, "--debug", "fetch", f"{server.url}/app.aci", check=0)
    assert "going on with an earlier download" in result.stderr
    assert len(body) <= server.sent["/app.aci"] <= len(body) * 1.1
    assert rkt.run("image", "list", "--no-legend", "--fields=name", check=0).lines == [NAME]
    assert os.listdir(f"{rkt.data}/cas/partial") == []
    assert rkt.run("image", "verify", NAME).status == 0
    assert rkt.leaks() == []


@pytest.mark.parametrize("row", ["F15", "F16"])
def test_f15_f16_after_a_kill_of_both(rkt: Rkt, row: str) -> None:
    """When server and client died half-way, the image is whole afterwards, and no more is sent than has to be.

    F15: a server with ranges and the old Last-Modified sends the second half only. F16: one with neither sends all of it.
    """
    body = make(rkt, 1 << 20)
    half = len(body) // 2
    date = {"Last-Modified": "Sun, 01 Mar 2020 10:00:00 GMT"}
    with Server() as server:
        url = server.url
        port = int(server.authority.rpartition(":")[2])
        kill_at(rkt, server, Page(body, headers=date, ranges=True), half)
    again = Page(body, headers=date, ranges=True) if row == "F15" else Page(body)
    with Server(port=port) as server:
        server.put("/app.aci", again)
        rkt.run(INSECURE, "fetch", f"{url}/app.aci", check=0)
        assert server.sent["/app.aci"] == (len(body) - half if row == "F15" else len(body))
        asked = [request.headers.get("Range") for request in server.requests]
        assert asked == [f"bytes={half}-"]
    rkt.run("image", "verify", NAME, check=0)


def test_another_version_starts_again(rkt: Rkt, server: Server) -> None:
    """When the image changed between the two fetches, the result is the new one, whole."""
    body = make(rkt, 1 << 20)
    kill_at(rkt, server, Page(body, headers=TAG, ranges=True), len(body) // 2)
    other = make(rkt, 1 << 20)
    url = server.put("/app.aci", Page(other, headers={"ETag": '"two"'}, ranges=True))
    rkt.run(INSECURE, "fetch", url, check=0)
    assert server.sent["/app.aci"] == len(body) // 2 + len(other)


def test_a_mixed_image_is_refused(rkt: Rkt, server: Server) -> None:
    """A server that passes one image off as the continuation of another gets no image in, and the next fetch succeeds."""
    body = make(rkt, 1 << 20)
    kill_at(rkt, server, Page(body, headers=TAG, ranges=True), len(body) // 2)
    other = make(rkt, 1 << 20)
    with KeyRing() as ring:
        key = ring.make("alice@example.com")
        path = f"{rkt.base}/alice.asc"
        with open(path, "wb") as file:
            file.write(ring.export(key))
        rkt.run("trust", f"--prefix={NAME}", "--skip-fingerprint-review", path, check=0)
        server.put("/app.aci.asc", ring.sign(key, other))
        url = server.put("/app.aci", Page(other, headers=TAG, ranges=True))
        result = rkt.run("fetch", url, check=254)
        assert "hint: " in result.stderr
        assert rkt.run("image", "list", "--no-legend", check=0).lines == []
        assert partial_bytes(rkt) == 0
        rkt.run("fetch", url, check=0)


def test_a_missing_key_costs_no_second_download(rkt: Rkt, server: Server) -> None:
    """What could not be verified for want of a key is kept; with the key it is used, and was unreachable meanwhile."""
    body = make(rkt, 1 << 20)
    with KeyRing() as ring:
        key = ring.make("alice@example.com")
        server.put("/app.aci.asc", ring.sign(key, body))
        url = server.put("/app.aci", Page(body, headers=TAG, ranges=True))
        rkt.run("fetch", url, check=254)
        assert rkt.run("image", "list", "--no-legend", check=0).lines == []
        path = f"{rkt.base}/alice.asc"
        with open(path, "wb") as file:
            file.write(ring.export(key))
        rkt.run("trust", f"--prefix={NAME}", "--skip-fingerprint-review", path, check=0)
        rkt.run("fetch", url, check=0)
    assert server.sent["/app.aci"] == len(body) + 1


def test_a_broken_connection_is_taken_up_again(rkt: Rkt, server: Server) -> None:
    """One command gets over lost connections and an overloaded server, downloading nothing twice."""
    body = make(rkt, 3 << 20)
    page = Page(body, headers=TAG, ranges=True, truncate=2 << 20, first=[503])
    rkt.run(INSECURE, "fetch", server.put("/app.aci", page), check=0)
    assert server.sent["/app.aci"] == len(body)


def test_old_leftovers_are_collected(rkt: Rkt, server: Server) -> None:
    """`image gc` keeps a download that broke off today and removes one that nobody went on with for long."""
    body = make(rkt, 1 << 20)
    kill_at(rkt, server, Page(body, headers=TAG, ranges=True), 1000)
    rkt.run("image", "gc", check=0)
    assert partial_bytes(rkt) == 1000
    directory = f"{rkt.data}/cas/partial"
    for name in os.listdir(directory):
        os.utime(f"{directory}/{name}", (1e9, 1e9))
    rkt.run("image", "gc", check=0)
    assert os.listdir(directory) == []
