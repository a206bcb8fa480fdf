# SPDX-License-Identifier: Apache-2.0
"""``rkt fetch docker://…`` from registries that want credentials, by mirrors, and from such that lie (issue 6, 1 and 2)."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.lib.layouts import Image, digest, layer, make_image
from tests.lib.registry import PASSWORD, TOKEN, USER, LyingRegistry, Registry
from tests.lib.rkt import wait_for
from tests.lib.site import write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.rkt import Rkt
    from tests.lib.server import Authority

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"


@pytest.fixture(scope="module")
def image() -> Image:
    """An image that need not run."""
    return make_image(layer({"bin/app": (b"x", 0o755)}), layer({"data": os.urandom(1 << 18)}))


@pytest.fixture(scope="module")
def private(authority: Authority, image: Image) -> Iterator[Registry]:
    """A registry with TLS that wants tokens."""
    with Registry(TOKEN, authority) as running:
        running.push("team/app", image, "1")
        yield running


@pytest.fixture
def registry(rkt: Rkt, authority: Authority) -> Iterator[LyingRegistry]:
    """One of pages, with TLS."""
    with LyingRegistry(authority) as running:
        accept(rkt, authority, running.name)
        yield running


def accept(rkt: Rkt, authority: Authority, *hosts: str) -> None:
    """Accept the private root for hosts."""
    write_config(rkt, "fetch.d/tls.json", {"rktKind": "tls", "hosts": list(hosts), "roots": authority.root})


def allow(rkt: Rkt, private: Registry) -> None:
    """Configure all but credentials."""
    assert private.tokens is not None
    accept(rkt, private.authority, private.name, private.tokens.host)
    rule = {"rktKind": "registry", "registries": [private.name], "tokenHosts": [private.tokens.host]}
    write_config(rkt, "fetch.d/registry.json", rule)
    private.tokens.asked.clear()


def login(path: str, key: str, password: str = PASSWORD) -> str:
    """A file as ``podman login`` writes it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    with open(path, "w", encoding="ascii") as file:
        json.dump({"auths": {key: {"auth": auth}}}, file)
    os.chmod(path, 0o600)
    return path


def has_it(rkt: Rkt, image: Image) -> None:
    """The image is in the store, by the digest that it was pushed with."""
    listed = rkt.run("image", "list", "--no-legend", "--full", "--fields=id", check=0)
    assert image.digest.replace(":", "-") in listed.lines


def nothing_is_there(rkt: Rkt) -> None:
    """No image, no staging."""
    assert rkt.run("image", "list", "--no-legend", check=0).lines == []
    assert os.listdir(f"{rkt.data}/cas/tmp") == []


@pytest.mark.parametrize("where", ["docker", "podman", "variable", "flag", "path"])
def test_credentials_of_other_programs(rkt: Rkt, private: Registry, image: Image, where: str) -> None:
    """Spec cli §11.2, regclient#54: what ``docker login`` and ``podman login`` wrote for the user is used."""
    allow(rkt, private)
    url = f"docker://{private.name}/team/app:1"
    refused = rkt.run(INSECURE, "fetch", url, check=254)
    assert "gives no access" in refused.stderr
    key = f"{private.name}/team" if where == "path" else private.name
    files = {
        "docker": f"{rkt.home}/.docker/config.json",
        "podman": f"{rkt.base}/run/containers/auth.json",
        "variable": f"{rkt.base}/named.json",
        "flag": f"{rkt.base}/flag.json",
        "path": f"{rkt.home}/.config/containers/auth.json",
    }
    path = login(files[where], key)
    environment = {"XDG_RUNTIME_DIR": f"{rkt.base}/run"}
    if where == "variable":
        environment["REGISTRY_AUTH_FILE"] = path
    flags = [f"--authfile={path}"] if where == "flag" else []
    result = rkt.run(INSECURE, *flags, "--debug", "fetch", url, env=environment, check=0)
    has_it(rkt, image)
    assert PASSWORD not in result.stderr + result.stdout


def test_credentials_of_another_user(rkt: Rkt, private: Registry) -> None:
    """Another user's file, to which a variable leads, is named and not used; a wrong password says which file has it."""
    allow(rkt, private)
    path = login(f"{rkt.home}/.docker/config.json", private.name)
    os.chown(path, 1234, 1234)
    url = f"docker://{private.name}/team/app:1"
    refused = rkt.run(INSECURE, "fetch", url, check=254)
    assert f"credentials in {path} belong to another user and are not used" in refused.stderr
    assert private.tokens is not None
    assert {authorization for _, authorization in private.tokens.asked} == {""}
    path = login(f"{rkt.base}/flag.json", private.name, "wrong-password")
    refused = rkt.run(INSECURE, f"--authfile={path}", "fetch", url, check=254)
    assert f'refuses the credentials of user "alice" from {path}' in refused.stderr
    assert "wrong-password" not in refused.stderr
    nothing_is_there(rkt)


def test_what_is_asked_for(rkt: Rkt, registry: LyingRegistry, image: Image) -> None:
    """What is there is not asked for; an update asks for the tag alone; another image with the same layers asks for none of them."""
    url = f"docker://{registry.image(image)}"
    rkt.run(INSECURE, "fetch", url, check=0)
    has_it(rkt, image)
    registry.requests.clear()
    rkt.run(INSECURE, "fetch", "--pull-policy=new", url, check=0)
    assert registry.requests == []
    rkt.run(INSECURE, "fetch", "--pull-policy=update", url, check=0)
    assert [request.method for request in registry.requests] == ["HEAD"]
    other = make_image(*image.tars, config={"Cmd": ["/other"]})
    registry.requests.clear()
    rkt.run(INSECURE, "fetch", f"docker://{registry.image(other, 'other')}", check=0)
    layers = {f"/v2/other/blobs/{item['digest']}" for item in other.document["layers"]}
    assert not layers & set(registry.paths())


@pytest.mark.parametrize("fault", ["manifest", "config", "layer"])
def test_lies(rkt: Rkt, registry: LyingRegistry, image: Image, fault: str) -> None:
    """UN15: nothing of an image with a wrong digest reaches the store, and once the registry is right it is fetched."""
    reference = registry.image(image)
    data = {
        "manifest": image.manifest,
        "config": image.config,
        "layer": image.blobs[image.document["layers"][1]["digest"][len("sha256:") :]],
    }[fault]
    kind = "manifests" if fault == "manifest" else "blobs"
    page = registry.pages[f"/v2/app/{kind}/{digest(data)}"]
    page.body = data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]
    url = f"docker://{registry.name}/app@{image.digest}" if fault == "manifest" else f"docker://{reference}"
    refused = rkt.run(INSECURE, "fetch", url, check=254)
    assert "digest" in refused.stderr
    nothing_is_there(rkt)
    page.body = data
    page.headers["Docker-Content-Digest"] = digest(data)
    rkt.run(INSECURE, "fetch", url, check=0)
    has_it(rkt, image)


def test_a_layer_goes_on_in_a_later_command(
    rkt: Rkt, registry: LyingRegistry, authority: Authority, image: Image
) -> None:
    """RG9: what broke off is gone on with by the next command, and from a mirror as well."""
    reference = registry.image(image)
    name = image.document["layers"][1]["digest"]
    page = registry.pages[f"/v2/app/blobs/{name}"]
    page.stall = 100_000
    process = rkt.popen(INSECURE, "fetch", f"docker://{reference}")
    try:
        wait_for(lambda: registry.sent[f"/v2/app/blobs/{name}"] >= 100_000, "a stalled layer")
        partial = f"{rkt.data}/cas/partial"
        wait_for(
            lambda: max(os.stat(f"{partial}/{entry}").st_size for entry in os.listdir(partial)) >= 90_000,
            "bytes of it",
        )
    finally:
        process.kill()
        process.wait(20)
    page.stall = None
    with LyingRegistry(authority) as mirror:
        accept(rkt, authority, registry.name, mirror.name)
        mirror.image(image, "hub/app")
        rule = {"rktKind": "registry", "registries": [registry.name], "mirrors": [f"{mirror.base}/hub"]}
        write_config(rkt, "fetch.d/registry.json", rule)
        rkt.run(INSECURE, "fetch", f"docker://{reference}", check=0)
        (found,) = [r.headers.get("Range", "") for r in mirror.requests if r.path.endswith(name)]
    has_it(rkt, image)
    assert int(found.removeprefix("bytes=").removesuffix("-")) >= 90_000
