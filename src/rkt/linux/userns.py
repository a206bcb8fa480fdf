# SPDX-License-Identifier: Apache-2.0
"""User namespaces: ranges of ids, making one, idmapped mounts by it, and working as the owner of a pod's files.

Three views of one file's owner: on disk, on the host, in the pod. An idmapped mount turns the first into the second by
the map of a user namespace, the process's own user namespace turns the second into the third. With the same map for
both, what is root's on disk is root's in the pod, and no file is ever changed for it (CVE-2021-21284).
"""

from __future__ import annotations

import errno
import os

from rkt.linux import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

#: 2^32-1 means "no id" to the kernel.
_IDS = 0xFFFFFFFF
# struct vfs_ns_cap_data, <linux/capability.h>: the revision in the topmost byte, the owner in the last four.
_REVISION_2 = 2
_REVISION_3 = 3
_REVISION_2_BYTES = 20
_REVISION_3_BYTES = 24


class IdRange:
    """The ids ``0 .. count-1`` of a pod, which are ``first .. first+count-1`` on the host; users and groups alike."""

    __slots__ = ("count", "first")

    def __init__(self, first: int, count: int) -> None:
        """Check and keep.

        Raises:
            ValueError: the range is empty, holds root, or ends beyond the largest id.
        """
        if first < 1 or count < 1 or first + count > _IDS:
            raise ValueError(f"not a range of ids: {first}:{count}")
        self.first = first
        self.count = count

    @classmethod
    def parse(cls, text: str) -> IdRange:
        """Parse ``FIRST:COUNT`` (spec runtime §1.5).

        Raises:
            ValueError: it is something else.
        """
        first, _, count = text.partition(":")
        for word in (first, count):
            if not (word.isascii() and word.isdigit() and len(word) <= 10):
                raise ValueError(f"not a range of ids: {text!r}")
        return cls(int(first), int(count))

    def __str__(self) -> str:
        return f"{self.first}:{self.count}"

    def outside(self, number: int) -> int:
        """The host's id for one of the pod.

        Raises:
            OSError: ``EOVERFLOW``, the pod has no such id (invariant UN9).
        """
        if not 0 <= number < self.count:
            raise OSError(errno.EOVERFLOW, f"id {number} is outside the pod's, 0 to {self.count - 1}")
        return self.first + number

    def inside(self, number: int) -> int:
        """The pod's id for one of the host.

        Raises:
            OSError: ``EOVERFLOW``, it is not in the pod's range.
        """
        if not self.first <= number < self.first + self.count:
            raise OSError(errno.EOVERFLOW, f"id {number} is not in the pod's range {self}")
        return number - self.first

    def seen_inside(self, number: int) -> int:
        """The pod's id for one out of its range; any other id is itself."""
        return number - self.first if self.first <= number < self.first + self.count else number


class UserNamespace:
    """A pod's range with a user namespace that has it as its map, for idmapped mounts.

    Attributes:
        ids: the range.
        idmap_fd: of the namespace, owned by this object.
    """

    __slots__ = ("idmap_fd", "ids")

    def __init__(self, ids: IdRange, idmap_fd: int) -> None:
        self.ids = ids
        self.idmap_fd = idmap_fd

    @classmethod
    def create(cls, ids: IdRange) -> UserNamespace:
        """Make a namespace that nobody is in: it lives as long as the descriptor.

        Raises:
            OSError: the kernel refuses: ``ENOSPC`` when there may be no more of them, ``EPERM`` below a chroot.
        """
        read_end, write_end = os.pipe()
        try:
            pid, pidfd = libc.clone3(libc.CLONE_NEWUSER)
            if pid == 0:
                _wait_for_end(read_end, write_end)
            try:
                write_maps(pid, ids)
                fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.close(write_end)
                write_end = -1
                os.close(pidfd)
                os.waitpid(pid, 0)
        finally:
            os.close(read_end)
            if write_end >= 0:
                os.close(write_end)
        return cls(ids, fd)

    def close(self) -> None:
        """Close the descriptor; harmless when closed before."""
        if self.idmap_fd >= 0:
            os.close(self.idmap_fd)
            self.idmap_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _wait_for_end(read_end: int, write_end: int) -> None:
    try:
        os.close(write_end)
        os.read(read_end, 1)
    finally:
        os._exit(0)


def write_maps(pid: int, ids: IdRange) -> None:
    """Give a process that was born in a new user namespace its ids; once only.

    Written by a process with CAP_SETUID and CAP_SETGID, so ``setgroups`` stays allowed (CVE-2014-8989 asks that of
    processes without them).
    """
    text = b"0 %d %d\n" % (ids.first, ids.count)
    for name in ("uid_map", "gid_map"):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)


def assume_owner(number: int) -> None:
    """Make the user and group ``number`` the owner of what this process makes from now on; its capabilities stay.

    The kernel takes the capabilities for files away with the id of root, so they are raised again.

    Raises:
        OSError: the kernel did not take it.
    """
    sets = libc.capget()
    libc.set_file_system_ids(number, number)
    libc.capset(*sets)


def shift_capabilities(value: bytes, ids: IdRange) -> bytes:
    """``security.capability`` as the host has to write it where the owner is the pod's root instead of the host's.

    Raises:
        OSError: ``EOVERFLOW``, it is of another user namespace's root.
    """
    revision = int.from_bytes(value[:4], "little") >> 24
    if revision == _REVISION_2 and len(value) == _REVISION_2_BYTES:
        owner = 0
    elif revision == _REVISION_3 and len(value) == _REVISION_3_BYTES:
        owner = int.from_bytes(value[20:], "little")
    else:
        raise OSError(errno.EINVAL, "not the value of security.capability")
    flags = int.from_bytes(value[:4], "little") & 0xFFFFFF | _REVISION_3 << 24
    return flags.to_bytes(4, "little") + value[4:20] + ids.outside(owner).to_bytes(4, "little")


def unshift_capabilities(value: bytes, ids: IdRange) -> bytes:
    """The reverse: what the pod's root gave, as the host's root would have given it."""
    if int.from_bytes(value[:4], "little") >> 24 != _REVISION_3 or len(value) != _REVISION_3_BYTES:
        return value  # of a layer below, whose owner was never shifted
    owner = ids.seen_inside(int.from_bytes(value[20:], "little"))
    flags = int.from_bytes(value[:4], "little") & 0xFFFFFF
    if owner == 0:
        return (flags | _REVISION_2 << 24).to_bytes(4, "little") + value[4:20]
    return value[:20] + owner.to_bytes(4, "little")
