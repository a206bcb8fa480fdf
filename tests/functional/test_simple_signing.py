# SPDX-License-Identifier: Apache-2.0
"""OpenPGP signatures of Docker and OCI images, made by skopeo, found where it puts them and where layouts have them (issue 7, 2)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from rkt.errors import ConfigError
from rkt.fetch import lookaside
from rkt.fetch.layout import LocalSource
from rkt.fetch.oci_reference import parse_docker, parse_local
from rkt.schema.oci import Platform
from rkt.store.staging import Staging
from rkt.trust.evidence import Evidence, Subject
from rkt.trust.keys import parse_keys
from rkt.trust.keystore import TrustedKey
from rkt.trust.simple_signing import check_signature
from rkt.trust.verify_simple_signing import verify
from tests.lib.keys import Key, KeyRing
from tests.lib.layouts import (
    Image,
    layer,
    layout_files,
    make_image,
    make_index,
    write_files,
    write_layout,
    write_tar,
)
from tests.lib.registry import PLAIN, Client, LyingRegistry, Registry
from tests.lib.sources import INSTALLATION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.server import Authority

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed"),
]

NAME = "registry.example:5000/team/app:1.0"


@dataclass
class Vendor:
    """Who signs.

    Attributes:
        directory: where the signatures are kept, as podman and skopeo keep them.
    """

    ring: KeyRing
    key: Key
    image: Image
    directory: str

    def skopeo(self, *words: str, stdin: str = "") -> None:
        """Run it with the vendor's keys."""
        done = subprocess.run(
            ["/usr/bin/skopeo", *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "GNUPGHOME": self.ring.home, "HOME": self.ring.home},
        )
        assert done.returncode == 0, done.stderr

    def sign(self, name: str, place: str, number: int = 1) -> str:
        """A signature of the image under a name, by ``skopeo standalone-sign``; returns its path."""
        manifest = f"{self.directory}/manifest.json"
        with open(manifest, "wb") as file:
            file.write(self.image.manifest)
        os.makedirs(f"{self.directory}/{place}", exist_ok=True)
        path = f"{self.directory}/{place}/signature-{number}"
        self.skopeo("standalone-sign", manifest, name, self.key.fingerprint.upper(), "--output", path)
        return path

    def push(self, registry: Registry, reference: str) -> None:
        """Copy the image to a registry and sign it, by ``skopeo copy --sign-by``."""
        write_files(
            f"{self.directory}/registries.d",
            {"x.yaml": json.dumps({"docker": {registry.name: {"lookaside": self.url}}}).encode()},
        )
        layout = write_layout(f"{self.directory}/layout", self.image)
        self.skopeo(
            f"--registries.d={self.directory}/registries.d",
            "--policy=/dev/stdin",
            "copy",
            "--dest-tls-verify=false",
            f"--sign-by={self.key.fingerprint.upper()}",
            f"oci:{layout}",
            f"docker://{registry.name}/{reference}",
            stdin='{"default":[{"type":"insecureAcceptAnything"}]}',
        )

    @property
    def url(self) -> str:
        """The directory, as configurations say it."""
        return f"file://{self.directory}"

    def place(self, repository: str) -> str:
        """Directory of the signatures of the image."""
        return f"{repository}@{self.image.digest.replace(':', '=')}"

    def trusted(self) -> list[TrustedKey]:
        """Its key, as one that counts."""
        keys = parse_keys(self.ring.export(self.key), what="key")
        return [TrustedKey(key=key, path="", rule="root") for key in keys]

    def judge(self, evidence: Evidence, reference: str) -> str:
        """Why a piece of evidence does not vouch for the image, empty if it does."""
        subject = Subject(name=reference.rpartition(":")[0], reference=reference, digests=[self.image.digest])
        signed = check_signature(
            evidence, self.trusted(), now=int(time.time()), package_path=INSTALLATION.package_path
        )
        assert signed.reason or signed.signer == self.key.fingerprint
        return signed.reason or verify({}, {}, evidence, subject, 0).reason


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    """A key, an image, and a directory of signatures with one by ``skopeo standalone-sign``."""
    directory = str(tmp_path_factory.mktemp("sigstore"))
    with KeyRing() as ring:
        image = make_image(layer({"bin/app": (b"x", 0o755)}))
        made = Vendor(ring, ring.make("Vendor <vendor@example.com>"), image, directory)
        made.sign(NAME, made.place("team/app"))
        yield made


@pytest.fixture
def client(tmp_path: object) -> Client:
    """Who looks for signatures."""
    return Client(str(tmp_path))


def test_signature_that_skopeo_leaves_with_a_copy_vouches(
    client: Client, authority: Authority, vendor: Vendor
) -> None:
    """What ``skopeo copy --sign-by`` puts into its lookaside is found through the registry's configuration, and is good."""
    with Registry(PLAIN, authority) as registry:
        vendor.push(registry, "team/web:2")
        client.configure(
            "fetch.d/web",
            {"rktKind": "registry", "registries": [registry.name], "lookaside": vendor.url},
        )
        reference = parse_docker(f"{registry.name}/team/web:2")
        found = lookaside.find("", reference, [vendor.image.digest], client.settings)
    assert [vendor.judge(evidence, f"{registry.name}/team/web:2") for evidence in found] == [""]
    assert "another tag" in vendor.judge(found[0], f"{registry.name}/team/web:3")
    assert "another name" in vendor.judge(found[0], f"{registry.name}/team/app:2")


def test_signatures_of_a_server_are_read_until_there_is_none(
    client: Client, authority: Authority, vendor: Vendor
) -> None:
    """By https, of manifest and index, from the first to the first that is missing; by http only with leave."""
    with open(f"{vendor.directory}/{vendor.place('team/app')}/signature-1", "rb") as file:
        signature = file.read()
    reference = parse_docker(NAME)
    index = f"sha256:{'0' * 64}"
    with LyingRegistry(authority) as server:
        client.accept(authority, server.host)
        base = f"/signatures/{vendor.place('team/app')}"
        server.put(f"{base}/signature-1", b"garbage")
        server.put(f"{base}/signature-2", signature)
        server.put(f"{base}/signature-4", signature)
        found = lookaside.find(
            f"{server.base}/signatures/", reference, [vendor.image.digest, index], client.settings
        )
        assert server.paths() == [
            *(f"{base}/signature-{number}" for number in (1, 2, 3)),
            f"/signatures/team/app@sha256={'0' * 64}/signature-1",
        ]
    assert [evidence.source for evidence in found] == [f"{server.base}{base}/signature-{n}" for n in (1, 2)]
    assert [vendor.judge(evidence, NAME) for evidence in found] == [
        "it is no signed OpenPGP message: not OpenPGP data",
        "",
    ]
    with pytest.raises(ConfigError, match="plain http"):
        lookaside.find("http://127.0.0.1:1/x", reference, [index], client.settings)
    # What cannot be had is told where it is missed, not by an error: something else may vouch for the image.
    found = lookaside.find("https://127.0.0.1:1/x", reference, [index], client.settings)
    assert len(found) == 1
    assert "127.0.0.1:1/x/team/app@sha256=0" in found[0].problem


def test_signatures_of_a_layout_lie_beside_its_index(
    client: Client, vendor: Vendor, tmp_path: object
) -> None:
    """In a directory or an archive, below ``signatures``; links that lead out and files that are none are told."""
    files = layout_files(make_index(vendor.image.descriptor()), vendor.image.blobs)
    with open(f"{vendor.directory}/{vendor.place('team/app')}/signature-1", "rb") as file:
        place = f"signatures/{vendor.image.digest.replace(':', '=')}"
        files |= {f"{place}/signature-1": file.read(), f"{place}/signature-2": bytes(70_000)}
    layout = f"{tmp_path}/layout"
    write_files(layout, files)
    os.symlink("/etc/passwd", f"{layout}/{place}/signature-3")
    archive = write_tar(f"{tmp_path}/layout.tar.gz", files, compression="gzip")
    problems = {
        "oci": ["", "it is no signed OpenPGP message: it has 65537 bytes", "it cannot be read"],
        "oci-archive": ["", "is too large: 70000 bytes"],
    }
    for kind, path in (("oci", layout), ("oci-archive", archive)):
        with (
            Staging(client.settings.data_dir) as staging,
            LocalSource(parse_local(kind, path), Platform.of_host(), client.settings) as source,
        ):
            resolved = source.resolve(staging, None)
            assert resolved is not None
            found = source.messages([resolved.digest])
            assert source.messages([f"sha256:{'0' * 64}"]) == []
        assert len(found) == len(problems[kind])
        for evidence, problem in zip(found, problems[kind], strict=True):
            assert problem in evidence.problem
            assert bool(problem) == bool(evidence.problem)
            assert place in evidence.source
        assert vendor.judge(found[0], NAME) == vendor.judge(found[0], "") == ""
