# SPDX-License-Identifier: Apache-2.0
"""An image that an identity signed: from a real registry to a running pod (issue 7, docs/trust.md)."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.lib import cosign, layouts
from tests.lib.keyless import IDENTITY, ISSUER, Signer, Sigstore, dump
from tests.lib.registry import PLAIN, Registry

if TYPE_CHECKING:
    from tests.lib.rkt import Rkt
    from tests.lib.server import Authority

pytestmark = pytest.mark.root
pytest.importorskip("sigstore", reason="the Python library sigstore is not installed")


def _image() -> layouts.Image:
    path = shutil.which("busybox")
    assert path is not None, "busybox is not installed: run make setup"
    with open(path, "rb") as stream:
        layer = layouts.layer({"bin/busybox": (stream.read(), 0o755)})
    return layouts.make_image(layer, config={"Cmd": ["/bin/busybox", "echo", "signed"]})


def _write(path: str, data: bytes) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}~", "wb") as stream:
        stream.write(data)
    os.chmod(f"{path}~", 0o644)
    os.rename(f"{path}~", path)
    return path


def test_from_registry_to_pod(rkt: Rkt, authority: Authority) -> None:
    """Issue 7, 2 and 3: signed by an identity it runs, by another it does not, and with another root not again (SG12, SG15)."""
    image, sigstore = _image(), Sigstore()
    with Registry(PLAIN, authority) as registry:
        reference = registry.push("team/app", image, "1")
        manifest, blobs = cosign.bundle_manifest(dump(Signer(sigstore).sign(image.digest)), image.digest)
        for name, data in blobs.items():
            registry.push_blob("team/app", name, data)
        registry.push_manifest("team/app", layouts.digest(manifest), manifest)
        # What registries without the referrers API are given instead, as this one is.
        listed = layouts.make_index(cosign.descriptor(manifest, artifactType=cosign.BUNDLE))
        registry.push_manifest("team/app", cosign.tag_of(image), listed)
        root = _write(f"{rkt.local}/trust.d/keys/root.json", sigstore.root())

        def trust(identity: str) -> None:
            asked = f'kind = "keyless", identity = "{identity}", issuer = "{ISSUER}", root = "{root}"'
            rule = f'[[rule]]\nprefix = "{registry.name}/team"\nall = [ {{ {asked} }} ]\n'
            _write(f"{rkt.local}/trust.d/team.toml", f'version = 1\ndefault = "refuse"\n{rule}'.encode())

        trust("https://git.example/other")
        refused = rkt.run("--insecure-options=http", "run", "--net=none", reference, check=254).stderr
        assert f'the certificate is for the identity "{IDENTITY}", not "https://git.example/other"' in refused
        trust(IDENTITY)
        ran = rkt.run("--insecure-options=http", "run", "--net=none", reference, check=0)
        assert ran.lines == ["signed"]
    rows = json.loads(rkt.run("image", "list", "--format=json", check=0).stdout)
    ((fact,),) = [row["verdict"]["facts"] for row in rows if row["id"] == image.digest.replace(":", "-")]
    assert (fact["kind"], fact["signer"]) == ("keyless", f"{IDENTITY} ({ISSUER})")
    _write(root, Sigstore().root())
    stopped = rkt.run("run", "--net=none", image.digest, check=254).stderr
    assert "is no longer trusted" in stopped
