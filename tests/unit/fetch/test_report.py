# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest

from rkt.config.settings import Installation, Settings
from rkt.fetch.report import AUTO, JSON, NONE, PLAIN, Reporter

SETTINGS = Settings(installation=Installation(package_path="/", library_paths=[], stage1_images_path="/"))
URL = "https://example.com/app.aci"


def shown(capsys: pytest.CaptureFixture[str], style: str, total: int | None = 2_000_000) -> str:
    """What one transfer, and a message after it, print."""
    report = Reporter(SETTINGS, style)
    for done in (1000, 1_500_000, 2_000_000):
        report.progress("ACI", done, total, URL)
    report.message("done\x1b[2J")
    report.debug("not shown")
    report.end()
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.mark.parametrize("style", [PLAIN, AUTO])
def test_lines(capsys: pytest.CaptureFixture[str], style: str) -> None:
    """Without a terminal: figures, at most one line per second and one at the end; nothing moves the cursor."""
    assert shown(capsys, style) == "Downloading ACI: 2.00 MB/2.00 MB\nimage: done\\x1b[2J\n"


def test_an_unknown_size_is_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that does not say the size still gives figures."""
    assert shown(capsys, PLAIN, None).startswith("Downloading ACI: 2.00 MB of an unknown total size\n")


def test_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """No progress at all; messages stay."""
    assert shown(capsys, NONE) == "image: done\\x1b[2J\n"


def test_events(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is an object; the first and the last figures are there, those between only ten times a second."""
    lines = shown(capsys, JSON).splitlines()
    events = [json.loads(line) for line in lines]
    assert events == [
        {"event": "download", "url": URL, "done_bytes": 1000, "total_bytes": 2_000_000},
        {"event": "download", "url": URL, "done_bytes": 2_000_000, "total_bytes": 2_000_000},
        {"event": "message", "text": "done\x1b[2J"},
    ]
    assert all(line.isprintable() for line in lines)
