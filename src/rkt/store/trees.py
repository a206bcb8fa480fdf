# SPDX-License-Identifier: Apache-2.0
"""Rendered trees: root file systems that no overlay of layers can show, because a white list leaves something out.

``$DATA/cas/tree/ID/`` (0700) holds ``rootfs/``, ``manifest`` of the top image and ``record``, sealed. Its files are other
names of the layers' files, where the file system can do that. It is made in staging, synchronised and renamed, so one that
stands under its ID with its record is whole. A tree is a cache: ``image gc`` takes it when no pod refers to it, and it is made again.
"""

from __future__ import annotations

import hashlib
import os
import stat

from rkt.errors import DamagedRecord, ImageError, InvalidManifest, StoreError
from rkt.image.copytree import list_tree
from rkt.image.render import part_keys, tree_id
from rkt.image.walk import DirectoryStack
from rkt.linux.files import read_bounded, sync_directory, write_new
from rkt.schema.envelope import MAX_RECORD_BYTES, open_sealed, seal
from rkt.schema.record import Record
from rkt.store.composition import merge
from rkt.store.staging import Staging
from rkt.values import ImageKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.image.render import Part
    from rkt.store.cas import Store
    from rkt.values import TreeID

FORMAT = "rkt.tree"
VERSION = 1
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20


class TreeRecord(Record):
    """What a tree is made of.

    Attributes:
        parts: keys of the layers, the topmost first; of an OCI image its own before those of its layers.
        digest: ``sha256:`` of names, kinds, modes, owners, attributes and contents, see ``tree_digest``.
    """

    parts: list[ImageKey]
    digest: str

    def seal(self) -> bytes:
        """The bytes of the record's file."""
        return seal(FORMAT, VERSION, {"parts": list(self.parts), "digest": self.digest})


def read_tree_record(path: str) -> TreeRecord:
    """The record in a tree's directory.

    Raises:
        StoreError: it is missing, damaged, or of a newer version.
    """
    what = f"{path}/record"
    try:
        data = read_bounded(what, MAX_RECORD_BYTES)
    except OSError as e:
        raise DamagedRecord(f"cannot read {what}: {e.strerror}", hint="rkt image gc") from e
    return parse_tree_record(data, what)


def parse_tree_record(data: bytes, what: str) -> TreeRecord:
    """Bytes of a record's file to the record.

    Raises:
        DamagedRecord: not what was written.
        StoreError: written by a newer version of rkt.
    """
    version, body = open_sealed(data, FORMAT, what)
    if version != VERSION:
        raise StoreError(f"record {what} has version {version}, this rkt reads version {VERSION}")
    parts, digest = body.get("parts"), body.get("digest")
    if type(parts) is not list or not parts or type(digest) is not str:
        raise DamagedRecord(f"record {what} is damaged: a member is missing", hint="rkt image gc")
    try:
        return TreeRecord(parts=[ImageKey.parse(str(part)) for part in parts], digest=digest)
    except InvalidManifest as e:
        raise DamagedRecord(f"record {what} is damaged: {e.message}", hint="rkt image gc") from e


def ensure_tree(store: Store, parts: Sequence[Part]) -> TreeID:
    """The tree of these parts, made if it is not there.

    Every layer is held against what was fetched before it is used.

    Raises:
        ImageError: a layer has changed, or a file cannot be copied.
        StoreError: a layer is missing, or the tree cannot be written.
    """
    identity = tree_id(parts)
    final_path = f"{store.data_dir}/cas/tree/{identity}"
    if os.path.lexists(f"{final_path}/record"):
        return identity
    if os.path.isdir(final_path):
        # A removal was killed half-way, or the record is lost; what a pod refers to was never being removed.
        from rkt.store.refs import referenced_keys

        if identity in referenced_keys(store.data_dir):
            return identity
        store.remove_tree(identity)
    for key in {part.key for part in parts}:
        _check_layer(store, key)
    try:
        _build(store, parts, final_path)
    except OSError as e:
        raise StoreError(f"cannot write tree {final_path}: {e.strerror}") from e
    return identity


def _build(store: Store, parts: Sequence[Part], final_path: str) -> None:
    from rkt.linux.libc import syncfs

    trees_path = os.path.dirname(final_path)
    try:
        os.mkdir(trees_path, 0o700)  # a data directory made before there were trees
    except FileExistsError:
        pass
    with Staging(store.data_dir) as staging:
        path = f"{staging.path}/tree"
        os.mkdir(path, 0o700)
        os.mkdir(f"{path}/rootfs", 0o700)
        root_fd = os.open(f"{path}/rootfs", _OPEN_DIRECTORY)
        try:
            merge(store, parts, root_fd, link=True)
            write_new(f"{path}/manifest", store.manifest_bytes(parts[0].key), 0o600)
            record = TreeRecord(parts=part_keys(parts), digest=tree_digest(path))
            write_new(f"{path}/record", record.seal(), 0o600)
            syncfs(root_fd)
        finally:
            os.close(root_fd)
        try:
            os.rename(path, final_path)
        except OSError:
            if not os.path.isdir(final_path):
                raise
            return  # somebody else made the same tree meanwhile
        sync_directory(trees_path)


def _check_layer(store: Store, key: ImageKey) -> None:
    from rkt.image.export import verify_image

    if differences := verify_image(store, key):
        raise ImageError(
            f"image hash does not match expected: {key.medium} has changed in the store ({differences[0]})",
            hint=f"rkt image verify --repair {key.medium}",
        )


def damaged_trees(store: Store, key: ImageKey) -> list[str]:
    """Names of the trees with files of an image that are not as they were rendered, or whose record cannot be read."""
    trees_path = f"{store.data_dir}/cas/tree"
    try:
        names = sorted(os.listdir(trees_path))
    except FileNotFoundError:
        return []
    except OSError as e:
        raise StoreError(f"cannot read {trees_path}: {e.strerror}", hint="run the command as root") from e
    damaged = []
    for name in names:
        path = f"{trees_path}/{name}"
        try:
            record = read_tree_record(path)
            if key in record.parts and tree_digest(path) != record.digest:
                damaged.append(name)
        except (OSError, StoreError):
            damaged.append(name)
    return damaged


def tree_digest(path: str) -> str:
    """Digest over ``manifest`` and all of ``rootfs``: names, kinds, modes, owners, sizes, links, kept attributes, contents."""
    digest = hashlib.sha256()
    contents: dict[tuple[int, int], bytes] = {}
    fd = os.open(path, _OPEN_DIRECTORY)
    parents = DirectoryStack(fd)
    try:
        for inner, _ in sorted(list_tree(fd)):
            if inner in {(), (b"record",)}:
                continue
            name = b"/".join(inner)
            # Paths in images may be as long as the kernel takes without what is before them here.
            full = b"/proc/self/fd/%d/%s" % (parents.enter(inner[:-1]), inner[-1])
            status = os.stat(full, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            link = os.readlink(full) if kind == stat.S_IFLNK else b""
            content = b""
            if kind == stat.S_IFREG:
                identity = (status.st_dev, status.st_ino)
                if identity not in contents:
                    contents[identity] = _content_digest(full)
                content = contents[identity]
            attributes = [] if kind not in {stat.S_IFREG, stat.S_IFDIR} else _attributes(full)
            fields = (name, b"%o" % status.st_mode, b"%d:%d" % (status.st_uid, status.st_gid), link, content)
            for field in (*fields, *attributes):
                digest.update(b"%d:" % len(field) + field)
            digest.update(b"\n")
    finally:
        parents.close()
        os.close(fd)
    return f"sha256:{digest.hexdigest()}"


def _attributes(path: bytes) -> list[bytes]:
    names = [n for n in os.listxattr(path) if n.startswith("user.") or n == "security.capability"]
    return [part for n in sorted(names) for part in (os.fsencode(n), os.getxattr(path, n))]


def _content_digest(path: bytes) -> bytes:
    digest = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while chunk := os.read(fd, _CHUNK):
            digest.update(chunk)
    finally:
        os.close(fd)
    return digest.digest()
