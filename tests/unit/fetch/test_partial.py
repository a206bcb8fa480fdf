# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import threading
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from rkt.errors import FetchError
from rkt.fetch.answer import Downloaded
from rkt.fetch.limits import TransferLimits
from rkt.fetch.partial import Partial, PartialLimits, trim
from rkt.fetch.resume import Validators, parse_validators, read_validators
from rkt.fetch.transport import Client, make_tls_context
from rkt.linux.locks import lock_file
from tests.lib.server import Page, Server
from tests.lib.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = os.urandom(300_000)
ONCE = TransferLimits(connect_seconds=2, idle_seconds=0.5, total_seconds=10, attempts=1)
AGAIN = TransferLimits(
    connect_seconds=2,
    idle_seconds=0.5,
    total_seconds=10,
    attempts=3,
    retry_seconds=0.01,
    retry_progress_bytes=1000,
)
TAG = {"ETag": '"one"'}


@pytest.fixture
def server() -> Iterator[Server]:
    """A plain server."""
    with Server() as running:
        yield running


def get(directory: Path, url: str, limits: TransferLimits = ONCE, *, known_etag: str = "") -> Downloaded:
    """Download into ``blob``, going on with what is there."""
    flags = os.O_RDWR | os.O_CREAT
    blob_fd, validators_fd = os.open(directory / "blob", flags), os.open(directory / "validators", flags)
    client = Client(make_tls_context(insecure=False), user_agent="rkt/test", limits=limits)
    try:
        return client.download(
            url, blob_fd, limit_bytes=1 << 20, validators_fd=validators_fd, known_etag=known_etag
        )
    finally:
        client.close()
        os.close(blob_fd)
        os.close(validators_fd)


def break_off(directory: Path, server: Server, page: Page, count: int) -> str:
    """Leave the first ``count`` bytes of a page behind; returns its URL."""
    url = server.put("/x.aci", Page(page.body, headers=page.headers, truncate=count))
    with pytest.raises(FetchError, match="ended early"):
        get(directory, url)
    assert (directory / "blob").read_bytes() == page.body[:count]
    server.put("/x.aci", page)
    server.requests.clear()
    return url


@pytest.mark.parametrize(
    "headers",
    [TAG, {"Last-Modified": formatdate(1_600_000_000, usegmt=True)}],
    ids=["etag", "date"],
)
def test_the_rest_is_asked_for(tmp_path: Path, server: Server, headers: dict[str, str]) -> None:
    """What broke off goes on where it stopped, on condition that nothing changed."""
    url = break_off(tmp_path, server, Page(BODY, headers=headers, ranges=True), 100_000)
    answer = get(tmp_path, url)
    assert (tmp_path / "blob").read_bytes() == BODY
    assert (answer.kept_bytes, answer.size_bytes) == (100_000, len(BODY))
    asked = server.requests[0].headers
    assert asked["Range"] == "bytes=100000-"
    assert asked["If-Range"] in headers.values()
    assert server.sent["/x.aci"] <= len(BODY) + 100_000


def test_a_complete_file_costs_one_byte(tmp_path: Path, server: Server) -> None:
    """A file that was complete but not used is asked whether it is still current, not downloaded again."""
    url = server.put("/x.aci", Page(BODY, headers=TAG, ranges=True))
    get(tmp_path, url)
    server.sent.clear()
    assert get(tmp_path, url).size_bytes == len(BODY)
    assert server.sent["/x.aci"] == 1
    assert (tmp_path / "blob").read_bytes() == BODY


@pytest.mark.parametrize(
    "change",
    [
        {"headers": {"ETag": '"two"'}, "ranges": True},
        {"headers": {"ETag": '"two"'}, "ranges": True, "ignore_if_range": True},
        {"headers": TAG, "ranges": False},
        {"headers": TAG, "ranges": True, "content_range": "bytes 7-299999/300000"},
        {"headers": TAG, "ranges": True, "content_range": "bytes 100000-299999/300001"},
        {"headers": TAG, "ranges": True, "content_range": "bytes 100000-200000/300000"},
        {"headers": TAG, "ranges": True, "content_range": "nonsense"},
        {"headers": TAG, "ranges": True, "range_status": 416},
    ],
    ids=["other tag", "no If-Range", "no ranges", "offset", "size", "not the rest", "garbage", "416"],
)
def test_anything_else_starts_again(tmp_path: Path, server: Server, change: dict[str, object]) -> None:
    """No bytes of two versions, or of two places of one, are ever put together (invariant RG9)."""
    url = break_off(tmp_path, server, Page(BODY, headers=TAG), 100_000)
    other = os.urandom(len(BODY))
    server.put("/x.aci", Page(other, **change))  # type: ignore[arg-type]
    answer = get(tmp_path, url)
    assert (tmp_path / "blob").read_bytes() == other
    assert answer.kept_bytes == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ETag": 'W/"weak"'},
        {"ETag": "unquoted"},
        {"Last-Modified": "yesterday"},
        {"Last-Modified": "now"},
    ],
    ids=["none", "weak", "unquoted", "no date", "just now"],
)
def test_without_a_validator_nothing_goes_on(tmp_path: Path, server: Server, headers: dict[str, str]) -> None:
    """What proves nothing about a version is not asked by: the download starts again."""
    headers = {name: formatdate(usegmt=True) if text == "now" else text for name, text in headers.items()}
    url = break_off(tmp_path, server, Page(BODY, headers=headers, ranges=True), 100_000)
    get(tmp_path, url)
    assert "Range" not in server.requests[0].headers
    assert (tmp_path / "blob").read_bytes() == BODY


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"x" * 20_000, None], ids=["empty", "odd", "large", "flipped"]
)
def test_damaged_validators_are_none(tmp_path: Path, server: Server, damage: bytes | None) -> None:
    """Validators that are not as they were written are not used."""
    url = break_off(tmp_path, server, Page(BODY, headers=TAG, ranges=True), 100_000)
    path = tmp_path / "validators"
    path.write_bytes(path.read_bytes().replace(b"one", b"two") if damage is None else damage)
    get(tmp_path, url)
    assert "Range" not in server.requests[0].headers
    assert (tmp_path / "blob").read_bytes() == BODY


def test_validators_of_another_url_are_none(tmp_path: Path, server: Server) -> None:
    """The file says which URL it is about."""
    break_off(tmp_path, server, Page(BODY, headers=TAG, ranges=True), 100_000)
    get(tmp_path, server.put("/y.aci", Page(BODY, headers=TAG, ranges=True)))
    assert "Range" not in server.requests[0].headers


def test_a_broken_transfer_goes_on_by_itself(tmp_path: Path, server: Server) -> None:
    """Lost connections and passing statuses are met by asking again, each byte once."""
    url = server.put("/x.aci", Page(BODY, headers=TAG, ranges=True, truncate=70_000, first=[503]))
    assert get(tmp_path, url, AGAIN).size_bytes == len(BODY)
    assert (tmp_path / "blob").read_bytes() == BODY
    assert server.sent["/x.aci"] == len(BODY)
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("page", "count"),
    [
        (Page(status=503), 3),
        (Page(BODY, truncate=500), 3),
        (Page(hang_up=True), 3),
        (Page(BODY, stall=500), 3),
        (Page(status=404), 1),
    ],
    ids=["503", "truncated", "no answer", "silence", "404"],
)
def test_attempts_are_bounded(tmp_path: Path, server: Server, page: Page, count: int) -> None:
    """Without getting on it is given up soon; what cannot pass is not tried again."""
    with pytest.raises(FetchError):
        get(tmp_path, server.put("/x.aci", page), AGAIN)
    assert len(server.requests) == count


def test_not_modified(tmp_path: Path, server: Server) -> None:
    """A version that is had already is not transferred; without being asked, 304 is an error."""
    url = server.put("/x.aci", Page(status=304, headers=TAG))
    answer = get(tmp_path, url, known_etag='"one"')
    assert answer.not_modified
    assert server.requests[0].headers["If-None-Match"] == '"one"'
    with pytest.raises(FetchError, match="304"):
        get(tmp_path, url)


def test_validators_survive_sealing() -> None:
    """What is written is read back; anything else is nothing."""
    made = read_validators({"ETag": '"x"'}, "https://example.com/x", 7)
    assert made == Validators(url="https://example.com/x", etag='"x"', size_bytes=7)
    assert parse_validators(made.seal()) == made
    assert parse_validators(made.seal()[:-3]) is None
    assert parse_validators(Validators(url="https://example.com/x", etag="a\r\nb").seal()) is None


def test_one_at_a_time(tmp_path: Path) -> None:
    """The second waits, says so, and learns that it did; it never gets the removed file."""
    said: list[str] = []
    first = Partial(str(tmp_path), "https://example.com/x")
    os.write(first.blob_fd, b"bytes")
    seen: list[tuple[bool, int]] = []

    def second() -> None:
        with Partial(str(tmp_path), "https://example.com/x", waiting=lambda: said.append("wait")) as partial:
            seen.append((partial.waited, os.fstat(partial.blob_fd).st_size))

    thread = threading.Thread(target=second)
    thread.start()
    while not said:
        pass
    first.discard()
    first.close()
    thread.join(20)
    assert said == ["wait"]
    assert seen == [(True, 0)]
    assert os.listdir(tmp_path / "cas/partial") == []


def test_only_the_own_file_is_removed(tmp_path: Path) -> None:
    """Whoever discards twice takes nothing away from the next, who has a new file of that name."""
    first = Partial(str(tmp_path), "https://example.com/x")
    first.discard()
    with Partial(str(tmp_path), "https://example.com/x") as second:
        assert not second.waited
        first.discard()
        first.close()
        assert os.path.samestat(os.stat(second.path), os.fstat(second.blob_fd))


def test_files_are_roots_own(tmp_path: Path) -> None:
    """Directory and files are for their owner alone; the worker's descriptors are not those that hold the lock."""
    with Partial(str(tmp_path), "https://example.com/x") as partial:
        fds = partial.open_for_worker()
        try:
            os.write(fds[0], b"x")
            assert partial.blob_fd not in fds
            with pytest.raises(BlockingIOError):
                lock_file(partial.path, exclusive=True, blocking=False)
        finally:
            for fd in fds:
                os.close(fd)
    directory = tmp_path / "cas/partial"
    assert directory.stat().st_mode & 0o777 == 0o700
    names = os.listdir(directory)
    assert len(names) == 2
    assert {(directory / name).stat().st_mode & 0o777 for name in names} == {0o600}


def test_the_oldest_go_first(tmp_path: Path) -> None:
    """Beyond the bound the oldest are removed, with their validators; those in use and what is not ours stay."""
    directory = tmp_path / "cas/partial"
    partials = [Partial(str(tmp_path), f"https://example.com/{i}") for i in range(4)]
    for age, partial in enumerate(partials):
        os.write(partial.blob_fd, b"x" * 100_000)
        for fd in partial.open_for_worker():
            os.close(fd)
        for path in (partial.path, f"{partial.path}.validators"):
            os.utime(path, (1e9 - age, 1e9 - age))
    for partial in partials[:3]:
        partial.close()
    (directory / "README").write_text("not ours")
    assert trim(str(tmp_path), PartialLimits(total_bytes=250_000, age_seconds=1e12)) == []
    left = {os.path.basename(partials[i].path) for i in (0, 3)}
    assert set(os.listdir(directory)) == {"README", *left, *(f"{name}.validators" for name in left)}
    partials[3].close()
    assert trim(str(tmp_path)) == []
    assert os.listdir(directory) == ["README"]


def test_nothing_to_trim(tmp_path: Path) -> None:
    """A data directory of an earlier version has no such directory."""
    assert trim(str(tmp_path)) == []


def test_the_sample_on_disk_is_read() -> None:
    """What version 1 wrote is read, and is what is written today."""
    with open(os.path.join(ROOT, "tests/data/formats/1/fetch/validators"), "rb") as file:
        data = file.read()
    expected = Validators(
        url="https://example.com/app.aci",
        etag='"one"',
        last_modified="Sun, 13 Sep 2020 12:26:40 GMT",
        size_bytes=300_000,
    )
    assert parse_validators(data) == expected
    assert expected.seal() == data
