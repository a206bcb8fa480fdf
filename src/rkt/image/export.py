# SPDX-License-Identifier: Apache-2.0
"""What leaves the store: the tar as it was fetched, its tree as a directory (spec cli §2.19 to §2.21)."""

from __future__ import annotations

import os

from rkt.errors import HostError, ImageError, StoreError, UsageError
from rkt.image.copytree import copy_tree
from rkt.image.output import NewFile
from rkt.image.tarsplit import rebuild
from rkt.linux.files import remove_tree, write_all
from rkt.store.locks import image_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.image.verify import Difference
    from rkt.image.walk import Path
    from rkt.schema.appc import ImageManifest
    from rkt.store.cas import Store
    from rkt.store.record import ImageRecord
    from rkt.values import ImageKey

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def export_image(store: Store, key: ImageKey, output_path: str, *, overwrite: bool) -> None:
    """Write the uncompressed ACI whose sha512 is the image ID.

    Raises:
        UsageError: the output exists and may not be replaced.
        ImageError: the layer in the store has changed; nothing is written.
        StoreError: parts of the image are missing.
    """
    with (
        image_lock(store.data_dir, key, exclusive=False),
        NewFile(output_path, overwrite=overwrite) as output,
    ):
        record = store.get(key)
        tree_fd = _open_layer(store, record)
        try:
            split_fd = _open_split(store, key)
            try:
                image_id = f"sha512-{rebuild(split_fd, tree_fd, output.fd)}"
            except ImageError as e:
                raise ImageError(e.message, hint=f"rkt image verify {key.medium}") from e.__cause__
            finally:
                os.close(split_fd)
        finally:
            os.close(tree_fd)
        if image_id != record.image_id:
            raise StoreError(
                f"image {key} is not in the store as it was fetched",
                hint=f"rkt image rm {key.medium}, then fetch it again",
            )
        output.commit()


def verify_image(store: Store, key: ImageKey) -> list[Difference]:
    """Every difference between an image's layer and what was fetched.

    Raises:
        StoreError: parts of the image are missing or damaged.
    """
    from rkt.image.verify import verify_layer

    with image_lock(store.data_dir, key, exclusive=False):
        record = store.get(key)
        store.manifest_bytes(key)
        tree_fd = _open_layer(store, record)
        try:
            split_fd = _open_split(store, key)
            try:
                return verify_layer(split_fd, tree_fd)
            finally:
                os.close(split_fd)
        finally:
            os.close(tree_fd)


def extract_image(
    store: Store,
    key: ImageKey,
    output_path: str,
    *,
    rootfs_only: bool,
    overwrite: bool,
    manifest: ImageManifest | None = None,
) -> None:
    """Copy an image's tree to a directory.

    Args:
        store: where the image is.
        key: which one.
        output_path: directory to make.
        rootfs_only: the directory becomes the root file system itself instead of holding ``manifest`` and ``rootfs``.
        overwrite: remove what is there first.
        manifest: when given, render: its path white list selects what of the root file system is copied.

    Raises:
        UsageError: the output exists, or is ``/``.
        ImageError: a file cannot be copied; the output is removed again.
    """
    keep = None if manifest is None else _whitelist(manifest)
    with image_lock(store.data_dir, key, exclusive=False):
        tree_fd = _open_layer(store, store.get(key))
        try:
            rootfs_fd = _open_rootfs(tree_fd, key)
            try:
                _make_output(output_path, store.data_dir, overwrite=overwrite)
                try:
                    _fill(store, key, output_path, rootfs_fd, keep, rootfs_only=rootfs_only)
                except BaseException:
                    remove_tree(output_path)
                    raise
            finally:
                os.close(rootfs_fd)
        finally:
            os.close(tree_fd)


def _fill(
    store: Store,
    key: ImageKey,
    output_path: str,
    rootfs_fd: int,
    keep: frozenset[Path] | None,
    *,
    rootfs_only: bool,
) -> None:
    output_fd = os.open(output_path, _OPEN_DIRECTORY)
    try:
        if rootfs_only:
            copy_tree(rootfs_fd, output_fd, keep=keep)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open("manifest", flags, 0o644, dir_fd=output_fd)
        try:
            os.fchmod(fd, 0o644)
            write_all(fd, store.manifest_bytes(key))
        finally:
            os.close(fd)
        os.mkdir("rootfs", 0o700, dir_fd=output_fd)
        target_fd = os.open("rootfs", _OPEN_DIRECTORY, dir_fd=output_fd)
        try:
            copy_tree(rootfs_fd, target_fd, keep=keep)
        finally:
            os.close(target_fd)
    finally:
        os.close(output_fd)


def _whitelist(manifest: ImageManifest) -> frozenset[Path] | None:
    """Paths below the root that the manifest keeps; directories stay (spec cli §5.10 rule 1)."""
    if not manifest.path_whitelist:
        return None
    return frozenset(
        tuple(os.fsencode(component) for component in path.split("/") if component not in {"", "."})
        for path in manifest.path_whitelist
    )


def _make_output(path: str, data_dir: str, *, overwrite: bool) -> None:
    real_path = os.path.realpath(path)
    if real_path == "/":
        raise UsageError("this would delete your root filesystem. Refusing.")
    if os.path.realpath(data_dir) == real_path or os.path.realpath(data_dir).startswith(f"{real_path}/"):
        raise UsageError("this would delete your images and pods. Refusing.")
    if os.path.lexists(path):
        if not overwrite:
            raise UsageError("output directory exists (try --overwrite)")
        try:
            remove_tree(path)
        except OSError as e:
            raise ImageError(f"cannot remove {path}: {e.strerror}") from e
    try:
        # Images have setuid files and files of other users: what holds them starts out closed to others.
        os.mkdir(path, 0o700)
    except OSError as e:
        raise ImageError(f"cannot create directory {path}: {e.strerror}") from e


def _open_layer(store: Store, record: ImageRecord) -> int:
    path = store.layer_path(record.layers[0])
    try:
        return os.open(path, _OPEN_DIRECTORY)
    except PermissionError:
        raise HostError(f"layer {path} can be read by root only", hint="run the command as root") from None


def _open_rootfs(tree_fd: int, key: ImageKey) -> int:
    try:
        return os.open("rootfs", _OPEN_DIRECTORY, dir_fd=tree_fd)
    except OSError as e:
        raise StoreError(
            f"the root filesystem of image {key} cannot be opened: {e.strerror}",
            hint=f"rkt image verify {key.medium}",
        ) from e


def _open_split(store: Store, key: ImageKey) -> int:
    path = store.split_path(key)
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as e:
        raise StoreError(
            f"cannot read {path}: {e.strerror}", hint=f"rkt image rm {key.medium}, then fetch it again"
        ) from e
