# SPDX-License-Identifier: Apache-2.0
"""``rkt image push`` to a real registry, with every way to authenticate."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lib import aci, layouts
from tests.lib.registry import HTPASSWD, KINDS, PASSWORD, PLAIN, TOKEN, USER, Client, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.rkt import Result, Rkt
    from tests.lib.server import Authority

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is not installed"),
]
IMAGE = layouts.make_image(layouts.layer({"bin/app": b"one"}), layouts.layer({"etc/two": b"two" * 1000}))


@pytest.fixture(scope="module")
def registries(authority: Authority) -> Iterator[dict[str, Registry]]:
    """One of each kind, empty."""
    running: dict[str, Registry] = {}
    try:
        for kind in KINDS:
            running[kind] = Registry(kind, authority)
        yield running
    finally:
        for registry in running.values():
            registry.close()


def configure(client: Client, registry: Registry, *, login: bool = True) -> None:
    """What the registry's kind asks for."""
    if registry.kind == PLAIN:
        client.configure(
            "fetch.d/registry", {"rktKind": "registry", "registries": [registry.name], "http": True}
        )
        return
    hosts = [registry.name]
    if registry.tokens is not None:
        hosts.append(registry.tokens.host)
        rule = {"rktKind": "registry", "registries": [registry.name], "tokenHosts": [registry.tokens.host]}
        client.configure("fetch.d/registry", rule)
    client.accept(registry.authority, *hosts)
    if login and registry.kind in {HTPASSWD, TOKEN}:
        client.login(registry.name)


def ready(rkt: Rkt, registry: Registry, *, login: bool = True) -> Client:
    """The configuration of a command that pushes to a registry, which also reads back."""
    client = Client(rkt.base)
    configure(client, registry, login=login)
    return client


def push(rkt: Rkt, source: str, target: str, *flags: str, check: int = 0) -> Result:
    """Push without a picture of the progress."""
    return rkt.run("image", "push", "--progress=none", *flags, source, f"docker://{target}", check=check)


@pytest.mark.parametrize("kind", KINDS)
def test_push_of_a_layout(rkt: Rkt, registries: dict[str, Registry], kind: str) -> None:
    """What is pushed from a layout has the same digest in the registry, and is there in all its bytes; once is enough."""
    registry = registries[kind]
    client = ready(rkt, registry)
    layout = layouts.write_layout(f"{rkt.base}/layout", IMAGE)
    result = push(rkt, f"oci:{layout}", f"{registry.name}/team/app:1")
    assert result.stdout == f"{IMAGE.digest}\n"
    assert "3 of 3 blobs had to be uploaded" in result.stderr
    for reference in ("team/app:1", f"team/app@{IMAGE.digest}"):
        blobs = client.pull(f"{registry.name}/{reference}")
        assert [layouts.digest(b) for b in blobs] == [item["digest"] for item in IMAGE.document["layers"]]
    assert "0 of 3 blobs" in push(rkt, f"oci:{layout}", f"{registry.name}/team/app:2").stderr
    if registry.tokens is not None:
        scopes = {tuple(query["scope"]) for query, _ in registry.tokens.asked}
        assert scopes == {("repository:team/app:pull,push",), ("repository:team/app:pull",)}


def test_push_by_digest(rkt: Rkt, registries: dict[str, Registry]) -> None:
    """An image can be pushed by its digest alone, and by no other."""
    registry = registries[PLAIN]
    client = ready(rkt, registry)
    layout = layouts.write_layout(f"{rkt.base}/layout", IMAGE)
    target = f"{registry.name}/by/digest@{IMAGE.digest}"
    push(rkt, f"oci:{layout}", target)
    assert client.resolve(target) is not None
    result = push(rkt, f"oci:{layout}", f"{registry.name}/by/digest@sha256:{'0' * 64}", check=254)
    assert f"has the digest {IMAGE.digest}" in result.stderr


def test_push_of_archives(rkt: Rkt, registries: dict[str, Registry]) -> None:
    """Archives are pushed as they are: of a Docker archive the configuration's digest stays, which is Docker's image ID."""
    registry = registries[PLAIN]
    client = ready(rkt, registry)
    path = layouts.write_tar(f"{rkt.base}/d.tar", layouts.docker_files(IMAGE, tags=[["one:1"]]))
    push(rkt, f"docker-archive:{path}", f"{registry.name}/archive:1")
    assert client.pull(f"{registry.name}/archive:1") == IMAGE.tars
    manifest = json.loads(client.documents["manifest"])
    assert manifest["config"]["digest"] == layouts.digest(IMAGE.config)


def test_push_of_a_large_blob(rkt: Rkt, registries: dict[str, Registry]) -> None:
    """A layer of more than one piece arrives whole."""
    registry = registries[TOKEN]
    client = ready(rkt, registry)
    image = layouts.make_image(layouts.layer({"big": os.urandom(17 << 20)}), compression="none")
    layout = layouts.write_layout(f"{rkt.base}/layout", image)
    push(rkt, f"oci:{layout}", f"{registry.name}/big:1")
    assert client.pull(f"{registry.name}/big:1") == image.tars


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_push_of_an_aci(rkt: Rkt, registries: dict[str, Registry], compression: str) -> None:
    """An ACI becomes an image of one layer, the same each time."""
    registry = registries[PLAIN]
    client = ready(rkt, registry)
    path = f"{rkt.base}/app.aci"
    aci.write_aci(path, ["/bin/app"], files={"bin/app": (b"#!/bin/sh\n", 0o755)})
    rkt.run("--insecure-options=image", "fetch", path, check=0)
    target = f"{registry.name}/aci:{compression}"
    first, second = (push(rkt, "example.com/app", target, f"--compression={compression}") for _ in range(2))
    assert first.stdout == second.stdout
    assert "0 of 2 blobs" in second.stderr
    client.pull(target)
    suffix = "" if compression == "none" else "+gzip"
    manifest = json.loads(client.documents["manifest"])
    assert manifest["layers"][0]["mediaType"] == f"{layouts.OCI}.layer.v1.tar{suffix}"
    assert json.loads(client.documents["config"])["config"]["Entrypoint"] == ["/bin/app"]
    assert not os.listdir(f"{rkt.data}/cas/tmp")


@pytest.mark.parametrize("kind", [HTPASSWD, TOKEN])
def test_without_credentials(rkt: Rkt, registries: dict[str, Registry], kind: str) -> None:
    """Who has no credentials, or wrong ones, is told so, and how they are given."""
    registry = registries[kind]
    client = ready(rkt, registry, login=False)
    layout = layouts.write_layout(f"{rkt.base}/layout", IMAGE)
    result = push(rkt, f"oci:{layout}", f"{registry.name}/private:1", check=254)
    assert "credentials" in result.stderr
    client.login(registry.name, password="wrong")
    result = push(rkt, f"oci:{layout}", f"{registry.name}/private:1", check=254)
    assert "refuses the credentials" in result.stderr
    assert PASSWORD not in result.stderr
    assert USER in result.stderr


def test_no_http_unless_told(rkt: Rkt, registries: dict[str, Registry]) -> None:
    """RG3: an image is not pushed without TLS unless that is allowed, for the registry or for the command."""
    registry = registries[PLAIN]
    layout = layouts.write_layout(f"{rkt.base}/layout", IMAGE)
    result = push(rkt, f"oci:{layout}", f"{registry.name}/plain:1", check=254)
    assert "TLS" in result.stderr
    words = ["--insecure-options=http", "image", "push", "--progress=none"]
    rkt.run(*words, f"oci:{layout}", f"docker://{registry.name}/plain:1", check=0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["oci:layout"], "an image and where to push it are expected"),
        (["oci:layout", "registry.example/app:1"], "images are pushed to registries"),
        (["oci:layout", "oci:other"], "images are pushed to registries"),
        (["oci:layout", "docker://registry.example/UPPER"], "lower case"),
        (["--compression=gzip", "oci:layout", "docker://registry.example/app"], "is pushed as it is"),
        (["example.com/none", "docker://registry.example/app"], "not in the store|no image|not found"),
    ],
)
def test_what_cannot_be_pushed(rkt: Rkt, words: list[str], expected: str) -> None:
    """What is no image, or no place for one, is refused before anything is sent."""
    import re

    layouts.write_layout(f"{rkt.base}/layout", IMAGE)
    result = rkt.run("image", "push", *words, cwd=rkt.base, check=254)
    assert re.search(expected, result.stderr), result.stderr


def test_skopeo_reads_it(rkt: Rkt, registries: dict[str, Registry]) -> None:
    """What was pushed is copied by skopeo to a layout, with the same digest."""
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    registry = registries[PLAIN]
    ready(rkt, registry)
    layout = layouts.write_layout(f"{rkt.base}/layout", IMAGE)
    push(rkt, f"oci:{layout}", f"{registry.name}/skopeo:1")
    words = ["skopeo", "copy", "-q", "--src-tls-verify=false"]
    done = subprocess.run(
        [*words, f"docker://{registry.name}/skopeo:1", f"oci:{rkt.base}/copy:1"],
        capture_output=True,
        text=True,
        check=False,
        env=rkt.environment(),
    )
    assert done.returncode == 0, done.stderr
    with open(f"{rkt.base}/copy/index.json", encoding="utf-8") as stream:
        assert json.load(stream)["manifests"][0]["digest"] == IMAGE.digest


@pytest.mark.parametrize("compression", ["", "zstd"])
def test_push_of_a_fetched_image(rkt: Rkt, registries: dict[str, Registry], compression: str) -> None:
    """To the registry that it came from, an image is pushed by its digest alone; elsewhere its layers are compressed anew."""
    source, other = registries[PLAIN], registries[TOKEN]
    repository = f"origin/{compression or 'own'}"
    reference = source.push(repository, IMAGE, "1")
    ready(rkt, source)
    rkt.run("--insecure-options=image", "fetch", reference, check=0)
    if not compression:
        result = push(rkt, IMAGE.digest, f"{source.name}/copy:1")
        assert result.stdout == f"{IMAGE.digest}\n"
        assert "1 of 3 blobs" in result.stderr
        return
    client = ready(rkt, other)
    result = push(rkt, IMAGE.digest, f"{other.name}/copy:2", f"--compression={compression}")
    assert "the manifest is a new one" in result.stderr
    client.pull(f"{other.name}/copy:2")
    assert client.documents["config"] == IMAGE.config
    manifest = json.loads(client.documents["manifest"])
    assert {item["mediaType"] for item in manifest["layers"]} == {f"{layouts.OCI}.layer.v1.tar+zstd"}
    assert layouts.digest(client.documents["manifest"]) == result.stdout.strip()
