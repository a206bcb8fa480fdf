# SPDX-License-Identifier: Apache-2.0
"""How many signatures of a lookaside are looked at, and what is told of the rest (invariant RG8)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rkt.config.settings import Installation, Settings
from rkt.errors import ConfigError, FetchError
from rkt.fetch import lookaside_worker
from rkt.fetch.answer import Answer
from rkt.fetch.lookaside import find, read_events
from rkt.fetch.oci_reference import parse_docker

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = parse_docker("registry.example:5000/team/app:1")
DIGEST = f"sha256:{'a' * 64}"
PLACE = f"team/app@sha256={'a' * 64}"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Nothing is configured; what ``rkt-fetch`` does is done here."""

    def work_here(
        kind: str, request: dict[str, Any], fds: dict[str, int], _: Installation, **options: Any
    ) -> dict[str, Any]:
        assert kind == "fetch"
        work = lookaside_worker.prepare(json.loads(json.dumps(request)))
        answer: dict[str, Any] = work.run(fds, options["on_event"])
        return answer

    monkeypatch.setattr("rkt.fetch.job.run_worker", work_here)
    return Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=""),
        system_config_dir=str(tmp_path / "system"),
        local_config_dir=str(tmp_path / "local"),
    )


def sources(settings: Settings, url: str) -> list[tuple[str, str]]:
    """Where something was, without what comes before the number, and the problem with it."""
    found = find(url, REFERENCE, [DIGEST], settings)
    return [(evidence.source.rpartition("-")[2], evidence.problem) for evidence in found]


GARBAGE = "it is no signed OpenPGP message: it is empty"


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 40])
def test_files_are_counted(settings: Settings, tmp_path: Path, count: int) -> None:
    """From 1 until there is none, sixteen at most; that there may be more is told."""
    place = tmp_path / "store" / PLACE
    for number in range(1, count + 1):
        place.mkdir(parents=True, exist_ok=True)
        (place / f"signature-{number}").touch()
    found = sources(settings, f"file://{tmp_path}/store/")
    if count == 0:
        assert [problem for _, problem in found] == ["no OpenPGP signature is there"]
        return
    assert found[: min(count, 16)] == [(str(number), GARBAGE) for number in range(1, min(count, 16) + 1)]
    assert [problem for _, problem in found[16:]] == (
        ["only the first 16 signatures are read"] if count >= 16 else []
    )


@pytest.mark.parametrize("count", [0, 1, 16, 40])
def test_pages_are_counted(settings: Settings, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Of a server likewise, and nothing is asked for beyond."""
    asked: list[str] = []

    def exchange(_: object, url: str, *, limit_bytes: int) -> Answer:
        assert limit_bytes == 64 * 1024
        asked.append(url.removeprefix(f"https://sigs.example/x/{PLACE}/signature-"))
        return Answer(status=200 if int(asked[-1]) <= count else 404, headers={}, body=b"", url=url)

    monkeypatch.setattr("rkt.fetch.transport.Client.exchange", exchange)
    found = sources(settings, "https://sigs.example/x")
    assert asked == [str(number) for number in range(1, min(count + 1, 16) + 1)]
    assert [problem for _, problem in found].count(GARBAGE) == min(count, 16)
    assert ("17", "only the first 16 signatures are read") in found or count < 16


@pytest.mark.parametrize("status", [403, 410, 500])
def test_other_answers(settings: Settings, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Gone is as good as not there; what else a server says instead is told, and ends it."""
    monkeypatch.setattr(
        "rkt.fetch.transport.Client.exchange",
        lambda *_, **__: Answer(status=status, headers={}, body=b"", url=""),
    )
    said = "no OpenPGP signature is there" if status == 410 else f"the server answers with status {status}"
    assert [problem for _, problem in sources(settings, "https://sigs.example/x")] == [said]


@pytest.mark.parametrize(
    "url",
    [
        "/var/lib/sigstore",
        "ftp://sigs.example",
        "https://u:p@sigs.example",
        "file://host/x",
        "http://sigs.example",
    ],
)
def test_urls_that_are_not_asked(settings: Settings, url: str) -> None:
    """Other schemes, credentials, and plain http without leave are errors that name the URL."""
    with pytest.raises(ConfigError, match=url.partition("://")[2] or url):
        find(url, REFERENCE, [DIGEST], settings)


def test_worker_that_fails_is_told_where_it_is_missed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not answer in time is no error of the fetch: something else may vouch for the image."""

    def fail(*_: object, **__: object) -> None:
        raise FetchError("rkt-fetch was stopped: it took longer than 120 seconds")

    monkeypatch.setattr("rkt.fetch.job.run_worker", fail)
    ((_, problem),) = sources(settings, "https://sigs.example/x")
    assert problem.startswith("rkt-fetch was stopped")


def test_nowhere_to_look_is_told(settings: Settings) -> None:
    """Without a lookaside the two places where one can be named are told."""
    ((_, problem),) = sources(settings, "")
    assert "rkt trust … --lookaside=URL" in problem


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"source": "x", "payload": "!", "signature": "", "problem": ""},
        {"source": "x", "payload": 1, "signature": "", "problem": ""},
        {"source": "x", "payload": "", "problem": ""},
        {"source": "x", "payload": "AAAA" * 10_000, "signature": "", "problem": ""},
        {"source": "x", "payload": "", "signature": "A" * 1_000_000, "problem": ""},
    ],
)
def test_what_the_worker_says_is_checked(event: dict[str, Any]) -> None:
    """A worker that breaks the form, or says too much, has said nothing (HH2)."""
    with pytest.raises(FetchError):
        read_events([event])
