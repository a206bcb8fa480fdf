# SPDX-License-Identifier: Apache-2.0
"""What a worker without rights reports to the command, which has them: a worker may have become anybody's (HH2)."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from rkt.config.settings import Installation, Settings
from rkt.errors import RktError
from rkt.fetch import lookaside, remote
from rkt.fetch.fetch import Fetch
from rkt.fetch.layout import LocalSource
from rkt.fetch.oci_reference import DockerReference, LocalReference
from rkt.fetch.oci_source import Blob, Received, Resolved
from rkt.fetch.registry import RegistrySource
from rkt.fetch.report import JSON, PLAIN, Reporter
from rkt.schema import jsontext
from rkt.schema.oci import Platform
from rkt.trust import verifier
from rkt.trust.evidence import Subject
from rkt.values import AppcReference, Digest
from tests.fuzz.target import Target
from tests.fuzz.targets.documents import JSON_PIECES

if TYPE_CHECKING:
    from collections.abc import Callable

_DIGEST = Digest.parse(f"sha256:{'0' * 64}")
_SUBJECT = Subject(name="example.com/app", reference="example.com/app:1", digests=[_DIGEST])
_SETTINGS = Settings(
    installation=Installation(package_path="/nonexistent", library_paths=[], stage1_images_path=""),
    data_dir="/nonexistent",
    system_config_dir="/nonexistent",
    local_config_dir="/nonexistent",
)
_REFERENCE = DockerReference(registry="example.com", repository="app", tag="1")
_PLATFORM = Platform.parse("linux/amd64")


class _Staging:
    """Files that nobody else sees."""

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self, name: str) -> int:
        """As ``store.staging.Staging`` makes them; a second time the same."""
        return os.open(f"{self.path}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _check_resolved(found: Resolved | None) -> None:
    if found is not None:
        assert Digest.parse(found.digest) == found.digest, "no digest"
        assert found.index_digest is None or Digest.parse(found.index_digest), "no digest"


def _check_received(found: list[Received]) -> None:
    assert len(found) == 1, "other blobs"
    assert type(found[0].size_bytes) is int, "no size"


def _registry(staging: Any, answer: dict[str, Any]) -> None:
    source = RegistrySource(_REFERENCE, _SETTINGS, _PLATFORM)
    blob = Blob(digest=_DIGEST, size_bytes=1, fd=0, validators_fd=0)
    if "blobs" in answer:
        _check_received(source.blobs([blob], lambda _: None))
    else:
        _check_resolved(source.resolve(staging, None))
        _check_resolved(source.resolve(staging, _DIGEST))


def _layout(staging: Any, answer: dict[str, Any]) -> None:
    asked = Digest.parse(f"sha256:{'a' * 64}")
    for image in ("", asked):
        reference = LocalReference(kind="oci-archive", path=__file__, image=image)
        with LocalSource(reference, _PLATFORM, _SETTINGS) as source:
            if "blobs" in answer:
                with tempfile.TemporaryFile() as file:
                    blob = Blob(digest=_DIGEST, size_bytes=1, fd=file.fileno(), validators_fd=0)
                    _check_received(source.blobs([blob], lambda _: None))
            else:
                found = source.resolve(staging, None)
                _check_resolved(found)
                assert not image or found is None or asked in {found.digest, found.index_digest}, (
                    "another image"
                )


def _discovery(staging: Any, answer: dict[str, Any]) -> None:
    wanted = AppcReference.parse("example.com/app:1")
    found = remote.discover(wanted, _SETTINGS, what=remote.IMAGES, allow_http=False, tls_insecure=False)
    for endpoint in found.endpoints:
        assert endpoint.image.startswith("https://"), "no https"
        assert endpoint.signature.isprintable(), "control characters"


def _messages(staging: Any, answer: dict[str, Any]) -> None:
    for piece in lookaside._run({"op": "signed-messages", "sources": []}, {}, _SETTINGS):
        assert piece.source.isprintable(), "control characters"
        assert piece.problem.isprintable(), "control characters"


def _findings(staging: Any, answer: dict[str, Any]) -> None:
    for number, value in enumerate(verifier._listed(answer)):
        found = verifier._finding(value, number, "somewhere", _SUBJECT, None)
        assert found.requirement == number, "about another requirement"
        assert found.reason or (found.digest == _DIGEST and found.signer), "good, and about another image"
        assert found.reason.isprintable(), "control characters"
        assert found.signer.isprintable(), "control characters"


def _progress(staging: Any, answer: dict[str, Any]) -> None:
    for style in (PLAIN, JSON):
        said = io.StringIO()
        fetch = SimpleNamespace(
            _report=Reporter(_SETTINGS.replace(debug=True), style),
            _label="image",
            _url="https://x/",
            _ahead=None,
        )
        with contextlib.redirect_stderr(said):
            for event in _events(answer):
                Fetch._event(fetch, event)  # type: ignore[arg-type]
            fetch._report.end()
        assert all(character.isprintable() or character == "\n" for character in said.getvalue()), (
            "control characters"
        )


def _events(answer: dict[str, Any]) -> list[dict[str, Any]]:
    events = answer.get("events")
    return [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []


_READERS: tuple[Callable[[Any, dict[str, Any]], None], ...] = (
    _registry,
    _layout,
    _discovery,
    _messages,
    _findings,
    _progress,
)


def read_answer(data: bytes) -> None:
    """Whatever a worker reports is what was asked for, or refused by an error for people; nothing of it is shown as it is."""
    answer = jsontext.parse(data, what="answer")
    if not isinstance(answer, dict):
        raise RktError("not an object")

    def run_worker(
        *_: object, on_event: Callable[[dict[str, Any]], object] | None = None, **__: object
    ) -> object:
        for event in _events(answer):
            if on_event is not None:
                on_event(event)
        return answer

    refusals = []
    with (
        tempfile.TemporaryDirectory(prefix="rkt-fuzz-") as directory,
        mock.patch("rkt.fetch.job.run_worker", run_worker),
    ):
        for reader in _READERS:
            try:
                reader(_Staging(directory), answer)
            except RktError as e:
                refusals.append(e)
    assert all(refusal.message.isprintable() for refusal in refusals), "control characters"
    if len(refusals) > 3:
        raise refusals[0]


TARGETS = (
    Target(
        name="worker-answer",
        read=read_answer,
        refuses=(RktError,),
        pieces=(*JSON_PIECES, b'"digest"', b'"media_type"', b'"index_digest"', b'"index_media_type"', b'"status"', b'"endpoint"', b'"layers"', b'"member"', b'"name"',
                b'"blobs"', b'"size_bytes"', b'"kept_bytes"', b'"endpoints"', b'"image"', b'"signature"', b'"keys"',
                b'"tried"', b'"page"', b'"cause"', b'"events"', b'"kind"', b'"progress"', b'"started"', b'"message"', b'"done"', b'"total"', b'"kept"', b'"payload"',
                b'"findings"', b'"requirement"', b'"signed_at"', b'"signer"', b'"reason"', b'"archive_bytes"', b"https://[", b"https://example.com/a",
                b"sha256:" + b"0" * 64),
    ),
)  # fmt: skip
