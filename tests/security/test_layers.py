# SPDX-License-Identifier: Apache-2.0
"""Hostile layers of OCI images: each is refused or harmless, whiteouts above all (invariants UN1 to UN17)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from rkt.errors import ImageError, StoreError
from rkt.image.export import extract_image, verify_image
from rkt.image.limits import DEFAULT_LIMITS
from rkt.linux.files import remove_tree
from rkt.store.cas import Store
from rkt.store.layout import setup_data_dir
from rkt.store.oci import LayerBlob, unpack_layers
from rkt.store.staging import Staging
from tests.lib import aci
from tests.lib.layers import INSTALLATION, compress, mounted, opaque, put_layers, sha256, unpack, whiteout
from tests.lib.unpacking import stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = os.geteuid() == 0
OUT = aci.symlink("out", "../../outside")
#: Attributes that would steer an overlay mount.
STEERING = {
    b"SCHILY.xattr." + name: b"y"
    for name in (
        b"trusted.overlay.opaque",
        b"trusted.overlay.redirect",
        b"trusted.overlay.metacopy",
        b"trusted.overlay.origin",
        b"user.overlay.opaque",
        b"user.overlay.whiteout",
    )
}


def layer(*entries: aci.Entry | bytes) -> bytes:
    """A tar."""
    return aci.tar_bytes(entries)


#: What is wrong -> (the layer, what the refusal says).
REFUSED = {
    "UN1 climbing": (layer(aci.Entry("../outside/victim")), "climbs"),
    "UN1 climbing behind a slash": (layer(aci.Entry("/../../outside/victim")), "climbs"),
    "UN1 climbing whiteout": (layer(whiteout("../outside/victim")), "climbs"),
    "UN2 file through a link": (layer(OUT, aci.Entry("out/victim", content=b"!")), "not a directory"),
    "UN2 file onto a link": (layer(OUT, aci.Entry("out")), "duplicate"),
    "UN3 link to the outside": (layer(aci.hard_link("h", "../outside/victim")), "climbs"),
    "UN3 link to the host": (layer(aci.hard_link("h", "/etc/passwd")), "no file so far"),
    "UN3 link through a link": (layer(OUT, aci.hard_link("h", "out/victim")), "no file so far"),
    "UN3 link into a lower layer": (layer(aci.hard_link("h", "etc/passwd")), "no file so far"),
    "UN3 link to the root": (layer(aci.hard_link("h", "/")), "the root of the layer"),
    "UN3 link to the marks": (layer(aci.hard_link("h", "../marks")), "climbs"),
    "UN4 root is a link": (layer(aci.symlink(".", "/")), "root of the layer"),
    "UN4 root is a file": (layer(aci.Entry(".")), "root of the layer"),
    "UN5 whiteout of nothing": (layer(aci.Entry(".wh.")), "names nothing"),
    "UN5 whiteout of itself": (layer(aci.Entry("d/.wh..")), "names nothing"),
    "UN5 whiteout of the parent": (layer(aci.Entry("d/.wh...")), "names nothing"),
    "UN5 whiteout of a whiteout": (layer(aci.Entry(".wh..wh.x")), "names nothing"),
    "UN5 AUFS bookkeeping": (layer(aci.Entry(".wh..wh.aufs")), "names nothing"),
    "UN5 below a whiteout": (layer(aci.Entry(".wh.d/f")), "below a whiteout"),
    "UN5 whiteout below a whiteout": (layer(whiteout(".wh.d/f")), "below a whiteout"),
    "UN5 whiteout is a directory": (layer(aci.directory(".wh.d")), "not an empty file"),
    "UN5 whiteout is a link": (layer(aci.symlink(".wh.d", "/")), "not an empty file"),
    "UN5 whiteout with content": (layer(aci.Entry(".wh.d", content=b"x")), "not an empty file"),
    "UN5 opaque is a directory": (layer(aci.directory(".wh..wh..opq")), "not an empty file"),
    "UN5 whiteout through a link": (layer(OUT, whiteout("out/victim")), "not a directory"),
    "UN5 whiteout through a later link": (layer(whiteout("out/victim"), OUT), "not a directory"),
    "UN5 opaque through a link": (layer(OUT, opaque("out")), "not a directory"),
    "UN5 opaque through a later link": (layer(opaque("out/d"), OUT), "not a directory"),
    "UN5 opaque file": (layer(aci.Entry("f"), opaque("f")), "not a directory"),
    "UN5 link to a whiteout": (layer(whiteout("f"), aci.hard_link("h", "f")), "no file so far"),
    "UN5 link to the name of a whiteout": (
        layer(whiteout("f"), aci.hard_link("h", ".wh.f")),
        "no file so far",
    ),
    "UN9 uid 2^32-1": (layer(aci.Entry("f", records={b"uid": b"4294967295"})), "out of range"),
    "UN11 claims 2^62": (layer(aci.header(b"f", size=aci.base256(1 << 62, 12))), "No space"),
    "UN11 sparse": (layer(aci.Entry("f", records={b"GNU.sparse.size": b"9999999999"})), "sparse"),
    "UN12 two files": (layer(aci.Entry("f"), aci.Entry("./f")), "duplicate"),
    "UN12 file over directory": (layer(aci.directory("d"), aci.Entry("d")), "duplicate"),
    "UN12 directory over file": (layer(aci.Entry("d"), aci.directory("d")), "duplicate"),
    "UN12 file over device": (layer(aci.device("f"), aci.Entry("f")), "duplicate"),
    "UN12 file below device": (layer(aci.device("f"), aci.Entry("f/g")), "not a directory"),
    "UN13 too deep": (layer(aci.directory("d/" * 257)), "components"),
    "UN13 long whiteout": (layer(aci.Entry(".wh." + "n" * 252)), "name of 256"),
    "UN17 behind the end": (layer() + b"hidden", "behind the end"),
    "UN17 behind zstd": (compress(layer(), "zstd") + b"hidden", "trailing"),
    "UN17 a second zstd frame": (compress(layer(aci.Entry("f")), "zstd") * 2, "behind the end"),
    "UN17 truncated zstd": (compress(layer(), "zstd")[:-1], "truncated"),
    "UN17 neither": (b"PK\x03\x04" + bytes(600), "unknown image filetype"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("outside")
def test_hostile_layers_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    """The layer is refused for the stated reason, and nothing outside its directory has changed."""
    with pytest.raises((ImageError, StoreError), match=words):
        unpack(tmp_path, data)


@pytest.mark.usefixtures("outside")
def test_a_layer_cannot_write_beside_its_root(tmp_path: Path) -> None:
    """Files called as what lies beside the root of a layer are files of the layer (UN1)."""
    unpacked = unpack(tmp_path, layer(aci.Entry("marks"), aci.Entry("rootfs/f"), aci.Entry("manifest")))
    assert sorted(os.listdir(unpacked.tree)) == ["marks", "rootfs"]
    assert sorted(os.listdir(unpacked.root)) == ["manifest", "marks", "rootfs"]


def test_overlay_attributes_never_arrive(tmp_path: Path) -> None:
    """No attribute of an image that steers an overlay mount (UN6) is on the tree."""
    unpacked = unpack(tmp_path, layer(aci.directory("d", records=STEERING), aci.Entry("f", records=STEERING)))
    for name in ("d", "f"):
        assert [a for a in os.listxattr(unpacked.root / name) if "overlay" in a] == []
    assert unpacked.result.dropped_xattrs == 2 * len(STEERING)


def test_no_device_is_made(tmp_path: Path) -> None:
    """Of device nodes (UN8) there is nothing but the name; what hides it is the device 0:0, which opens nowhere."""
    unpacked = unpack(tmp_path, layer(aci.device("raw", b"4", mode=0o666), aci.device("tty", mode=0o666)))
    for name in ("raw", "tty"):
        status = os.lstat(unpacked.root / name)
        assert (stat.S_IFMT(status.st_mode), status.st_rdev) == (stat.S_IFCHR, 0)
        assert stat.S_IMODE(status.st_mode) == 0


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_decompression_bombs_stop(tmp_path: Path, kind: str) -> None:
    """A bomb (UN10) is refused by its ratio while it is written."""
    bomb = compress(layer(aci.Entry("zeros", content=bytes(50 << 20))), kind)
    with pytest.raises(ImageError, match="expands more than"):
        unpack(tmp_path, bomb, DEFAULT_LIMITS.replace(ratio_free_bytes=4 << 20))
    assert (tmp_path / "tree/rootfs/zeros").stat().st_size < 50 << 20


def test_memory_of_the_zstd_decoder_is_bounded(tmp_path: Path) -> None:
    """A frame that wants a window of gigabytes (UN10) is refused before that memory is there."""
    # Magic, a frame header without content size, a window descriptor of 2^41 bytes, an empty last block.
    frame = b"\x28\xb5\x2f\xfd\x00\xf8" + b"\x01\x00\x00" + bytes(600)
    with pytest.raises(ImageError, match="damaged zstd data"):
        unpack(tmp_path, frame)


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="mounts need root")
class TestInTheStore:
    """What hostile layers do to each other, by way of the real worker and the kernel's overlay."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> Iterator[str]:
        """A data directory, which is gone afterwards."""
        yield str(tmp_path / "data")
        remove_tree(str(tmp_path / "data"))

    def test_links_of_lower_layers_are_not_followed(self, data: str, tmp_path: Path, outside: Path) -> None:
        """Whiteouts, opaque directories and files of a layer mean its own names, whatever a lower layer has (UN2, UN5)."""
        lower = layer(aci.symlink("out", str(outside)), aci.directory("d"), aci.Entry("d/f"))
        upper = layer(aci.directory("out"), opaque("out"), whiteout("out/victim"), aci.Entry("out/new"))
        record = put_layers(data, [lower, upper])
        with mounted(data, record, tmp_path / "mount") as root:
            assert os.listdir(root / "out") == ["new"]
        extract_image(Store(data), record.key, str(tmp_path / "copy"), rootfs_only=True, overwrite=False)
        assert os.listdir(tmp_path / "copy/out") == ["new"]
        assert verify_image(Store(data), record.key) == []

    def test_whiteouts_reach_no_other_image(self, data: str, tmp_path: Path) -> None:
        """What one image hides of a layer (UN5) another image that shares the layer still has."""
        base = layer(aci.Entry("f"), aci.directory("d"), aci.Entry("d/g"))
        put_layers(data, [base, layer(opaque(), whiteout("f"), whiteout("d"))])
        innocent = put_layers(data, [base])
        with mounted(data, innocent, tmp_path / "mount") as root:
            assert sorted(os.listdir(root)) == ["d", "f"]
        assert verify_image(Store(data), innocent.key) == []

    def test_whiteouts_of_a_bottom_layer_are_not_seen(self, data: str, tmp_path: Path) -> None:
        """A whiteout that hides nothing is no file of the pod, not even a broken one."""
        record = put_layers(data, [layer(whiteout("x"), whiteout("d/y"), aci.device("dev/sda", b"4"))])
        with mounted(data, record, tmp_path / "mount") as root:
            assert sorted(os.listdir(root)) == ["d", "dev"]
            assert os.listdir(root / "d") == os.listdir(root / "dev") == []

    def test_a_layer_lies_about_its_neighbours(self, data: str) -> None:
        """A blob is never kept under the diff ID of another layer (UN15)."""
        base = layer(aci.Entry("f"))
        hostile = layer(aci.Entry("f", content=b"evil"))
        record = put_layers(data, [base])
        setup_data_dir(data)
        with Staging(data) as staging, stream(hostile) as fd:
            blob = LayerBlob(fd=fd, digest=sha256(hostile), diff_id=sha256(base))
            with pytest.raises(ImageError, match="has diff ID"):
                unpack_layers(staging, [blob], INSTALLATION)
        assert verify_image(Store(data), record.key) == []

    def test_bounds_are_for_the_image(self, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Many layers cannot have together what one may not (UN10)."""
        monkeypatch.setattr("rkt.store.oci.DEFAULT_LIMITS", DEFAULT_LIMITS.replace(tar_bytes=6000))
        put_layers(data, [layer(aci.Entry("f", content=bytes(2000)))])
        with pytest.raises(ImageError, match="larger than 6000 bytes"):
            put_layers(data, [layer(aci.Entry(name, content=bytes(2000))) for name in ("f", "g")])
