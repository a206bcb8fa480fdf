# SPDX-License-Identifier: Apache-2.0
"""What an App Container Image may contain (spec cli §9.1; invariants UN1, UN4, UN12, UN19).

An ACI is a tar, possibly compressed, with a file ``manifest`` and a directory ``rootfs``, in any order, nothing twice
and nothing else at the top. Names may start with ``./``.
"""

from __future__ import annotations

import hashlib

from rkt.errors import ImageError
from rkt.image import tarformat
from rkt.image.compression import KINDS
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.tarformat import Member, show
from rkt.image.tarstream import TarStream, check_symlink, duplicate, split_path
from rkt.values import ImageID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rkt.image.limits import Limits
    from rkt.image.walk import Path

MANIFEST = b"manifest"
ROOTFS = b"rootfs"


class Layout:
    """Holds an archive's members against the rules, one after the other."""

    __slots__ = ("_has_manifest", "_has_root_entry", "_has_rootfs", "_limits")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._has_manifest = False
        self._has_rootfs = False
        self._has_root_entry = False

    def place(self, member: Member) -> Path:
        """The path of a member.

        Raises:
            ImageError: the member may not be in an ACI.
        """
        path = split_path(member.path, self._limits)
        if not path:
            if member.kind != tarformat.DIRECTORY:
                raise ImageError(f"the root of the image is a {tarformat.TYPE_WORDS[member.kind]}")
            if self._has_root_entry:
                raise duplicate(b".")
            self._has_root_entry = True
        elif path[0] == ROOTFS:
            if len(path) == 1 and member.kind != tarformat.DIRECTORY:
                raise ImageError("rootfs is not a directory")
            self._has_rootfs = True
        elif path == (MANIFEST,):
            if member.kind != tarformat.REGULAR:
                raise ImageError("the image manifest is not a regular file")
            if self._has_manifest:
                raise duplicate(MANIFEST)
            if member.size > self._limits.manifest_bytes:
                raise ImageError(
                    f"the image manifest has {member.size} bytes, at most {self._limits.manifest_bytes} are accepted"
                )
            self._has_manifest = True
        else:
            raise ImageError(
                f"unrecognised file path {show(member.path)!r}: only manifest and rootfs are allowed"
            )
        return path

    def link_target(self, member: Member) -> Path:
        """Where a hard link points: something below ``rootfs``.

        Raises:
            ImageError: it points elsewhere.
        """
        target = split_path(member.link, self._limits)
        if len(target) < 2 or target[0] != ROOTFS:
            raise ImageError(
                f"hard link {show(member.path)!r} points to {show(member.link)!r}, outside rootfs"
            )
        return target

    def finish(self) -> None:
        """Judge the archive as a whole.

        Raises:
            ImageError: manifest or rootfs is missing.
        """
        if not self._has_manifest:
            raise ImageError("no image manifest found in layout")
        if not self._has_rootfs:
            raise ImageError("no rootfs found in layout")


class AciStream(TarStream):
    """An ACI being read.

    Attributes:
        layout: what each member is held against.
    """

    def __init__(
        self,
        stream_fd: int,
        limits: Limits,
        record: Callable[[bytes], object] | None = None,
        *,
        hash_blob: bool = True,
    ) -> None:
        super().__init__(stream_fd, limits, hashlib.sha512(), KINDS, record, hash_blob=hash_blob)
        self.layout = Layout(limits)

    def members(self) -> Iterator[tuple[Path, Member]]:
        """Members with their checked paths; each one's content must be taken before the next.

        Raises:
            ImageError: the archive breaks a rule or a limit.
        """
        for member in tarformat.members(self.source, self.limits):
            yield self.layout.place(member), member
        self.layout.finish()

    def image_id(self) -> ImageID:
        """``sha512-`` of the uncompressed tar, once all was read."""
        return ImageID.parse(f"sha512-{self.tar_digest().hex()}")


def peek_manifest(stream_fd: int, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The image manifest's bytes, reading no further than needed; the descriptor's offset moves.

    Raises:
        ImageError: there is none, or what comes before it breaks a rule.
    """
    with AciStream(stream_fd, limits) as aci:
        for path, member in aci.members():
            if path == (MANIFEST,):
                return aci.read(member)
            aci.skip(member)
    raise ImageError("no image manifest found in layout")


def scan_aci(stream_fd: int, limits: Limits = DEFAULT_LIMITS) -> tuple[ImageID, bytes, int]:
    """Read an ACI to its end as the store would, and write nothing.

    Returns:
        image ID, manifest, and size of the uncompressed tar.

    Raises:
        ImageError: the archive breaks a rule or a limit.
    """
    manifest = b""
    kinds: dict[Path, bytes] = {}
    with AciStream(stream_fd, limits) as aci:
        for path, member in aci.members():
            _scan_member(aci, path, member, kinds)
            if path == (MANIFEST,):
                manifest = aci.read(member)
            else:
                aci.skip(member)
        return aci.image_id(), manifest, aci.tar_bytes


def _scan_member(aci: AciStream, path: Path, member: Member, kinds: dict[Path, bytes]) -> None:
    implicit = b""
    for end in range(1, len(path)):
        if kinds.setdefault(path[:end], implicit) not in {implicit, tarformat.DIRECTORY}:
            raise ImageError(f"the parent of {show(member.path)!r} is not a directory")
    kind = member.kind
    if kind == tarformat.SYMLINK:
        check_symlink(member)
    elif kind == tarformat.HARD_LINK:
        target = aci.layout.link_target(member)
        kind = kinds.get(target, implicit)
        if kind in {implicit, tarformat.DIRECTORY}:
            raise ImageError(
                f"hard link {show(member.path)!r} points to {show(member.link)!r}, which is no file so far"
            )
    before = kinds.get(path)
    if before is not None and (before != implicit or kind != tarformat.DIRECTORY):
        raise duplicate(member.path)
    kinds[path] = kind
