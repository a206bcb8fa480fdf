# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import pytest

from rkt.config.settings import Installation, Settings
from rkt.errors import NotFound, RktError
from rkt.fetch import fetch
from rkt.stage0.images import find_image
from tests.lib.aci import ARCH
from tests.lib.store import put_image


@pytest.fixture
def settings(tmp_path: object) -> Settings:
    """Settings with a data directory of their own."""
    installation = Installation(package_path="", library_paths=[], stage1_images_path="")
    return Settings(installation=installation, data_dir=f"{tmp_path}/data", debug=True)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(reference, policy) of every fetch, none of which succeeds."""
    calls: list[tuple[str, str]] = []

    def refuse(reference: str, _: Settings, *, signature: str | None, pull_policy: str) -> None:
        calls.append((reference, pull_policy))
        raise NotFound("refused")

    monkeypatch.setattr(fetch, "fetch_image", refuse)
    return calls


def put(settings: Settings, seed: str = "one", **labels: str) -> str:
    """An image for this machine; its key."""
    return put_image(settings.data_dir, seed=seed, labels={"arch": ARCH, **labels}).key


def test_names_and_hashes_come_from_the_store(
    settings: Settings, fetched: list[tuple[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """A name, a name with a version, a key and a prefix find the image, and --debug says how."""
    key = put(settings)
    for reference in ("example.com/app", "example.com/app:1.0", key, key[:20]):
        assert find_image(reference, settings).key == key
    assert fetched == []
    assert capfd.readouterr().err == (
        "image: using image from local store for image name example.com/app\n"
        "image: using image from local store for image name example.com/app:1.0\n"
        f"image: using image from the store with hash {key}\n"
        f"image: using image from the store with hash {key}\n"
    )


def test_images_for_other_machines_are_not_taken(settings: Settings, fetched: list[tuple[str, str]]) -> None:
    """A name means the image for this machine, unless its labels say otherwise."""
    key = put(settings, arch="ppc64le" if ARCH != "ppc64le" else "amd64")
    with pytest.raises(NotFound, match="refused"):
        find_image("example.com/app", settings)
    arch = "ppc64le" if ARCH != "ppc64le" else "amd64"
    assert find_image(f"example.com/app,arch={arch}", settings).key == key
    assert fetched == [("example.com/app", "new")]


def test_policies(settings: Settings, fetched: list[tuple[str, str]]) -> None:
    """Never is handed on, update does not look, a hash is never fetched."""
    put(settings)
    with pytest.raises(NotFound, match="refused"):
        find_image("example.com/other", settings, pull_policy="never")
    assert fetched.pop() == ("example.com/other", "never")
    with pytest.raises(NotFound, match="refused"):
        find_image("example.com/app", settings, pull_policy="update")
    assert fetched == [("example.com/app", "update")]
    with pytest.raises(NotFound, match="no image IDs found"):
        find_image("sha512-ffff", settings, pull_policy="update")
    assert len(fetched) == 1


def test_files_are_always_fetched(
    settings: Settings, fetched: list[tuple[str, str]], tmp_path: object
) -> None:
    """A path is imported again each time, whatever is in the store."""
    put(settings)
    path = f"{tmp_path}/app.aci"
    with open(path, "wb"):
        pass
    for reference in (path, f"file://{path}", "https://example.com/app.aci"):
        with pytest.raises(NotFound, match="refused"):
            find_image(reference, settings)
    assert [reference for reference, _ in fetched] == [path, f"file://{path}", "https://example.com/app.aci"]


@pytest.mark.parametrize(
    "reference", ["", "a b", "Example.com/X", "example.com/a:1:2", "../x.tar", "\x1b[2J"]
)
def test_what_is_no_reference(settings: Settings, fetched: list[tuple[str, str]], reference: str) -> None:
    """A text that names nothing is refused before anything is fetched."""
    with pytest.raises(RktError):
        find_image(reference, settings)
    assert fetched == []
    assert not os.path.exists(settings.data_dir)
