# SPDX-License-Identifier: Apache-2.0
"""What is sent to a registry while an image is pushed, and to whom; the registry is scripted."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from rkt.errors import FetchError, RktError
from rkt.fetch import push_worker
from rkt.fetch.answer import Answer
from rkt.fetch.push_worker import Target
from rkt.schema import oci
from rkt.values import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HOME = "https://registry.example"
UPLOADS = f"{HOME}/v2/app/blobs/uploads/"
DATA = b"0123456789" * 5
DIGEST = Digest(f"sha256:{hashlib.sha256(DATA).hexdigest()}")


class Script:
    """A client that answers as it was told, and notes what it was asked."""

    def __init__(self, *answers: tuple[int, dict[str, str]], bodies: Sequence[bytes] = ()) -> None:
        self.answers = list(answers)
        self.bodies = list(bodies)
        self.asked: list[dict[str, Any]] = []

    def exchange(self, url: str, **request: Any) -> Answer:
        """The next answer."""
        self.asked.append({"url": url, **request})
        status, headers = self.answers.pop(0)
        body = self.bodies.pop(0) if self.bodies else b""
        return Answer(status=status, headers=headers, body=body, url=url)


def target(script: Script) -> Target:
    """The repository ``app``."""
    description = {
        "host": "registry.example",
        "schemes": ["https"],
        "repository": "app",
        "credentials": {},
        "token_hosts": [],
    }
    return Target(script, description, push_worker.PUSH)  # type: ignore[arg-type]


@pytest.fixture
def blob() -> Iterator[int]:
    """A file with the data."""
    fd = os.memfd_create("blob")
    os.write(fd, DATA)
    yield fd
    os.close(fd)


def test_a_small_blob_goes_in_one_request(blob: int) -> None:
    """A blob that fits is sent with its digest, to where the registry says, query and all."""
    script = Script((202, {"Location": "/v2/app/blobs/uploads/1?state=x"}), (201, {}))
    target(script).upload(DIGEST, blob, lambda _: None)
    begin, put = script.asked
    assert (begin["method"], begin["url"]) == ("POST", UPLOADS)
    assert (put["method"], put["url"]) == ("PUT", f"{UPLOADS}1?state=x&digest={DIGEST}")
    assert put["body"] == DATA
    assert put["authorizer"] is not None


def test_a_large_blob_goes_in_pieces(blob: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces follow each other with their ranges, each to where the answer before it says."""
    monkeypatch.setattr(push_worker, "CHUNK_BYTES", 20)
    script = Script(*((202, {"Location": f"{UPLOADS}{number}"}) for number in range(3)), (201, {}))
    seen: list[int] = []
    target(script).upload(DIGEST, blob, seen.append)
    assert [(a["method"], a["url"], a["headers"].get("Content-Range")) for a in script.asked[1:]] == [
        ("PATCH", f"{UPLOADS}0", "0-19"),
        ("PATCH", f"{UPLOADS}1", "20-39"),
        ("PUT", f"{UPLOADS}2?digest={DIGEST}", "40-49"),
    ]
    assert b"".join(a["body"] for a in script.asked[1:]) == DATA
    assert seen == [20, 40, 50]


def test_a_registry_may_want_larger_pieces(blob: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """``OCI-Chunk-Min-Length`` is kept; one that nobody has memory for is refused."""
    monkeypatch.setattr(push_worker, "CHUNK_BYTES", 20)
    where = {"Location": f"{UPLOADS}0", "OCI-Chunk-Min-Length": "30"}
    script = Script((202, where), (202, where), (201, {}))
    target(script).upload(DIGEST, blob, lambda _: None)
    assert [len(a["body"]) for a in script.asked] == [0, 30, 20]
    script = Script((202, {**where, "OCI-Chunk-Min-Length": str(1 << 40)}))
    with pytest.raises(FetchError, match="wants pieces of"):
        target(script).upload(DIGEST, blob, lambda _: None)


def test_an_upload_that_breaks_begins_anew(blob: int) -> None:
    """An upload that the registry has lost is begun once more, and then given up."""
    where = (202, {"Location": f"{UPLOADS}0"})
    target(Script(where, (404, {}), where, (201, {}))).upload(DIGEST, blob, lambda _: None)
    with pytest.raises(
        FetchError, match=r"cannot push blob sha256:.* to registry\.example/app: HTTP status code 416"
    ):
        target(Script(where, (416, {}), where, (416, {}))).upload(DIGEST, blob, lambda _: None)


def test_no_token_for_another_host(blob: int) -> None:
    """RG1, RG2: where an upload goes on elsewhere, the bytes go there, and the registry's credentials do not."""
    script = Script((202, {"Location": "https://storage.example/x?sig=y"}), (201, {}))
    target(script).upload(DIGEST, blob, lambda _: None)
    assert script.asked[1]["url"].startswith("https://storage.example/x?sig=y&digest=")
    assert script.asked[1]["authorizer"] is None


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://registry.example/x", "without TLS"),
        ("", "does not say where"),
        ("ftp://registry.example/x", "neither http nor https"),
        ("https://user:pass@registry.example/x", "carries credentials"),
    ],
)
def test_where_an_upload_must_not_go(blob: int, location: str, expected: str) -> None:
    """RG3: an upload that is led from https to http, or nowhere, is given up before a byte is sent."""
    script = Script((202, {"Location": location} if location else {}))
    with pytest.raises(FetchError, match=expected):
        target(script).upload(DIGEST, blob, lambda _: None)
    assert len(script.asked) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_what_is_not_allowed(blob: int, status: int) -> None:
    """A registry that refuses is not asked a second time, and the hint says how credentials are given."""
    script = Script((202, {"Location": f"{UPLOADS}0"}), (status, {}))
    with pytest.raises(FetchError, match="you may not push blob") as caught:
        target(script).upload(DIGEST, blob, lambda _: None)
    assert "login" in caught.value.hint


def test_mounting() -> None:
    """A blob of another repository is taken over; an upload that begins instead is cancelled."""
    script = Script((201, {}))
    assert target(script).mount(DIGEST, "team/base")
    assert script.asked[0]["url"] == f"{UPLOADS}?mount={DIGEST}&from=team/base"
    script = Script((202, {"Location": f"{UPLOADS}7"}), (204, {}))
    assert not target(script).mount(DIGEST, "team/base")
    assert (script.asked[1]["method"], script.asked[1]["url"]) == ("DELETE", f"{UPLOADS}7")


def test_a_manifest_that_is_taken_for_another() -> None:
    """A registry that stores a manifest under another digest than its own is found out."""
    script = Script((201, {"Docker-Content-Digest": "sha256:" + "0" * 64}))
    with pytest.raises(FetchError, match="took the manifest"):
        target(script).put_manifest("1", DATA, "application/x", DIGEST)
    script = Script((201, {"Docker-Content-Digest": str(DIGEST)}))
    target(script).put_manifest("1", DATA, "application/x", DIGEST)
    assert script.asked[0]["headers"]["Content-Type"] == "application/x"


TAG = f"sha256-{DIGEST.hex}"
ENTRY = {"mediaType": oci.OCI_MANIFEST, "digest": f"sha256:{'1' * 64}", "size": 7, "artifactType": "a/b"}


def index(*entries: dict[str, Any], **members: Any) -> bytes:
    """What has the tag."""
    return json.dumps(
        {"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": list(entries), **members}
    ).encode()


def test_who_lists_referrers() -> None:
    """A registry that lists what refers to an image says so when it takes the artifact."""
    script = Script((201, {"OCI-Subject": DIGEST}), (201, {}))
    for said in (DIGEST, ""):
        assert target(script).put_manifest("x", DATA, oci.OCI_MANIFEST, DIGEST) == said


def test_first_referrer() -> None:
    """Where nobody lists them, the first one makes an index with the digest for a tag."""
    script = Script((404, {}), (201, {}))
    target(script).list_referrer(DIGEST, ENTRY)
    assert [(a.get("method", "GET"), a["url"]) for a in script.asked] == [
        ("GET", f"{HOME}/v2/app/manifests/{TAG}"),
        ("PUT", f"{HOME}/v2/app/manifests/{TAG}"),
    ]
    assert json.loads(script.asked[1]["body"]) == json.loads(index(ENTRY))
    assert script.asked[1]["headers"]["Content-Type"] == oci.OCI_INDEX


def test_further_referrers() -> None:
    """The next one is added behind what is there, all of which stays, unknown members too; the same once is enough."""
    other = {**ENTRY, "digest": f"sha256:{'2' * 64}", "unknown": ["kept"]}
    there = index(other, annotations={"a": "b"})
    script = Script((200, {"Content-Type": oci.OCI_INDEX}), (201, {}), bodies=[there])
    target(script).list_referrer(DIGEST, ENTRY)
    assert json.loads(script.asked[1]["body"]) == json.loads(index(other, ENTRY, annotations={"a": "b"}))
    script = Script((200, {"Content-Type": oci.OCI_INDEX}), bodies=[index(other, ENTRY)])
    target(script).list_referrer(DIGEST, ENTRY)
    assert len(script.asked) == 1


def test_no_list_of_referrers() -> None:
    """What has the tag and is no index is not overwritten."""
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": oci.OCI_MANIFEST,
            "config": {"mediaType": "a/b", "digest": DIGEST, "size": 1},
            "layers": [],
        }
    ).encode()
    script = Script((200, {"Content-Type": oci.OCI_MANIFEST}), bodies=[manifest])
    with pytest.raises(RktError):
        target(script).list_referrer(DIGEST, ENTRY)
    assert len(script.asked) == 1
