# SPDX-License-Identifier: Apache-2.0
"""Users and groups as images write them: names, numbers, or the owner of a file (spec runtime §3.7).

The image's account files are hostile: opened below the root's descriptor, regular files only, without blocking, at most
1 MiB (CVE-2024-9676). Digits are always an id, never a name (CVE-2016-3697).
"""

from __future__ import annotations

import errno
import os

from rkt.errors import Stage1Error
from rkt.linux import files, libc
from rkt.schema.appc import ANNOTATION_DOCKER_REPOSITORY, ANNOTATION_DOCKER_USER
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypeAlias

    from rkt.linux.userns import IdRange

    class Tree(Protocol):
        """A root that is not mounted."""

        def open(self, path: bytes, flags: int) -> int:
            """A descriptor of a file below it, wherever links lead."""

    #: A descriptor of the app's root, or what stands for one.
    Root: TypeAlias = int | Tree

#: Largest account file that is read, in bytes.
MAX_ACCOUNT_FILE_BYTES = 1 << 20
#: 2^32-1 means "no id" to the kernel.
MAX_ID = 0xFFFFFFFE


def resolve_user(root: Root, user: str, ids: IdRange | None = None) -> int:
    """The uid of ``user`` in the image below ``root``, whose files show the host's ids for ``ids`` of the pod.

    Raises:
        Stage1Error: no such user, an id out of range, or a path that does not exist in the image.
    """
    return _resolve(root, user, b"etc/passwd", "user", ids)


def resolve_group(root: Root, group: str, ids: IdRange | None = None) -> int:
    """Likewise for a group."""
    return _resolve(root, group, b"etc/group", "group", ids)


def resolve_both(
    root: Root, user: str, group: str, *, annotations: dict[str, str], ids: IdRange | None = None
) -> tuple[int, int]:
    """The uid and the gid of an app.

    Args:
        root: the app's root.
        user: as the app section that counts has it.
        group: likewise.
        annotations: the image's. One of Docker may name a user only, and then gets that user's group, or 0 where the
            account file does not know the number. One that somebody converted may have lost that it was so: the
            converter wrote the same word for the group, so a group of that name need not exist.
        ids: as for ``resolve_user``.
    Raises:
        Stage1Error: as ``resolve_user``.
    """
    uid = resolve_user(root, user, ids)
    if user == group == annotations.get(ANNOTATION_DOCKER_USER) and not user.startswith("/"):
        return uid, _own_group(root, user, uid)
    try:
        return uid, resolve_group(root, group, ids)
    except Stage1Error:
        if ANNOTATION_DOCKER_REPOSITORY in annotations and user == group and not group.startswith("/"):
            return uid, uid
        raise


def _own_group(root: Root, user: str, uid: int) -> int:
    """The group that the account file has for a user, by name, or by number where a number was given."""
    by_name = not is_number(user)
    for name, fields in _entries(root, b"etc/passwd"):
        numbers = fields[1:3]
        if not all(number.isdigit() and len(number) <= 10 for number in numbers) or len(numbers) < 2:
            continue
        if (name == user.encode() if by_name else int(numbers[0]) == uid) and int(numbers[1]) <= MAX_ID:
            return int(numbers[1])
    return 0


def _resolve(root: Root, text: str, account_file: bytes, what: str, ids: IdRange | None) -> int:
    if text == "root":
        return 0
    if is_number(text):
        number = int(text) if len(text) <= 10 else MAX_ID + 1
        if number > MAX_ID:
            raise Stage1Error(f"{what} id {text!r} is out of range, at most {MAX_ID}")
        return number
    if text.startswith("/"):
        return _owner(root, text, what, ids)
    for name, fields in _entries(root, account_file):
        if name == text.encode() and len(fields) >= 2 and fields[1].isdigit() and len(fields[1]) <= 10:
            number = int(fields[1])
            if number <= MAX_ID:
                return number
    raise Stage1Error(
        f'"{text}" {what} not found',
        hint=f"give a number, or a name that is in the image's /{account_file.decode()}",
    )


def _owner(root: Root, path: str, what: str, ids: IdRange | None) -> int:
    try:
        fd = _open(root, path.encode(), os.O_PATH | os.O_NOFOLLOW)
    except OSError as e:
        raise Stage1Error(
            f"cannot take the {what} from the owner of {path!r}: {os.strerror(e.errno or 0).lower()}"
        ) from e
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    number = status.st_uid if what == "user" else status.st_gid
    if ids is None:
        return number
    try:
        return ids.inside(number)
    except OSError as e:
        raise Stage1Error(f"the {what} that owns {path!r} is not among the pod's ids") from e


def _open(root: Root, path: bytes, flags: int) -> int:
    if isinstance(root, int):
        return libc.openat2(root, path, flags, libc.RESOLVE_IN_ROOT)
    return root.open(path, flags)


def _entries(root: Root, account_file: bytes) -> list[tuple[bytes, list[bytes]]]:
    try:
        fd = _open(root, account_file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as e:
        if e.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return []
        raise
    try:
        text = files.read_fd_bounded(fd, MAX_ACCOUNT_FILE_BYTES, os.fsdecode(account_file))
    except OSError as e:
        raise Stage1Error(f"the image's /{os.fsdecode(account_file)} cannot be used: {e.strerror}") from e
    finally:
        os.close(fd)
    entries = []
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 3:
            entries.append((fields[0], fields[1:]))
    return entries
