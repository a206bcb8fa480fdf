# SPDX-License-Identifier: Apache-2.0
"""``rkt cp`` against a hostile pod (CVE-2018-15664, CVE-2019-14271): nothing leads the copy out of the app's root, in either direction."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest

from rkt.errors import ImageError, PodError
from rkt.image.fill import Filler
from rkt.image.pack import Packer
from rkt.linux import capabilities, libc
from rkt.privsep import confine
from tests.lib.flavors import pods
from tests.lib.isolated import errno_of, run_isolated
from tests.lib.pace import SLOWNESS
from tests.lib.rkt import wait_for
from tests.lib.workers import is_confined, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lib.images import Images
    from tests.lib.rkt import Rkt

pytestmark = [pytest.mark.root, pods()]

INSECURE = "--insecure-options=image"
_RENAME_EXCHANGE = 2
#: Published in docs/security.md and in rkt.privsep.confine.
CAPABILITIES = {"pack": ["CAP_DAC_READ_SEARCH"], "fill": ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"]}
#: One component is a directory and a link to HOST in turns, as fast as a shell can.
FLIP = """
mkdir -p /flip/dir HOST; echo inside >/flip/dir/file; echo inside >HOST/file; ln -s HOST /flip/link
echo ready >/ready
while :; do mv /flip/dir /flip/old; mv /flip/link /flip/dir; mv /flip/dir /flip/link; mv /flip/old /flip/dir; done
"""


def test_a_component_that_is_flipped(rkt: Rkt, images: Images, tmp_path: Path) -> None:
    """While a process of the pod turns a directory into a link to a directory of the host and back, only the pod's file is read, and nothing is written on the host."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "file").write_text("of the host\n")
    (tmp_path / "planted").write_text("planted\n")
    image = images.busybox("example.com/flip")
    script = FLIP.replace("HOST", str(host))
    rkt.popen("run", INSECURE, "--name=flip", image, "--exec=/bin/sh", "--", "-c", script)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: rkt.run("cp", "flip:/ready", "-").status == 0, "files of the app")
    read = written = 0
    rounds = 10 if SLOWNESS == 1 else 3
    for number in range(10 * rounds):
        if number >= rounds and read and written:
            break
        out = tmp_path / f"out{number}"
        if rkt.run("cp", "flip:/flip/dir/file", str(out)).status == 0:
            assert out.read_text() == "inside\n"
            read += 1
        written += rkt.run("cp", str(tmp_path / "planted"), f"flip:/flip/dir/planted{number}").status == 0
        assert os.listdir(host) == ["file"]
    assert (host / "file").read_text() == "of the host\n"
    assert read
    assert written
    rkt.run("stop", "--force", uuid, check=0)


class World:
    """A directory with a component that another process exchanges with a link to ``outside``, faster than any shell."""

    def __init__(self, base: Path) -> None:
        self.inside, self.outside = base / "inside", base / "outside"
        (self.inside / "dir").mkdir(parents=True)
        self.outside.mkdir()
        (self.inside / "dir" / "file").write_text("inside")
        (self.outside / "file").write_text("outside")
        os.symlink(self.outside, self.inside / "link")

    def flip(self) -> int:
        """Start; the process is to be killed."""
        fd = os.open(self.inside, os.O_PATH)
        pid = os.fork()
        if pid == 0:
            try:
                libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
                while True:
                    libc.renameat2(fd, b"dir", fd, b"link", _RENAME_EXCHANGE)
            finally:
                os._exit(1)
        os.close(fd)
        return pid


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A directory in which somebody flips."""
    each = World(tmp_path)
    pid = each.flip()
    yield each
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def as_worker(kind: str, directory: Path, function: Callable[[int], object]) -> object:
    """What a function finds out, given its root directory, in a process that has become a worker."""

    def body() -> object:
        writable = kind == "fill"
        tree = confine.take_world(os.open(directory, os.O_PATH | os.O_DIRECTORY), -1, writable=writable)
        confine.begin(f"rkt-{kind}".encode(), network=False)
        return function(confine.confine_copy(tree, -1, writable=writable, file_size_bytes=1 << 20))

    return run_isolated(body, 0)


def names_and_texts(data: bytes) -> dict[str, str]:
    """Members of a tar and the content of its files, of links where they lead."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {}
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            found[member.name] = content.read().decode() if content else member.linkname
        return found


@pytest.mark.parametrize("path", [b"/dir/file", b"/", b"/dir/", b"/dir"])
def test_reading_while_it_is_flipped(world: World, path: bytes) -> None:
    """Hundreds of times over, a tree or a file in it is read as it was at some moment, and nothing of outside is ever in it."""
    read_fd, write_fd = os.pipe()
    chunks: list[bytes] = []

    def collect() -> None:
        while data := os.read(read_fd, 1 << 16):
            chunks.append(data)

    thread = threading.Thread(target=collect)
    thread.start()

    def pack(root_fd: int) -> int:
        os.close(read_fd)
        done = 0
        for number in range(100_000):
            try:
                Packer(root_fd, write_fd).run(path, b"t", follow=False)
                done += 1
            except PodError:
                os.sched_yield()
            # On a busy machine whoever flips may sleep meanwhile.
            if number >= 300 and done:
                break
        return done

    try:
        done = as_worker("pack", world.inside, pack)
    finally:
        os.close(write_fd)
        thread.join()
        os.close(read_fd)
    assert done
    data = b"".join(chunks)
    assert b"inside" in data
    # Where the link leads is its own text; what is there is not.
    assert b"outside" not in data.replace(os.fsencode(world.outside), b"")


@pytest.mark.parametrize("follow", [False, True])
def test_writing_while_it_is_flipped(world: World, tmp_path: Path, follow: bool) -> None:
    """Hundreds of times over, an archive is unpacked over a tree that changes, and nothing comes to lie outside."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("dir/planted", "dir/file", "dir/deep/er/planted"):
            member = tarfile.TarInfo(name)
            member.size = 7
            archive.addfile(member, io.BytesIO(b"planted"))
    (tmp_path / "tar").write_bytes(packed.getvalue())
    stream_fd = os.open(tmp_path / "tar", os.O_RDONLY)

    def fill(root_fd: int) -> int:
        done = 0
        for number in range(100_000):
            os.lseek(stream_fd, 0, os.SEEK_SET)
            try:
                Filler(root_fd, stream_fd, keep_owners=False, follow=follow).archive(b"/")
                done += 1
            except PodError:
                os.sched_yield()
            # On a busy machine whoever flips may sleep meanwhile.
            if number >= 300 and done:
                break
        return done

    try:
        done = as_worker("fill", world.inside, fill)
    finally:
        os.close(stream_fd)
    assert done
    assert os.listdir(world.outside) == ["file"]
    assert (world.outside / "file").read_text() == "outside"


HOSTILE = {
    "climbs": ([("t/", "", ""), ("t/../x", "x", "")], "climbs out"),
    "through-its-own-link": ([("t/", "", ""), ("t/link", "", ".."), ("t/link/x", "x", "")], "t/link"),
    "absolute-link": ([("t/", "", ""), ("t/link", "", "/"), ("t/link/x", "x", "")], "t/link"),
    "link-then-directory": ([("t/", "", ""), ("t/a", "", "/"), ("t/a/", "", ""), ("t/a/x", "x", "")], "t/a"),
    "through-a-link-that-is-there": ([("t/", "", ""), ("t/there/x", "x", "")], "t/there"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_broken_reader_could_send(tmp_path: Path, case: str) -> None:
    """Even members that no reader of ours writes cannot leave what is copied, through a link of their own or one that is there."""
    members, words = HOSTILE[case]
    world = tmp_path / "world"
    (world / "t").mkdir(parents=True)
    os.symlink("..", world / "t" / "there")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text, link in members:
            member = tarfile.TarInfo(name)
            member.type = tarfile.SYMTYPE if link else tarfile.REGTYPE if text else tarfile.DIRTYPE
            member.linkname, member.size = link, len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    (tmp_path / "tar").write_bytes(packed.getvalue())
    stream_fd = os.open(tmp_path / "tar", os.O_RDONLY)

    def fill(root_fd: int) -> str:
        try:
            Filler(root_fd, stream_fd, keep_owners=False, follow=False).copy(b"/", b"t", contents=False)
        except (ImageError, PodError) as e:
            return e.message
        return "accepted"

    try:
        answer = as_worker("fill", world, fill)
    finally:
        os.close(stream_fd)
    assert words in str(answer)
    assert os.listdir(world) == ["t"]


def test_what_the_workers_can_do(tmp_path: Path) -> None:
    """The reading worker writes nowhere, the writing one makes no devices, programs or sockets, and neither starts, signals or connects anything."""
    (tmp_path / "file").write_text("text")
    null = os.stat("/dev/null").st_rdev

    def attempts(root_fd: int) -> list[int]:
        return [
            errno_of(lambda: os.open("file", os.O_WRONLY, dir_fd=root_fd)),
            errno_of(lambda: os.close(os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=root_fd))),
            errno_of(lambda: os.mknod("null", 0o20666, null, dir_fd=root_fd)),
            errno_of(lambda: os.kill(1, 0)),
            errno_of(os.fork),
            errno_of(lambda: os.setuid(1)),
        ]

    refused = {errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOSYS}
    packing = as_worker("pack", tmp_path, attempts)
    assert isinstance(packing, list)
    assert set(packing) <= refused, packing
    filling = as_worker("fill", tmp_path, attempts)
    assert isinstance(filling, list)
    assert filling[:2] == [0, 0]
    assert set(filling[2:]) <= refused, filling


@pytest.mark.parametrize(
    "users",
    [(), pytest.param(("--private-users",), marks=pods("user namespaces"))],
    ids=["host-ids", "private-users"],
)
def test_status_of_the_workers(rkt: Rkt, images: Images, users: tuple[str, ...]) -> None:
    """A worker has the published capabilities, the filter, its own namespaces, the app's root as its own, and of a pod with ids of its own no id of the host's."""
    image = images.busybox("example.com/flip")
    rkt.popen("run", INSECURE, *users, image, "--exec=/bin/sh", "--", "-c", "echo x >/mark; sleep 1000")
    uuid = rkt.wait_for_pod()
    wait_for(lambda: rkt.run("cp", f"{uuid}:/mark", "-").status == 0, "files of the app")
    for kind, words in (("pack", (f"{uuid}:/", "-")), ("fill", ("-", f"{uuid}:/"))):
        read_fd, write_fd = os.pipe()
        stdin, stdout = (read_fd, None) if kind == "fill" else (None, write_fd)
        with subprocess.Popen(
            rkt.command("cp", *words), env=rkt.environment(), stdin=stdin, stdout=stdout
        ) as process:
            seen = worker(f"rkt-{kind}", process.pid, is_confined)
            process.kill()
        os.close(read_fd)
        os.close(write_fd)
        assert seen.status["NoNewPrivs"] == "1"
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert seen.capabilities(name) == capabilities.mask(CAPABILITIES[kind]), (kind, name)
        assert (0 in seen.ids("Uid")) == (not users)
        assert "mark" in seen.root_entries
        for name, namespace in seen.namespaces.items():
            assert namespace != os.readlink(f"/proc/self/ns/{name}"), name
            assert namespace != os.readlink(f"/proc/{rkt.pid(uuid)}/ns/{name}"), name
        flags = {option for line in seen.mounts for option in line[5].split(",")}
        assert all({"nosuid", "nodev", "noexec"} <= set(line[5].split(",")) for line in seen.mounts)
        assert ("rw" in flags) == (kind == "fill")
    rkt.run("stop", "--force", uuid, check=0)


def test_devices_of_the_pod_are_not_opened(rkt: Rkt, images: Images, tmp_path: Path) -> None:
    """A tree with a device, a socket and a pipe is copied without them, and nobody waits for the pipe."""
    image = images.busybox("example.com/flip")
    script = "mkdir -p /d; mknod /d/pipe p; mknod /d/null c 1 3; echo x >/d/file; ln -s /dev /d/dev; echo >/ready; sleep 1000"
    rkt.popen("run", INSECURE, image, "--caps-retain=CAP_MKNOD", "--exec=/bin/sh", "--", "-c", script)
    uuid = rkt.wait_for_pod()
    wait_for(lambda: rkt.run("cp", f"{uuid}:/ready", "-").status == 0, "files of the app")
    result = rkt.run("cp", f"{uuid}:/d", str(tmp_path / "d"), check=0)
    assert '2 left out, neither files, directories nor links: "null", "pipe"' in result.stderr
    assert sorted(os.listdir(tmp_path / "d")) == ["dev", "file"]
    rkt.run("stop", "--force", uuid, check=0)


def test_a_root_that_was_taken_down(tmp_path: Path) -> None:
    """An app that is removed after its root was opened is named as the reason, and not the call that found no mount."""

    def body() -> str:
        libc.mount(b"tmpfs", bytes(tmp_path), b"tmpfs", 0, b"")
        opened = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
        libc.umount2(bytes(tmp_path), libc.MNT_DETACH)
        try:
            confine.take_world(opened, -1, writable=False)
        except OSError as e:
            return str(e.strerror)
        return ""

    assert run_isolated(body) == "the app was removed, or has ended, meanwhile"
