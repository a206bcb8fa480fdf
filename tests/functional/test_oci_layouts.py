# SPDX-License-Identifier: Apache-2.0
"""Images of image layouts and archives: which one a reference means, and that its bytes arrive as they are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from rkt.errors import RktError
from rkt.schema.oci import Platform, parse_manifest
from tests.lib import aci, layouts
from tests.lib.sources import Fetched, bring

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

pytestmark = pytest.mark.root
ONE = layouts.make_image(layouts.layer({"bin/app": (b"#!/bin/sh\n", 0o755)}), layouts.layer({"etc/a": b"a"}))
TWO = layouts.make_image(layouts.layer({"etc/b": b"b" * 5000}), compression="none")
OTHER = "arm64" if layouts.ARCHITECTURE != "arm64" else "amd64"


def check(fetched: Fetched, image: layouts.Image) -> None:
    """Documents and layers are the image's own bytes."""
    assert fetched.resolved.digest == image.digest
    assert (fetched.manifest, fetched.config) == (image.manifest, image.config)
    assert [f"sha256:{hashlib.sha256(blob).hexdigest()}" for blob in fetched.blobs] == [
        entry["digest"] for entry in image.document["layers"]
    ]


@pytest.mark.parametrize(
    ("kind", "compression"),
    [("oci", "none"), *(("oci-archive", kind) for kind in ("none", "gzip", "bzip2", "xz"))],
)
def test_the_only_image(tmp_path: Path, kind: str, compression: str) -> None:
    """Without a name, the only image of a layout or an archive of one is meant, however the archive is compressed."""
    if kind == "oci":
        path = layouts.write_layout(f"{tmp_path}/layout", ONE)
    else:
        files = layouts.layout_files(layouts.make_index(ONE.descriptor()), ONE.blobs)
        path = layouts.write_tar(f"{tmp_path}/a.tar", files, compression=compression)
    fetched = bring(tmp_path, f"{kind}:{path}")
    check(fetched, ONE)
    assert fetched.resolved.index_digest is None
    assert fetched.index == b""


@pytest.mark.parametrize("reference", ["one", "example.com/one:1", "@{digest}", "{digest}"])
def test_an_image_by_name(tmp_path: Path, reference: str) -> None:
    """Of several images one is meant by its name within the layout, by its full name, or by its digest."""
    names = {"io.containerd.image.name": "example.com/one:1", "org.opencontainers.image.ref.name": "one"}
    index = layouts.make_index(layouts.named(TWO, "two"), ONE.descriptor(annotations=names))
    path = layouts.write_layout(f"{tmp_path}/layout", ONE, TWO, index=index)
    check(bring(tmp_path, f"oci:{path}:{reference.format(digest=ONE.digest)}"), ONE)


@pytest.mark.parametrize("kind", ["oci", "docker-archive"])
def test_several_images_need_a_name(tmp_path: Path, kind: str) -> None:
    """Where there are several images and none is named, or one that is not there, the error lists their names."""
    if kind == "oci":
        index = layouts.make_index(layouts.named(ONE, "one:1"), layouts.named(TWO, "two:2"))
        path = layouts.write_layout(f"{tmp_path}/layout", ONE, TWO, index=index)
    else:
        files = layouts.docker_files(ONE, TWO, tags=[["one:1"], ["two:2"]])
        path = layouts.write_tar(f"{tmp_path}/d.tar", files)
    with pytest.raises(RktError, match="more than one image: one:1, two:2"):
        bring(tmp_path, f"{kind}:{path}")
    with pytest.raises(RktError, match='no image "three", but one:1, two:2'):
        bring(tmp_path, f"{kind}:{path}:three")


def platform_index() -> tuple[bytes, layouts.Image, layouts.Image]:
    """An index of two images for two platforms."""
    foreign = layouts.make_image(layouts.layer({"etc/c": b"c"}), architecture=OTHER)
    index = layouts.make_index(
        foreign.descriptor(platform={"os": "linux", "architecture": OTHER}),
        ONE.descriptor(platform={"os": "linux", "architecture": layouts.ARCHITECTURE}),
        layouts.descriptor(
            f"{layouts.OCI}.manifest.v1+json",
            b"attestation",
            platform={"os": "unknown", "architecture": "unknown"},
        ),
    )
    return index, ONE, foreign


def test_platforms_of_an_index(tmp_path: Path) -> None:
    """An index within a layout gives the image for the platform, and its own digest is kept; a manifest may be named too."""
    index, own, foreign = platform_index()
    outer = layouts.make_index(layouts.descriptor(f"{layouts.OCI}.index.v1+json", index))
    path = layouts.write_layout(f"{tmp_path}/layout", own, foreign, index=outer)
    layouts.write_files(path, {f"blobs/sha256/{hashlib.sha256(index).hexdigest()}": index})
    fetched = bring(tmp_path, f"oci:{path}")
    check(fetched, own)
    assert fetched.resolved.index_digest == layouts.digest(index)
    assert fetched.index == index
    check(bring(tmp_path, f"oci:{path}", Platform(os="linux", architecture=OTHER)), foreign)
    check(bring(tmp_path, f"oci:{path}:{foreign.digest}"), foreign)
    with pytest.raises(RktError, match=f"not for linux/s390x, but for .*linux/{OTHER}"):
        bring(tmp_path, f"oci:{path}", Platform(os="linux", architecture="s390x"))


def test_platforms_side_by_side(tmp_path: Path) -> None:
    """Manifests for several platforms that stand in ``index.json`` itself are told apart by platform."""
    index, own, foreign = platform_index()
    path = layouts.write_layout(f"{tmp_path}/layout", own, foreign, index=index)
    check(bring(tmp_path, f"oci:{path}"), own)


def test_a_known_image_is_not_brought_again(tmp_path: Path) -> None:
    """An image that is had already is told by the digest of its manifest or its index."""
    path = layouts.write_layout(f"{tmp_path}/layout", ONE)
    assert bring(tmp_path, f"oci:{path}", known=ONE.digest, resolved_only=True).known
    assert not bring(tmp_path, f"oci:{path}", known=TWO.digest, resolved_only=True).known


def docker_layers(fetched: Fetched, image: layouts.Image) -> None:
    """The layers of a Docker archive, which has no manifest of its own."""
    assert fetched.config == image.config
    assert fetched.blobs == image.tars
    manifest = parse_manifest(fetched.manifest, fetched.resolved.media_type)
    assert manifest.config.digest == layouts.digest(image.config)
    assert [layer.digest for layer in manifest.layers] == [layouts.digest(tar) for tar in image.tars]
    assert fetched.resolved.digest == layouts.digest(fetched.manifest)


@pytest.mark.parametrize("reference", ["", ":one:1", ":docker.io/library/one:1"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_docker_archive(tmp_path: Path, reference: str, compression: str) -> None:
    """The image of a Docker archive keeps its configuration's bytes, and gets a manifest that is always the same."""
    files = layouts.docker_files(ONE, tags=[["one:1"]])
    path = layouts.write_tar(f"{tmp_path}/d.tar", files, compression=compression)
    fetched = bring(tmp_path, f"docker-archive:{path}{reference}")
    docker_layers(fetched, ONE)
    assert fetched.manifest == bring(tmp_path, f"docker-archive:{path}").manifest


def test_shared_layers_of_a_docker_archive(tmp_path: Path) -> None:
    """A layer that is a link to that of another image, as Docker writes it, is read there."""
    files = layouts.docker_files(ONE)
    name = f"{hashlib.sha256(ONE.tars[1]).hexdigest()}/layer.tar"
    files["real/layer.tar"] = files.pop(name)
    link = aci.symlink(name, "../real/layer.tar")
    path = layouts.write_tar(f"{tmp_path}/d.tar", files, [link])
    docker_layers(bring(tmp_path, f"docker-archive:{path}"), ONE)


@pytest.mark.parametrize(
    "case",
    [
        ("oci", "d.tar", "is a file, not the directory"),
        ("docker-archive", "layout", "is not a regular file"),
        ("docker-archive", "o.tar", "has no manifest.json"),
        ("oci-archive", "d.tar", "has no oci-layout"),
        ("oci", "nothing", "cannot open .*nothing"),
        ("oci", "empty", "no readable oci-layout"),
    ],
    ids=lambda case: f"{case[0]}-{case[1]}",
)
def test_the_wrong_kind(tmp_path: Path, case: tuple[str, str, str]) -> None:
    """What is no layout, or no archive of that kind, is refused with what it lacks."""
    kind, name, expected = case
    layouts.write_layout(f"{tmp_path}/layout", ONE)
    layouts.write_tar(
        f"{tmp_path}/o.tar", layouts.layout_files(layouts.make_index(ONE.descriptor()), ONE.blobs)
    )
    layouts.write_tar(f"{tmp_path}/d.tar", layouts.docker_files(ONE))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RktError, match=expected) as caught:
        bring(tmp_path, f"{kind}:{tmp_path}/{name}")
    assert bool(caught.value.hint) == (name not in {"nothing", "empty"})


def _tool(*words: str, cwd: Path) -> None:
    if not shutil.which(words[0]):
        pytest.skip(f"{words[0]} is not installed")
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_what_skopeo_writes(tmp_path: Path, kind: str) -> None:
    """What skopeo writes is read: of layouts and their archives the manifest that it names, of Docker's the configuration."""
    layouts.write_layout(f"{tmp_path}/layout", ONE)
    target = f"{kind}:{tmp_path}/out:example.com/one:1"
    _tool("skopeo", "copy", "-q", "oci:layout", target, cwd=tmp_path)
    fetched = bring(tmp_path, target)
    assert json.loads(fetched.config)["rootfs"] == json.loads(ONE.config)["rootfs"]
    if kind == "docker-archive":
        assert fetched.blobs == ONE.tars
    else:
        check(fetched, ONE)


def test_what_umoci_writes(tmp_path: Path) -> None:
    """A layout of umoci, with an image that it made itself, is read."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"x")
    _tool("umoci", "init", "--layout", "u", cwd=tmp_path)
    _tool("umoci", "new", "--image", "u:1", cwd=tmp_path)
    _tool("umoci", "insert", "--rootless", "--image", "u:1", "tree", "/srv", cwd=tmp_path)
    fetched = bring(tmp_path, f"oci:{tmp_path}/u:1")
    assert len(fetched.blobs) == 1


def _blob_paths(path: str) -> Iterable[str]:
    return (f"{path}/blobs/sha256/{name}" for name in os.listdir(f"{path}/blobs/sha256"))


def test_links_within_the_layout(tmp_path: Path) -> None:
    """Blobs may be links to other files of the layout, as some builders write them."""
    path = layouts.write_layout(f"{tmp_path}/layout", ONE)
    os.mkdir(f"{path}/pool")
    for blob in list(_blob_paths(path)):
        name = os.path.basename(blob)
        os.rename(blob, f"{path}/pool/{name}")
        os.symlink(f"../../pool/{name}", blob)
    check(bring(tmp_path, f"oci:{path}"), ONE)
