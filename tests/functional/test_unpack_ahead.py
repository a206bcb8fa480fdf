# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib import aci
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
FILES = 40
FILE_BYTES = 200_000


@pytest.fixture
def server() -> Iterator[Server]:
    """A plain server."""
    with Server() as running:
        yield running


def make(rkt: Rkt) -> bytes:
    """An image of 8 MB in files of the same size and random content."""
    path = f"{rkt.base}/app.aci"
    write_aci(
        path,
        ["/bin/app"],
        name=NAME,
        files={f"data/{i:02}": os.urandom(FILE_BYTES) for i in range(FILES)},
        compression="gzip",
    )
    with open(path, "rb") as file:
        return file.read()


def unpacked(rkt: Rkt) -> int:
    """How many files stand in staging."""
    return sum(len(names) for _, _, names in os.walk(f"{rkt.data}/cas/tmp") if len(names) > 2)


def test_files_appear_while_the_download_runs(rkt: Rkt, server: Server) -> None:
    """Most is unpacked before the end has come; it is not in the store, and a kill leaves nothing of it."""
    body = make(rkt)
    url = server.put("/app.aci", Page(body, headers=TAG, ranges=True, stall=len(body) * 9 // 10))
    process = rkt.popen(INSECURE, "fetch", url)
    deadline = time.monotonic() + 20 * SLOWNESS
    while unpacked(rkt) < FILES * 8 // 10:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.texts()
        time.sleep(0.01)
    assert rkt.run("image", "list", "--no-legend", check=0).lines == []
    process.kill()
    process.wait(20)
    rkt.run("image", "gc", check=0)
    assert os.listdir(f"{rkt.data}/cas/tmp") == []
    assert os.listdir(f"{rkt.data}/cas/layer") == []
    server.put("/app.aci", Page(body, headers=TAG, ranges=True))
    rkt.run(INSECURE, "fetch", url, check=0)
    rkt.run("image", "verify", NAME, check=0)
    assert rkt.leaks() == []


def test_a_version_that_changes_meanwhile(rkt: Rkt, server: Server) -> None:
    """When the server begins anew with another version, nothing of the first reaches the image."""
    first, second = make(rkt), make(rkt)
    url = server.put("/app.aci", Page(first, headers=TAG, ranges=True, truncate=len(first) * 3 // 4))

    def change() -> None:
        while server.sent["/app.aci"] < len(first) * 3 // 4:
            time.sleep(0.005)
        server.put("/app.aci", Page(second, headers={"ETag": '"two"'}, ranges=True))

    thread = threading.Thread(target=change)
    thread.start()
    rkt.run(INSECURE, "fetch", url, check=0)
    thread.join()
    rkt.run("image", "verify", NAME, check=0)
    rkt.run("image", "export", NAME, f"{rkt.base}/out.aci", check=0)
    key = rkt.run("image", "list", "--no-legend", "--fields=id", "--full", check=0).lines
    rkt.run(INSECURE, "fetch", f"{rkt.base}/app.aci", check=0)
    assert rkt.run("image", "list", "--no-legend", "--fields=id", "--full", check=0).lines == key


def test_what_is_not_verified_is_gone(rkt: Rkt, server: Server) -> None:
    """An image with somebody else's signature is unpacked nowhere but in staging, and leaves no trace there."""
    body = make(rkt)
    with KeyRing() as ring:
        key = ring.make("alice@example.com")
        path = f"{rkt.base}/alice.asc"
        with open(path, "wb") as file:
            file.write(ring.export(key))
        rkt.run("trust", f"--prefix={NAME}", "--skip-fingerprint-review", path, check=0)
        server.put("/app.aci.asc", ring.sign(key, b"something else"))
        rkt.run("fetch", server.put("/app.aci", body), check=254)
    assert rkt.run("image", "list", "--no-legend", check=0).lines == []
    for directory in ("tmp", "layer", "split", "record", "partial"):
        assert os.listdir(f"{rkt.data}/cas/{directory}") == []


def test_what_is_no_image_is_an_error(rkt: Rkt, server: Server) -> None:
    """A body that breaks off inside the archive is refused for that reason, and nothing stays."""
    body = make(rkt)
    result = rkt.run(INSECURE, "fetch", server.put("/app.aci", body[: len(body) // 4 * 3]), check=254)
    assert "truncated" in result.stderr or "ends" in result.stderr
    assert os.listdir(f"{rkt.data}/cas/tmp") == []
    assert os.listdir(f"{rkt.data}/cas/partial") == []


def test_an_interrupt_takes_everything_back(rkt: Rkt, server: Server) -> None:
    """SIGINT while files are being made ends all workers first and removes staging then; the bytes so far stay."""
    body = make(rkt)
    url = server.put("/app.aci", Page(body, headers=TAG, ranges=True, stall=len(body) // 2))
    process = rkt.popen(INSECURE, "fetch", url)
    deadline = time.monotonic() + 20 * SLOWNESS
    while not unpacked(rkt):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.texts()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert os.listdir(f"{rkt.data}/cas/tmp") == []
    assert len(os.listdir(f"{rkt.data}/cas/partial")) == 2
    assert rkt.leaks() == []


def test_what_cannot_be_unpacked_is_not_downloaded_to_its_end(rkt: Rkt, server: Server) -> None:
    """An entry that breaks a rule ends the fetch when it comes, names itself, and leaves no bytes to go on with."""
    data = aci.tar_bytes(
        [
            aci.manifest_entry(json.dumps(aci.image_manifest(NAME, ["/bin/app"])).encode()),
            aci.directory("rootfs"),
            aci.Entry("rootfs/../../outside"),
            aci.Entry("rootfs/rest", content=os.urandom(8 << 20)),
        ]
    )
    url = server.put("/app.aci", Page(data, headers=TAG, ranges=True, pace_seconds=0.05))
    refused = rkt.run(INSECURE, "fetch", url, check=254)
    assert "rootfs/../../outside" in refused.stderr
    assert server.sent["/app.aci"] < len(data) * 3 // 4
    assert os.listdir(f"{rkt.data}/cas/partial") == []
    assert os.listdir(f"{rkt.data}/cas/tmp") == []
