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
from rkt.fetch.evidence import collect
from rkt.fetch.layout import LocalSource
from rkt.fetch.oci_reference import parse_docker, parse_local
from rkt.schema.oci import Platform
from rkt.store.staging import Staging
from rkt.trust import verifier
from rkt.trust.evidence import Evidence, Subject
from rkt.trust.keys import parse_keys
from rkt.trust.keystore import Keystore
from rkt.trust.rules import KEYSTORE, OPENPGP, Requirement
from rkt.values import Digest
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
from tests.lib.site import write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.rkt import Rkt
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

    def push(self, registry: Registry, reference: str, *, signed: bool = True) -> None:
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
            *([f"--sign-by={self.key.fingerprint.upper()}"] if signed else []),
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

    def judge(
        self, evidence: list[Evidence], reference: str, client: Client, keys: str = KEYSTORE
    ) -> list[str]:
        """Why pieces of evidence do not vouch for the image, empty where they do."""
        name = reference.rpartition(":")[0] or "app"
        subject = Subject(name=name, reference=reference, digests=[self.image.digest])
        requirements = [Requirement(kind=OPENPGP, keys=keys)]
        findings = verifier.verify(evidence, requirements, subject, client.settings)
        for finding in findings:
            assert finding.reason or (finding.signer, finding.digest) == (
                self.key.fingerprint,
                self.image.digest,
            )
            assert finding.reason or abs(finding.signed_at - time.time()) < 300
        return [finding.reason for finding in findings]

    def trust(self, client: Client, prefix: str) -> None:
        """Trust the key for a prefix."""
        (key,) = parse_keys(self.ring.export(self.key), what="key")
        Keystore(client.settings).store(key, prefix)


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    """A key, an image, and a directory of signatures with one by ``skopeo standalone-sign``."""
    directory = str(tmp_path_factory.mktemp("sigstore"))
    with KeyRing() as ring:
        path = shutil.which("busybox")
        assert path is not None, "busybox is not installed: run make setup"
        with open(path, "rb") as file:
            files = layer({"bin/busybox": (file.read(), 0o755)})
        image = make_image(files, config={"Cmd": ["/bin/busybox", "echo", "ran"]})
        made = Vendor(ring, ring.make("Vendor <vendor@example.com>"), image, directory)
        made.sign(NAME, made.place("team/app"))
        yield made


@pytest.fixture(scope="module")
def registry(authority: Authority, vendor: Vendor) -> Iterator[Registry]:
    """One that has the image as ``team/web:2``, and unsigned as ``team/web:3``."""
    with Registry(PLAIN, authority) as running:
        vendor.push(running, "team/web:2")
        vendor.push(running, "team/web:3", signed=False)
        yield running


@pytest.fixture
def client(tmp_path: object) -> Client:
    """Who looks for signatures."""
    return Client(str(tmp_path))


def test_signature_that_skopeo_leaves_with_a_copy_vouches(
    client: Client, registry: Registry, vendor: Vendor
) -> None:
    """What ``skopeo copy --sign-by`` puts into its lookaside is found through the registry's configuration, and is good."""
    client.configure(
        "fetch.d/web",
        {"rktKind": "registry", "registries": [registry.name], "lookaside": vendor.url},
    )
    name = f"{registry.name}/team/web:2"
    found = collect(client.source(name), [Digest(vendor.image.digest)], {OPENPGP})
    (reason,) = vendor.judge(found, name, client)
    assert "made by unknown entity" in reason
    vendor.trust(client, f"{registry.name}/team")
    assert vendor.judge(found, name, client) == [""]
    (reason,) = vendor.judge(found, f"{registry.name}/team/web:3", client)
    assert f'it is for another tag: it signs "{name}"' in reason
    (reason,) = vendor.judge(found, f"{registry.name}/other/web:2", client)
    assert "made by unknown entity" in reason
    # By the keys of a file, whatever the key store says.
    path = f"{client.base}/keys"
    with open(path, "wb") as file:
        file.write(vendor.ring.export(vendor.key))
    (reason,) = vendor.judge(found, f"{registry.name}/other/web:2", client, keys=path)
    assert "it is for another name" in reason
    assert vendor.judge(found, name, client, keys=path) == [""]


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
    vendor.trust(client, "registry.example:5000")
    assert vendor.judge(found, NAME, client) == [
        "it is no signed OpenPGP message: not OpenPGP data",
        "",
    ]
    with pytest.raises(ConfigError, match="plain http"):
        lookaside.find("http://127.0.0.1:1/x", reference, [index], client.settings)
    with LyingRegistry() as server:
        server.put(f"{base}/signature-1", signature)
        url = f"{server.base}/signatures"
        allowed = Client(f"{client.base}/allowed", insecure="http")
        (good,) = lookaside.find(url, reference, [vendor.image.digest], allowed.settings)
        assert (good.source, good.problem) == (f"{server.base}{base}/signature-1", "")
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
    vendor.trust(client, "app")
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
            found = collect(source, [resolved.digest], {OPENPGP})
            (none,) = collect(source, [Digest(f"sha256:{'0' * 64}")], {OPENPGP})
            assert none.problem == "no OpenPGP signature is there"
            assert f"signatures/sha256={'0' * 64}" in none.source
        assert len(found) == len(problems[kind])
        for evidence, problem in zip(found, problems[kind], strict=True):
            assert problem in evidence.problem
            assert bool(problem) == bool(evidence.problem)
            assert place in evidence.source
        assert vendor.judge(found[:1], "", client) == [""]


def test_key_of_the_store_lets_an_image_run(rkt: Rkt, registry: Registry, vendor: Vendor) -> None:
    """``rkt trust --prefix=REGISTRY/…`` is all it takes; another tag, and the image without that key, are refused (issue 7, 1)."""
    reference = f"docker://{registry.name}/team/web:2"
    config = {"rktKind": "registry", "registries": [registry.name], "http": True, "lookaside": vendor.url}
    write_config(rkt, "fetch.d/registry.json", config)
    key = f"{rkt.base}/vendor.asc"
    with open(key, "wb") as file:
        file.write(vendor.ring.export(vendor.key))

    prefix = f"{registry.name}/team"
    assert f"rkt trust --prefix={prefix}" in rkt.run("fetch", reference, check=254).stderr
    rkt.run("trust", f"--prefix={prefix}s", "--skip-fingerprint-review", key, check=0)
    assert "no OpenPGP key counts" in rkt.run("fetch", reference, check=254).stderr
    rkt.run("trust", f"--prefix={prefix}", "--skip-fingerprint-review", key, check=0)
    refused = rkt.run("fetch", f"docker://{registry.name}/team/web:3", check=254).stderr
    assert f'it is for another tag: it signs "{registry.name}/team/web:2"' in refused
    assert rkt.run("run", "--net=none", reference, check=0).lines == ["ran"]
    # Asked for by digest, a signature for the repository is enough.
    rkt.run("fetch", f"docker://{registry.name}/team/web@{vendor.image.digest}", check=0)

    rkt.run("trust", "rm", vendor.key.fingerprint, f"--prefix={prefix}", check=0)
    stopped = rkt.run("run", "--net=none", vendor.image.digest, check=254).stderr
    assert "is no longer trusted" in stopped

    # By a rule instead, which brings key and lookaside.
    write_config(rkt, "fetch.d/registry.json", {**config, "lookaside": "file:///nonexistent"})
    rkt.run("trust", f"--prefix={prefix}", f"--openpgp-key={key}", f"--lookaside={vendor.url}", check=0)
    fetched = rkt.run("fetch", "--pull-policy=update", reference, check=0).stderr
    assert f"openpgp {vendor.key.fingerprint}" in fetched
    assert rkt.run("run", "--net=none", reference, check=0).lines == ["ran"]
