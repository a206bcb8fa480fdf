# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rkt.errors import InvalidManifest, UsageError
from rkt.schema import streams
from rkt.schema.appc import ANNOTATION_LOG_MODE, ANNOTATION_LOG_PATH, ANNOTATION_STREAMS, has_streams


def as_annotations(**modes: str) -> dict[str, str]:
    """Of an app."""
    return {ANNOTATION_STREAMS + name: mode for name, mode in modes.items()}


@pytest.mark.parametrize(
    ("modes", "parsed", "endpoints"),
    [
        ({}, ("null", "log", "log"), []),
        ({"stdin": "tty"}, ("tty", "log", "log"), ["tty"]),
        ({"stdout": "tty", "stderr": "null"}, ("null", "tty", "null"), ["tty"]),
        ({"stderr": "stream", "stdin": "stream"}, ("stream", "log", "stream"), ["stdin", "stderr"]),
    ],
)
def test_modes(modes: dict[str, str], parsed: tuple[str, ...], endpoints: list[str]) -> None:
    """A stream without an annotation is the usual one; a terminal is one endpoint, however many streams it is."""
    found = streams.parse_streams(as_annotations(**modes))
    assert found.modes == parsed
    assert found.endpoints == endpoints
    assert has_streams(as_annotations(**modes)) == bool(modes)


@pytest.mark.parametrize(
    "modes",
    [{"stdin": "log"}, {"stdout": ""}, {"stderr": "TTY"}, {"stdin": "tty", "stdout": "stream"}],
)
def test_modes_that_cannot_be(modes: dict[str, str]) -> None:
    """Unknown modes, and a terminal beside streams, are refused."""
    with pytest.raises(InvalidManifest):
        streams.parse_streams(as_annotations(**modes))


@pytest.mark.parametrize("path", ["", ".", "..", "a/b", "/a", "a/", "../a", "a\0b"])
def test_log_paths_that_lead_elsewhere(path: str) -> None:
    """A plain log's path is one component."""
    with pytest.raises(InvalidManifest, match="refusing path traversal"):
        streams.parse_log_path({ANNOTATION_LOG_PATH: path})


def test_log_modes() -> None:
    """There is one log mode, and its directory is an absolute path."""
    directory = streams.ANNOTATION_LOG_DIRECTORY
    assert streams.parse_log_mode({}) == (False, "")
    assert streams.parse_log_mode({ANNOTATION_LOG_MODE: "k8s-plain", directory: "/d"}) == (True, "/d")
    for bad in ({ANNOTATION_LOG_MODE: "journal"}, {ANNOTATION_LOG_MODE: "k8s-plain", directory: "d"}):
        with pytest.raises(InvalidManifest):
            streams.parse_log_mode(bad)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
        ("a,Z,~,.", b"aZ~."),
        ("", b""),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    """Keys are what a terminal sends for them."""
    assert streams.parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-P", "ctrl-1", "ab", ",", "a,,b", "\u00fc", "alt-x", "\x1b"])
def test_detach_keys_that_are_none(text: str) -> None:
    """What no terminal sends, or cannot be told, is refused."""
    with pytest.raises(UsageError, match="is not a key"):
        streams.parse_detach_keys(text)
