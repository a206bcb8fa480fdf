# SPDX-License-Identifier: Apache-2.0
"""By what name a Docker or OCI image is judged, and what somebody must have signed."""

from __future__ import annotations

import pytest

from rkt.fetch import oci
from rkt.fetch.oci_reference import LAYOUT, OCI_ARCHIVE, parse_docker, parse_local
from rkt.fetch.oci_source import Resolved
from rkt.values import Digest

MANIFEST, INDEX = Digest.parse("sha256:" + "1" * 64), Digest.parse("sha256:" + "2" * 64)
RESOLVED = Resolved(digest=MANIFEST, media_type="", index_digest=INDEX)


@pytest.mark.parametrize(
    ("reference", "name", "signed"),
    [
        ("busybox", "registry-1.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        (
            "index.docker.io/team/app:1",
            "registry-1.docker.io/team/app",
            "docker.io/team/app:1",
        ),
        ("Registry.Example:5000/a__b:1", "registry.example:5000/a__b", "registry.example:5000/a__b:1"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app:latest"),
        (f"registry.example/app@{INDEX}", "registry.example/app", f"registry.example/app@{INDEX}"),
    ],
)
def test_an_image_of_a_registry_is_what_was_asked_for(reference: str, name: str, signed: str) -> None:
    """Registry with port, and repository; Docker Hub by its one name in rules and as signers write it in signatures (SG3)."""
    subject = oci._subject(parse_docker(reference), RESOLVED)
    assert (subject.name, subject.reference) == (name, signed)
    assert subject.digests == [MANIFEST, INDEX]


@pytest.mark.parametrize(
    ("kind", "text", "name", "signed"),
    [
        (LAYOUT, "/srv/web", "localhost/web", ""),
        (LAYOUT, "/srv/web:1.0", "localhost/web", ""),
        (LAYOUT, f"/srv/web:@{MANIFEST}", "localhost/web", ""),
        (LAYOUT, "/srv/registry.example:1", "localhost/registry.example", ""),
        (OCI_ARCHIVE, "/srv/Web App.tar.gz", "localhost/web_app", ""),
        (
            LAYOUT,
            "/srv/web:registry.example/team/app:1",
            "registry.example/team/app",
            "registry.example/team/app:1",
        ),
        (LAYOUT, "/srv/web:app:1", "registry-1.docker.io/library/app", "docker.io/library/app:1"),
    ],
)
def test_an_image_of_a_layout_is_what_was_asked_for(kind: str, text: str, name: str, signed: str) -> None:
    """The name behind the path counts; a directory cannot be called so that a registry's rules are for it (SG2, SG3)."""
    subject = oci._subject(parse_local(kind, text), RESOLVED.replace(index_digest=None))
    assert (subject.name, subject.reference) == (name, signed)
    assert subject.digests == [MANIFEST]
