# SPDX-License-Identifier: Apache-2.0
"""The workers of a fetch by root, as ``/proc`` shows them, and what a process confined as they are can still reach.

``test_fetch.py`` looks at users, namespaces and descriptors; here are the walls that do not show from outside.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from rkt.linux import capabilities, landlock
from rkt.privsep import confine
from tests.lib import layouts
from tests.lib.aci import write_aci
from tests.lib.isolated import errno_of, run_isolated
from tests.lib.server import Page, Server
from tests.lib.workers import NAMESPACES, is_confined, worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.lib.rkt import Rkt
    from tests.lib.workers import Seen

pytestmark = pytest.mark.root
needs_landlock = pytest.mark.skipif(
    landlock.abi() < landlock.REFER_ABI, reason="this kernel has no Landlock that rkt-unpack can use"
)

INSECURE = "--insecure-options=image"
#: Published in docs/security.md, sentence 9, and in rkt.privsep.confine.
UNPACK = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETFCAP"]


def slow_image(rkt: Rkt) -> str:
    """An image that takes a moment to unpack."""
    path = f"{rkt.base}/slow.aci"
    data = os.urandom(6 << 20)
    write_aci(path, ["/bin/app"], files={"bin/app": (data, 0o755)}, compression="bzip2")
    return path


@pytest.mark.parametrize("how", ["download", "copy", "unpack"])
def test_status_of_the_workers(rkt: Rkt, how: str) -> None:
    """Not uid 0 for rkt-fetch, no capability beyond the published list, ``NoNewPrivs: 1``, ``Seccomp: 2``."""
    with Server() as server:
        if how == "download":
            source = server.put("/app.aci", Page(b"x" * 10000, stall=5000))
        else:
            source = slow_image(rkt)
        process = rkt.popen(INSECURE, "fetch", source)
        seen = worker("rkt-unpack" if how == "unpack" else "rkt-fetch", process.pid, is_confined)
        process.kill()
        process.wait(20)
    assert seen.status["Seccomp"] == "2"
    assert seen.status["NoNewPrivs"] == "1"
    keep = capabilities.mask(UNPACK if how == "unpack" else [])
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert seen.capabilities(name) == keep, name
    for name in ("CapInh", "CapAmb"):
        assert seen.capabilities(name) == 0, name
    assert (0 in seen.ids("Uid")) == (how == "unpack")


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_status_of_the_worker_that_reads_layouts(rkt: Rkt, kind: str) -> None:
    """What reads layouts and archives has a user of its own, nothing of root's, no network, and one file system entry: none."""
    image = layouts.make_image(bytes(32 << 20), compression="none")
    path = f"{rkt.base}/source"
    if kind == "oci":
        layouts.write_layout(path, image)
    else:
        files = layouts.layout_files(layouts.make_index(image.descriptor()), image.blobs)
        if kind == "docker-archive":
            files = layouts.docker_files(image, tags=[["one:1"]])
        layouts.write_tar(path, files, compression="gzip")
    process = rkt.popen(INSECURE, "fetch", f"{kind}:{path}")

    def accept(seen: Seen) -> bool:
        # It then waits for its answers, for as long as it is looked at.
        os.kill(process.pid, signal.SIGSTOP)
        return is_confined(seen)

    try:
        seen = worker("rkt-fetch", process.pid, accept)
    finally:
        process.kill()
        process.wait(20)
    assert (seen.status["Seccomp"], seen.status["NoNewPrivs"]) == ("2", "1")
    for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
        assert seen.capabilities(name) == 0, name
    (uid,) = seen.ids("Uid")
    assert uid >= confine.FETCH_UID_BASE
    assert seen.status["Groups"].split() == []
    assert seen.root_entries == set()
    for name in NAMESPACES:
        assert seen.namespaces[name] != os.readlink(f"/proc/self/ns/{name}"), name
    assert path not in seen.descriptors.values() or kind != "oci"


def as_worker(kind: str, target: Path, function: Callable[[], object]) -> object:
    """What a function finds out in a process that has become a worker of a kind."""

    def body() -> object:
        if kind == "unpack":
            tree = confine.take_directory(os.open(target, os.O_RDONLY | os.O_DIRECTORY))
            confine.begin(b"rkt-unpack", network=False)
            confine.confine_unpack(tree, file_size_bytes=1 << 20)
        else:
            network = kind == "download"
            confine.begin(b"rkt-fetch", network=network)
            confine.confine_fetch(network=network, file_size_bytes=1 << 20, uid=confine.FETCH_UID_BASE)
        return function()

    return run_isolated(body, 0)


@pytest.mark.parametrize("kind", ["download", "copy", "unpack"])
def test_a_write_outside_fails(tmp_path: Path, kind: str) -> None:
    """A worker writes to what it was given, and to nothing else, even if it is a file that everybody may write."""
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (outside / "open").write_bytes(b"as it was")
    for path in (outside, outside / "open", tmp_path):
        path.chmod(0o777)
    given = os.open(tmp_path / "given", os.O_RDWR | os.O_CREAT)

    def attempts() -> list[int]:
        os.pwrite(given, b"x", 0)
        return [
            errno_of(lambda: os.open(outside / "open", os.O_WRONLY)),
            errno_of(lambda: os.open(outside / "new", os.O_WRONLY | os.O_CREAT)),
            errno_of(lambda: os.open("/dev/shm/new", os.O_WRONLY | os.O_CREAT)),
            errno_of(lambda: os.open("../../../../outside/open", os.O_WRONLY)),
            errno_of(lambda: os.open(f"/proc/self/fd/{given}", os.O_WRONLY)),
        ]

    try:
        errors = as_worker(kind, target, attempts)
    finally:
        os.close(given)
    refusals = {errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOSYS}
    assert isinstance(errors, list)
    assert set(errors) <= refusals, [errno.errorcode.get(number, number) for number in errors]
    assert (tmp_path / "given").read_bytes() == b"x"
    assert (outside / "open").read_bytes() == b"as it was"
    assert os.listdir(outside) == ["open"]
    assert os.listdir(target) == []


@needs_landlock
def test_landlock_is_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What mounts, users and system calls would let through is refused by Landlock alone, in each worker."""
    monkeypatch.setattr(confine, "_load", lambda _program: None)
    readable = tmp_path / "readable"
    readable.write_bytes(b"x")
    for path in (tmp_path, readable):
        path.chmod(0o755)
    public = "/etc/passwd"
    assert os.stat(public).st_mode & 0o004

    assert (
        as_worker("download", tmp_path, lambda: errno_of(lambda: os.open(public, os.O_RDONLY)))
        == errno.EACCES
    )
    assert as_worker("copy", tmp_path, lambda: errno_of(lambda: os.listdir("/"))) == errno.EACCES
    assert (
        as_worker("unpack", tmp_path, lambda: errno_of(lambda: os.mknod("/socket", 0o140600))) == errno.EACCES
    )

    # The same without Landlock: the other walls stand elsewhere.
    monkeypatch.setattr(landlock, "restrict", lambda *_, **__: 0)
    assert as_worker("download", tmp_path, lambda: errno_of(lambda: os.open(public, os.O_RDONLY))) == 0
    assert as_worker("copy", tmp_path, lambda: errno_of(lambda: os.listdir("/"))) == 0
    assert as_worker("unpack", tmp_path, lambda: errno_of(lambda: os.mknod("/socket", 0o140600))) == 0
    os.unlink(tmp_path / "socket")


@pytest.mark.parametrize("compression", ["none", "gzip", "bzip2", "xz"])
def test_the_lists_are_long_enough(rkt: Rkt, compression: str) -> None:
    """A fetch by URL of each compression, with every kind of entry and attribute, needs no call that is not listed."""
    from tests.lib import aci

    path = f"{rkt.base}/all.aci"
    write_aci(
        path,
        files={"bin/app": (b"x" * 3_000_000, 0o4755)},
        links={"link": "bin/app"},
        entries=[
            aci.hard_link("rootfs/hard", "rootfs/bin/app"),
            aci.directory("rootfs/d", mode=0o1777, records={b"SCHILY.xattr.user.a": b"1"}),
            aci.Entry("rootfs/f", uid=1000, gid=1000, records={b"SCHILY.xattr.user.a": b"1"}),
            aci.fifo("rootfs/pipe"),
            aci.device("rootfs/dev"),
        ],
        compression=compression,
    )
    with Server() as server, open(path, "rb") as file:
        url = server.put("/all.aci", Page(file.read()))
        rkt.run("--insecure-options=image,http", "fetch", url.replace("127.0.0.1", "localhost"), check=0)
    assert rkt.run("image", "list", "--no-legend", "--fields=name", check=0).lines == ["example.com/app"]


def test_debug_says_what_is_missing(rkt: Rkt) -> None:
    """On a kernel that has every wall ``--debug`` reports none as missing."""
    path = f"{rkt.base}/app.aci"
    write_aci(path)
    result = rkt.run("--debug", INSECURE, "fetch", path, check=0)
    for text in confine.missing():
        assert text in result.stderr
    if not confine.missing():
        assert "this kernel" not in result.stderr
