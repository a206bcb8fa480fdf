# SPDX-License-Identifier: Apache-2.0
"""Names without a host: of ACIs first, then of images of the registries that the operator lists, and of no others."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import write_aci
from tests.lib.layouts import Image, layer, make_image
from tests.lib.registry import PORT, LyingRegistry
from tests.lib.server import Page
from tests.lib.site import write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root
INSECURE = "--insecure-options=image,http"
#: Nobody has a host of this name.
WORD = "xqz-no-such-host"


@pytest.fixture(scope="module")
def image() -> Image:
    """An image that need not run."""
    return make_image(layer({"bin/app": (b"x", 0o755)}))


@pytest.fixture
def registries() -> Iterator[tuple[LyingRegistry, LyingRegistry]]:
    """Two, with nothing in them."""
    with LyingRegistry() as first, LyingRegistry() as second:
        yield first, second


def search(rkt: Rkt, *places: str) -> None:
    """Configure where short names are looked for."""
    write_config(rkt, "fetch.d/search.json", {"rktKind": "registry", "search": list(places)})


def ids(rkt: Rkt) -> list[str]:
    """What is in the store."""
    return rkt.run("image", "list", "--no-legend", "--full", "--fields=id,name", check=0).lines


def test_nothing_is_searched_unless_it_is_configured(rkt: Rkt) -> None:
    """Without the setting a word is the name of an ACI, and the error says how an image of a registry is named."""
    failed = rkt.run(INSECURE, "fetch", WORD, check=254)
    assert f'discovery failed for "{WORD}"' in failed.stderr
    assert f"hint: docker://{WORD} if the image of a registry is meant" in failed.stderr
    assert "searching" not in failed.stderr


@pytest.mark.parametrize(("typed", "tag"), [(WORD, "latest"), (f"{WORD}:1", "1"), (f"team/{WORD}", "latest")])
def test_the_first_that_has_it(
    rkt: Rkt, registries: tuple[LyingRegistry, LyingRegistry], image: Image, typed: str, tag: str
) -> None:
    """Registries are asked in their order; what is fetched is said, and remembered and named by its whole reference."""
    first, second = registries
    search(rkt, first.name, f"{second.name}/hub")
    name = typed.partition(":")[0]
    full = second.image(image, f"hub/{name}", tag)
    fetched = rkt.run(INSECURE, "fetch", "--full", typed, check=0)
    assert fetched.stdout == f"{image.digest.replace(':', '-')}\n"
    assert f'"{typed}" is docker://{full}' in fetched.stderr
    assert first.paths().count(f"/v2/{name}/manifests/{tag}") == 1
    (listed,) = ids(rkt)
    assert listed.split()[1] == full.replace(f":{PORT}", f"_{PORT}")
    # What is in the store is not asked for, by either name, and by none where nothing may be.
    first.requests.clear()
    second.requests.clear()
    rkt.run(INSECURE, "fetch", "--pull-policy=new", typed, check=0)
    rkt.run(INSECURE, "fetch", "--pull-policy=never", typed, check=0)
    rkt.run(INSECURE, "fetch", "--pull-policy=never", f"docker://{full}", check=0)
    assert not first.requests
    assert not second.requests
    # Without the setting the word stands for it no longer.
    os.unlink(f"{rkt.local}/fetch.d/search.json")
    never = rkt.run(INSECURE, "fetch", "--pull-policy=never", typed, check=254)
    assert f'unable to fetch image from image name "{typed}"' in never.stderr


def test_none_has_it(rkt: Rkt, registries: tuple[LyingRegistry, LyingRegistry]) -> None:
    """The error lists every reference that was tried."""
    first, second = registries
    search(rkt, first.name, f"{second.name}/hub")
    failed = rkt.run(INSECURE, "fetch", f"{WORD}:2", check=254)
    assert f'image "{WORD}:2" was found neither by discovery nor in the registries to search' in failed.stderr
    assert f"tried docker://{first.name}/{WORD}:2, docker://{second.name}/hub/{WORD}:2" in failed.stderr
    assert "rkt config shows what is searched" in failed.stderr


@pytest.mark.parametrize("fault", ["private", "broken", "silent", "lies"])
def test_who_does_not_say_no_is_not_passed_over(
    rkt: Rkt, registries: tuple[LyingRegistry, LyingRegistry], image: Image, fault: str
) -> None:
    """An outage, a wrong password or a lie of one registry does not make another one's image run."""
    first, second = registries
    second.image(image, WORD)
    path = f"/v2/{WORD}/manifests/latest"
    if fault == "silent":
        search(rkt, "127.0.0.1:1", second.name)
    else:
        search(rkt, first.name, second.name)
        if fault == "lies":
            first.image(image, WORD)
            blob = first.pages[f"/v2/{WORD}/blobs/{image.document['layers'][0]['digest']}"]
            blob.status, blob.body = 404, b""
        else:
            first.pages[path] = Page(b"{}", status=403 if fault == "private" else 500)
    failed = rkt.run(INSECURE, "fetch", WORD, check=254)
    assert not second.requests
    assert ids(rkt) == []
    assert f"docker://{second.name}/{WORD}:latest is not asked for instead" in failed.stderr


def test_an_aci_of_the_store_is_meant(
    rkt: Rkt, registries: tuple[LyingRegistry, LyingRegistry], image: Image
) -> None:
    """What is in the store by that name is what it stands for, whatever a registry has."""
    first, _ = registries
    search(rkt, first.name)
    first.image(image, "app")
    path = f"{rkt.base}/app.aci"
    write_aci(path, name="app")
    stored = rkt.run(INSECURE, "fetch", "--full", path, check=0).stdout
    for policy in ("new", "never"):
        found = rkt.run(INSECURE, "fetch", "--full", f"--pull-policy={policy}", "app", check=0)
        assert found.stdout == stored
    failed = rkt.run(INSECURE, "fetch", "--pull-policy=update", "app", check=254)
    assert 'discovery failed for "app"' in failed.stderr
    assert not first.requests


@pytest.mark.parametrize(
    "name", [f"{WORD}.example.com/app", f"localhost/{WORD}", f"{WORD},os=linux", f"{WORD}~1"]
)
def test_names_that_are_not_short(
    rkt: Rkt, registries: tuple[LyingRegistry, LyingRegistry], name: str
) -> None:
    """A name with a host, or with labels, or one that no registry can have, is never looked for in registries."""
    search(rkt, registries[0].name)
    assert "discovery failed" in rkt.run(INSECURE, "fetch", name, check=254).stderr
    assert not registries[0].requests


def test_a_dependency_is_no_short_name(
    rkt: Rkt, registries: tuple[LyingRegistry, LyingRegistry], image: Image
) -> None:
    """What an image depends on is never taken from a registry: who made it would choose what the operator's word means."""
    first, _ = registries
    search(rkt, first.name)
    first.image(image, WORD)
    path = f"{rkt.base}/app.aci"
    write_aci(path, dependencies=[{"imageName": WORD}])
    assert f'discovery failed for "{WORD}"' in rkt.run(INSECURE, "fetch", path, check=254).stderr
    assert not first.requests


def test_short_names_are_verified_too(
    rkt: Rkt, registries: tuple[LyingRegistry, LyingRegistry], image: Image
) -> None:
    """Nobody is trusted for what is found, so it is refused as by its whole reference; and the setting is shown."""
    first, _ = registries
    search(rkt, first.name)
    first.image(image, WORD)
    failed = rkt.run("--insecure-options=http", "fetch", WORD, check=254)
    assert f'image "{first.name}/{WORD}" verification failed' in failed.stderr
    assert not first.requests
    shown = json.loads(rkt.run("config", check=0).stdout)["stage0"]
    assert {"rktVersion": "v1", "rktKind": "registry", "search": [first.name]} in shown
