# SPDX-License-Identifier: Apache-2.0
"""The two workers of a fetch, looked at from outside while they work, and what happens when one of them lies."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from rkt.config.settings import InsecureOptions, Installation, Settings
from rkt.errors import ImageError, NotFound, RktError
from rkt.fetch import fetch
from rkt.linux import capabilities
from rkt.privsep.confine import FETCH_UID_BASE
from rkt.store.cas import Store
from rkt.values import ImageKey
from tests.lib import rkt as rkt_library
from tests.lib.aci import write_aci
from tests.lib.server import Page, Server
from tests.lib.workers import NAMESPACES, Seen, is_confined, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from tests.lib.rkt import Rkt

pytestmark = pytest.mark.root

INSECURE = "--insecure-options=image"
#: A worker's whole environment.
ENVIRONMENT = {
    b"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    b"LC_ALL=C.UTF-8",
    b"MALLOC_MMAP_THRESHOLD_=4194304",
    b"MALLOC_TRIM_THRESHOLD_=33554432",
}


@contextmanager
def stalled_fetch(rkt: Rkt) -> Iterator[Seen]:
    """A download that does not go on, and the worker that waits for it."""
    os.environ["RKT_TEST_SECRET"] = "x"
    secret = os.open("/etc/shadow", os.O_RDONLY)
    os.set_inheritable(secret, True)
    with Server() as server:
        url = server.put("/app.aci", Page(b"x" * 10000, stall=5000))
        process = rkt.popen(INSECURE, "fetch", url, env={"LD_PRELOAD": "", "SECRET": "x"}, pass_fds=(secret,))
        os.close(secret)
        try:
            yield worker("rkt-fetch", process.pid, is_confined)
        finally:
            process.kill()
            process.wait(20)
            del os.environ["RKT_TEST_SECRET"]


def test_fetch_worker_is_confined(rkt: Rkt) -> None:
    """While it talks to a server, it has no user, no capability, no descriptor and no environment of anybody."""
    with stalled_fetch(rkt) as seen:
        assert len(seen.ids("Uid")) == 1
        (uid,) = seen.ids("Uid")
        assert FETCH_UID_BASE <= uid < FETCH_UID_BASE + 65536
        assert seen.ids("Gid") == {uid}
        assert seen.status["Groups"].strip() == ""
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert seen.capabilities(name) == 0, name
        assert seen.status["NSpid"].split()[-1] == "1"
        ours = {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES}
        assert {name for name in NAMESPACES if ours[name] == seen.namespaces[name]} == {"net"}
        assert seen.environment == ENVIRONMENT
        assert not any("shadow" in target for target in seen.descriptors.values())
        files = [target for target in seen.descriptors.values() if target.startswith("/")]
        names = {os.path.basename(target) for target in files}
        partial = {name for name in names if len(name.removesuffix(".validators")) == 64}
        assert names - partial == {"null", "signature"}
        assert len(partial) == 2
        assert all("ro" in mount[5].split(",") for mount in seen.mounts), "a mount is writable"
        assert int(seen.limits["Max processes"][1]) <= 16
        assert int(seen.limits["Max address space"][1]) <= 1 << 30
        assert seen.limits["Max core file size"][1] == "0"
        assert os.listdir(f"/proc/{seen.pid}/root/proc") == []


def test_copying_a_file_needs_no_network_and_no_files(rkt: Rkt) -> None:
    """For a local image the worker has an empty network and an empty root."""
    path = _slow_image(rkt)
    process = rkt.popen(INSECURE, "fetch", path)
    seen = worker("rkt-fetch", process.pid, is_confined)
    assert seen.namespaces["net"] != os.readlink("/proc/self/ns/net")
    assert seen.root_entries == set()
    assert seen.capabilities("CapBnd") == 0
    assert 0 not in seen.ids("Uid")
    assert process.wait(120) == 0


def test_unpack_worker_is_confined(rkt: Rkt) -> None:
    """It sees the directory that it fills and nothing else, and has the five capabilities that it needs."""
    process = rkt.popen(INSECURE, "fetch", _slow_image(rkt))
    seen = worker("rkt-unpack", process.pid, is_confined)
    keep = capabilities.mask(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETFCAP"])
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert seen.capabilities(name) == keep, name
    for name in ("CapInh", "CapAmb"):
        assert seen.capabilities(name) == 0, name
    assert seen.root_entries <= {"manifest", "rootfs"}
    assert [mount[4] for mount in seen.mounts] == ["/"]
    assert {"nosuid", "nodev", "noexec"} <= set(seen.mounts[0][5].split(","))
    ours = {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES}
    assert not {name for name in NAMESPACES if ours[name] == seen.namespaces[name]}
    assert seen.environment == ENVIRONMENT
    assert process.wait(120) == 0
    assert rkt.run("image", "list", "--no-legend", "--fields=name", check=0).lines == ["example.com/app"]


def _slow_image(rkt: Rkt) -> str:
    """An image whose manifest comes last and whose compression takes a moment to undo."""
    path = f"{rkt.base}/slow.aci"
    data = random.Random(1).randbytes(6 << 20)
    write_aci(path, ["/bin/app"], files={"bin/app": (data, 0o755)}, compression="bzip2")
    return path


# What a worker says is not believed.


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a command that fetches without verification, so that only root's own checks are left."""
    return Settings(
        installation=Installation(
            package_path=os.path.join(rkt_library.ROOT, "src"),
            library_paths=[],
            stage1_images_path=os.path.join(rkt_library.ROOT, "build", "stage1"),
        ),
        data_dir=f"{tmp_path}/data",
        insecure=InsecureOptions.parse("image"),
        command="fetch",
    )


def image(tmp_path: Path) -> str:
    """A small image."""
    path = f"{tmp_path}/app.aci"
    write_aci(path, ["/bin/app"], files={"bin/app": b"x"})
    return path


def lie(
    monkeypatch: pytest.MonkeyPatch, kind: str, change: Callable[[dict[str, Any], dict[str, int]], None]
) -> None:
    """Let a real worker work, and change what it answers or did."""
    from rkt.fetch import job
    from rkt.privsep import client
    from rkt.store import importer

    real = client.run_worker

    def run_worker(
        which: str, request: dict[str, Any], fds: dict[str, int], *args: Any, **options: Any
    ) -> dict[str, Any]:
        answer = real(which, request, fds, *args, **options)
        if which == kind:
            change(answer, fds)
        return answer

    monkeypatch.setattr(job, "run_worker", run_worker)
    monkeypatch.setattr(importer, "run_worker", run_worker)


def assert_refused(settings: Settings, path: str, error: type[RktError], words: str) -> None:
    """The fetch fails, and the store is empty."""
    with pytest.raises(error, match=words):
        fetch.fetch_image(path, settings)
    assert list(Store(settings.data_dir).records()) == []
    assert os.listdir(f"{settings.data_dir}/cas/layer") == []
    assert os.listdir(f"{settings.data_dir}/cas/tmp") == []


def test_the_truth_is_accepted(settings: Settings, tmp_path: Path) -> None:
    """The set-up of these tests works when nobody lies."""
    record = fetch.fetch_image(image(tmp_path), settings)
    assert Store(settings.data_dir).get(ImageKey.parse(record.image_id)) == record


def test_a_name_that_is_not_in_the_manifest(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker cannot choose the name, and so the keys, by which an image is judged (invariant SG3)."""
    lie(monkeypatch, "fetch", lambda answer, _: answer.update(name="example.com/other"))
    assert_refused(settings, image(tmp_path), ImageError, "was verified as")


@pytest.mark.parametrize("name", ["../../x", "", "A", "a/../../../b\n", None, 7, ["a"]])
def test_a_name_that_is_none(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: object
) -> None:
    """The grammar of names is checked again by root (invariants HH2, HH3)."""
    lie(monkeypatch, "fetch", lambda answer, _: answer.update(name=name))
    assert_refused(settings, image(tmp_path), RktError, "image name|was verified as")


def test_a_manifest_that_is_another(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest that was read before the verdict is the one that is unpacked after it."""
    lie(monkeypatch, "fetch", lambda answer, _: answer.update(manifest_sha256="0" * 64))
    assert_refused(settings, image(tmp_path), ImageError, "not the one its name was read from")


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("blob_sha256", "0" * 64, "not what was verified"),
        ("manifest_sha256", "0" * 64, "not the one that was in the image"),
        ("image_id", "sha512-../../x", "no image ID"),
        ("image_id", None, "no image ID"),
        ("size_bytes", -1, "no size_bytes"),
        ("tree_size_bytes", "many", "no tree_size_bytes"),
    ],
)
def test_a_lying_unpacker(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    member: str,
    value: object,
    words: str,
) -> None:
    """Everything that rkt-unpack reports is held against what root knows, or against a grammar."""
    lie(monkeypatch, "unpack", lambda answer, _: answer.update({member: value}))
    assert_refused(settings, image(tmp_path), ImageError, words)


def test_a_blob_that_changes_after_the_verdict(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that change between verdict and unpacking are noticed."""
    from rkt.store import importer

    real = importer.hash_file

    def hash_then_change(fd: int) -> str:
        digest = real(fd)
        os.pwrite(fd, b"y", os.fstat(fd).st_size - 1)
        return digest

    monkeypatch.setattr(importer, "hash_file", hash_then_change)
    path = f"{tmp_path}/app.aci"
    write_aci(path, ["/bin/app"], files={"bin/app": b"x"}, compression="none")
    assert_refused(settings, path, ImageError, ".")


def test_a_manifest_that_is_a_link(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root does not follow what the unpacker may have put in place of the manifest."""

    def swap(_: dict[str, Any], fds: dict[str, int]) -> None:
        os.unlink("manifest", dir_fd=fds["target"])
        os.symlink("/etc/shadow", "manifest", dir_fd=fds["target"])

    lie(monkeypatch, "unpack", swap)
    assert_refused(settings, image(tmp_path), ImageError, "cannot be read")


def test_an_opened_layer_is_closed_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer directory never keeps a mode or an owner that the unpacker gave it (invariant HH1)."""

    def open_up(_: dict[str, Any], fds: dict[str, int]) -> None:
        os.fchown(fds["target"], 65534, 65534)
        os.fchmod(fds["target"], 0o2777)

    lie(monkeypatch, "unpack", open_up)
    path = f"{tmp_path}/app.aci"
    write_aci(path, ["/bin/app"], files={"bin/app": b"x"})
    record = fetch.fetch_image(path, settings)
    status = os.stat(Store(settings.data_dir).layer_path(record.key))
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o700, 0, 0)


def test_a_set_uid_file_is_out_of_reach(settings: Settings, tmp_path: Path) -> None:
    """No user but root can reach a set-uid file of an image by its path in the store (CVE-2021-41103)."""
    path = f"{tmp_path}/app.aci"
    write_aci(path, ["/bin/su"], files={"bin/su": (b"#!", 0o4755)})
    record = fetch.fetch_image(path, settings)
    file = f"{Store(settings.data_dir).layer_path(record.key)}/rootfs/bin/su"
    os.chmod(tmp_path, 0o755)
    os.chmod(settings.data_dir, 0o755)
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            os.stat(file)
        except PermissionError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_store_finds_nothing_that_was_refused(settings: Settings, tmp_path: Path) -> None:
    """After a refusal there is no key and no name to be found."""
    path = f"{tmp_path}/bad.aci"
    with open(path, "wb") as file:
        file.write(b"\x1f\x8b" + b"garbage" * 100)
    assert_refused(settings, path, ImageError, "gzip")
    with pytest.raises(NotFound):
        Store(settings.data_dir).resolve("example.com/app")
