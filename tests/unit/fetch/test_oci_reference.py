# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import pytest

from rkt.errors import UsageError
from rkt.fetch.oci_reference import LocalReference, parse_docker, parse_local
from rkt.values import DOCKER_HUB_REGISTRY

DIGEST = f"sha256:{'0123456789abcdef' * 4}"


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        # spec cli, table 7.1
        ("busybox", DOCKER_HUB_REGISTRY, "library/busybox", "latest", None),
        ("library/busybox", DOCKER_HUB_REGISTRY, "library/busybox", "latest", None),
        ("docker.io/library/busybox:1", DOCKER_HUB_REGISTRY, "library/busybox", "1", None),
        ("gcr.io/google-samples/node-hello:1.0", "gcr.io", "google-samples/node-hello", "1.0", None),
        (f"alpine@{DIGEST}", DOCKER_HUB_REGISTRY, "library/alpine", "", DIGEST),
        ("localhost:5000/x", "localhost:5000", "x", "latest", None),
        (f"alpine:3@{DIGEST}", DOCKER_HUB_REGISTRY, "library/alpine", "", DIGEST),
        # and beyond
        ("busybox:latest", DOCKER_HUB_REGISTRY, "library/busybox", "latest", None),
        ("index.docker.io/busybox", DOCKER_HUB_REGISTRY, "library/busybox", "latest", None),
        ("registry-1.docker.io/library/busybox", DOCKER_HUB_REGISTRY, "library/busybox", "latest", None),
        ("user/app:v1_2.3-x", DOCKER_HUB_REGISTRY, "user/app", "v1_2.3-x", None),
        ("localhost/x", "localhost", "x", "latest", None),
        ("localhost:5000", DOCKER_HUB_REGISTRY, "library/localhost", "5000", None),
        ("[::1]:5000/x/y__z/a--b", "[::1]:5000", "x/y__z/a--b", "latest", None),
        ("[::1]/x", "[::1]", "x", "latest", None),
        ("127.0.0.1:5000/x:1", "127.0.0.1:5000", "x", "1", None),
        ("Example.COM/app", "example.com", "app", "latest", None),
    ],
)
def test_docker_references(text: str, registry: str, repository: str, tag: str, digest: str | None) -> None:
    """What people leave out is filled in as Docker does; a digest beats a tag (spec cli §7.1)."""
    found = parse_docker(text)
    assert (found.registry, found.repository, found.tag, found.digest) == (registry, repository, tag, digest)
    assert found.name == f"{registry}/{repository}"
    assert parse_docker(str(found).removeprefix("docker://")) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the name is empty"),
        ("example.com/", "the name is empty"),
        ("Busybox", "lower case"),
        ("example.com/App", "lower case"),
        ("Host/app", "lower case"),
        ("a//b", "no part of a name"),
        ("../etc/passwd", "no registry"),
        ("example.com/../x", "no part of a name"),
        ("a/.b", "no part of a name"),
        ("a/b..c", "no part of a name"),
        ("a/b___c", "no part of a name"),
        ("a/b-", "no part of a name"),
        ("a b", "no part of a name"),
        ("busybox:", "no tag"),
        ("busybox:-x", "no tag"),
        (f"busybox:{'x' * 129}", "no tag"),
        ("busybox:a/b", "no registry"),
        ("a/busybox:b/c", "no tag"),
        ("busybox@", "invalid digest"),
        ("busybox@sha256:ab", "invalid digest"),
        (f"busybox@sha512:{'0' * 128}", "invalid digest"),
        (f"busybox@{DIGEST.upper()}", "invalid digest"),
        ("example.com:0/x", "no registry"),
        ("example.com:65536/x", "no registry"),
        ("example.com:x/x", "no registry"),
        ("user@example.com/x", "invalid digest"),
        ("-a.com/x", "no registry"),
        ("[::1/x", "no registry"),
        ("[evil]:1/x", "no registry"),
        (f"example.com/{'x' * 255}", "longer than"),
    ],
)
def test_docker_references_that_are_bad(text: str, why: str) -> None:
    """A reference that breaks Docker's grammar is refused, with what was expected."""
    with pytest.raises(UsageError, match=why) as caught:
        parse_docker(text)
    assert "docker://" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "path", "image"),
    [
        ("/images/x", "/images/x", ""),
        ("/images/x:1.0", "/images/x", "1.0"),
        ("x:example.com/app:1.0", "{cwd}/x", "example.com/app:1.0"),
        (f"/x:{DIGEST}", "/x", DIGEST),
        ("../x:", "{parent}/x", ""),
    ],
)
def test_local_references(text: str, path: str, image: str) -> None:
    """The path ends at the first colon, as other programs have it; what follows says which image."""
    found = parse_local("oci", text)
    cwd = os.getcwd()
    assert found.path == path.format(cwd=cwd, parent=os.path.dirname(cwd))
    assert found.image == image


def test_local_reference_with_a_digest() -> None:
    """An image may be chosen by its digest; a name is none."""
    assert parse_local("oci", f"/x:{DIGEST}").digest == DIGEST
    assert parse_local("oci", f"/x:@{DIGEST}").digest == DIGEST
    assert parse_local("oci", "/x:1.0").digest is None
    assert str(LocalReference(kind="oci-archive", path="/x.tar", image="1.0")) == "oci-archive:/x.tar:1.0"


@pytest.mark.parametrize("text", ["", ":1.0", "/x\0y"])
def test_local_references_without_a_path(text: str) -> None:
    """A reference to a local image needs a path."""
    with pytest.raises(UsageError, match="invalid reference"):
        parse_local("docker-archive", text)
