# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from rkt.linux import capabilities, libc, mount, namespaces, network_lo
from rkt.schema.isolators import DEFAULT_CAPABILITIES
from tests.lib.isolated import errno_of, run_isolated

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


def touch(path: str) -> None:
    """Make an empty file."""
    with open(path, "x", encoding="utf-8"):
        pass


def read_text(path: str) -> str:
    """Content of a file."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def directories(top: Path, *names: str) -> list[str]:
    """Make directories, and say where."""
    for name in names:
        (top / name).mkdir(parents=True)
    return [str(top / name) for name in names]


def test_overlay_with_awkward_names(tmp_path: Path) -> None:
    """Commas, colons, backslashes, spaces and line breaks in any of the paths are taken as they are."""
    awkward = "a,b:c\\d e\n#\\,"
    paths = directories(tmp_path, f"1{awkward}", f"2{awkward}", f"u{awkward}", f"w{awkward}", f"t{awkward}")
    lower, lowest, upper, work, target = paths

    def check() -> Any:
        touch(f"{lower}/one")
        touch(f"{lowest}/two")
        mount.overlay([lower, lowest], upper, work, target)
        touch(f"{target}/three")
        entry = mount.mountinfo()[-1]
        return sorted(os.listdir(target)), os.listdir(upper), entry.point, entry.options

    names, changed, point, options = run_isolated(check)
    assert names == ["one", "three", "two"]
    assert changed == ["three"]
    assert point == target
    assert {"nosuid", "nodev"} <= set(options.split(","))


def test_overlay_order_and_whiteouts(tmp_path: Path) -> None:
    """The first layer is on top, and what is removed from the overlay stays in the layers."""
    top, bottom, upper, work, target = directories(tmp_path, "top", "bottom", "upper", "work", "target")

    def check() -> Any:
        for directory, text in ((top, "top"), (bottom, "bottom")):
            with open(f"{directory}/file", "w", encoding="utf-8") as file:
                file.write(text)
        mount.overlay([top, bottom], upper, work, target)
        text = read_text(f"{target}/file")
        os.unlink(f"{target}/file")
        return text, os.listdir(target), os.listdir(top), os.listdir(bottom)

    assert run_isolated(check) == ["top", [], ["file"], ["file"]]


def test_overlay_of_many_layers(tmp_path: Path) -> None:
    """More layers than fit into a page of options are mounted, with a relative target and without moving the caller."""
    lowers = directories(tmp_path, *[f"layer-{'x' * 100}-{number}" for number in range(300)])
    upper, work, _ = directories(tmp_path, "up,per", "work", "target")

    def check() -> Any:
        for number, lower in enumerate(lowers):
            touch(f"{lower}/{number}")
        os.chdir(tmp_path)
        before = len(os.listdir("/proc/self/fd"))
        mount.overlay(lowers, upper, work, "target")
        touch("target/new")
        return (
            len(os.listdir("target")),
            os.listdir(upper),
            os.getcwd(),
            len(os.listdir("/proc/self/fd")) - before,
        )

    assert run_isolated(check) == [301, ["new"], str(tmp_path), 0]


def test_overlay_of_too_many_layers(tmp_path: Path) -> None:
    """Layers beyond what the options can name are an error and not a shorter list."""
    (lower,) = directories(tmp_path, "lower" + "x" * 100)
    (target,) = directories(tmp_path, "target")
    assert (
        run_isolated(lambda: errno_of(lambda: mount.overlay([lower] * 2000, None, None, target)))
        == errno.E2BIG
    )


def test_read_only_overlay(tmp_path: Path) -> None:
    """Without an upper directory nothing can be written."""
    first, second, target = directories(tmp_path, "1", "2", "target")

    def check() -> Any:
        mount.overlay([first, second], None, None, target)
        return errno_of(lambda: touch(f"{target}/x"))

    assert run_isolated(check) == errno.EROFS


def test_bind_is_read_only_at_every_depth(tmp_path: Path) -> None:
    """Invariant VL2: a read-only bind covers the mounts below, and the source stays writable."""
    source, target = directories(tmp_path, "source", "target")
    (tmp_path / "source" / "below").mkdir()

    def check() -> Any:
        mount.attach(mount.create(b"tmpfs"), f"{source}/below")
        mount.bind(source, target, attributes=mount.READ_ONLY | mount.UNTRUSTED)
        refused = [errno_of(lambda path=path: touch(path)) for path in (f"{target}/x", f"{target}/below/x")]  # type: ignore[misc]
        touch(f"{source}/below/y")
        return refused, os.path.exists(f"{target}/below/y")

    assert run_isolated(check) == [[errno.EROFS, errno.EROFS], True]


def test_bind_by_descriptor(tmp_path: Path) -> None:
    """Invariant RN3: once opened, neither source nor target can be swapped for something else."""
    source, target, evil = directories(tmp_path, "source", "target", "evil")

    def check() -> Any:
        touch(f"{source}/right")
        touch(f"{evil}/wrong")
        source_fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
        target_fd = os.open(target, os.O_PATH | os.O_DIRECTORY)
        os.rename(source, f"{source}-moved")
        os.symlink(evil, source)
        os.rename(target, f"{target}-moved")
        os.symlink(evil, target)
        mount.bind(source_fd, target_fd)
        return os.listdir(f"{target}-moved"), os.listdir(evil)

    assert run_isolated(check) == [["right"], ["wrong"]]


def test_bind_does_not_follow_the_source(tmp_path: Path) -> None:
    """A symbolic link as source is not followed."""
    (target,) = directories(tmp_path, "target")
    (tmp_path / "link").symlink_to("/etc")

    def check() -> Any:
        failed = errno_of(lambda: mount.bind(str(tmp_path / "link"), target))
        return failed, os.listdir(target)

    failed, names = run_isolated(check)
    assert failed in {errno.ENOTDIR, errno.EINVAL, errno.ELOOP}
    assert names == []


def test_bind_of_a_file(tmp_path: Path) -> None:
    """A file is bound onto a file."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)

    def check() -> Any:
        mount.bind(str(tmp_path / "one"), str(tmp_path / "two"), attributes=mount.READ_ONLY)
        text = read_text(str(tmp_path / "two"))
        return text, errno_of(lambda: os.close(os.open(tmp_path / "two", os.O_WRONLY)))

    assert run_isolated(check) == ["one", errno.EROFS]


def test_idmapped_clone(tmp_path: Path) -> None:
    """A clone shifted by a user namespace shows other owners, and the files keep theirs."""
    source, target = directories(tmp_path, "source", "target")

    def check() -> Any:
        touch(f"{source}/file")
        pid, fd = libc.clone3(libc.CLONE_NEWUSER)
        if pid == 0:
            libc.prctl(libc.PR_SET_PDEATHSIG, 9)
            while True:
                os.read(os.pipe()[0], 1)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w", encoding="utf-8") as file:
                file.write("0 100000 65536\n")
        user_fd = namespaces.open_namespace(pid, "user")
        try:
            mount.bind(source, target, idmap_fd=user_fd)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.close(fd)
        return os.stat(f"{target}/file").st_uid, os.stat(f"{source}/file").st_uid

    try:
        assert run_isolated(check) == [100000, 0]
    except AssertionError as e:
        if "mount_setattr" in str(e) and "Invalid argument" in str(e):
            pytest.skip("the file system of the temporary directory cannot be idmapped")
        raise


def test_create_with_attributes(tmp_path: Path) -> None:
    """A new file system has its options and attributes before anybody can see it."""
    (target,) = directories(tmp_path, "target")

    def check() -> Any:
        options = [(b"mode", b"710"), (b"size", b"1m")]
        attributes = mount.UNTRUSTED | libc.MOUNT_ATTR_NOEXEC
        mount.attach(mount.create(b"tmpfs", options, attributes=attributes), target)
        entry = mount.mountinfo()[-1]
        return entry.options, os.stat(target).st_mode & 0o7777

    options, mode = run_isolated(check)
    assert {"nosuid", "nodev", "noexec"} <= set(options.split(","))
    assert mode == 0o710


def test_restrict(tmp_path: Path) -> None:
    """Attributes can be added to what is mounted, with everything below it."""
    (target,) = directories(tmp_path, "target")

    def check() -> Any:
        mount.attach(mount.create(b"tmpfs"), target)
        os.mkdir(f"{target}/below")
        mount.attach(mount.create(b"tmpfs"), f"{target}/below")
        mount.restrict(target, mount.READ_ONLY)
        return errno_of(lambda: touch(f"{target}/x")), errno_of(lambda: touch(f"{target}/below/x"))

    assert run_isolated(check) == [errno.EROFS, errno.EROFS]


def test_unmount_below(tmp_path: Path) -> None:
    """Everything at and below a path goes, stacked and busy mounts too, and nothing beside it."""
    top, beside = directories(tmp_path, "t op", "t op2")

    def check() -> Any:
        for path in (top, top, beside):
            mount.attach(mount.create(b"tmpfs"), path)
        os.makedirs(f"{top}/a/b")
        mount.attach(mount.create(b"tmpfs"), f"{top}/a/b")
        mount.attach(mount.create(b"tmpfs"), f"{top}/a")
        held = os.open(f"{top}/a", os.O_RDONLY)
        count = mount.unmount_below(top)
        os.close(held)
        return count, mount.mounts_below(top), mount.mounts_below(beside)

    assert run_isolated(check) == [4, [], [beside]]


def test_unmount_below_keeps_the_top(tmp_path: Path) -> None:
    """Only what is below goes when the top is to stay."""
    (top,) = directories(tmp_path, "top")

    def check() -> Any:
        mount.attach(mount.create(b"tmpfs"), top)
        os.mkdir(f"{top}/a")
        mount.attach(mount.create(b"tmpfs"), f"{top}/a")
        return mount.unmount_below(top, itself=False), mount.mounts_below(top)

    assert run_isolated(check) == [1, [top]]


def test_unmount_does_not_reach_the_source(tmp_path: Path) -> None:
    """Taking down a recursive bind of a shared tree leaves the mounts of that tree alone."""
    source, target = directories(tmp_path, "source", "target")

    def check() -> Any:
        mount.attach(mount.create(b"tmpfs"), source)
        libc.mount(None, source.encode(), None, libc.MS_SHARED)
        os.mkdir(f"{source}/inner")
        mount.attach(mount.create(b"tmpfs"), f"{source}/inner")
        mount.bind(source, target)
        mount.unmount_below(target)
        return mount.mounts_below(source), mount.mounts_below(target)

    assert run_isolated(check) == [[source, f"{source}/inner"], []]


def test_slave_does_not_leak(tmp_path: Path) -> None:
    """Mounts of a slave namespace do not reach the one it came from, while the other way they do."""
    ours, theirs = directories(tmp_path, "ours", "theirs")

    def check() -> Any:
        mount.attach(mount.create(b"tmpfs"), str(tmp_path))
        for path in (ours, theirs):
            os.mkdir(path)
        libc.mount(None, os.fsencode(tmp_path), None, libc.MS_SHARED)

        def inner() -> Any:
            libc.unshare(libc.CLONE_NEWNS)
            mount.make_slave_recursive()
            mount.attach(mount.create(b"tmpfs"), theirs)
            mount_outside()
            return mount.mounts_below(ours)

        def mount_outside() -> None:
            os.write(ask[1], b"x")
            os.read(done[0], 1)

        ask, done = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(ask[0], 1)
            mount.attach(mount.create(b"tmpfs"), ours)
            os.write(done[1], b"x")
            os._exit(0)
        seen = run_isolated(inner, 0)
        os.waitpid(pid, 0)
        return seen, mount.mounts_below(theirs), mount.mounts_below(ours)

    assert run_isolated(check) == [[ours], [], [ours]]


def test_loopback() -> None:
    """In a new network namespace the loopback interface comes up, and twice is fine."""

    def check() -> Any:
        import socket

        refused = errno_of(lambda: socket.create_connection(("127.0.0.1", 9), 1))
        network_lo.loopback_up()
        network_lo.loopback_up()
        return refused, errno_of(lambda: socket.create_connection(("127.0.0.1", 9), 1))

    assert run_isolated(check, libc.CLONE_NEWNET) == [errno.ENETUNREACH, errno.ECONNREFUSED]


def test_join_by_pidfd() -> None:
    """Several namespaces of a process are joined at once, and then nothing differs."""
    pid, fd = libc.clone3(libc.CLONE_NEWUTS | libc.CLONE_NEWIPC | libc.CLONE_NEWNET | libc.CLONE_NEWNS)
    if pid == 0:
        libc.prctl(libc.PR_SET_PDEATHSIG, 9)
        while True:
            os.read(os.pipe()[0], 1)

    def check() -> Any:
        before = namespaces.differing(pid)
        namespaces.join(fd, before)
        return before, namespaces.differing(pid)

    try:
        before, after = run_isolated(check, 0)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(fd)
    assert before == libc.CLONE_NEWUTS | libc.CLONE_NEWIPC | libc.CLONE_NEWNET | libc.CLONE_NEWNS
    assert after == 0


def test_differing_of_a_dead_process() -> None:
    """A process that is gone is an error and not one without differences."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(FileNotFoundError):
        namespaces.differing(pid)


def test_giving_up_capabilities() -> None:
    """Invariants RN9 and RN10: root keeps exactly the eleven, another user none, and nobody inherits any."""

    def give_up(uid: int) -> Any:
        wanted = capabilities.mask(DEFAULT_CAPABILITIES)
        capabilities.drop_bounding(wanted, capabilities.last_capability())
        capabilities.clear_ambient()
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        capabilities.limit(wanted if uid == 0 else 0)
        return capabilities.read_status()

    eleven = capabilities.mask(DEFAULT_CAPABILITIES)
    assert run_isolated(lambda: give_up(0), 0) == {
        "CapInh": 0, "CapPrm": eleven, "CapEff": eleven, "CapBnd": eleven, "CapAmb": 0
    }  # fmt: skip
    assert run_isolated(lambda: give_up(1000), 0) == {
        "CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": eleven, "CapAmb": 0
    }  # fmt: skip
