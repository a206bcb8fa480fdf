# SPDX-License-Identifier: Apache-2.0
"""``rkt image export --format``: images of the store for other programs."""

from __future__ import annotations

import io
import json
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.lib import aci, layouts
from tests.lib.sources import bring

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lib.rkt import Rkt
    from tests.lib.sources import Fetched

pytestmark = pytest.mark.root
INSECURE = "--insecure-options=image"


def fetch_aci(rkt: Rkt, name: str, **more: object) -> None:
    """Put an ACI into the store."""
    path = os.path.join(rkt.base, "image.aci")
    aci.write_aci(path, name=name, **more)  # type: ignore[arg-type]
    rkt.run(INSECURE, "fetch", "--pull-policy=new", path, check=0)


def names(fetched: Fetched) -> list[str]:
    """Members of the only layer."""
    (blob,) = fetched.blobs
    with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
        return tar.getnames()


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_an_aci(rkt: Rkt, tmp_path: Path, kind: str) -> None:
    """An ACI becomes an image of one layer; its configuration says what the manifest did, and what it cannot say is named."""
    fetch_aci(
        rkt,
        "example.com/app",
        exec_=["/bin/app", "-v"],
        files={"bin/app": (b"#!/bin/sh\n", 0o4755)},
        entries=[aci.directory("rootfs/srv", mode=0o750, uid=12, gid=34)],
        labels={"version": "2"},
        app={
            "user": "7",
            "group": "8",
            "workingDirectory": "/srv",
            "environment": [{"name": "A", "value": "b"}],
            "mountPoints": [{"name": "data", "path": "/data"}],
            "ports": [{"name": "http", "protocol": "tcp", "port": 80}],
            "isolators": [{"name": "os/linux/no-new-privileges", "value": True}],
        },
    )
    output = f"{rkt.base}/out{'' if kind == 'oci' else '.tar'}"
    flag = f"--format={kind.replace('oci-archive', 'oci')}"
    result = rkt.run("image", "export", flag, "example.com/app", output, check=0)
    assert "the image's isolators have no place" in result.stderr
    fetched = bring(tmp_path, f"{kind}:{output}:example.com/app:2")
    assert names(fetched) == ["bin", "bin/app", "srv"]
    with tarfile.open(fileobj=io.BytesIO(fetched.blobs[0])) as tar:
        found = tar.getmember("srv")
        assert (found.mode, found.uid, found.gid) == (0o750, 12, 34)
        assert tar.getmember("bin/app").mode == 0o4755
    config = json.loads(fetched.config)
    labels = config["config"].pop("Labels")
    assert labels["org.opencontainers.image.title"] == "example.com/app"
    assert config["config"] == {
        "Entrypoint": ["/bin/app", "-v"],
        "User": "7:8",
        "WorkingDir": "/srv",
        "Env": ["A=b"],
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
    }
    if kind != "docker-archive":
        assert result.stdout == f"{fetched.resolved.digest}\n"


def test_an_aci_with_dependencies(rkt: Rkt, tmp_path: Path) -> None:
    """What an ACI depends on is in the layer, and what a white list hides is not."""
    fetch_aci(rkt, "example.com/base", files={"etc/base": b"1", "etc/hidden": b"2"})
    fetch_aci(
        rkt,
        "example.com/top",
        files={"bin/app": b"3"},
        dependencies=[{"imageName": "example.com/base"}],
        pathWhitelist=["/bin/app", "/etc/base"],
    )
    rkt.run("image", "export", "--format=oci", "--name=x:1", "example.com/top", f"{rkt.base}/out", check=0)
    fetched = bring(tmp_path, f"oci:{rkt.base}/out:x:1")
    assert [name for name in names(fetched) if "/" in name] == ["bin/app", "etc/base"]
    assert not os.listdir(f"{rkt.data}/cas/tmp")


@pytest.mark.parametrize("flag", ["--compression=gzip", "--name=x:1"])
def test_flags_of_other_formats(rkt: Rkt, flag: str) -> None:
    """An ACI leaves the store as it was fetched: what would change it is refused."""
    fetch_aci(rkt, "example.com/app", files={"bin/app": b"3"})
    result = rkt.run("image", "export", flag, "example.com/app", f"{rkt.base}/out.aci", check=254)
    assert "is for images of other formats" in result.stderr
    assert not os.path.exists(f"{rkt.base}/out.aci")


def test_an_output_that_exists(rkt: Rkt) -> None:
    """An output that exists stays as it is, and nothing is left beside it."""
    fetch_aci(rkt, "example.com/app", files={"bin/app": b"3"})
    before = sorted(os.listdir(rkt.base))
    os.mkdir(f"{rkt.base}/out")
    with open(f"{rkt.base}/out/mine", "wb"):
        pass
    result = rkt.run("image", "export", "--format=oci", "example.com/app", f"{rkt.base}/out", check=254)
    assert "output exists (try --overwrite)" in result.stderr
    assert os.listdir(f"{rkt.base}/out") == ["mine"]
    assert sorted(os.listdir(rkt.base)) == sorted([*before, "out"])


def stored(rkt: Rkt, compression: str) -> layouts.Image:
    """An OCI image of two layers, the second of which hides a file of the first, in the store."""
    image = layouts.make_image(
        layouts.layer({"bin/app": (b"#!/bin/sh\n", 0o4755), "etc/old": b"old"}),
        layouts.layer({"etc/.wh.old": b"", "etc/new": b"new"}),
        compression=compression,
        config={"Entrypoint": ["/bin/app"]},
    )
    layouts.write_layout(f"{rkt.base}/layout", image)
    rkt.run(INSECURE, "fetch", f"oci:{rkt.base}/layout", check=0)
    return image


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_an_oci_image(rkt: Rkt, tmp_path: Path, compression: str) -> None:
    """Layers and configuration are those that were fetched; the manifest too, if its layers came without compression."""
    image = stored(rkt, compression)
    result = rkt.run("image", "export", "--format=oci", image.digest, f"{rkt.base}/out", check=0)
    fetched = bring(tmp_path, f"oci:{rkt.base}/out")
    assert (fetched.config, fetched.blobs) == (image.config, image.tars)
    assert result.stdout == f"{fetched.resolved.digest}\n"
    assert (fetched.manifest == image.manifest) == (compression == "none")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_layers(rkt: Rkt, compression: str) -> None:
    """Layers that are compressed anew are the same layers: fetched again, the image has the same configuration."""
    image = stored(rkt, "gzip")
    words = ["image", "export", "--format=oci", f"--compression={compression}", image.digest]
    result = rkt.run(*words, f"{rkt.base}/out.tar", check=0)
    rkt.run(INSECURE, "fetch", f"oci-archive:{rkt.base}/out.tar", check=0)
    rkt.run("image", "export", "--format=docker-archive", result.stdout.strip(), f"{rkt.base}/d.tar", check=0)
    assert layouts.digest(image.config).removeprefix("sha256:") in _members(f"{rkt.base}/d.tar")[-2]


def _members(path: str) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_an_oci_image_as_an_aci(rkt: Rkt) -> None:
    """An ACI of it has the files as they lie over each other, and appc's view as manifest; it can be fetched and run."""
    image = stored(rkt, "gzip")
    result = rkt.run("image", "export", image.digest, f"{rkt.base}/out.aci", check=0)
    with tarfile.open(f"{rkt.base}/out.aci") as tar:
        assert [name for name in tar.getnames() if tar.getmember(name).isreg()] == [
            "manifest",
            "rootfs/bin/app",
            "rootfs/etc/new",
        ]
        assert tar.getmember("rootfs/bin/app").mode == 0o4755
    fetched = rkt.run(INSECURE, "fetch", "--full", f"{rkt.base}/out.aci", check=0)
    assert result.stdout.strip().startswith(fetched.stdout.strip())
    view = rkt.run("image", "cat-manifest", image.digest, check=0).stdout
    assert rkt.run("image", "cat-manifest", fetched.stdout.strip(), check=0).stdout == view


def test_a_layer_that_has_changed(rkt: Rkt) -> None:
    """A file that is not as it was fetched is named, and nothing is written."""
    image = stored(rkt, "gzip")
    directory = f"{rkt.data}/cas/layer"
    (path,) = (
        name for key in os.listdir(directory) if os.path.exists(name := f"{directory}/{key}/rootfs/bin/app")
    )
    with open(path, "r+b") as stream:
        stream.write(b"?")
    for kind in ("oci", "docker-archive"):
        result = rkt.run("image", "export", f"--format={kind}", image.digest, f"{rkt.base}/out", check=254)
        assert "rootfs/bin/app" in result.stderr
        assert not os.path.exists(f"{rkt.base}/out")
