# SPDX-License-Identifier: Apache-2.0
"""``rkt lock`` writes down what a pod is made of, and ``--locked`` refuses anything else by name (issue 7, 6)."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib import cosign
from tests.lib.layouts import layer, make_image
from tests.lib.live import Sandbox
from tests.lib.registry import PLAIN, Registry
from tests.lib.site import write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.layouts import Image
    from tests.lib.rkt import Rkt
    from tests.lib.server import Authority

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"


def shell(text: str) -> Image:
    """An image that runs, and is another for each text."""
    path = shutil.which("busybox")
    assert path is not None
    with open(path, "rb") as stream:
        busybox = stream.read()
    return make_image(
        layer({"bin/sh": (busybox, 0o755)}),
        layer({"says": text.encode()}),
        config={"Cmd": ["/bin/sh", "-c", 'read line < /says; echo "$line"']},
    )


@pytest.fixture(scope="module")
def registry(authority: Authority) -> Iterator[Registry]:
    """A registry without TLS."""
    with Registry(PLAIN, authority) as running:
        yield running


@pytest.fixture(scope="module")
def locked(module_rkt: Rkt, registry: Registry) -> tuple[str, str, str]:
    """The path of a lock file, the reference of its image, and the digest of that; the tag may be moved afterwards."""
    rkt = module_rkt
    write_config(
        rkt, "fetch.d/registry.json", {"rktKind": "registry", "registries": [registry.name], "http": True}
    )
    image = shell("first\n")
    reference = registry.push("team/web", image, "1")
    path = f"{rkt.base}/rkt.lock"
    result = rkt.run("lock", INSECURE, f"--output={path}", reference, check=0)
    assert "nobody vouches for web" in result.stderr
    return path, reference, image.digest


def lock_of(path: str) -> dict[str, Any]:
    """The document."""
    with open(path, encoding="utf-8") as stream:
        document: dict[str, Any] = json.load(stream)
    return document


def changed(path: str, **members: Any) -> str:
    """A copy of a lock file that differs."""
    target = f"{path}.{'-'.join(members)}"
    with open(target, "w", encoding="utf-8") as stream:
        json.dump({**lock_of(path), **members}, stream)
    return target


def test_runs_what_is_locked(module_rkt: Rkt, locked: tuple[str, str, str]) -> None:
    """The pod of a lock file runs, and the file has the digest of the registry and the stage1 of the installation."""
    path, reference, digest = locked
    document = lock_of(path)
    (app,) = document["apps"]
    assert (document["format"], document["version"]) == ("rkt.lock", 1)
    assert (app["app"], app["image"], app["digest"]) == ("web", reference, digest)
    assert app["id"] == digest.replace(":", "-")
    assert app["signers"] == []
    assert document["stage1"]["signers"] == ["installation"]
    assert os.stat(path).st_mode & 0o777 == 0o644
    result = module_rkt.run("run", INSECURE, f"--locked={path}", reference, check=0)
    assert "first" in result.stdout


def test_missing_image_comes_by_its_digest(
    module_rkt: Rkt, registry: Registry, locked: tuple[str, str, str]
) -> None:
    """Where the store lost the image and the tag was moved meanwhile, the locked one is fetched; a moved tag that is asked for is refused by name."""
    rkt, (path, reference, digest) = module_rkt, locked
    key = digest.replace(":", "-")
    rkt.run("gc", "--grace-period=0", check=0)
    rkt.run("image", "rm", key, check=0)
    new = shell("second\n")
    registry.push("team/web", new, "1")
    uuid = rkt.run("prepare", INSECURE, f"--locked={path}", reference, check=0).lines[0]
    assert key in rkt.run("cat-manifest", uuid, check=0).stdout
    rkt.run("rm", uuid, check=0)
    # Asked for again, and from then on in the store.
    for policy in ("update", "new"):
        refused = rkt.run(
            "run", INSECURE, f"--locked={path}", f"--pull-policy={policy}", reference, check=254
        ).stderr
        assert f'app "web" is another image than {path} has' in refused
        assert key[:39] in refused
        assert new.digest.replace(":", "-")[:39] in refused
        by_digest = f"docker://{registry.name}/team/web@{digest}"
        assert f"hint: for the locked image write {by_digest}; to accept the new one" in refused
    uuid = rkt.run("prepare", INSECURE, f"--locked={path}", by_digest, check=0).lines[0]
    rkt.run("rm", uuid, check=0)


def test_another_stage1(module_rkt: Rkt, locked: tuple[str, str, str]) -> None:
    """A stage1 other than the locked one is refused before images are looked for, with both named."""
    path, reference, _ = locked
    stage1 = lock_of(path)["stage1"]
    other = changed(
        path, stage1={**stage1, "id": f"sha512-{'0' * 128}", "name": "coreos.com/rkt/stage1-ns:0.0"}
    )
    for words in (("run", INSECURE, f"--locked={other}", reference), ("app", "sandbox", f"--locked={other}")):
        refused = module_rkt.run(*words, check=254).stderr
        assert f"stage1 is another image than {other} has" in refused
        assert "locked: coreos.com/rkt/stage1-ns:0.0 sha512-" in refused
        assert f"found:  {stage1['name']} {stage1['id'][:39]}" in refused


def test_added_and_missing_apps(
    module_rkt: Rkt, registry: Registry, images: Images, locked: tuple[str, str, str]
) -> None:
    """An app more is refused before its image is fetched, a renamed one and one too few as well."""
    rkt, (path, _, digest) = module_rkt, locked
    pinned = f"docker://{registry.name}/team/web@{digest}"
    more = f"docker://{registry.name}/team/never-pushed:1"
    refused = rkt.run("run", INSECURE, f"--locked={path}", pinned, more, check=254).stderr
    assert f'image "{more}" is not in {path}, which has web\n' in refused
    file = images.busybox()
    refused = rkt.run("run", INSECURE, f"--locked={path}", pinned, file, "--name=shell", check=254).stderr
    assert f'app "shell" (example.com/busybox) is not in {path}' in refused
    refused = rkt.run("run", INSECURE, f"--locked={path}", pinned, "--name=other", check=254).stderr
    assert 'app "other" (' in refused
    two = changed(
        path, apps=[*lock_of(path)["apps"], {**lock_of(path)["apps"][0], "app": "db", "image": more}]
    )
    refused = rkt.run("run", INSECURE, f"--locked={two}", pinned, check=254).stderr
    assert f'app "db" of {two} is missing in this pod' in refused
    assert not rkt.pods()


def test_other_signers(module_rkt: Rkt, images: Images) -> None:
    """The same image is refused when it was taken in without the signature that the file has."""
    rkt = module_rkt
    file = images.busybox("example.com/signed", file="lock-signed")
    images.sign(file)
    rkt.run("trust", "--skip-fingerprint-review", "--prefix=example.com/signed", images.key_file, check=0)
    path = f"{rkt.base}/signed.lock"
    table = rkt.run("lock", f"--output={path}", file, check=0).lines
    signer = f"openpgp:{images.key.fingerprint.lower()}"
    assert table[1].startswith("signed\texample.com/signed") or "signed" in table[1]
    assert signer in table[1]
    uuid = rkt.run("prepare", f"--locked={path}", file, check=0).lines[0]
    rkt.run("rm", uuid, check=0)
    other = changed(path, apps=[{**lock_of(path)["apps"][0], "signers": [signer, "openpgp:" + "0" * 40]}])
    refused = rkt.run("run", f"--locked={other}", file, check=254).stderr
    assert f'app "signed" is the image that {other} has, but others vouch for it' in refused
    assert f"vouched for by {signer}, openpgp:{'0' * 40}\n" in refused
    assert f"vouched for by {signer}\n" in refused


def test_another_signer(module_rkt: Rkt, registry: Registry, locked: tuple[str, str, str]) -> None:
    """An image that one signer was locked with is refused when another signer is who the rules ask for by now."""
    rkt, image = module_rkt, shell("signed\n")
    reference = registry.push("vendor/app", image, "1")
    keys = {name: cosign.Key() for name in ("old", "new")}
    path = f"{rkt.base}/vendor.lock"
    for name, key in keys.items():
        signed = cosign.payload(image.digest, f"{registry.name}/vendor/app")
        manifest, blobs = cosign.classic_manifest(key, signed)
        for blob, data in blobs.items():
            registry.push_blob("vendor/app", blob, data)
        registry.push_manifest("vendor/app", cosign.tag_of(image, ".sig"), manifest)
        os.symlink(f"{name}.real", f"{rkt.base}/{name}.pub")
        with open(f"{rkt.base}/{name}.real", "wb") as stream:
            stream.write(key.pem)
        rkt.run("trust", f"--prefix={registry.name}/vendor", f"--cosign-key={name}.pub", check=0)
        if name == "old":
            rkt.run("lock", f"--output={path}", reference, check=0)
            assert lock_of(path)["apps"][0]["signers"] == [f"cosign:{key.fingerprint}"]
            uuid = rkt.run("prepare", f"--locked={path}", reference, check=0).lines[0]
            rkt.run("rm", uuid, check=0)
            rkt.run("trust", "rm", f"--prefix={registry.name}/vendor", check=0)
    refused = rkt.run("run", f"--locked={path}", "--pull-policy=update", reference, check=254).stderr
    assert f'app "app" is the image that {path} has, but others vouch for it' in refused
    assert f"vouched for by cosign:{keys['old'].fingerprint}\n" in refused
    assert f"vouched for by cosign:{keys['new'].fingerprint}\n" in refused


def test_apps_of_a_sandbox(module_rkt: Rkt, images: Images, locked: tuple[str, str, str]) -> None:
    """``app add --locked`` takes the apps of the file into a pod, and no others."""
    rkt, (path, _, digest) = module_rkt, locked
    sandbox = Sandbox(rkt, images, f"--locked={path}")
    words = ("app", "add", INSECURE, f"--locked={path}", sandbox.uuid)
    refused = rkt.run(*words, sandbox.image, "--name=shell", check=254).stderr
    assert 'app "shell" (example.com/inspect' in refused
    rkt.run(*words, digest, "--name=other", check=254)
    rkt.run(*words, digest, "--name=web", check=0)
    assert sandbox.states() == {"web": "created"}
    sandbox.end()


def test_files_that_are_no_locks(module_rkt: Rkt, locked: tuple[str, str, str]) -> None:
    """A lock file that is not there, is none, is newer or has more in it refuses everything; another file is not overwritten."""
    rkt, (path, reference, _) = module_rkt, locked
    missing = rkt.run("run", INSECURE, "--locked", reference, cwd=rkt.tmp, check=254).stderr
    assert "there is no lock file rkt.lock" in missing
    for other, reason in (
        (changed(path, version=2), "it has version 2, this rkt reads version 1"),
        (changed(path, extra={}), 'unknown member "extra"'),
        (changed(path, apps=[{"id": "sha512-0"}]), "member 'signers' is missing"),
        (changed(path, format="other"), 'its format is not "rkt.lock"'),
    ):
        refused = rkt.run("run", INSECURE, f"--locked={other}", reference, check=254).stderr
        assert f"{other} is no lock file of rkt: {reason}" in refused
    with open(other, encoding="utf-8") as stream:
        before = stream.read()
    rkt.run("lock", INSECURE, f"--output={other}", reference, check=254)
    with open(other, encoding="utf-8") as stream:
        assert stream.read() == before
