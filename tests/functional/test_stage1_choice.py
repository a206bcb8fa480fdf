# SPDX-License-Identifier: Apache-2.0
"""Choosing a stage1: by flags and by configuration, trusted as any other image (spec runtime §6.10, spec cli §10.9).

The stage1 is a stub that says so; ``TEXT`` in the output means that it was the one that ran. Every row is one function that
says what the command line and the configuration are, and what the first and the second run must say of where it came from.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.lib import stage1_sample
from tests.lib.aci import write_aci
from tests.lib.pods import APP, put_app
from tests.lib.rkt import ROOT
from tests.lib.server import Page
from tests.lib.site import Site, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Result, Rkt
    from tests.lib.server import Authority

pytestmark = pytest.mark.root

TEXT = "success, stub stage1 would at this point switch to stage2"
VERSION = "1.2.3"
INSECURE = "--insecure-options=image,tls,http"
FILE = "using image from file {path}"
NAMED = "using image from local store for image name {name}:{version}"
REMOTE = 'remote fetching from URL "{url}"'
SEARCH = "searching for app image {name}"


class Stub(NamedTuple):
    """An engine with an app, a site that serves the stub and leads to it by discovery, and the stub as a file."""

    rkt: Rkt
    site: Site
    plain: Site
    path: str
    name: str
    identity: str

    def texts(self) -> dict[str, str]:
        """What messages are filled in with."""
        return {
            "path": self.path,
            "name": self.name,
            "version": VERSION,
            "url": self.site.url("/images/stub.aci"),
            "plain": self.plain.url("/images/stub.aci"),
            "identity": self.identity,
        }

    def run(self, *flags: str, cwd: str | None = None, check: int = 0) -> Result:
        """``rkt run`` with these flags."""
        return self.rkt.run(INSECURE, "--debug", "run", *flags, APP, cwd=cwd, check=check)

    def configure(self, **members: str) -> None:
        """The configuration of kind ``stage1``."""
        write_config(self.rkt, "stage1.d/one.json", {"rktKind": "stage1", **members})

    def forget(self) -> None:
        """As if the stub had never been fetched, nor configured."""
        for directory in ("stage1.d", "paths.d"):
            shutil.rmtree(f"{self.rkt.local}/{directory}", ignore_errors=True)
        if self.rkt.pods():
            self.rkt.run("gc", "--grace-period=0", "--expire-prepared=0", check=0)
        self.rkt.run("image", "rm", self.identity)


@pytest.fixture(scope="module")
def made(module_rkt: Rkt, authority: Authority) -> Iterator[Stub]:
    """One for all rows."""
    with Site(authority) as site, Site(authority, https=False) as plain:
        site.configure(module_rkt)
        path = f"{module_rkt.base}/stub.aci"
        annotations = [
            {"name": f"coreos.com/rkt/stage1/{name}", "value": value}
            for name, value in (("run", "/run"), ("gc", "/gc"), ("interface-version", "6"))
        ]
        identity = write_aci(
            path,
            None,
            name=site.name("stub"),
            labels={"version": VERSION},
            annotations=annotations,
            files={
                "run": (f"#!/bin/sh\necho '{TEXT}'\n".encode(), 0o755),
                "gc": (b"#!/bin/sh\n", 0o755),
            },
        )
        with open(path, "rb") as stream:
            page = Page(stream.read())
        site.lead_to_images("stub")
        for each in (site, plain):
            each.server.put("/images/stub.aci", page)
        put_app(module_rkt.data)
        yield Stub(module_rkt, site, plain, path, site.name("stub"), identity)


@pytest.fixture
def stub(made: Stub) -> Iterator[Stub]:
    """The same, with a store that does not know the stub."""
    yield made
    made.forget()


#: Row -> members of the configuration, flags, what the first run says, what the second says.
ROWS: dict[str, tuple[dict[str, str], tuple[str, ...], str, str]] = {
    "runtime Z1, cli S1": (
        {"name": "{name}", "version": VERSION, "location": "{path}"}, (), FILE, NAMED,
    ),
    "runtime Z2, cli S2: wrong name": (
        {"name": "example.com/wrong", "version": VERSION, "location": "{path}"}, (), FILE, FILE,
    ),
    "runtime Z2, cli S2: wrong version": (
        {"name": "{name}", "version": "9", "location": "{path}"}, (), FILE, FILE,
    ),
    "runtime Z3, cli S3: https": (
        {"name": "{name}", "version": VERSION, "location": "{url}"}, (), REMOTE, NAMED,
    ),
    "runtime Z3, cli S3: http": (
        {"name": "{name}", "version": VERSION, "location": "{plain}"}, (), 'remote fetching from URL "{plain}"', NAMED,
    ),
    "runtime Z4, cli S4": (
        {"name": "{name}", "version": VERSION, "location": "file://{path}"}, (), FILE, NAMED,
    ),
    "runtime Z8, cli S8: absolute": ({}, ("--stage1-path={path}",), FILE, FILE),
    "runtime Z9, cli S9": (
        {}, ("--stage1-url={url}",), REMOTE, "using image from local store for url {url}",
    ),
    "runtime Z9, cli S9: http": (
        {}, ("--stage1-url={plain}",), 'remote fetching from URL "{plain}"', "using image from local store for url {plain}",
    ),
    "runtime Z10, cli S8: a file URL": ({}, ("--stage1-url=file://{path}",), FILE, FILE),
    "runtime Z11, cli S10": (
        {}, ("--stage1-name={name}",), SEARCH, "using image from local store for image name {name}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_where_a_stage1_comes_from(stub: Stub, row: str) -> None:
    """Each way to name it finds it, says where, and finds it there again; only --stage1-name ever searches (Z7, S7)."""
    texts = stub.texts()
    configuration, flags, *expected = ROWS[row]
    if configuration:
        stub.configure(**{key: value.format(**texts) for key, value in configuration.items()})
    before = len(stub.site.server.paths())
    for number, message in enumerate(expected):
        result = stub.run(*(flag.format(**texts) for flag in flags))
        assert TEXT in result.stdout, result
        assert f"image: {message.format(**texts)}\n" in result.stderr, (number, result.stderr)
        assert ("searching for app image" in result.stderr) == (message is SEARCH)
    if message is not SEARCH and "--stage1-name" not in str(flags):
        asked = stub.site.server.paths()[before:]
        assert not [path for path in asked if "ac-discovery" in path], "runtime Z7, cli S7"


def test_z5_s5_a_relative_location(stub: Stub) -> None:
    """Runtime Z5, cli S5: what is neither an absolute path nor a URL is refused when it is read."""
    stub.configure(name=stub.name, version=VERSION, location="./stub.aci")
    result = stub.run(check=254)
    assert "default stage1 image location is either a relative path or a URL without scheme" in result.stderr


def test_z6_s6_the_file_beside_the_built_in_ones(stub: Stub) -> None:
    """Runtime Z6, cli S6: of a missing file that of the same name is taken which came with rkt, and no other."""
    stub.configure(location="/nowhere/stage1-ns.aci")
    result = stub.rkt.run(INSECURE, "--debug", "prepare", APP, check=0)
    assert f"image: using image from file {ROOT}/build/stage1/stage1-ns.aci" in result.stderr
    stub.configure(location="/nowhere/stub.aci")
    assert "/nowhere/stub.aci" in stub.run(check=254).stderr


def test_z7_s7_a_configured_name_is_not_searched_for(stub: Stub) -> None:
    """Runtime Z7, cli S7: discovery would find it, and is not asked."""
    before = len(stub.site.server.paths())
    stub.configure(name=stub.name, version=VERSION)
    result = stub.run(check=254)
    assert f'no stage1 image "{stub.name}:{VERSION}"' in result.stderr
    assert "searching for app image" not in result.stderr
    assert stub.site.server.paths()[before:] == []


def test_z8_s8_a_relative_path(stub: Stub) -> None:
    """Runtime Z8, cli S8: --stage1-path is seen from where the command was started."""
    result = stub.run("--stage1-path=./stub.aci", cwd=stub.rkt.base)
    assert TEXT in result.stdout
    assert f"image: using image from file {stub.path}\n" in result.stderr


def test_z12_s11_a_hash(stub: Stub) -> None:
    """Runtime Z12, cli S11: --stage1-hash means the store, and only that."""
    before = len(stub.site.server.paths())
    stub.run(f"--stage1-hash={stub.identity}", check=254)
    assert stub.site.server.paths()[before:] == []
    stub.rkt.run(INSECURE, "fetch", stub.path, check=0)
    result = stub.run(f"--stage1-hash={stub.identity}")
    assert TEXT in result.stdout
    assert "image: using image from the store with hash sha512-" in result.stderr


def test_z13_s12_a_directory(stub: Stub) -> None:
    """Runtime Z13, cli S12: --stage1-from-dir means a file of the configured directory, which need not be trusted."""
    write_config(stub.rkt, "paths.d/one.json", {"rktKind": "paths", "stage1-images": stub.rkt.base})
    result = stub.run("--stage1-from-dir=stub.aci")
    assert TEXT in result.stdout
    assert f"image: using image from file {stub.path}\n" in result.stderr
    stub.rkt.run("image", "rm", stub.identity)
    refused = stub.rkt.run("run", "--stage1-from-dir=stub.aci", APP, check=254)
    assert "signature" in refused.stderr


@pytest.mark.parametrize("way", ["path", "hash", "location"])
def test_a_stage1_without_a_signature_is_refused(stub: Stub, way: str) -> None:
    """However it is named, nobody's stage1 does not run."""
    words = [f"--stage1-path={stub.path}"] if way == "path" else []
    if way == "hash":
        stub.rkt.run(INSECURE, "fetch", stub.path, check=0)
        words = [f"--stage1-hash={stub.identity}"]
    if way == "location":
        stub.configure(location=stub.path)
    result = stub.rkt.run("run", *words, APP, check=254)
    assert "never verified" in result.stderr if way == "hash" else "signature" in result.stderr, result
    assert TEXT not in result.stdout
    assert stub.rkt.pods() == {}


def trust(rkt: Rkt, images: Images, prefix: str) -> None:
    """Trust the key for a prefix."""
    rkt.run("trust", f"--prefix={prefix}", "--skip-fingerprint-review", images.key_file, check=0)


def test_the_sample_is_signed_trusted_locked_and_explained(rkt: Rkt, images: Images) -> None:
    """A stage1 built by hand from the guide: its key lets it run, its loss stops that, and pods say which one they have."""
    directory = f"{rkt.base}/sample"
    os.mkdir(directory)
    path = stage1_sample.build(directory)
    images.sign(path)
    app = images.busybox("example.com/say", ("/bin/echo", "ran in the sample"))
    images.sign(app)
    trust(rkt, images, "example.com/say")
    rkt.run("fetch", app, check=0)
    refused = rkt.run("run", f"--stage1-path={path}", "example.com/say", check=254)
    assert f"rkt trust --prefix={stage1_sample.NAME}" in refused.stderr
    trust(rkt, images, stage1_sample.NAME)
    rkt.run("fetch", path, check=0)
    name = f"--stage1-name={stage1_sample.NAME}"
    result = rkt.run("run", name, "example.com/say", check=0)
    assert "ran in the sample" in result.stdout
    assert rkt.run("why", stage1_sample.NAME).status == 0
    rkt.run("lock", name, f"--output={rkt.base}/rkt.lock", "example.com/say", check=0)
    with open(f"{rkt.base}/rkt.lock", encoding="utf-8") as stream:
        locked = json.load(stream)["stage1"]
    assert locked["name"] == f"{stage1_sample.NAME}:1.0.0"
    assert locked["signers"]
    rkt.run("run", name, f"--locked={rkt.base}/rkt.lock", "example.com/say", check=0)
    another = rkt.run("prepare", f"--locked={rkt.base}/rkt.lock", "example.com/say", check=254)
    assert "stage1 is another image than" in another.stderr
    shutil.rmtree(f"{rkt.local}/trustedkeys/prefix.d/{stage1_sample.NAME}")
    gone = rkt.run("run", name, "example.com/say", check=254)
    assert stage1_sample.NAME in gone.stderr
    assert rkt.run("why", stage1_sample.NAME).status == 3
