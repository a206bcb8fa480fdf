# SPDX-License-Identifier: Apache-2.0
"""Mounts: overlays, binds by descriptor, fresh file systems, propagation, what is mounted, taking it down.

Prefer descriptors: a path may be swapped for a symbolic link between looking and mounting (invariant RN3). ``clone``
and ``create`` give detached mounts, already with their attributes, that ``attach`` puts onto an open directory or file.
"""

from __future__ import annotations

import errno
import os

from rkt.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Path = str | bytes
    Place = int | str | bytes

#: Attributes for data that a pod must neither write nor get privileges or devices from.
READ_ONLY = libc.MOUNT_ATTR_RDONLY
UNTRUSTED = libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV

# mount(2) copies one page of options and cuts the rest off without an error.
_OPTIONS_LIMIT_BYTES = 4095
# index: a lower directory shared by several overlays, or an upper one used again above another lower, would be
# refused with ESTALE or EBUSY. metacopy, redirect_dir: the lower layers are an image author's, so nothing in them may
# redirect to another file (invariant UN6); the host's module parameters must not decide this.
_OVERLAY_OPTIONS = b"index=off,metacopy=off,redirect_dir=nofollow"
_UNMOUNT_ROUNDS = 64


def overlay(
    lowers: Sequence[Path],
    upper: Path | None,
    work: Path | None,
    target: Path,
    *,
    flags: int = libc.MS_NOSUID | libc.MS_NODEV,
    options: Sequence[bytes] = (),
) -> None:
    """Mount an overlay file system.

    Args:
        lowers: read-only directories, the topmost first.
        upper: directory that receives changes, None for a read-only overlay.
        work: empty directory on the file system of ``upper``, None with it.
        target: existing directory to mount on.
        flags: ``MS_*`` bits.
        options: further overlay or security options, already quoted for the kernel.
    Raises:
        OSError: ``E2BIG`` for more layers than the options can name, or what the kernel says.
    Source: Documentation/filesystems/overlayfs.rst.
    """
    tail = b",".join((_OVERLAY_OPTIONS, *options))
    if upper is not None and work is not None:
        tail += b",upperdir=" + _escape(os.fsencode(upper)) + b",workdir=" + _escape(os.fsencode(work))
    data = b"lowerdir=" + b":".join([_escape(os.fsencode(lower)) for lower in lowers]) + b"," + tail
    if len(data) <= _OPTIONS_LIMIT_BYTES:
        libc.mount(b"overlay", os.fsencode(target), b"overlay", flags, data)
        return
    # Too long for one page: name each layer by an open descriptor, relative to /proc/self/fd. Three bytes instead of
    # a hundred per layer reach beyond the kernel's own limit of 500 layers.
    target = os.path.abspath(os.fsencode(target))
    fds: list[int] = []
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for lower in lowers:
            fds.append(os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))  # noqa: PERF401 - closed below
        tail = b",".join((_OVERLAY_OPTIONS, *options))
        if upper is not None and work is not None:
            fds.extend(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for name in (upper, work))
            tail += b",upperdir=%d,workdir=%d" % (fds[-2], fds[-1])
        data = b"lowerdir=" + b":".join([b"%d" % fd for fd in fds[: len(lowers)]]) + b"," + tail
        if len(data) > _OPTIONS_LIMIT_BYTES:
            raise OSError(
                errno.E2BIG, f"{len(lowers)} layers do not fit into the options", os.fsdecode(target)
            )
        os.chdir(b"/proc/self/fd")
        try:
            libc.mount(b"overlay", target, b"overlay", flags, data)
        finally:
            os.fchdir(here)
    finally:
        os.close(here)
        for fd in fds:
            os.close(fd)


def _escape(path: bytes) -> bytes:
    return path.replace(b"\\", b"\\\\").replace(b":", b"\\:").replace(b",", b"\\,")


def make_slave_recursive(path: bytes = b"/") -> None:
    """Let mounts of the host still arrive below ``path``, and none of ours leave."""
    libc.mount(None, path, None, libc.MS_REC | libc.MS_SLAVE)


def make_private_recursive(path: bytes = b"/") -> None:
    """Let mounts below ``path`` neither arrive nor leave."""
    libc.mount(None, path, None, libc.MS_REC | libc.MS_PRIVATE)


def enter_own_namespace() -> None:
    """Move the calling process, which must have one thread, to a mount namespace of its own, out of which no mount gets.

    A process below chroot(2) gets its root as the root of that namespace: a root that is no mount point could neither
    be given a propagation nor be left by pivot_root(2). The working directory stays the same path.

    Source: mount_namespaces(7), pivot_root(2), setns(2).
    """
    libc.unshare(libc.CLONE_NEWNS)
    try:
        make_slave_recursive()
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        _make_root_a_mount()


def _make_root_a_mount() -> None:
    here = os.getcwdb()
    root_fd = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    namespace_fd = os.open(b"/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    tree_fd = -1
    try:
        # Above the caller's root, in a copy of the host's mounts that nobody else sees: propagation has to end there
        # before anything is mounted, and what is above has to go, or whoever joined the namespace would see it.
        libc.setns(namespace_fd, libc.CLONE_NEWNS)
        make_slave_recursive()
        tree_fd = clone(root_fd)
        attach(os.dup(tree_fd), root_fd)
        os.fchdir(tree_fd)
        libc.pivot_root(b".", b".")
        libc.umount2(b".", libc.MNT_DETACH)
        os.chdir(here)
    finally:
        for fd in (root_fd, namespace_fd, tree_fd):
            if fd >= 0:
                os.close(fd)


def clone(
    source: Place,
    *,
    attributes: int = 0,
    recursive: bool = True,
    propagation: int = 0,
    idmap_fd: int = -1,
) -> int:
    """A detached copy of the mount at ``source``, for a bind mount.

    Args:
        source: open descriptor (``O_PATH`` will do) or path; a final symbolic link is not followed.
        attributes: ``MOUNT_ATTR_*`` bits to set on it and, when recursive, on everything below (invariant VL2).
        recursive: whether mounts below are copied too.
        propagation: one of ``MS_PRIVATE``, ``MS_SLAVE``, ``MS_SHARED``, or 0 to keep it.
        idmap_fd: user namespace to shift owners by (adds ``MOUNT_ATTR_IDMAP``), -1 for none.
    Returns:
        A descriptor that the caller owns; closing it drops the mount unless it was attached.
    """
    depth = libc.AT_RECURSIVE if recursive else 0
    flags = libc.OPEN_TREE_CLONE | depth | libc.AT_SYMLINK_NOFOLLOW
    if isinstance(source, int):
        tree = libc.open_tree(source, b"", flags | libc.AT_EMPTY_PATH)
    else:
        tree = libc.open_tree(libc.AT_FDCWD, os.fsencode(source), flags)
    try:
        if idmap_fd >= 0:
            attributes |= libc.MOUNT_ATTR_IDMAP
        if attributes or propagation:
            libc.mount_setattr(
                tree,
                b"",
                libc.AT_EMPTY_PATH | depth,
                set_=attributes,
                propagation=propagation,
                userns_fd=max(idmap_fd, 0),
            )
    except BaseException:
        os.close(tree)
        raise
    return tree


def create(fstype: bytes, options: Sequence[tuple[bytes, bytes | None]] = (), *, attributes: int = 0) -> int:
    """A new file system as a detached mount.

    Args:
        fstype: such as ``tmpfs`` or ``proc``.
        options: (key, value) pairs, the value None for a flag, at most 255 bytes.
        attributes: ``MOUNT_ATTR_*`` bits.
    Returns:
        A descriptor that the caller owns, as for ``clone``.
    """
    context = libc.fsopen(fstype)
    try:
        for key, value in options:
            libc.fsconfig(
                context, libc.FSCONFIG_SET_FLAG if value is None else libc.FSCONFIG_SET_STRING, key, value
            )
        libc.fsconfig(context, libc.FSCONFIG_CMD_CREATE)
        return libc.fsmount(context, attributes)
    finally:
        os.close(context)


def attach(tree_fd: int, target: Place) -> None:
    """Put a detached mount onto a directory or file, and close its descriptor.

    Args:
        tree_fd: from ``clone`` or ``create``; closed whatever happens.
        target: open descriptor (``O_PATH`` will do) or path.
    """
    try:
        if isinstance(target, int):
            flags = libc.MOVE_MOUNT_F_EMPTY_PATH | libc.MOVE_MOUNT_T_EMPTY_PATH
            libc.move_mount(tree_fd, b"", target, b"", flags)
        else:
            libc.move_mount(tree_fd, b"", libc.AT_FDCWD, os.fsencode(target), libc.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree_fd)


def bind(
    source: Place,
    target: Place,
    *,
    attributes: int = 0,
    recursive: bool = True,
    propagation: int = 0,
    idmap_fd: int = -1,
) -> None:
    """Bind mount by descriptors or paths; arguments as for ``clone`` and ``attach``.

    The attributes are set before the mount becomes visible, so that there is no moment in which it is writable.
    """
    tree = clone(
        source, attributes=attributes, recursive=recursive, propagation=propagation, idmap_fd=idmap_fd
    )
    attach(tree, target)


def restrict(target: Place, attributes: int, *, recursive: bool = True) -> None:
    """Set ``MOUNT_ATTR_*`` bits on an existing mount and, when recursive, on everything below."""
    depth = libc.AT_RECURSIVE if recursive else 0
    if isinstance(target, int):
        libc.mount_setattr(target, b"", depth | libc.AT_EMPTY_PATH, set_=attributes)
    else:
        libc.mount_setattr(libc.AT_FDCWD, os.fsencode(target), depth, set_=attributes)


class Mount:
    """One line of ``/proc/PID/mountinfo``."""

    __slots__ = (
        "device",
        "fstype",
        "mount_id",
        "options",
        "parent_id",
        "point",
        "propagation",
        "root",
        "source",
        "super_options",
    )

    def __init__(self, line: bytes) -> None:
        """Parse a line.

        Raises:
            ValueError: the line is not as proc_pid_mountinfo(5) says.
        """
        left, separator, right = line.partition(b" - ")
        fields, tail = left.split(b" "), right.split(b" ")
        if not separator or len(fields) < 6 or len(tail) < 3:
            raise ValueError(f"not a line of mountinfo: {line!r}")
        self.mount_id = int(fields[0])
        self.parent_id = int(fields[1])
        self.device = fields[2].decode()
        self.root = unescape(fields[3])
        self.point = unescape(fields[4])
        self.options = fields[5].decode("ascii", "surrogateescape")
        #: Optional fields, such as ``shared:5 master:1``; empty for a private mount.
        self.propagation = b" ".join(fields[6:]).decode("ascii", "surrogateescape")
        self.fstype = tail[0].decode("ascii", "surrogateescape")
        self.source = unescape(tail[1])
        self.super_options = os.fsdecode(tail[2])


def mountinfo(pid: int | str = "self") -> list[Mount]:
    """Every mount a process sees, in the kernel's order: a mount comes after what it covers."""
    return [Mount(line) for line in _lines(pid)]


def mounts_below(path: Path) -> list[str]:
    """Mount points at and below ``path`` (absolute, without symbolic links), in the kernel's order."""
    wanted = os.fsencode(path).rstrip(b"/")
    found = []
    for line in _lines("self"):
        point = line.split(b" ", 5)[4]
        if b"\\" in point:
            point = os.fsencode(unescape(point))
        if point == (wanted or b"/") or point.startswith(wanted + b"/"):
            found.append(os.fsdecode(point))
    return found


def unmount_below(path: Path, *, itself: bool = True) -> int:
    """Unmount everything at and below ``path``, deepest first, lazily where it is busy.

    All mounts are made private first: an unmount reaches whatever shares with the mount above, so taking down a recursive
    bind of a shared tree would take down the tree itself.

    Args:
        path: absolute, without symbolic links.
        itself: whether a mount at ``path`` goes too.
    Returns:
        How many mounts went.
    Raises:
        OSError: the kernel refuses, or mounts keep appearing (``EBUSY``).
    """
    top = os.fsdecode(path).rstrip("/") or "/"
    count = 0
    for _ in range(_UNMOUNT_ROUNDS):
        points = [point for point in mounts_below(top) if itself or point != top]
        if not points:
            return count
        for point in points:
            _make_private(os.fsencode(point))
        for point in reversed(points):
            count += _unmount(os.fsencode(point))
    raise OSError(errno.EBUSY, "mounts keep appearing", top)


def _make_private(point: bytes) -> None:
    try:
        libc.mount(None, point, None, libc.MS_PRIVATE)
    except OSError as e:
        if e.errno not in {errno.EINVAL, errno.ENOENT}:  # covered by another mount, or gone meanwhile
            raise


def _unmount(point: bytes) -> int:
    try:
        libc.umount2(point, libc.UMOUNT_NOFOLLOW)
    except OSError as e:
        if e.errno == errno.EBUSY:
            libc.umount2(point, libc.UMOUNT_NOFOLLOW | libc.MNT_DETACH)
        elif e.errno in {errno.EINVAL, errno.ENOENT}:
            return 0  # gone meanwhile, with a lazily detached parent or by somebody else's hand
        else:
            raise
    return 1


def _lines(pid: int | str) -> Iterator[bytes]:
    with open(f"/proc/{pid}/mountinfo", "rb", buffering=0) as file:
        return iter(file.readall().splitlines())


def unescape(field: bytes) -> str:
    """A path as the tables below ``/proc`` write it."""
    if b"\\" in field:
        head, *parts = field.split(b"\\")
        # The kernel writes each of space, tab, newline, backslash and # as a backslash and three octal digits.
        field = head + b"".join([bytes((int(part[:3], 8),)) + part[3:] for part in parts])
    return os.fsdecode(field)
