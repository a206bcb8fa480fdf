# SPDX-License-Identifier: Apache-2.0
"""Pods of images with several layers, in all the ways a root can be made of them, and their repair (issue 6)."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib import aci, layouts
from tests.lib.flavors import pods
from tests.lib.images import GROUP, PASSWD
from tests.lib.layer_model import DIRECTORY, FILE, PATHS, WHITEOUT, Tree, above, apply, read, settle, tar_of
from tests.lib.layers import opaque, whiteout
from tests.lib.store import listing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lib.layouts import Image
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

INSECURE = "--insecure-options=image"
#: What the layers below make together: path and content, or mode of a directory.
LOOK = """
cd /
for path in gone replaced/old closed/old closed/in/old; do [ ! -e $path ] || echo "$path is there"; done
echo $(ls replaced) $(ls closed) $(ls -d dev/* | grep -c sda) $(cat upper)
stat -c %a:%u:%g box box/mail
"""
SEEN = ["new new 0 upper", "1777:0:8", "750:7:8"]


def layers() -> list[bytes]:
    """Busybox with things that two more layers hide, replace and stand in."""
    path = shutil.which("busybox")
    assert path is not None, "busybox is not installed: run make setup"
    with open(path, "rb") as stream:
        files: dict[str, bytes | tuple[bytes, int]] = {"bin/busybox": (stream.read(), 0o755)}
    files |= {
        "etc/passwd": PASSWD,
        "etc/group": GROUP,
        "gone": b"",
        "replaced/old": b"",
        "closed/in/old": b"",
    }
    links = [
        aci.symlink(f"bin/{name}", "busybox") for name in ["sh", "cat", "ls", "stat", "grep", "echo", "touch"]
    ]
    box = [aci.directory("box", mode=0o1777, gid=8), aci.directory("box/mail", mode=0o750, uid=7, gid=8)]
    middle = [whiteout("gone"), whiteout("replaced"), aci.Entry("replaced/new"), aci.device("dev/sda", b"4")]
    upper = [opaque("closed"), aci.Entry("closed/new"), aci.Entry("box/mail/letter"), whiteout("never/there")]
    return [
        layouts.layer(files, [*links, *box]),
        aci.tar_bytes([aci.directory("dev"), *middle]),
        aci.tar_bytes([aci.directory("closed"), *upper, aci.Entry("upper", content=b"upper")]),
    ]


LAYERS = layers()


def layout(base: Path, image: Image, name: str = "app") -> str:
    """A reference to an image in a layout of its own."""
    return f"oci:{layouts.write_layout(str(base / name), image)}"


@pytest.fixture
def reference(tmp_path: Path) -> str:
    """The image of all layers."""
    command = {"Entrypoint": ["/bin/sh", "-c", LOOK], "Env": ["PATH=/bin"]}
    return layout(tmp_path, layouts.make_image(*LAYERS, config=command))


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--no-overlay"],
        pytest.param(["--private-users"], marks=pods("user namespaces")),
        pytest.param(["--private-users", "--no-overlay"], marks=pods("user namespaces")),
    ],
    ids=" ".join,
)
def test_a_pod_sees_what_its_layers_make(rkt: Rkt, reference: str, flags: list[str]) -> None:
    """Whiteouts, opaque directories and implied ones are right in overlays and copies, with the pod's own ids too."""
    result = rkt.run(INSECURE, "run", *flags, reference, check=0)
    lines = [line.partition(": ")[2] if ": " in line else line for line in result.lines]
    assert lines == SEEN, result
    rkt.run("gc", "--grace-period=0s", check=0)
    assert rkt.leaks() == []


def test_what_leaves_the_store(rkt: Rkt, reference: str, tmp_path: Path) -> None:
    """Extraction and rendering give the same tree, without whiteouts; verification finds nothing."""
    key = rkt.run(INSECURE, "fetch", "--full", reference, check=0).stdout.strip()
    rkt.run("image", "verify", key, check=0)
    trees = []
    for verb in ("extract", "render"):
        rkt.run("image", verb, "--rootfs-only", key, str(tmp_path / verb), check=0)
        trees.append(listing(str(tmp_path / verb)))
    assert trees[0] == trees[1]
    assert {"replaced/new", "closed/new", "never", "upper", "box/mail/letter"} <= trees[0]
    assert not {"gone", "replaced/old", "closed/in", "never/there", "dev/sda"} & trees[0]


def test_an_image_as_a_volume(rkt: Rkt, reference: str) -> None:
    """A volume of an image with several layers is one tree of them, which is collected with the pod."""
    volume = f"data,kind=image,source={reference}"
    result = rkt.run(
        INSECURE,
        "run",
        f"--volume={volume}",
        reference,
        "--mount=volume=data,target=/data",
        "--exec=/bin/sh",
        "--",
        "-c",
        "ls /data/replaced /data/closed; ls -d /data/gone 2>/dev/null || echo hidden",
        check=0,
    )
    assert [word for line in result.lines for word in line.split()][-1] == "hidden"
    assert result.stdout.count("new") == 2
    rkt.run("gc", "--grace-period=0s", check=0)
    rkt.run("image", "gc", check=0)
    assert os.listdir(f"{rkt.data}/cas/tree") == []
    assert rkt.leaks() == []


def test_an_aci_on_top_of_an_oci_image(rkt: Rkt, tmp_path: Path) -> None:
    """An ACI may depend by name on an image with several layers; a white list filters these too."""
    key = rkt.run(
        INSECURE, "fetch", "--full", layout(tmp_path, layouts.make_image(*LAYERS), "base.example"), check=0
    )
    name = rkt.run("image", "list", "--no-legend", "--fields=name", check=0).stdout.strip()
    assert key.stdout.startswith("sha256-")
    filters: dict[str, Any] = {"plain": None, "listed": ["/top", "/bin/sh", "/bin/ls", "/bin/busybox"]}
    for kind, paths in filters.items():
        aci.write_aci(
            tmp_path / f"{kind}.aci",
            ["/bin/ls", "/"],
            name=f"example.com/{kind}",
            files={"top": b""},
            dependencies=[{"imageName": name}],
            pathWhitelist=paths or [],
        )
        result = rkt.run(INSECURE, "run", str(tmp_path / f"{kind}.aci"), check=0)
        words = set(result.stdout.split())
        assert {"bin", "top"} <= words
        assert ("upper" in words) == (kind == "plain")
        assert "gone" not in words
    rkt.run("gc", "--grace-period=0s", check=0)
    assert rkt.leaks() == []


@pytest.mark.parametrize("what", ["file", "layer", "split", "config", "parents"])
def test_repair(rkt: Rkt, reference: str, what: str) -> None:
    """What is damaged is found, named and fetched again; layers that are healthy stay what they are."""
    key = rkt.run(INSECURE, "fetch", "--full", reference, check=0).stdout.strip()
    cas = f"{rkt.data}/cas"
    healthy, damaged = (layouts.digest(LAYERS[number]).replace(":", "-") for number in (0, 1))
    inode = os.stat(f"{cas}/layer/{healthy}").st_ino
    if what == "file":
        with open(f"{cas}/layer/{damaged}/rootfs/replaced/new", "ab") as file:
            file.write(b"!")
    elif what == "layer":
        shutil.rmtree(f"{cas}/layer/{damaged}")
    elif what == "split":
        os.truncate(f"{cas}/split/{damaged}", 40)
    elif what == "config":
        os.truncate(f"{cas}/oci/{key}/config", 10)
    else:
        os.chmod(f"{cas}/layer/{key}/rootfs/box", 0o700)
    found = rkt.run("image", "verify", key, check=254)
    assert key[:39] in found.stdout + found.stderr
    refused = rkt.run("image", "verify", "--repair", key, check=254)
    assert "insecure-options=image" in refused.stderr
    rkt.run(INSECURE, "image", "verify", "--repair", key, check=0)
    rkt.run("image", "verify", key, check=0)
    assert os.stat(f"{cas}/layer/{healthy}").st_ino == inode
    assert os.listdir(f"{cas}/tmp") == []


@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed: apt-get install umoci")
def test_the_model_is_what_umoci_makes(tmp_path: Path) -> None:
    """What the model of tests/property says of random layers is what another program makes of them.

    But for opaque directories, which umoci 0.4.7 does not empty, and for whiteouts of what no lower layer has or of what
    the layer itself has, of which programs make different things.
    """
    dice = random.Random(7)
    kinds = [FILE, DIRECTORY, DIRECTORY, WHITEOUT]
    for number in range(20):
        expected: Tree = {}
        tars = []
        for layer in range(3):
            drawn = [
                (dice.choice(kinds), dice.choice(PATHS), dice.choice([0o755, 0o711, 0o700])) for _ in range(6)
            ]
            hidden = {path for kind, path, _ in drawn if kind == WHITEOUT}
            own = {each for kind, path, _ in drawn if kind != WHITEOUT for each in (*above(path), path)}
            entries = [
                (kind, path, mode)
                for kind, path, mode in drawn
                if kind != WHITEOUT
                or (path in expected and path not in own and hidden.isdisjoint(above(path)))
            ]
            settled = settle(entries, expected)
            tars.append(tar_of(settled, str(layer)))
            expected = apply(expected, settled, str(layer))
        image = layouts.make_image(*tars)
        path = str(tmp_path / str(number))
        layouts.write_layout(path, image, index=layouts.make_index(layouts.named(image, "one")))
        bundle = tmp_path / f"bundle{number}"
        subprocess.run(["umoci", "unpack", "--image", f"{path}:one", bundle], check=True, capture_output=True)
        assert read(str(bundle / "rootfs")) == expected
