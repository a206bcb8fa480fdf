# SPDX-License-Identifier: Apache-2.0
"""The newest signed image of a name is remembered, and an older one is no update (SG11)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rkt.errors import NotVerified
from rkt.trust.newest import Version, check_newest, seconds_of

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = os.path.join(os.path.dirname(__file__), "..", "..", "data", "formats", "1", "trust")
APP = Version(
    name="registry.example/team/app", label="1", platform="linux/amd64", digest="sha256:b", signed_at=200
)
OLD = APP.replace(digest="sha256:a", signed_at=100)
NEW = APP.replace(digest="sha256:c", signed_at=300)


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A data directory that has seen an image."""
    path = str(tmp_path)
    assert check_newest(APP, "refuse", path) == ""
    return path


def test_an_older_signed_image_is_refused_where_the_rule_says_so(data: str) -> None:
    """The message has both digests and times, the hint how to have it all the same; nothing is forgotten by trying."""
    for _ in range(2):
        with pytest.raises(NotVerified, match=r"app:1\" is older than what was seen") as caught:
            check_newest(OLD, "refuse", data)
    assert "sha256:a, signed 1970-01-01 00:01:40 UTC, while sha256:b, signed" in caught.value.message
    assert "registry.example/team/app@sha256:a" in caught.value.hint
    assert check_newest(NEW, "refuse", data) == ""
    with pytest.raises(NotVerified):
        check_newest(APP, "refuse", data)


def test_a_look_leaves_no_trace(data: str) -> None:
    """Who only asks what would happen is told, and nothing is remembered."""
    assert check_newest(NEW, "refuse", data, remember=False) == ""
    assert check_newest(APP, "refuse", data) == ""
    with pytest.raises(NotVerified):
        check_newest(OLD, "refuse", data, remember=False)


def test_by_default_going_back_is_told_each_time(data: str) -> None:
    """It is loud, and what was newest stays so."""
    for _ in range(2):
        text = check_newest(OLD, "warn", data)
        assert text.startswith('warning: image "registry.example/team/app:1" went back: sha256:a')
    assert check_newest(APP, "refuse", data) == ""


def test_it_may_be_allowed(data: str) -> None:
    """Nothing is said, and still it is not taken for the newest."""
    assert check_newest(OLD, "allow", data) == ""
    with pytest.raises(NotVerified):
        check_newest(OLD, "refuse", data)


@pytest.mark.parametrize(
    "change", [{"label": "2"}, {"name": "registry.example/team/other"}, {"platform": "linux/arm64"}]
)
def test_another_name_tag_or_platform_has_a_memory_of_its_own(data: str, change: dict[str, str]) -> None:
    """Version 1 may be older than version 2."""
    assert check_newest(OLD.replace(**change), "refuse", data) == ""


def test_a_signature_that_says_no_time_leaves_the_configurations(tmp_path: Path) -> None:
    """Keys say no time; then the configuration decides, which the signature covers."""
    data = str(tmp_path)
    first = APP.replace(signed_at=0, created=50)
    check_newest(first, "refuse", data)
    with pytest.raises(NotVerified, match="made 1970"):
        check_newest(first.replace(digest="sha256:x", created=40), "refuse", data)
    assert check_newest(first.replace(digest="sha256:y", created=60), "refuse", data) == ""


@pytest.mark.parametrize("created", [0, 50])
def test_what_cannot_be_told_to_be_newer_is_refused_where_older_is(tmp_path: Path, created: int) -> None:
    """Without times, or with the same, nobody can say which came first: refused by refuse, silent otherwise."""
    data = str(tmp_path)
    first = APP.replace(signed_at=0, created=created)
    check_newest(first, "refuse", data)
    other = first.replace(digest="sha256:x")
    with pytest.raises(NotVerified, match="cannot be told to be newer"):
        check_newest(other, "refuse", data)
    assert check_newest(other, "warn", data) == ""


def test_the_same_image_is_never_older_than_itself(data: str) -> None:
    """A registry that withholds the later signature of an image does not make room for an older one."""
    assert check_newest(APP.replace(signed_at=0), "refuse", data) == ""
    assert check_newest(APP.replace(signed_at=150), "refuse", data) == ""
    with pytest.raises(NotVerified):
        check_newest(OLD.replace(signed_at=180), "refuse", data)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff"])
def test_a_damaged_memory_refuses_where_older_is_refused(data: str, content: bytes) -> None:
    """A check that cannot be made is a failed one; the hint removes the record."""
    directory = f"{data}/trust/newest"
    (name,) = os.listdir(directory)
    with open(f"{directory}/{name}", "wb") as stream:
        stream.write(content)
    with pytest.raises(NotVerified, match="could not be told") as caught:
        check_newest(OLD, "refuse", data)
    assert caught.value.hint == f"rm {directory}/{name}"
    assert check_newest(OLD, "warn", data) == ""
    assert check_newest(OLD, "refuse", data) == ""


def test_the_form_on_disk(tmp_path: Path) -> None:
    """A record of version 1 is read as it was meant, and written again as it was."""
    with open(os.path.join(SAMPLES, "newest"), "rb") as stream:
        sample = stream.read()
    known = Version(
        name="registry.example:5000/team/app",
        label="1.0",
        platform="linux/amd64",
        digest="sha256:" + "5" * 64,
        signed_at=1767322000,
        created=1767321500,
    )
    check_newest(known, "refuse", str(tmp_path))
    (name,) = os.listdir(tmp_path / "trust" / "newest")
    assert (tmp_path / "trust" / "newest" / name).read_bytes() == sample
    older = known.replace(digest="sha256:x", signed_at=known.signed_at - 1)
    with pytest.raises(NotVerified):
        check_newest(older, "refuse", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-02T03:04:05Z", 1704164645),
        ("2024-01-02T03:04:05.123456789Z", 1704164645),
        ("2024-01-02T04:04:05+01:00", 1704164645),
        ("1970-01-01T00:00:00Z", 0),
        ("1960-01-01T00:00:00Z", 0),
        ("", 0),
        ("yesterday", 0),
        ("99999-01-01T00:00:00Z", 0),
    ],
)
def test_times_of_configurations(text: str, seconds: int) -> None:
    """What is no time is none, and never an error."""
    assert seconds_of(text) == seconds
