# SPDX-License-Identifier: Apache-2.0
"""``rkt image create --format=oci`` and ``docker-archive``: what is in the image, that it is always the same, who reads it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib import layouts
from tests.lib.layouts import ARCHITECTURE, digest
from tests.lib.sources import bring

if TYPE_CHECKING:
    from tests.lib.rkt import Result, Rkt

pytestmark = pytest.mark.root
FLAGS = [
    "--name=example.com/app:1.5",
    "--environment=A=b=c",
    "--port=http,port=80",
    "--mount-point=data,path=/data",
    "--label=team=x",
    "--annotation=org.opencontainers.image.title=App",
    "--user=5",
    "--group=6",
    "--working-dir=/srv",
]


def make_tree(base: str) -> str:
    """A small root file system."""
    tree = os.path.join(base, "tree")
    os.makedirs(f"{tree}/bin")
    for name, data in (("bin/app", b"#!/bin/sh\n"), ("a", b"a" * 3000)):
        with open(f"{tree}/{name}", "wb") as stream:
            stream.write(data)
    os.chmod(f"{tree}/bin/app", 0o4755)
    os.symlink("app", f"{tree}/bin/sh")
    os.link(f"{tree}/a", f"{tree}/same")
    return tree


def create(rkt: Rkt, output: str, *words: str, **more: Any) -> Result:
    """Make an image of the small tree."""
    tree = f"{rkt.base}/tree"
    if not os.path.isdir(tree):
        make_tree(rkt.base)
    return rkt.run(
        "image", "create", f"--rootfs={tree}", *FLAGS, *words, output, "--", "/bin/app", "-x", **more
    )


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("output", ["layout", "layout.tar"])
def test_an_oci_image(rkt: Rkt, tmp_path: Path, output: str, compression: str) -> None:
    """A directory becomes an image layout, or a tar of one: a layer, a configuration with all that the flags say, a name."""
    path = f"{rkt.base}/{output}"
    result = create(rkt, path, "--format=oci", f"--compression={compression}", check=0)
    kind = "oci-archive" if output.endswith(".tar") else "oci"
    fetched = bring(tmp_path, f"{kind}:{path}:example.com/app:1.5")
    assert result.stdout == f"{fetched.resolved.digest}\n"
    assert fetched.name == "example.com/app:1.5"
    manifest = json.loads(fetched.manifest)
    suffix = "" if compression == "none" else f"+{compression}"
    assert manifest["layers"][0]["mediaType"] == f"application/vnd.oci.image.layer.v1.tar{suffix}"
    assert manifest["annotations"] == {"org.opencontainers.image.title": "App"}
    config = json.loads(fetched.config)
    assert (config["os"], config["architecture"]) == ("linux", ARCHITECTURE)
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert config["config"] == {
        "Entrypoint": ["/bin/app", "-x"],
        "User": "5:6",
        "WorkingDir": "/srv",
        "Env": ["A=b=c"],
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"team": "x"},
    }
    if compression == "none":
        assert config["rootfs"]["diff_ids"] == [digest(fetched.blobs[0])]
        with tarfile.open(fileobj=io.BytesIO(fetched.blobs[0])) as tar:
            assert tar.getnames() == ["a", "bin", "bin/app", "bin/sh", "same"]
            assert tar.getmember("bin/app").mode == 0o4755
            assert tar.getmember("same").linkname == "a"


def test_a_docker_archive(rkt: Rkt, tmp_path: Path) -> None:
    """An archive of Docker has the same layer; what is printed is Docker's image ID, the digest of the configuration."""
    path = f"{rkt.base}/d.tar"
    result = create(rkt, path, "--format=docker-archive", check=0)
    fetched = bring(tmp_path, f"docker-archive:{path}:example.com/app:1.5")
    assert result.stdout == f"{digest(fetched.config)}\n"
    create(rkt, f"{rkt.base}/layout", "--format=oci", check=0)
    other = bring(tmp_path, f"oci:{rkt.base}/layout")
    assert (fetched.config, fetched.blobs) == (other.config, other.blobs)


@pytest.mark.parametrize("kind", ["oci", "docker-archive"])
def test_the_same_tree_gives_the_same_bytes(rkt: Rkt, kind: str) -> None:
    """When files were made, and when the image is, does not matter; SOURCE_DATE_EPOCH bounds the times in it."""
    paths = [f"{rkt.base}/{number}.tar" for number in range(3)]
    create(rkt, paths[0], f"--format={kind}", check=0)
    os.utime(f"{rkt.base}/tree/a", (1_600_000_000, 1_600_000_000))
    create(rkt, paths[1], f"--format={kind}", check=0)
    create(rkt, paths[2], f"--format={kind}", env={"SOURCE_DATE_EPOCH": "1700000000"}, check=0)
    first, second, third = (Path(path).read_bytes() for path in paths)
    assert first == second != third


@pytest.mark.parametrize(
    ("words", "output", "expected"),
    [
        (["--memory=1G"], "layout", "cannot say what --memory says"),
        (["--isolator=os/linux/no-new-privileges=true"], "layout", "cannot say what --isolator says"),
        (["--dependency=example.com/base"], "layout", "cannot say what --dependency says"),
        (["--event-handler=pre-start=/bin/app"], "layout", "cannot say what --event-handler says"),
        (["--compression=xz"], "layout", "cannot be compressed by xz"),
        ([], "x.aci", "an OCI image is expected"),
        ([], "taken", "output exists (try --overwrite)"),
        (["--overwrite"], "taken", "is no image layout: it is not replaced"),
    ],
)
def test_what_cannot_be(rkt: Rkt, words: list[str], output: str, expected: str) -> None:
    """A flag that an OCI image has no place for is refused, and so is an output that would be lost; nothing is written."""
    os.makedirs(f"{rkt.base}/taken/important")
    result = create(rkt, f"{rkt.base}/{output}", "--format=oci", *words, check=254)
    assert expected in result.stderr
    assert os.listdir(f"{rkt.base}/taken") == ["important"]
    assert not [name for name in os.listdir(rkt.base) if name.startswith((".", "layout", "x.aci"))]


def test_a_layout_is_replaced(rkt: Rkt, tmp_path: Path) -> None:
    """--overwrite replaces a layout as a whole."""
    path = f"{rkt.base}/layout"
    create(rkt, path, "--format=oci", check=0)
    with open(f"{rkt.base}/tree/new", "wb"):
        pass
    result = create(rkt, path, "--format=oci", "--overwrite", check=0)
    assert result.stdout.strip() == bring(tmp_path, f"oci:{path}").resolved.digest
    assert len(os.listdir(f"{path}/blobs/sha256")) == 3


READERS = {
    "skopeo-oci": ("oci", "skopeo inspect oci:{}"),
    "skopeo-archive": ("oci.tar", "skopeo inspect oci-archive:{}"),
    "skopeo-docker": ("docker-archive", "skopeo inspect docker-archive:{}"),
    "umoci": ("oci", "umoci unpack --rootless --image {}:1.5 {}-bundle"),
    "podman": (
        "docker-archive",
        "podman --root {0}-p --runroot {0}-r --storage-driver vfs load -i {0}",
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_others_read_it(rkt: Rkt, reader: str) -> None:
    """What was made is read by programs that are not ours."""
    kind, command = READERS[reader]
    path = f"{rkt.base}/out{'.tar' if kind != 'oci' else ''}"
    words = command.format(path, path).split()
    if not shutil.which(words[0]):
        pytest.skip(f"{words[0]} is not installed")
    create(rkt, path, f"--format={kind.partition('.')[0]}", "--compression=gzip", check=0)
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=rkt.environment())
    assert done.returncode == 0, done.stderr
    if words[0] == "umoci":
        assert os.readlink(f"{path}-bundle/rootfs/bin/sh") == "app"
    elif words[0] == "podman":
        assert "example.com/app:1.5" in done.stdout
    else:
        assert json.loads(done.stdout)["Labels"] == {"team": "x"}


BASE = layouts.make_image(
    layouts.layer({"bin/app": (b"#!/bin/sh\n", 0o755), "etc/old": b"old"}),
    config={"Entrypoint": ["/bin/app"], "Env": ["A=1", "B=2"], "Labels": {"keep": "x"}},
)


def on_top(rkt: Rkt, output: str, *words: str, check: int = 0) -> Result:
    """An image on top of one of a layout: one file more, and one that it has hidden."""
    files = f"{rkt.base}/files"
    if not os.path.isdir(files):
        os.makedirs(f"{files}/etc")
        for name in ("new", ".wh.old"):
            with open(f"{files}/etc/{name}", "wb"):
                pass
    layouts.write_layout(f"{rkt.base}/base", BASE)
    flags = ["--insecure-options=image", "image", "create", f"--from=oci:{rkt.base}/base", *words]
    return rkt.run(*flags, "--name=example.com/top:1", f"{rkt.base}/{output}", check=check)


def test_on_top_of_an_oci_image(rkt: Rkt, tmp_path: Path) -> None:
    """--from adds a layer to those of the image, keeps what the flags do not change, and is the same each time."""
    digests = {
        on_top(
            rkt, "top", "--format=oci", f"--rootfs={rkt.base}/files", "--environment=B=3", "--overwrite"
        ).stdout
        for _ in range(2)
    }
    assert len(digests) == 1
    fetched = bring(tmp_path, f"oci:{rkt.base}/top:example.com/top:1")
    config = json.loads(fetched.config)
    assert fetched.blobs[0] == BASE.tars[0]
    assert config["rootfs"]["diff_ids"] == [digest(blob) for blob in fetched.blobs]
    assert config["config"] == {"Entrypoint": ["/bin/app"], "Env": ["A=1", "B=3"], "Labels": {"keep": "x"}}
    with tarfile.open(fileobj=io.BytesIO(fetched.blobs[1])) as tar:
        assert tar.getnames() == ["etc", "etc/.wh.old", "etc/new"]
    rkt.run("--insecure-options=image", "fetch", f"oci:{rkt.base}/top", check=0)
    rkt.run("image", "render", digests.pop().strip(), f"{rkt.base}/rendered", check=0)
    assert os.listdir(f"{rkt.base}/rendered/rootfs/etc") == ["new"]


def test_settings_alone(rkt: Rkt, tmp_path: Path) -> None:
    """--from without files changes the settings and leaves the layers."""
    on_top(rkt, "top.tar", "--format=docker-archive", "--environment=B=3")
    fetched = bring(tmp_path, f"docker-archive:{rkt.base}/top.tar")
    assert fetched.blobs == BASE.tars
    assert json.loads(fetched.config)["config"]["Env"] == ["A=1", "B=3"]


def test_no_aci_on_top_of_an_oci_image(rkt: Rkt) -> None:
    """An ACI cannot depend on a Docker or OCI image."""
    result = on_top(rkt, "top.aci", f"--rootfs={rkt.base}/files", check=254)
    assert "is a Docker or OCI image as well\nhint: --format=oci" in result.stderr


@pytest.mark.parametrize("kind", ["aci", "oci"])
def test_on_top_of_an_aci(rkt: Rkt, tmp_path: Path, kind: str) -> None:
    """An ACI on top of an ACI depends on exactly that one and runs as it does; another format holds the files of both."""
    make_tree(rkt.base)
    base = f"{rkt.base}/base.aci"
    words = ["image", "create", f"--rootfs={rkt.base}/tree"]
    made = rkt.run(*words, "--name=example.com/base:1", "--user=7", base, "--", "/bin/app", check=0)
    os.makedirs(f"{rkt.base}/files/etc")
    output = f"{rkt.base}/top{'.aci' if kind == 'aci' else ''}"
    words = ["--insecure-options=image", "image", "create", f"--from={base}", f"--format={kind}"]
    rkt.run(*words, f"--rootfs={rkt.base}/files", "--name=example.com/top:2", output, check=0)
    if kind == "oci":
        fetched = bring(tmp_path, f"oci:{output}")
        assert [_names(blob) for blob in fetched.blobs] == [
            ["a", "bin", "bin/app", "bin/sh", "same"],
            ["etc"],
        ]
        assert json.loads(fetched.config)["config"]["Entrypoint"] == ["/bin/app"]
        return
    rkt.run("--insecure-options=image", "fetch", "--pull-policy=new", output, check=0)
    manifest = json.loads(rkt.run("image", "cat-manifest", "example.com/top:2", check=0).stdout)
    (dependency,) = manifest["dependencies"]
    assert (dependency["imageName"], dependency["imageID"]) == ("example.com/base", made.stdout.strip())
    assert manifest["app"]["exec"] == ["/bin/app"]
    assert manifest["app"]["user"] == "7"


def _names(blob: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
        return tar.getnames()
