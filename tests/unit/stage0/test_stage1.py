# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os

import pytest

from rkt.config.settings import InsecureOptions, Installation, Settings
from rkt.errors import NotFound, RktError, Stage1Error, UsageError
from rkt.stage0 import contract
from rkt.stage0.stage1 import Choice, Program, choose, find_stage1
from rkt.store.cas import Store
from tests.lib.pods import put_stub
from tests.lib.store import BUILTIN, image_id, put_image


def program(**annotations: str) -> Program:
    """A stage1 manifest with these annotations."""
    pairs = [{"name": f"coreos.com/rkt/stage1/{name}", "value": value} for name, value in annotations.items()]
    return Program(json.dumps({"name": "example.com/stage1", "annotations": pairs}).encode())


def settings(tmp_path: object, index: object = None) -> Settings:
    """Settings with directories of their own; ``index`` is the content of stage1.json."""
    images = f"{tmp_path}/images"
    os.makedirs(images, exist_ok=True)
    if index is not None:
        with open(f"{images}/stage1.json", "w", encoding="ascii") as stream:
            stream.write(index if isinstance(index, str) else json.dumps(index))
    return Settings(
        installation=Installation(package_path="", library_paths=[], stage1_images_path=images),
        data_dir=f"{tmp_path}/data",
        system_config_dir=f"{tmp_path}/system",
        local_config_dir=f"{tmp_path}/local",
        insecure=InsecureOptions.parse("image"),
    )


def configure(tmp_path: object, **members: str) -> None:
    """A stage1 configuration file."""
    os.makedirs(f"{tmp_path}/local/stage1.d", exist_ok=True)
    with open(f"{tmp_path}/local/stage1.d/one.json", "w", encoding="ascii") as stream:
        json.dump({"rktKind": "stage1", "rktVersion": "v1", **members}, stream)


def index_of(seed: str, name: str = "example.com/stage1", version: str = "1.0") -> dict[str, object]:
    """An index with one image."""
    entry = {"name": name, "version": version, "id": image_id(seed), "file": "stage1.aci"}
    return {"default": "ns", "images": {"ns": entry}}


def test_entrypoints() -> None:
    """An entrypoint is the annotation's path without its slash; one that is missing or odd is refused."""
    good = program(run="/opt/run", gc="/gc")
    assert good.entrypoint(contract.ANNOTATION_RUN) == "opt/run"
    assert good.has(contract.ANNOTATION_GC)
    assert not good.has(contract.ANNOTATION_STOP)
    with pytest.raises(Stage1Error, match="does not declare"):
        good.entrypoint(contract.ANNOTATION_STOP)
    for path in ("run", "", "/", "/a/../b", "/..", "/a//b", "/a/", "/./a", "/a\0b"):
        with pytest.raises(Stage1Error, match="not a plain absolute path"):
            program(run=path).entrypoint(contract.ANNOTATION_RUN)


def test_interface_version() -> None:
    """The interface version is a small number, 1 when there is none."""
    assert program().interface_version == 1
    assert program(**{"interface-version": "6"}).interface_version == 6
    for text in ("", "six", "-1", "99999", "1.5"):
        with pytest.raises(Stage1Error, match="interface version"):
            _ = program(**{"interface-version": text}).interface_version


@pytest.mark.parametrize(
    "manifest", ["[]", "{}", '{"name":1,"annotations":5}', '{"name":"a","annotations":[1]}', "x"]
)
def test_malformed_manifests(manifest: str) -> None:
    """A manifest that is none gives an error of ours."""
    with pytest.raises(RktError):
        Program(manifest.encode())


def test_choice_of_flags() -> None:
    """At most one stage1 flag, once."""
    flags: dict[str, list[str]] = {
        f"stage1-{kind}": [] for kind in ("url", "path", "name", "hash", "from-dir")
    }
    assert choose(flags) == Choice()
    assert choose({**flags, "stage1-path": ["a"]}) == Choice(kind="path", value="a")
    with pytest.raises(UsageError, match="--stage1-url and --stage1-path are mutually exclusive"):
        choose({**flags, "stage1-path": ["a"], "stage1-url": ["b"]})
    with pytest.raises(UsageError, match="--stage1-path already used"):
        choose({**flags, "stage1-path": ["a", "a"]})


def test_the_built_in_default_comes_from_the_store(tmp_path: object) -> None:
    """When the store has the image that the index lists, it is taken by its ID."""
    given = settings(tmp_path, index_of("default"))
    record = put_image(given.data_dir, "example.com/stage1", seed="default", verdict=BUILTIN)
    assert find_stage1(Choice(), given, Store(given.data_dir)).key == record.key


def test_built_in_images_by_name_and_file(tmp_path: object) -> None:
    """--stage1-name, --stage1-path and --stage1-from-dir find a built-in image without asking for a signature."""
    given = settings(tmp_path, index_of("default"))
    key = put_image(given.data_dir, "example.com/stage1", seed="default", verdict=BUILTIN).key
    store = Store(given.data_dir)
    path = f"{given.installation.stage1_images_path}/stage1.aci"
    for choice in (
        Choice(kind="name", value="example.com/stage1"),
        Choice(kind="name", value="example.com/stage1:1.0"),
        Choice(kind="path", value=path),
        Choice(kind="from-dir", value="stage1.aci"),
        Choice(kind="hash", value=key),
    ):
        assert find_stage1(choice, given, store).key == key


def test_old_names_lead_to_the_flavour_with_systemd(tmp_path: object) -> None:
    """-coreos, -src and -host mean -nspawn, by name, file and configuration; an image of such a name that was fetched counts before."""
    index = index_of("default", "coreos.com/rkt/stage1-nspawn")
    given = settings(tmp_path, index)
    key = put_image(given.data_dir, "coreos.com/rkt/stage1-nspawn", seed="default", verdict=BUILTIN).key
    store = Store(given.data_dir)
    for old in ("coreos", "src", "host", "src-v231"):
        assert find_stage1(Choice(kind="name", value=f"coreos.com/rkt/stage1-{old}"), given, store).key == key
        assert find_stage1(Choice(kind="from-dir", value=f"stage1-{old}.aci"), given, store).key == key
    configure(tmp_path, name="coreos.com/rkt/stage1-coreos", version="1.30.0")
    assert find_stage1(Choice(), given, store).key == key
    configure(tmp_path, location="/usr/lib/rkt/stage1-images/stage1-host.aci")
    assert find_stage1(Choice(), given, store).key == key
    own = put_image(given.data_dir, "coreos.com/rkt/stage1-coreos", seed="theirs").key
    assert find_stage1(Choice(kind="name", value="coreos.com/rkt/stage1-coreos"), given, store).key == own


@pytest.mark.parametrize("name", ["../stage1.aci", "a/b", "", ".", ".."])
def test_from_dir_takes_a_file_name(tmp_path: object, name: str) -> None:
    """--stage1-from-dir does not leave the directory (HH3)."""
    given = settings(tmp_path, index_of("default"))
    with pytest.raises(UsageError, match="takes a file name"):
        find_stage1(Choice(kind="from-dir", value=name), given, Store(given.data_dir))


def test_configured_name_comes_from_the_store(tmp_path: object) -> None:
    """Name and version of the configuration are looked up in the store before anything else (S1, Z1)."""
    given = settings(tmp_path, index_of("default"))
    put_image(given.data_dir, "example.com/stage1", seed="default", verdict=BUILTIN)
    stub = put_stub(given.data_dir)
    configure(tmp_path, name=stub.name, version="1", location="/nowhere/stage1.aci")
    assert find_stage1(Choice(), given, Store(given.data_dir)).key == stub.key


def test_a_configured_file_that_is_missing_is_looked_for_beside_the_built_in_ones(tmp_path: object) -> None:
    """Of an absolute location that cannot be loaded, the file of that name in the installation is taken (S6, Z6)."""
    given = settings(tmp_path, index_of("default"))
    key = put_image(given.data_dir, "example.com/stage1", seed="default", verdict=BUILTIN).key
    configure(tmp_path, location="/nowhere/stage1.aci")
    assert find_stage1(Choice(), given, Store(given.data_dir)).key == key
    configure(tmp_path, location="/nowhere/other.aci")
    with pytest.raises(RktError):
        find_stage1(Choice(), given, Store(given.data_dir))


def test_a_configured_name_without_an_image(tmp_path: object) -> None:
    """A configured name that nobody has is not replaced by another flavour silently."""
    given = settings(tmp_path, index_of("default"))
    put_image(given.data_dir, "example.com/stage1", seed="default", verdict=BUILTIN)
    configure(tmp_path, name="example.com/missing", version="9")
    with pytest.raises(NotFound, match=r"example\.com/missing:9"):
        find_stage1(Choice(), given, Store(given.data_dir))


@pytest.mark.parametrize(
    "index",
    [None, "{", "[]", {}, {"default": "ns", "images": {"ns": {"name": "a"}}}, {"default": "x", "images": {}}],
)
def test_a_broken_installation_is_said_so(tmp_path: object, index: object) -> None:
    """Without a usable index there is no default stage1, and the error says which file or flag."""
    given = settings(tmp_path, index)
    with pytest.raises(Stage1Error, match=r"stage1"):
        find_stage1(Choice(), given, Store(given.data_dir))
