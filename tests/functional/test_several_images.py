# SPDX-License-Identifier: Apache-2.0
"""Several images of one command, and the dependencies of one image, are on their way at once (``fetch.crew``)."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import ARCH, write_aci
from tests.lib.rkt import wait_for
from tests.lib.server import Page, Server
from tests.lib.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
TAG = {"ETag": '"one"'}


@pytest.fixture
def server() -> Iterator[Server]:
    """A plain server."""
    with Server() as running:
        yield running


def serve(rkt: Rkt, server: Server, name: str, *, size: int = 1000, **page: object) -> str:
    """URL of an image called example.com/NAME."""
    path = f"{rkt.base}/made.aci"
    write_aci(path, ["/bin/app"], name=f"example.com/{name}", files={"data": os.urandom(size)})
    with open(path, "rb") as file:
        return server.put(f"/{name}.aci", Page(file.read(), **page))  # type: ignore[arg-type]


def stored(rkt: Rkt) -> set[str]:
    """Names of the images in the store."""
    return set(rkt.run("image", "list", "--no-legend", "--fields=name", check=0).lines)


def nothing_left(rkt: Rkt) -> None:
    """No process, no staging."""
    assert rkt.leaks() == []
    assert os.listdir(f"{rkt.data}/cas/tmp") == []


def test_images_of_a_command_arrive_together(rkt: Rkt, server: Server) -> None:
    """The first is sent only when the last was asked for; hashes and messages come in the order of the arguments."""
    urls = [
        serve(rkt, server, "one", after="/three.aci"),
        serve(rkt, server, "two", after="/three.aci"),
        serve(rkt, server, "three"),
    ]
    result = rkt.run(INSECURE, "--debug", "fetch", *urls, check=0)
    position = 0
    for url in urls:
        position = result.stderr.index(f'remote fetching from URL "{url}"', position)
        position = result.stderr.index("signature verification has been disabled", position)
    names = [rkt.run("image", "list", "--fields=id,name", "--full", "--no-legend", check=0).stdout]
    for key, name in zip(result.lines, ("one", "two", "three"), strict=True):
        assert re.search(rf"{key}\S*\s+example.com/{name}\b", names[0])
    nothing_left(rkt)


def test_apps_of_a_pod_arrive_together(rkt: Rkt, server: Server) -> None:
    """``run`` and ``prepare`` fetch all images of a pod at once, also when one of them is in the store."""
    there = f"{rkt.base}/there.aci"
    write_aci(there, ["/bin/app"], name="example.com/there")
    rkt.run(INSECURE, "fetch", there, check=0)
    urls = [serve(rkt, server, "one", after="/two.aci"), serve(rkt, server, "two")]
    rkt.run(INSECURE, "prepare", urls[0], "example.com/there", urls[1], check=0)
    assert stored(rkt) >= {"example.com/one", "example.com/two", "example.com/there"}
    nothing_left(rkt)


def test_dependencies_of_a_level_arrive_together(rkt: Rkt, site: Site) -> None:
    """So do those of two images of one command; what both need comes once, and waits for nobody."""
    labels = {"os": "linux", "arch": ARCH}

    def dependencies(*names: str) -> list[dict[str, str]]:
        return [{"imageName": site.name(name)} for name in names]

    site.image(rkt, "a", dependencies=dependencies("c", "d"))
    site.image(rkt, "b", dependencies=dependencies("d", "e"))
    site.image(rkt, "c", labels=labels, files={"c": b"c"}, page={"after": "/images/e.aci"})
    site.image(rkt, "d", labels=labels, files={"d": b"d"}, page={"after": "/images/e.aci"})
    site.image(rkt, "e", labels=labels, files={"e": b"e"})
    result = rkt.run(INSECURE, "--debug", "fetch", site.name("a"), site.name("b"), check=0)
    assert len(result.lines) == 2
    downloads = [path for path in site.server.paths() if path.endswith(".aci")]
    assert sorted(downloads) == [f"/images/{name}.aci" for name in "abcde"]
    # What is said has the order of one fetch after the other.
    said = re.findall(r"remote fetching from URL \"\S*/images/(.)\.aci\"", result.stderr)
    assert said == ["a", "c", "d", "b", "e"]
    assert "waiting" not in result.stderr
    nothing_left(rkt)


def test_the_first_failure_of_the_arguments_counts(rkt: Rkt, server: Server) -> None:
    """Whichever failed first: the image before it is finished, what comes after it is given up, bytes so far are kept."""
    body = os.urandom(1 << 20)
    slow = serve(rkt, server, "slow", size=1 << 18, pace_seconds=0.1)
    refused = server.put("/refused.aci", Page(status=403))
    missing = server.put("/missing.aci", Page(status=404))
    endless = server.put("/endless.aci", Page(body, headers=TAG, stall=1 << 19, ranges=True))
    result = rkt.run(INSECURE, "fetch", slow, missing, refused, endless, check=254)
    assert "404" in result.stderr
    assert "403" not in result.stderr
    assert result.stdout == ""
    assert stored(rkt) == {"example.com/slow"}
    kept = os.listdir(f"{rkt.data}/cas/partial")
    assert [name for name in kept if not name.endswith(".validators")]
    nothing_left(rkt)


def test_an_error_reads_as_it_does_alone(rkt: Rkt, server: Server) -> None:
    """Message, cause, hint and status of an image are the same among others as by itself."""
    good = serve(rkt, server, "good")
    for flags, reference in (
        ((), good),
        ((INSECURE,), "./none.aci"),
        ((INSECURE,), server.put("/none.aci", Page(status=404))),
        ((INSECURE, "--debug"), "localhost/none"),
    ):
        alone = rkt.run(*flags, "fetch", reference, check=254)
        other = f"{rkt.base}/other.aci"
        write_aci(other, ["/bin/app"], name="example.com/other")
        among = rkt.run(*flags, "fetch", reference, reference, other, check=254)
        assert among.stderr == alone.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_ends_all(rkt: Rkt, server: Server, number: signal.Signals) -> None:
    """However the command ends, its downloads end with it; what came so far stays and is gone on with."""
    page = {"headers": TAG, "ranges": True}
    urls = [serve(rkt, server, name, size=1 << 20, stall=1 << 19, **page) for name in ("one", "two")]
    process = rkt.popen(INSECURE, "fetch", *urls)
    wait_for(lambda: min(server.sent[f"/{name}.aci"] for name in ("one", "two")) >= 1 << 19, "two downloads")
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(20) == (1 << 7 | number if number == signal.SIGINT else -number)
    assert rkt.leaks() == []
    if number == signal.SIGINT:
        assert os.listdir(f"{rkt.data}/cas/tmp") == []
        assert process.texts()[1].endswith("fetch: interrupted\n")
    for name in ("one", "two"):
        server.pages[f"/{name}.aci"].stall = None
    result = rkt.run(INSECURE, "--debug", "fetch", *urls, check=0)
    assert result.stderr.count("going on with an earlier download") == 2
    nothing_left(rkt)


def test_events_of_several(rkt: Rkt, server: Server) -> None:
    """Each figure tells by its URL which download it is of; each ends at its whole size."""
    urls = [serve(rkt, server, name, size=1 << 18, pace_seconds=0.03) for name in ("one", "two")]
    result = rkt.run(INSECURE, "fetch", "--progress=json", *urls, check=0)
    events = [json.loads(line) for line in result.stderr.splitlines()]
    for url in urls:
        figures = [event["done_bytes"] for event in events if event.get("url") == url]
        assert figures == sorted(figures)
        assert figures[-1] == len(server.pages[url.removeprefix(server.url)].body)
    images = [event["reference"] for event in events if event["event"] == "image"]
    assert images == urls


@pytest.mark.parametrize("style", ["auto", "plain"])
def test_a_line_for_each_on_a_terminal(rkt: Rkt, server: Server, style: str) -> None:
    """Bars, or lines, say which image they are of."""
    urls = [serve(rkt, server, name, size=1 << 18, pace_seconds=0.03) for name in ("one", "two")]
    main_fd, terminal_fd = pty.openpty()
    try:
        process = subprocess.Popen(
            rkt.command(INSECURE, "fetch", f"--progress={style}", *urls),
            env=rkt.environment({"TERM": "xterm", "COLUMNS": "200"}),
            stdout=subprocess.DEVNULL,
            stderr=terminal_fd,
        )
        os.close(terminal_fd)
        seen = b""
        with contextlib.suppress(OSError):
            while data := os.read(main_fd, 4096):
                seen += data
        assert process.wait(20) == 0
    finally:
        os.close(main_fd)
    for url in urls:
        assert f"Downloading ACI {url}".encode() in seen


def test_one_question_at_a_time(rkt: Rkt, site: Site, images: Images) -> None:
    """Keys are asked about in the order of the images, while the others wait; what an answer covers is asked once."""
    labels = {"os": "linux", "arch": ARCH}
    with open(images.key_file, "rb") as file:
        site.server.put("/keys.asc", Page(file.read()))
    for name in ("a", "a/x", "b"):
        site.discoverable(f"/{name}", f"{site.host} {site.url(f'/images/{name}.{{ext}}')}")
        page = site.server.pages[f"/{name}?ac-discovery=1"]
        keys = f"<meta name='ac-discovery-pubkeys' content='{site.host} {site.url('/keys.asc')}'>"
        page.body = page.body.replace(b"</head>", keys.encode() + b"</head>")
        site.image(rkt, name, signer=(images.ring, images.key), labels=labels, files={"name": name.encode()})
    main_fd, terminal_fd = pty.openpty()
    try:
        process = subprocess.Popen(
            rkt.command("fetch", "--progress=plain", *map(site.name, ("a", "a/x", "b"))),
            env=rkt.environment(),
            stdin=terminal_fd,
            stdout=subprocess.PIPE,
            stderr=terminal_fd,
        )
        os.close(terminal_fd)
        seen, asked = b"", 0
        with contextlib.suppress(OSError):
            while data := os.read(main_fd, 4096):
                seen += data
                if seen.count(b"(yes/no)?") > asked:
                    asked += 1
                    os.write(main_fd, b"yes\n")
        assert process.wait(20) == 0
        assert process.stdout is not None
        with process.stdout:
            assert len(process.stdout.read().splitlines()) == 3
    finally:
        os.close(main_fd)
    added = re.findall(rb'Added key for prefix "[0-9.]*/(\S*)"', seen)
    assert (asked, added) == (2, [b"a", b"b"])
