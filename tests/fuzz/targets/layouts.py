# SPDX-License-Identifier: Apache-2.0
"""Image layouts whose documents name each other rightly, whatever else they say, and what vouches for images in them."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any

from rkt.errors import ImageError, RktError
from rkt.fetch import evidence, evidence_worker, opener
from rkt.fetch.layout_worker import Extent, Resolve
from rkt.schema import oci
from rkt.trust.dsse import PREDICATES_FOR
from rkt.trust.evidence import MAX_PIECES
from rkt.values import Digest
from tests.fuzz.target import Target
from tests.fuzz.targets.documents import JSON_PIECES, OCI_PIECES

_MARK = b'{"imageLayoutVersion":"1.0.0"}'
_PLATFORM = {"os": "linux", "architecture": "amd64", "variant": ""}
_KINDS = sorted(PREDICATES_FOR)
_MAX_DOCUMENTS = 8
_BLOBS = "blobs/sha256/"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _named(documents: list[bytes]) -> list[bytes]:
    """Each with ``@N`` and ``#N`` replaced by digest and size of one behind it: what no fuzzer would ever hit upon."""
    done: list[bytes] = []
    for number in reversed(range(len(documents))):
        later = done[::-1]

        def fill(found: re.Match[bytes], base: int = number + 1, later: list[bytes] = later) -> bytes:
            at = int(found[2]) - base
            if not 0 <= at < len(later):
                return found[0]
            return _digest(later[at]).encode() if found[1] == b"@" else b"%d" % len(later[at])

        done.append(re.sub(rb"([@#])([0-9])", fill, documents[number]))
    return done[::-1]


class _Layout:
    """Its files, in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self._fd = os.memfd_create("layout", os.MFD_CLOEXEC)
        self._extents: dict[str, Extent] = {}
        offset = 0
        for name, data in files.items():
            os.pwrite(self._fd, data, offset)
            self._extents[name] = Extent(fd=self._fd, offset=offset, size_bytes=len(data))
            offset += len(data)

    def open(self, name: str) -> Extent:
        """What the worker asks the command, or an archive, for."""
        if name not in self._extents:
            raise ImageError("the image layout has no such file")
        return self._extents[name]

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._fd)


class _Source:
    """Where the command looks for evidence; what the worker would write."""

    def __init__(self, layout: _Layout) -> None:
        self._layout = layout

    def evidence(self, digests: list[Digest], kinds: list[str], fd: int) -> None:
        """See ``fetch.oci_source.Source``."""
        found = evidence_worker.Found({"digests": digests, "kinds": kinds})
        evidence_worker._look(self._layout, found)
        found.write(fd)


def _resolved(layout: _Layout, reference: str) -> list[Digest]:
    request = {"kind": "oci", "reference": reference, "platform": _PLATFORM, "uid": 0, "limit_bytes": 1}
    fds = {name: os.memfd_create(name, os.MFD_CLOEXEC) for name in ("index", "manifest", "config")}
    try:
        answer: dict[str, Any] = Resolve(request)._layout(layout, fds)
        written = {name: os.pread(fd, 1 << 20, 0) for name, fd in fds.items()}
    finally:
        for fd in fds.values():
            os.close(fd)
    manifest = written["manifest"]
    assert answer["digest"] == _digest(manifest), "another manifest"
    assert f"{_BLOBS}{answer['digest'][7:]}" in layout.files, "a manifest from nowhere"
    document = oci.parse_manifest(manifest, answer["media_type"])
    assert document.config.digest == _digest(written["config"]), "another configuration"
    assert bool(answer["index_digest"]) == bool(written["index"]), "an index that is not there"
    if written["index"]:
        assert answer["index_digest"] == _digest(written["index"]), "another index"
    diff_ids = oci.parse_config(written["config"]).diff_ids
    assert [layer["diff_id"] for layer in answer["layers"]] == diff_ids, "other layers"
    for layer, wanted in zip(answer["layers"], document.layers, strict=True):
        assert layer["digest"] == wanted.digest, "another layer"
        assert layer["member"] == f"{_BLOBS}{Digest.parse(layer['digest']).hex}", "a layer is elsewhere"
    if reference.startswith("sha256:"):
        assert reference in {answer["digest"], answer["index_digest"]}, "another image than was asked for"
    return [Digest.parse(text) for text in (answer["digest"], answer["index_digest"]) if text]


def read_layout(data: bytes) -> None:
    """What an index leads to are blobs of the layout that are what it says; evidence is theirs, bounded, and about the image."""
    first, _, rest = data.partition(b"\n")
    documents = _named(rest.split(b"\n--\n")[:_MAX_DOCUMENTS])
    files = {opener.MARK: _MARK, opener.INDEX: documents[0]}
    files |= {f"{_BLOBS}{hashlib.sha256(document).hexdigest()}": document for document in documents[1:]}
    layout = _Layout(files)
    try:
        digests = _resolved(layout, first.decode("utf-8", "replace"))
        found = evidence._collect(_Source(layout), digests, _KINDS)  # type: ignore[arg-type]
    finally:
        layout.close()
    assert len(found) <= MAX_PIECES + 1, "too many pieces"
    for piece in found:
        assert piece.data == b"" or piece.data in files.values(), "bytes from nowhere"
        assert bool(piece.data) != bool(piece.problem) or not (piece.data or piece.problem), (
            "read, and a problem"
        )
        assert piece.problem.isprintable(), "control characters"
        assert piece.source.isprintable(), "control characters"


TARGETS = (
    Target(
        name="oci-layout",
        read=read_layout,
        refuses=(RktError,),
        pieces=(*JSON_PIECES, *OCI_PIECES, b"\n--\n", b'"digest":"@1","size":#1', b'"digest":"@2","size":#2', b"@3", b"#3", b"@4", b'"annotations"', b"org.opencontainers.image.ref.name",
                b"io.containerd.image.name", b"dev.cosignproject.cosign/signature", b'"kind":"dev.cosignproject.cosign/sigs"', b"application/vnd.oci.image.index.v1+json",
                b"application/vnd.dev.sigstore.bundle.v0.3+json", b"application/vnd.dev.cosign.simplesigning.v1+json", b"application/vnd.dsse.envelope.v1+json",
                b"sha256-", b".sig", b".att"),
        max_bytes=8192,
    ),
)  # fmt: skip
