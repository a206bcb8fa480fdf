# SPDX-License-Identifier: Apache-2.0
"""The store kept in order: repair, collection, full disks, unreadable records (spec cli §2.18, §2.23, §10.6)."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.lib.aci import write_aci
from tests.lib.images import fetch
from tests.lib.rkt import wait_for
from tests.lib.server import Page, Server
from tests.lib.store import BUILTIN, listing, put_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
NAME = "example.com/app"


def aci(rkt: Rkt, content: bytes = b"x", name: str = NAME) -> str:
    """An image file."""
    path = f"{rkt.base}/image.aci"
    write_aci(path, ["/bin/app"], name=name, files={"bin/app": (content, 0o755), "conf": b"conf"})
    return path


def damage(rkt: Rkt, name: str = "conf") -> str:
    """Change a file of the only layer; its path."""
    (key,) = os.listdir(f"{rkt.data}/cas/layer")
    path = f"{rkt.data}/cas/layer/{key}/rootfs/{name}"
    with open(path, "wb") as file:
        file.write(b"fnoc")
    return path


def content(path: str) -> bytes:
    """Content of a file."""
    with open(path, "rb") as file:
        return file.read()


def ids(rkt: Rkt) -> list[str]:
    """Keys of all images."""
    return rkt.run("image", "list", "--no-legend", "--fields=id", "--full", check=0).lines


def test_repair_from_a_file(rkt: Rkt) -> None:
    """A changed, a removed and a planted file are as they were, and nothing else is left in the store."""
    path = aci(rkt)
    fetch(rkt, path)
    before = listing(f"{rkt.data}/cas")
    victim = damage(rkt)
    os.unlink(f"{os.path.dirname(victim)}/bin/app")
    with open(f"{os.path.dirname(victim)}/planted", "wb"):
        pass
    rkt.run("image", "verify", NAME, check=254)
    result = rkt.run(INSECURE, "image", "verify", "--repair", NAME, check=0)
    assert "rootfs/conf: content" in result.stdout
    assert "repaired image" in result.stdout
    assert "successfully verified" in result.stdout
    assert listing(f"{rkt.data}/cas") == before
    assert content(victim) == b"conf"
    assert rkt.run("image", "verify", "--repair", NAME, check=0).stdout.startswith("successfully")


def test_repair_from_a_url(rkt: Rkt) -> None:
    """The server is asked for the whole image again, whatever was remembered of it."""
    with Server() as server:
        server.put(
            "/app.aci", Page(body=content(aci(rkt)), headers={"ETag": '"1"', "Cache-Control": "max-age=600"})
        )
        rkt.run(INSECURE, "fetch", f"{server.url}/app.aci", check=0)
        victim = damage(rkt)
        rkt.run(INSECURE, "image", "verify", "--repair", NAME, check=0)
        assert content(victim) == b"conf"


def test_a_lost_layer_is_repaired(rkt: Rkt) -> None:
    """So is what a repair that was killed leaves."""
    fetch(rkt, aci(rkt))
    (key,) = os.listdir(f"{rkt.data}/cas/layer")
    shutil.rmtree(f"{rkt.data}/cas/layer/{key}")
    assert "is missing" in rkt.run("image", "verify", NAME, check=254).stderr
    rkt.run(INSECURE, "image", "verify", "--repair", NAME, check=0)
    rkt.run("image", "verify", NAME, check=0)


def test_what_cannot_be_repaired_stays(rkt: Rkt) -> None:
    """An origin that is gone, is not trusted, or is another image now is named; the layer stays as it was."""
    path = aci(rkt)
    fetch(rkt, path)
    victim = damage(rkt)
    refused = rkt.run("image", "verify", "--repair", NAME, check=254)
    assert "cannot repair" in refused.stderr
    assert "hint: " in refused.stderr
    assert content(victim) == b"fnoc"
    aci(rkt, b"another")
    assert "another image now" in rkt.run(INSECURE, "image", "verify", "--repair", NAME, check=254).stderr
    assert content(victim) == b"fnoc"
    os.unlink(path)
    key = next(key for key in ids(rkt) if key in victim)
    refused = rkt.run(INSECURE, "image", "verify", "--repair", key, check=254)
    assert path in refused.stderr
    assert content(victim) == b"fnoc"
    assert os.listdir(f"{rkt.data}/cas/tmp") == []


def test_a_running_pod_is_not_repaired_under(rkt: Rkt, images: Images) -> None:
    """Its files would vanish; after it is gone they are repaired."""
    path = images.script("example.com/mended", "sleep 60")
    key = rkt.run(INSECURE, "fetch", "--full", path, check=0).lines[-1]
    rkt.popen(INSECURE, "run", "example.com/mended")
    uuid = rkt.wait_for_pod()
    victim = f"{rkt.data}/cas/layer/{key}/rootfs/script"
    with open(victim, "ab") as file:
        file.write(b"#")
    refused = rkt.run(INSECURE, "image", "verify", "--repair", key, check=254)
    assert "a running pod uses it" in refused.stderr
    rkt.run("stop", "--force", uuid, check=0)
    wait_for(lambda: "exited" in rkt.run("status", uuid).stdout, "exited pod")
    rkt.run(INSECURE, "image", "verify", "--repair", key, check=0)
    assert not content(victim).endswith(b"#")


def test_i26_i27_trees(rkt: Rkt, images: Images) -> None:
    """A file deleted from a rendered tree is noticed and comes back, for the pod that needs it."""
    path = images.busybox("example.com/listed", file="listed", pathWhitelist=["/bin/busybox", "/bin/sh"])
    fetch(rkt, path)
    uuid = rkt.run(
        INSECURE, "prepare", "example.com/listed", "--exec=/bin/sh", "--", "-c", "echo fine", check=0
    ).lines[-1]
    (tree,) = os.listdir(f"{rkt.data}/cas/tree")
    shell = f"{rkt.data}/cas/tree/{tree}/rootfs/bin/sh"
    os.unlink(shell)
    result = rkt.run("image", "verify", "example.com/listed", check=254)
    assert "tree cache verification failed for image example.com/listed" in result.stdout
    result = rkt.run("image", "verify", "--repair", "example.com/listed", check=0)
    assert "rebuilding..." in result.stdout
    assert os.path.islink(shell)
    result = rkt.run("image", "verify", "example.com/listed", check=0)
    assert result.stdout.startswith("successfully verified checksum for image:")
    assert "fine" in rkt.run("run-prepared", uuid, check=0).stdout


def age(rkt: Rkt, key: str) -> None:
    """Pretend that the image was last used two days ago."""
    then = time.time() - 2 * 86400
    os.utime(f"{rkt.data}/cas/used/{key}", (then, then))


def test_dry_run(rkt: Rkt) -> None:
    """What would go is named, and all of it stays."""
    fetch(rkt, aci(rkt))
    (key,) = ids(rkt)
    age(rkt, key)
    tree = f"{rkt.data}/cas/tree/deps-sha512-{'0' * 64}"
    os.mkdir(tree)
    os.mkdir(f"{rkt.data}/cas/layer/sha512-{'1' * 64}")
    before = listing(f"{rkt.data}/cas")
    result = rkt.run("image", "gc", "--dry-run", check=0)
    assert result.stdout == f'would remove aci for image: "{key}"\n'
    assert "would remove treestore" in result.stderr
    assert os.path.basename(tree) in result.stderr
    assert listing(f"{rkt.data}/cas") == before
    rkt.run("image", "gc", check=0)
    assert not any("sha512-" in path for path in listing(f"{rkt.data}/cas"))


def test_gc_keeps_stage1_images(rkt: Rkt) -> None:
    """The installation's and the configured one stay; a built-in one of an earlier version goes."""
    uuid = rkt.run(INSECURE, "prepare", aci(rkt), check=0).lines[-1]
    rkt.run("rm", uuid, check=0)
    (default,) = (
        key for key in ids(rkt) if rkt.run("image", "cat-manifest", key).stdout.find("stage1-ns") > 0
    )
    old = put_image(rkt.data, "coreos.com/rkt/stage1-ns", seed="old", version="0.0.1", verdict=BUILTIN).key
    named = put_image(rkt.data, "example.com/stage1", seed="named", version="7").key
    os.makedirs(f"{rkt.local}/stage1.d")
    with open(f"{rkt.local}/stage1.d/stage1.json", "w", encoding="utf-8") as file:
        file.write('{"rktKind":"stage1","rktVersion":"v1","name":"example.com/stage1","version":"7"}')
    for key in ids(rkt):
        age(rkt, key)
    result = rkt.run("image", "gc", check=0)
    assert old in result.stdout
    assert set(ids(rkt)) == {default, named}
    with open(f"{rkt.local}/stage1.d/stage1.json", "w", encoding="utf-8") as file:
        file.write("{")
    rkt.run("image", "gc", "--grace-period=0", check=254)
    assert set(ids(rkt)) == {default, named}


def test_rm_of_the_default_stage1(rkt: Rkt) -> None:
    """It is removed with a warning, and the next pod has it again (rows I14 to I19)."""
    path = aci(rkt)
    rkt.run("rm", rkt.run(INSECURE, "prepare", path, check=0).lines[-1], check=0)
    stage1 = next(key for key in ids(rkt) if "stage1-ns" in rkt.run("image", "cat-manifest", key).stdout)
    result = rkt.run("image", "rm", stage1, check=0)
    assert "default stage1 image" in result.stderr
    assert "1 image(s) successfully removed" in result.stderr
    rkt.run(INSECURE, "prepare", path, check=0)
    assert stage1 in ids(rkt)


@pytest.fixture
def tiny(rkt: Rkt) -> Iterator[Rkt]:
    """An engine whose data directory has room for one small image."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0755", "tmpfs", rkt.data], check=True)
    try:
        yield rkt
    finally:
        subprocess.run(["umount", rkt.data], check=True)


def fill(path: str) -> None:
    """Write a file until there is no room."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def test_a_full_disk(tiny: Rkt) -> None:
    """A fetch that finds no room says so and leaves nothing; list, rm and gc work on a disk that is full."""
    rkt = tiny
    fetch(rkt, aci(rkt))
    before = listing(f"{rkt.data}/cas")
    big = f"{rkt.base}/big.aci"
    write_aci(big, name="example.com/big", files={"big": os.urandom(3 << 20)})
    refused = rkt.run(INSECURE, "fetch", big, check=254)
    assert "No space left on device" in refused.stderr
    assert listing(f"{rkt.data}/cas") == before
    fill(f"{rkt.data}/ballast")
    rkt.run(INSECURE, "fetch", aci(rkt, b"other", "example.com/other"), check=254)
    (key,) = ids(rkt)
    age(rkt, key)
    assert key in rkt.run("image", "gc", "--dry-run", check=0).stdout
    with open(f"{rkt.data}/cas/record/{key}", "r+b") as file:
        file.write(b"\0" * 64)
    assert key in rkt.run("image", "list", check=0).stderr
    rkt.run("image", "rm", key, check=0)
    rkt.run("image", "gc", check=0)
    assert not any("sha512-" in path for path in listing(f"{rkt.data}/cas"))


def test_a_record_that_is_none(rkt: Rkt) -> None:
    """Whatever stands in a record's place is named, hides no other image, and can be removed."""
    fetch(rkt, aci(rkt))
    (good,) = ids(rkt)
    bad = f"sha512-{'2' * 64}"
    path = f"{rkt.data}/cas/record/{bad}"
    for kind in ("directory", "pipe", "link"):
        if kind == "directory":
            os.mkdir(path)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            os.symlink("/etc/passwd", path)
        result = rkt.run("image", "list", "--no-legend", "--fields=id", "--full", check=0)
        assert result.lines == [good]
        assert path in result.stderr
        rkt.run(INSECURE, "fetch", aci(rkt), check=0)
        assert path in rkt.run("image", "gc", check=0).stderr
        rkt.run("image", "rm", bad, check=0)
        assert not os.path.lexists(path)


def test_i13_twelve_digits(rkt: Rkt) -> None:
    """The ID that ``image list`` shows is enough for every command."""
    path = aci(rkt)
    fetch(rkt, path)
    (key,) = ids(rkt)
    short = key[: 7 + 12]
    output = f"{rkt.base}/out"
    rkt.run("image", "cat-manifest", short, check=0)
    for _ in range(2):
        rkt.run("image", "export", "--overwrite", short, f"{output}.aci", check=0)
        rkt.run("image", "render", "--overwrite", short, output, check=0)
        rkt.run("image", "extract", "--overwrite", short, output, check=0)
    assert content(f"{output}.aci") == content(path)
    rkt.run(INSECURE, "prepare", short, check=0)
    rkt.run("image", "rm", short, check=0)


@pytest.mark.parametrize("by", ["name", "id"])
def test_i14_i15_i17_i18_i19_rm_with_pods(rkt: Rkt, images: Images, by: str) -> None:
    """The stage1, an image that was used and one that was not are removed, by name and by ID; a prepared pod still runs."""
    used = images.busybox("example.com/used", ("/bin/echo", "still here"), file="used")
    fetch(rkt, used)
    fetch(rkt, aci(rkt, name="example.com/unused"))
    rkt.run(INSECURE, "run", "example.com/used", check=0)
    uuid = rkt.run(INSECURE, "prepare", "example.com/used", check=0).lines[-1]
    rows = rkt.run("image", "list", "--no-legend", "--fields=id,name", "--full", check=0).lines
    assert len(rows) == 3
    for row in rows:
        key, name = row.split()
        result = rkt.run("image", "rm", name if by == "name" else key, check=0)
        assert "rm: 1 image(s) successfully removed" in result.stderr
    # I19: both ways of naming one image at once, which is counted once, as in I16.
    fetch(rkt, used)
    key = ids(rkt)[0]
    result = rkt.run("image", "rm", "example.com/used", key, check=0)
    assert "rm: 1 image(s) successfully removed" in result.stderr
    assert ids(rkt) == []
    rkt.run("image", "gc", "--grace-period=0", check=0)
    assert "still here" in rkt.run(INSECURE, "run-prepared", uuid, check=0).stdout


def test_i20_i21_trees(rkt: Rkt, images: Images) -> None:
    """The files that an exited pod refers to stay, images or none; when the pods are gone they go."""
    fetch(rkt, images.busybox("example.com/used", ("/bin/true",), file="used-once"))
    rkt.run(INSECURE, "run", "example.com/used", check=0)
    rkt.run("image", "rm", "example.com/used", check=0)
    layers = f"{rkt.data}/cas/layer"
    before = sorted(os.listdir(layers))
    assert len(before) == 2
    rkt.run("image", "gc", "--grace-period=0", check=0)
    assert sorted(os.listdir(layers)) == before
    for _ in range(2):
        rkt.run("gc", "--grace-period=0", check=0)
    rkt.run("image", "gc", "--grace-period=0", check=0)
    assert len(os.listdir(layers)) == 1, "the installation's stage1"
    assert os.listdir(f"{rkt.data}/cas/tree") == []


def test_repair_from_elsewhere(rkt: Rkt) -> None:
    """A file that was named relative to one directory is found again from another."""
    path = aci(rkt)
    rkt.run(INSECURE, "fetch", f"./{os.path.basename(path)}", cwd=rkt.base, check=0)
    victim = damage(rkt)
    rkt.run(INSECURE, "image", "verify", "--repair", NAME, cwd="/", check=0)
    assert content(victim) == b"conf"
