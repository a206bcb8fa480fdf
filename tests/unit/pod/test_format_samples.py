# SPDX-License-Identifier: Apache-2.0
"""Files of a pod as released versions wrote them; a sample is never changed, a new format gets a new directory."""

from __future__ import annotations

import os

from rkt.pod import log, summary
from rkt.schema.envelope import open_sealed, seal
from rkt.trust.verdict import Verdict

SAMPLES = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    "data",
    "formats",
    "1",
    "pod",
)


def read(name: str) -> bytes:
    """Bytes of a sample."""
    with open(os.path.join(SAMPLES, name), "rb") as stream:
        return stream.read()


def test_summary() -> None:
    """A stored summary means the same, and is written the same."""
    data = read("summary")
    parsed = summary.parse(data)
    assert parsed is not None
    assert (parsed.created_ns, parsed.name, parsed.insecure, parsed.networks) == (
        1767322985123456789,
        "web",
        "image,paths",
        True,
    )
    assert [(app.name, app.image) for app in parsed.apps] == [
        ("front", "example.com/front:1.0%"),
        ("back", "example.com/back"),
    ]
    assert summary.render(parsed) == data


def test_verdict() -> None:
    """A pod's stored verdict means the same, and is written the same."""
    data = read("verdict")
    version, body = open_sealed(data, "rkt.verdict", "sample")
    verdict = Verdict.from_json(body, what="sample")
    assert version == 1
    assert (verdict.kind, verdict.name, verdict.rule) == (
        "openpgp",
        "example.com/front",
        "prefix example.com",
    )
    assert seal("rkt.verdict", 1, verdict.to_json()) == data


def test_log() -> None:
    """A stored log is read to the end."""
    found = [log.parse_line(line) for line in read("front.log").splitlines()]
    entries = [(entry.stream, entry.text, entry.partial) for entry in found if entry]
    assert entries == [
        ("stdout", b"hello", False),
        ("stderr", b"a long ", True),
        ("stderr", b"line", False),
        ("stdout", b"", False),
    ]
