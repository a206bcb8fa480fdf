# SPDX-License-Identifier: Apache-2.0
"""OCI images in the store: shared layers, documents, removal, garbage, implied parents."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from rkt.errors import DamagedRecord, ImageError, NotFound, StoreError
from rkt.image.export import extract_image, verify_image
from rkt.linux.files import remove_tree
from rkt.store import gc
from rkt.store.cas import Store
from rkt.store.layout import setup_data_dir
from rkt.store.oci import LayerBlob, find_layer, put_oci, read_oci, unpack_layers
from rkt.store.record import OciFacts
from rkt.store.staging import Staging
from rkt.values import ImageKey
from tests.lib import aci
from tests.lib.layers import (
    INSTALLATION,
    compress,
    mounted,
    oci_image,
    opaque,
    put_layers,
    sha256,
    whiteout,
)
from tests.lib.store import listing, refer
from tests.lib.unpacking import stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="layers are root's, and so is what overlayfs obeys"),
]

BASE = aci.tar_bytes(
    [
        aci.directory("etc", mode=0o711, uid=3, gid=4, mtime=9),
        aci.Entry("etc/passwd", content=b"root"),
        aci.Entry("etc/old", content=b"old"),
        aci.directory("opt"),
        aci.directory("opt/d"),
        aci.Entry("opt/d/f", content=b"f"),
    ]
)
TOP = aci.tar_bytes(
    [aci.directory("bin"), aci.Entry("bin/app", content=b"app", mode=0o755), whiteout("opt/d")]
)
#: Nothing but what has entries of its own: needs no directories of lower layers.
PLAIN = aci.tar_bytes([aci.directory("bin"), aci.Entry("bin/other", content=b"other")])


@pytest.fixture
def data(tmp_path: Path) -> Iterator[str]:
    """A data directory, which is gone afterwards."""
    path = tmp_path / "data"
    yield str(path)
    remove_tree(str(path))


def layer_key(tar: bytes) -> ImageKey:
    """The key of a layer."""
    return ImageKey.parse(f"sha256-{sha256(tar)}")


def layers_of(data: str) -> set[str]:
    """Names of the layer directories, which are those of the split files but for directories that layers imply."""
    found = set(os.listdir(f"{data}/cas/layer"))
    assert set(os.listdir(f"{data}/cas/split")) <= found
    return found


def test_an_image_and_its_record(data: str) -> None:
    """The record names the layers, topmost first, and what the documents say; it is read back as it was written."""
    record = put_layers(data, [BASE, compress(TOP, "zstd")])
    assert record.layers == [layer_key(TOP), layer_key(BASE)]
    assert record.size_bytes == len(BASE) + len(TOP)
    assert record.tree_size_bytes == len(b"rootoldf") + len(b"app")
    documents = read_oci(Store(data), record.key)
    assert record.key == f"sha256-{sha256(documents.manifest)}"
    assert record.oci == OciFacts(
        media_type="application/vnd.oci.image.manifest.v1+json",
        config_digest=f"sha256:{sha256(documents.config)}",
        platform="linux/amd64",
    )
    assert Store(data).get(record.key) == record
    assert Store(data).resolve(record.key.digest[:20]) == record.key
    assert verify_image(Store(data), record.key) == []
    modes = {
        path: stat.S_IMODE(os.stat(f"{data}/cas/{path}").st_mode)
        for path in (f"oci/{record.key}", f"oci/{record.key}/config", "blob", f"layer/{layer_key(TOP)}")
    }
    assert list(modes.values()) == [0o2750, 0o640, 0o700, 0o700]


def test_layers_are_shared(data: str) -> None:
    """A layer that another image has is there once, is not asked for again, and goes with the last image that needs it."""
    first = put_layers(data, [BASE, TOP])
    store = Store(data)
    image, digests = oci_image([BASE, PLAIN])
    with Staging(data) as staging:
        assert find_layer(store, staging, digests[0], image.diff_ids[0])
        assert not find_layer(store, staging, digests[1], image.diff_ids[1])
    second = put_layers(data, [BASE, PLAIN])
    assert layers_of(data) == {layer_key(BASE), layer_key(TOP), layer_key(PLAIN)}
    assert gc.remove_image(store, first.key)
    assert layers_of(data) == {layer_key(BASE), layer_key(PLAIN)}
    assert sorted(os.listdir(f"{data}/cas/blob")) == sorted([sha256(BASE), sha256(PLAIN)])
    assert verify_image(store, second.key) == []
    assert gc.remove_image(store, second.key)
    assert layers_of(data) == set()
    left = {path for path in listing(f"{data}/cas") if "/" in path}
    assert left == set()


def test_one_layer_compressed_in_two_ways(data: str) -> None:
    """Another blob of the same tar is the same layer."""
    put_layers(data, [BASE])
    put_layers(data, [compress(BASE, "gzip"), PLAIN])
    assert layers_of(data) == {layer_key(BASE), layer_key(PLAIN)}
    assert len(os.listdir(f"{data}/cas/blob")) == 3


def test_a_layer_that_comes_twice(data: str, tmp_path: Path) -> None:
    """A layer may be in an image more than once; it is where it is topmost."""
    record = put_layers(data, [PLAIN, BASE, PLAIN])
    assert record.layers == [layer_key(PLAIN), layer_key(BASE)]
    with mounted(data, record, tmp_path) as root:
        assert (root / "bin/other").read_bytes() == b"other"


def test_blobs_that_are_not_what_the_config_says(data: str) -> None:
    """Another diff ID than the config's is refused, when it is unpacked and when it is known (invariant UN15)."""
    setup_data_dir(data)
    with Staging(data) as staging, stream(BASE) as fd:
        blob = LayerBlob(fd=fd, digest=sha256(BASE), diff_id=sha256(TOP))
        with pytest.raises(
            ImageError, match=f"has diff ID sha256:{sha256(BASE)}, but .* says sha256:{sha256(TOP)}"
        ):
            unpack_layers(staging, [blob], INSTALLATION)
    put_layers(data, [BASE])
    put_layers(data, [TOP])
    with Staging(data) as staging, pytest.raises(ImageError, match="but the image's config says"):
        find_layer(Store(data), staging, sha256(BASE), sha256(TOP))
    with Staging(data) as staging, stream(BASE) as fd:
        blob = LayerBlob(fd=fd, digest=sha256(TOP), diff_id=sha256(BASE))
        with pytest.raises(ImageError, match="changed while it was being fetched"):
            unpack_layers(staging, [blob], INSTALLATION)


@pytest.mark.parametrize("count", [0, 128])
def test_numbers_of_layers(data: str, count: int) -> None:
    """An image has one layer at least and 127 at most."""
    setup_data_dir(data)
    image, _ = oci_image([BASE] * count)
    with Staging(data) as staging, pytest.raises(ImageError, match=f"{count} layers"):
        put_oci(Store(data), staging, image, [])


def test_127_layers_are_one_root(data: str, tmp_path: Path) -> None:
    """The longest image that is accepted can be mounted and copied."""
    layers = [aci.tar_bytes([aci.Entry(f"f{n}", content=b"%d" % n)]) for n in range(127)]
    record = put_layers(data, layers)
    assert len(record.layers) == 127
    with mounted(data, record, tmp_path) as root:
        assert len(os.listdir(root)) == 127
    extract_image(Store(data), record.key, str(tmp_path / "out"), rootfs_only=True, overwrite=False)
    assert len(os.listdir(tmp_path / "out")) == 127


def test_documents_are_what_was_transferred(data: str) -> None:
    """A manifest or config that was changed is refused by name, and by verify; one of an ACI does not exist."""
    record = put_layers(data, [BASE])
    store = Store(data)
    path = f"{data}/cas/oci/{record.key}/config"
    with open(path, "ab") as file:
        file.write(b" ")
    with pytest.raises(DamagedRecord, match="config is not what was fetched"):
        read_oci(store, record.key)
    with pytest.raises(StoreError, match="config is not what was fetched"):
        verify_image(store, record.key)
    os.unlink(path)
    with pytest.raises(DamagedRecord, match="config is missing"):
        read_oci(store, record.key)
    from tests.lib.store import put_image

    with pytest.raises(NotFound, match="no OCI"):
        read_oci(store, put_image(data).key)


def test_a_wrong_manifest_is_not_committed(data: str) -> None:
    """Documents that do not have the digest by which the image is called are refused."""
    setup_data_dir(data)
    image, _ = oci_image([BASE])
    wrong = image.replace(documents=image.documents.replace(manifest=b"{}"))
    with Staging(data) as staging, pytest.raises(ImageError, match="is not the one that has this digest"):
        put_oci(Store(data), staging, wrong, [])


def test_fetching_again_mends_documents(data: str) -> None:
    """What is damaged is replaced by what comes; layers that are there stay."""
    record = put_layers(data, [BASE])
    inode = os.stat(f"{data}/cas/layer/{layer_key(BASE)}").st_ino
    os.unlink(f"{data}/cas/oci/{record.key}/manifest")
    put_layers(data, [BASE])
    assert read_oci(Store(data), record.key).manifest
    assert os.stat(f"{data}/cas/layer/{layer_key(BASE)}").st_ino == inode


def test_an_index_that_comes_later(data: str) -> None:
    """An image found by an index, after it was found without, has it; found without one again, it keeps it."""
    put_layers(data, [BASE])
    store = Store(data)
    image, _ = oci_image([BASE])
    for index in (b'{"manifests":[1]}', b"", b'{"manifests":[2]}'):
        with Staging(data) as staging:
            put_oci(store, staging, image.replace(documents=image.documents.replace(index=index)), [])
        wanted = index or b'{"manifests":[1]}'
        assert read_oci(Store(data), image.image_id.key).index == wanted
        facts = Store(data).get(image.image_id.key).oci
        assert facts is not None
        assert facts.index_digest == f"sha256:{sha256(wanted)}"
    assert verify_image(store, image.image_id.key) == []
    gc.remove_image(store, image.image_id.key)
    assert os.listdir(f"{data}/cas/oci") == []


def test_layers_that_pods_need_stay(data: str) -> None:
    """A layer that a pod refers to outlives its image, until the pod is gone."""
    record = put_layers(data, [BASE, TOP])
    refer(data, "run", "one", record.key)
    with open(f"{data}/pods/run/one/appsinfo/app/layers", "w", encoding="ascii") as file:
        file.writelines(f"{layer}\n" for layer in record.layers)
    store = Store(data)
    assert not gc.remove_image(store, record.key)
    assert layers_of(data) == set(record.layers)
    assert gc.sweep(data) == []
    assert layers_of(data) == set(record.layers)
    remove_tree(f"{data}/pods/run/one")
    assert gc.sweep(data) == []
    assert layers_of(data) == set()


def test_sweeping_leaves_shared_layers(data: str) -> None:
    """Layers and documents of visible images are nobody's garbage; those of no image are swept."""
    record = put_layers(data, [BASE, TOP])
    assert gc.sweep(data) == []
    assert verify_image(Store(data), record.key) == []
    os.unlink(f"{data}/cas/record/{record.key}")
    assert gc.sweep(data) == []
    assert {path for path in listing(f"{data}/cas") if "/" in path} == set()


def test_a_damaged_record_keeps_its_layers(data: str) -> None:
    """Which layers a damaged record needs is not known, so none is taken; images can still be removed."""
    first = put_layers(data, [BASE, TOP])
    second = put_layers(data, [BASE, PLAIN])
    with open(f"{data}/cas/record/{first.key}", "w", encoding="ascii") as file:
        file.write("{}")
    store = Store(data)
    assert gc.remove_image(store, second.key)
    assert layers_of(data) == {layer_key(BASE), layer_key(TOP), layer_key(PLAIN)}
    store.remove(first.key, needed=())
    assert gc.sweep(data) == []
    assert layers_of(data) == set()


def test_what_a_fetch_found_stays_while_it_lasts(data: str) -> None:
    """Removal and collection beside a fetch do not take the layers that it found in the store."""
    record = put_layers(data, [BASE, TOP])
    image, digests = oci_image([BASE, PLAIN])
    with Staging(data) as staging, stream(PLAIN) as fd:
        assert find_layer(Store(data), staging, digests[0], image.diff_ids[0])
        gc.remove_image(Store(data), record.key)
        gc.collect(Store(data), unused_since_ns=1 << 62)
        gc.sweep(data)
        assert layers_of(data) == {layer_key(BASE)}
        blob = LayerBlob(fd=fd, digest=digests[1], diff_id=image.diff_ids[1])
        put_oci(Store(data), staging, image, unpack_layers(staging, [blob], INSTALLATION))
    assert gc.sweep(data) == []
    assert verify_image(Store(data), image.image_id.key) == []


def test_images_with_the_same_layers_at_the_same_time(data: str) -> None:
    """Commits that share layers do not get in each other's way; collections beside them take nothing."""
    setup_data_dir(data)
    stacks = [[BASE, TOP], [BASE, PLAIN], [BASE, TOP, PLAIN], [PLAIN, BASE]]
    failures: list[BaseException] = []
    done = threading.Event()

    def commit(stack: list[bytes]) -> None:
        try:
            put_layers(data, stack)
        except BaseException as e:  # noqa: BLE001 - reported below
            failures.append(e)

    def collect() -> None:
        while not done.is_set():
            failures.extend(map(RuntimeError, gc.sweep(data)))

    collector = threading.Thread(target=collect)
    committers = [threading.Thread(target=commit, args=(stack,)) for stack in stacks]
    for thread in (collector, *committers):
        thread.start()
    for thread in committers:
        thread.join()
    done.set()
    collector.join()
    assert failures == []
    store = Store(data)
    assert [verify_image(store, record.key) for record in store.records()] == [[]] * len(stacks)
    assert layers_of(data) == {layer_key(BASE), layer_key(TOP), layer_key(PLAIN)}


def test_directories_that_a_layer_only_implies(data: str, tmp_path: Path) -> None:
    """They look as the lower layer says that has them, the root and those on the way too, in mounts and in copies."""
    base = aci.tar_bytes(
        [
            aci.directory(".", mode=0o701),
            aci.directory("var", mode=0o750, uid=7),
            aci.directory("var/mail", mode=0o1777, gid=8, records={b"SCHILY.xattr.user.a": b"1"}, mtime=99),
        ]
    )
    upper = aci.tar_bytes([aci.Entry("var/mail/box"), aci.Entry("new/dir/f")])
    record = put_layers(data, [base, upper])
    assert record.layers == [record.key, layer_key(upper), layer_key(base)]
    store = Store(data)
    assert verify_image(store, record.key) == []
    extract_image(store, record.key, str(tmp_path / "copy"), rootfs_only=True, overwrite=False)
    with mounted(data, record, tmp_path / "mount") as root:
        for top in (root, tmp_path / "copy"):
            mail = os.stat(top / "var/mail")
            assert (stat.S_IMODE(mail.st_mode), mail.st_gid, mail.st_mtime) == (0o1777, 8, 99)
            assert os.getxattr(top / "var/mail", "user.a") == b"1"
            assert (stat.S_IMODE(os.stat(top / "var").st_mode), os.stat(top / "var").st_uid) == (0o750, 7)
            assert stat.S_IMODE(os.stat(top / "new/dir").st_mode) == 0o755
            assert (top / "var/mail/box").exists()
    assert stat.S_IMODE(os.stat(tmp_path / "copy").st_mode) == 0o701
    os.chmod(f"{data}/cas/layer/{record.key}/rootfs/var", 0o777)
    assert [(d.path, d.what) for d in verify_image(store, record.key)] == [(b"rootfs/var", "mode")]
    assert gc.remove_image(store, record.key)
    assert layers_of(data) == set()


def test_implied_directories_that_need_nothing(data: str) -> None:
    """No layer of directories is made where lower ones look as implied ones do, are hidden, or have an entry above."""
    lower = aci.tar_bytes(
        [
            aci.directory("plain"),
            *(aci.directory(name, mode=0o700) for name in ("hidden", "above", "closed/in")),
        ]
    )
    middle = aci.tar_bytes(
        [
            aci.Entry("plain/f"),
            aci.Entry("hidden/f"),
            whiteout("hidden"),
            aci.Entry("above/f"),
            opaque("closed"),
            aci.Entry("closed/in/f"),
        ]
    )
    upper = aci.tar_bytes([aci.directory("above", mode=0o711)])
    record = put_layers(data, [lower, middle, upper])
    assert record.layers == [layer_key(upper), layer_key(middle), layer_key(lower)]


@pytest.mark.parametrize("below", [aci.symlink("lib", "usr/lib"), aci.Entry("lib")])
def test_implied_directories_over_something_else(data: str, below: aci.Entry) -> None:
    """What a lower layer has as a link or a file is no directory; engines differ in what they would make of it."""
    layers = [aci.tar_bytes([aci.directory("usr/lib"), below]), aci.tar_bytes([aci.Entry("lib/x")])]
    with pytest.raises(ImageError, match=r"'lib', which is .* in a lower layer"):
        put_layers(data, layers)
    replaced = aci.tar_bytes([aci.directory("lib"), aci.Entry("lib/x")])
    assert put_layers(data, [layers[0], replaced]).layers[0] == layer_key(replaced)
