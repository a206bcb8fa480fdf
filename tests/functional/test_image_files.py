# SPDX-License-Identifier: Apache-2.0
"""Images as files and directories: create, export, extract, render, verify, cat-manifest (spec cli §2.19 to §2.23)."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib import aci

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root
NAME = "example.com/files"
PROGRAM = b"#!/bin/sh\n" * 500


@pytest.fixture
def file(rkt: Rkt) -> str:
    """An uncompressed image."""
    path = os.path.join(rkt.base, "files.aci")
    aci.write_aci(
        path,
        name=NAME,
        files={"bin/app": (PROGRAM, 0o4755), "etc/conf": b"a=1\n"},
        links={"bin/sh": "app"},
        entries=[
            aci.hard_link("rootfs/bin/same", "rootfs/bin/app"),
            aci.device("rootfs/null"),
            aci.directory("rootfs/srv", mode=0o750, uid=12, gid=34),
        ],
        labels={"version": "1.0"},
    )
    return path


def fetch(rkt: Rkt, path: str) -> str:
    """Fetch an unsigned file; returns what is printed: the image's ID."""
    return rkt.run("--insecure-options=image", "fetch", path, check=0).lines[-1]


def layer(rkt: Rkt) -> str:
    """The root file system of the only image in the store."""
    directory = os.path.join(rkt.data, "cas", "layer")
    (key,) = os.listdir(directory)
    return os.path.join(directory, key, "rootfs")


def read(path: str) -> bytes:
    """All bytes of a file."""
    with open(path, "rb") as stream:
        return stream.read()


def write(path: str, data: bytes) -> None:
    """Replace the content of a file that exists."""
    with open(path, "r+b") as stream:
        stream.truncate()
        stream.write(data)


def test_export_gives_back_the_very_bytes(rkt: Rkt, file: str) -> None:
    """I22: an exported image is the file that was fetched, by name and by ID."""
    image_id = fetch(rkt, file)
    for number, image in enumerate((NAME, f"{NAME}:1.0", image_id, image_id[: len("sha512-") + 12])):
        output = os.path.join(rkt.base, f"out{number}.aci")
        rkt.run("image", "export", image, output, check=0)
        assert read(output) == read(file)


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_export_of_a_compressed_image_is_its_tar(rkt: Rkt, file: str, kind: str) -> None:
    """Of a compressed image, export gives the uncompressed tar, whose sha512 is the image ID."""
    compressed = os.path.join(rkt.base, "c.aci")
    with open(compressed, "wb") as stream:
        stream.write(aci.compress(read(file), kind))
    image_id = fetch(rkt, compressed)
    output = os.path.join(rkt.base, "out.aci")
    rkt.run("image", "export", image_id, output, check=0)
    assert read(output) == read(file)
    assert aci.image_id(read(output)).startswith(image_id)


def test_export_does_not_overwrite(rkt: Rkt, file: str) -> None:
    """An existing output stays unless --overwrite is given."""
    fetch(rkt, file)
    output = os.path.join(rkt.base, "out.aci")
    with open(output, "wb") as stream:
        stream.write(b"mine")
    refused = rkt.run("image", "export", NAME, output, check=254)
    assert "output ACI file exists (try --overwrite)" in refused.stderr
    assert read(output) == b"mine"
    rkt.run("image", "export", "--overwrite", NAME, output, check=0)
    assert read(output) == read(file)


def test_one_changed_byte_is_named(rkt: Rkt, file: str) -> None:
    """After one byte of the unpacked tree changed, verify names the file and export refuses to write (SG13)."""
    fetch(rkt, file)
    good = rkt.run("image", "verify", NAME, check=0)
    assert good.stdout.startswith(f'successfully verified checksum for image: "{NAME}" ("sha512-')
    victim = os.path.join(layer(rkt), "etc", "conf")
    before = os.stat(victim)
    write(victim, b"a=2\n")
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    bad = rkt.run("image", "verify", NAME, check=254)
    assert bad.lines[1:] == ["  rootfs/etc/conf: content (other bytes of the same number)"]
    assert "hint: rkt image verify --repair" in bad.stderr
    output = os.path.join(rkt.base, "out.aci")
    refused = rkt.run("image", "export", NAME, output, check=254)
    assert "rootfs/etc/conf" in refused.stderr
    assert not os.path.exists(output)
    assert not [name for name in os.listdir(rkt.base) if name.startswith(".out")]


def test_verify_goes_on_after_a_bad_image(rkt: Rkt, file: str) -> None:
    """Several images are all checked; one bad one makes the status 254, an unknown one ends it."""
    other = os.path.join(rkt.base, "other.aci")
    aci.write_aci(other, name="example.com/other", files={"f": b"x"})
    fetch(rkt, file)
    write(os.path.join(layer(rkt), "etc", "conf"), b"changed")
    fetch(rkt, other)
    result = rkt.run("image", "verify", NAME, "example.com/other", check=254)
    assert 'successfully verified checksum for image: "example.com/other"' in result.stdout
    assert "rootfs/etc/conf" in result.stdout
    assert rkt.run("image", "verify", "example.com/unknown", check=254).stdout == ""


def test_extract(rkt: Rkt, file: str) -> None:
    """An extracted image has the manifest and the tree with owners, modes, links; its directory is closed to others."""
    fetch(rkt, file)
    output = os.path.join(rkt.base, "out")
    rkt.run("image", "extract", NAME, output, check=0)
    assert sorted(os.listdir(output)) == ["manifest", "rootfs"]
    assert stat.S_IMODE(os.stat(output).st_mode) == 0o700
    assert json.loads(read(f"{output}/manifest"))["name"] == NAME
    program = os.stat(f"{output}/rootfs/bin/app")
    assert (stat.S_IMODE(program.st_mode), program.st_nlink, program.st_mtime) == (0o4755, 2, 0)
    assert os.readlink(f"{output}/rootfs/bin/sh") == "app"
    directory = os.stat(f"{output}/rootfs/srv")
    assert (stat.S_IMODE(directory.st_mode), directory.st_uid, directory.st_gid) == (0o750, 12, 34)
    assert (
        "output directory exists (try --overwrite)"
        in rkt.run("image", "extract", NAME, output, check=254).stderr
    )


def test_extract_rootfs_only(rkt: Rkt, file: str) -> None:
    """I23: by name and by ID, with --rootfs-only the directory is the root file system; --overwrite removes what was there."""
    image_id = fetch(rkt, file)
    output = os.path.join(rkt.base, "out")
    for word in (NAME, image_id):
        os.makedirs(f"{output}/old/stuff")
        rkt.run("image", "extract", "--rootfs-only", "--overwrite", word, output, check=0)
        assert sorted(os.listdir(output)) == ["bin", "etc", "srv"]
        assert read(f"{output}/bin/app") == PROGRAM


def test_the_root_of_the_host_is_never_removed(rkt: Rkt, file: str) -> None:
    """Extracting over / is refused, also through a link."""
    fetch(rkt, file)
    os.symlink("/", os.path.join(rkt.base, "link"))
    for output in ("/", "/..", os.path.join(rkt.base, "link")):
        refused = rkt.run("image", "extract", "--overwrite", NAME, output, check=254)
        assert "this would delete your root filesystem. Refusing." in refused.stderr


def test_the_data_directory_is_never_removed(rkt: Rkt, file: str) -> None:
    """Extracting over the data directory, over what holds it, or over something in it, is refused."""
    fetch(rkt, file)
    for output in (rkt.data, rkt.base, f"{rkt.data}/../data/", f"{rkt.data}/cas/layer"):
        refused = rkt.run("image", "extract", "--overwrite", NAME, output, check=254)
        assert "this would delete your images and pods. Refusing." in refused.stderr
    rkt.run("image", "verify", NAME, check=0)


def test_a_copy_does_not_share_with_the_store(rkt: Rkt, file: str) -> None:
    """Writing to an extracted file leaves the store as it is."""
    fetch(rkt, file)
    output = os.path.join(rkt.base, "out")
    rkt.run("image", "extract", NAME, output, check=0)
    write(f"{output}/rootfs/etc/conf", b"mine")
    rkt.run("image", "verify", NAME, check=0)


def test_render_applies_the_white_list(rkt: Rkt) -> None:
    """A rendered image has the listed files only; directories stay."""
    path = os.path.join(rkt.base, "w.aci")
    aci.write_aci(path, name=NAME, files={"a/keep": b"1", "a/drop": b"2"}, pathWhitelist=["/a/keep"])
    fetch(rkt, path)
    output = os.path.join(rkt.base, "out")
    rkt.run("image", "render", "--rootfs-only", NAME, output, check=0)
    assert os.listdir(f"{output}/a") == ["keep"]


def test_cat_manifest(rkt: Rkt, file: str) -> None:
    """I24: the manifest is printed indented by tabs, or exactly as the image has it, by name and by ID."""
    image_id = fetch(rkt, file)
    pretty = rkt.run("image", "cat-manifest", NAME, check=0).stdout
    exact = rkt.run("image", "cat-manifest", "--pretty-print=false", NAME, check=0).stdout
    assert rkt.run("image", "cat-manifest", "--pretty-print=false", image_id, check=0).stdout == exact
    assert '\n\t"name": "example.com/files"' in pretty
    assert exact.encode() == read(file)[512 : 512 + len(exact) - 1] + b"\n"
    assert json.loads(pretty) == json.loads(exact)


@pytest.mark.parametrize("verb", ["cat-manifest", "export", "extract", "render", "verify"])
@pytest.mark.parametrize(
    "image", ["sha512-not-existed", "some~random~aci~name", "sha512-12341234", "sha512-1"]
)
def test_unknown_images(rkt: Rkt, verb: str, image: str) -> None:
    """Every command refuses an image that is not in the store (rkt's cases I10, I11, I25)."""
    output = [os.path.join(rkt.base, "out")] if verb in {"export", "extract", "render"} else []
    rkt.run("image", verb, image, *output, check=254)
    assert not os.path.exists(os.path.join(rkt.base, "out"))


def test_create_fetch_export(rkt: Rkt, tmp_path: Path) -> None:
    """A created image is fetched under the ID that was printed, and export gives it back; twice gives the same bytes."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/app").write_bytes(PROGRAM)
    outputs = [os.path.join(rkt.base, f"{n}.aci") for n in "ab"]
    for output in outputs:
        created = rkt.run(
            "image",
            "create",
            f"--rootfs={root}",
            "--name=example.com/made:2.0",
            output,
            "--",
            "/bin/app",
            "-x",
            check=0,
        )
        os.utime(root / "bin/app")
    assert read(outputs[0]) == read(outputs[1])
    image_id = created.stdout.strip()
    assert image_id == aci.image_id(read(outputs[0]))
    assert image_id.startswith(fetch(rkt, outputs[0]))
    rkt.run("image", "export", "example.com/made", os.path.join(rkt.base, "c.aci"), check=0)
    assert read(os.path.join(rkt.base, "c.aci")) == read(outputs[0])
    manifest = json.loads(rkt.run("image", "cat-manifest", "example.com/made:2.0", check=0).stdout)
    assert manifest["app"]["exec"] == ["/bin/app", "-x"]


def test_create_as_anybody(rkt: Rkt, tmp_path: Path) -> None:
    """An unprivileged user makes an image of a tree of their own; in it everything is root's."""
    import subprocess
    import tarfile

    base = os.path.join(rkt.base, "user")
    os.makedirs(f"{base}/root")
    with open(f"{base}/root/f", "wb") as stream:
        stream.write(b"x")
    os.chmod(rkt.base, 0o755)
    for path in (base, f"{base}/root", f"{base}/root/f"):
        os.chown(path, 4321, 4321)
    who: dict[str, Any] = {"user": 4321, "group": 4321, "extra_groups": []}
    try:
        subprocess.run([rkt.binary, "version"], **who, capture_output=True, check=True, timeout=60)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("the checkout is closed to other users")
    words = [rkt.binary, "image", "create", "--rootfs=root", "--name=example.com/mine", "mine.aci"]
    result = subprocess.run(
        words,
        cwd=base,
        **who,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    with tarfile.open(f"{base}/mine.aci") as archive:
        assert {(m.uid, m.gid) for m in archive} == {(0, 0)}


def test_create_mistakes(rkt: Rkt, tmp_path: Path) -> None:
    """What is missing or does not fit is said, and nothing is written."""
    (tmp_path / "root").mkdir()
    output = os.path.join(rkt.base, "x.aci")
    source = f"--rootfs={tmp_path}/root"
    for words, message in (
        ((output, "--name=a"), "one of --rootfs=DIR and --tar=FILE is expected"),
        ((source, output), "an image needs a name"),
        ((source, "--name=a"), "an output file is expected"),
        ((source, "--name=a", f"{rkt.base}/x.tar"), "extension must be .aci"),
        ((source, "--name=A", output), "image name"),
        ((f"--rootfs={tmp_path}/none", "--name=a", output), "none"),
        ((source, "--name=a", "--timestamp=yesterday", output), "invalid timestamp"),
        ((source, "--name=a", "--compression=lz4", output), "--compression"),
    ):
        assert message in rkt.run("image", "create", *words, check=254).stderr
        assert not [name for name in os.listdir(rkt.base) if "x.aci" in name]


def test_create_from_standard_input(rkt: Rkt, tmp_path: Path) -> None:
    """A tar on standard input becomes the root file system."""
    tar = tmp_path / "root.tar"
    tar.write_bytes(aci.compress(aci.tar_bytes([aci.directory("./"), aci.Entry("./f", content=b"x")]), "xz"))
    output = os.path.join(rkt.base, "x.aci")
    words = ("image", "create", "--tar=-", "--name=a", output)
    with tar.open("rb") as stream, rkt.popen(*words, stdin=stream.fileno()) as process:
        assert process.wait(60) == 0
    fetch(rkt, output)
    assert read(os.path.join(layer(rkt), "f")) == b"x"
