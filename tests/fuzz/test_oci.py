# SPDX-License-Identifier: Apache-2.0
"""Bytes that nobody meant: documents of OCI images and references are read, or refused by the error for that, quickly.

For a longer run: ``RKT_FUZZ_ROUNDS=100000 pytest tests/fuzz``.
"""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING

import pytest

from rkt.errors import InvalidManifest, NotFound, UsageError
from rkt.fetch.oci_reference import parse_docker
from rkt.image.appc_view import Origin, render_view
from rkt.schema.appc import parse_image_manifest
from rkt.schema.oci import Index, Manifest, Platform, parse_config, parse_document
from rkt.values import Digest
from tests.fuzz.test_manifests import PATIENCE_SECONDS, PIECES, ROUNDS, mutated
from tests.lib import layouts

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = {
    "User": "a:b",
    "ExposedPorts": {"80/tcp": {}, "8000-8010/udp": {}},
    "Env": ["A=b"],
    "Entrypoint": ["/e"],
    "Cmd": ["c"],
    "Volumes": {"/v": {}},
    "WorkingDir": "/w",
    "Labels": {"l": "m"},
    "StopSignal": "SIGRTMIN+3",
    "Healthcheck": {"Test": ["CMD", "true"]},
}
IMAGE = layouts.make_image(layouts.layer({"f": b""}), config=RUN)
INDEX = layouts.make_index(
    IMAGE.descriptor(platform={"os": "linux", "architecture": "arm", "variant": "v7"}), IMAGE.descriptor()
)
DIGEST = Digest.parse(IMAGE.digest)
DOCKER = IMAGE.manifest.replace(
    b"vnd.oci.image.manifest.v1+json", b"vnd.docker.distribution.manifest.v2+json"
)


def read_document(data: bytes) -> None:
    """All that is asked of an index or a manifest."""
    document = parse_document(data)
    if isinstance(document, Index):
        try:
            assert document.choose(Platform.parse("linux/arm")).size_bytes >= 0
        except NotFound:
            pass
    if isinstance(document, Manifest):
        document.check_image()
        assert len(document.layers) > 0


def read_config(data: bytes) -> None:
    """A configuration, and the image manifest that it becomes, which is one by all the rules."""
    config = parse_config(data)
    view = render_view(config, Origin(name="example.com/x", tag="1"), digest=DIGEST, config_digest=DIGEST)
    assert parse_image_manifest(view).name == "example.com/x"


@pytest.mark.parametrize(
    ("read", "corpus"),
    [
        (
            read_document,
            [IMAGE.manifest, INDEX, DOCKER, json.dumps({"schemaVersion": 1, "fsLayers": []}).encode()],
        ),
        (read_config, [IMAGE.config, layouts.make_image(layouts.layer({}), config={}).config]),
    ],
)
def test_documents(read: Callable[[bytes], None], corpus: list[bytes]) -> None:
    """No mutation escapes as another exception or takes long; some are still read."""
    source = random.Random(21)
    accepted = 0
    messages: list[str] = []
    for _ in range(ROUNDS):
        data = mutated(source, source.choice(corpus), corpus)
        start = time.monotonic()
        try:
            read(data)
            accepted += 1
        except InvalidManifest as e:
            messages.append(str(e))
        assert time.monotonic() - start < PATIENCE_SECONDS, data
    assert accepted > ROUNDS // 200
    assert not [message for message in messages if not message.isprintable() or len(message) > 1000]


def test_references() -> None:
    """Whatever is typed is a reference that is written in one way, or a usage error."""
    source = random.Random(22)
    corpus = [
        b"busybox",
        b"registry.example.com:5000/team/app:1.0",
        f"[::1]:5000/a/b@{DIGEST}".encode(),
        b"localhost/x__y/z--1",
    ]
    accepted = 0
    for _ in range(ROUNDS):
        text = mutated(source, source.choice(corpus), [*corpus, *PIECES]).decode("utf-8", "surrogateescape")
        try:
            found = parse_docker(text)
        except UsageError:
            continue
        accepted += 1
        assert parse_docker(str(found).removeprefix("docker://")) == found
        assert ".." not in found.repository.split("/")
    assert accepted > ROUNDS // 100
