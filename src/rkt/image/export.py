# SPDX-License-Identifier: Apache-2.0
"""What leaves the store: the tar as it was fetched, its tree as a directory (spec cli §2.19 to §2.21)."""

from __future__ import annotations

import os

from rkt.errors import HostError, ImageError, StoreError, UsageError
from rkt.image.output import NewDirectory, NewFile
from rkt.image.tarsplit import rebuild
from rkt.linux.files import write_new
from rkt.linux.libc import syncfs
from rkt.store.locks import image_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rkt.image.verify import Difference
    from rkt.store.cas import Store
    from rkt.store.record import ImageRecord
    from rkt.values import ImageKey

_EXISTS = "output directory exists (try --overwrite)"
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
    """Every difference between an image's layers and what was fetched.

    Raises:
        StoreError: parts of the image are missing or damaged.
    """
    from rkt.image.verify import verify_layer

    with image_lock(store.data_dir, key, exclusive=False):
        record = store.get(key)
        store.manifest_bytes(key)
        if record.oci:
            from rkt.store.oci import verify_oci

            return verify_oci(store, record)
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
    store: Store, key: ImageKey, output_path: str, *, rootfs_only: bool, overwrite: bool
) -> None:
    """Copy an image's tree to a directory; of an OCI image what its layers make together.

    Args:
        store: where the image is.
        key: which one.
        output_path: directory to make.
        rootfs_only: the directory becomes the root file system itself instead of holding ``manifest`` and ``rootfs``.
        overwrite: replace what is there, once the new directory is complete.

    Raises:
        UsageError: the output exists, or is ``/``.
        ImageError: a file cannot be copied; what was there before is there still.
    """
    from rkt.store.composition import merge, own_parts

    with image_lock(store.data_dir, key, exclusive=False):
        _write_output(
            store,
            output_path,
            lambda target_fd: merge(store, own_parts(store, key), target_fd),
            manifest=None if rootfs_only else store.manifest_bytes(key),
            overwrite=overwrite,
        )


def render_image(
    store: Store, key: ImageKey, output_path: str, *, rootfs_only: bool, overwrite: bool
) -> None:
    """Likewise with all that the image depends on, and as far as white lists leave it (spec cli §5.10).

    Raises:
        NotFound: a dependency is not in the store.
        UsageError: the output exists, or is ``/``.
        ImageError: the dependencies cannot be used, an image has changed in the store, or a file cannot be copied.
    """
    from rkt.store.composition import merge, resolve
    from rkt.store.locks import prepare_lock

    parts = resolve(store, key)
    for part in {part.key for part in parts}:
        if differences := verify_image(store, part):
            raise ImageError(
                f"image hash does not match expected: {part.medium} has changed in the store ({differences[0]})",
                hint=f"rkt image verify --repair {part.medium}",
            )
    # Held shared, it keeps all layers from vanishing.
    with prepare_lock(store.data_dir):
        _write_output(
            store,
            output_path,
            lambda target_fd: merge(store, parts, target_fd),
            manifest=None if rootfs_only else store.manifest_bytes(key),
            overwrite=overwrite,
        )


def _write_output(
    store: Store,
    output_path: str,
    fill: Callable[[int], None],
    *,
    manifest: bytes | None,
    overwrite: bool,
) -> None:
    """Make the output directory; without a manifest it is the root file system itself."""
    _check_output(output_path, store.data_dir, overwrite=overwrite)
    # Images have setuid files and files of other users: what holds them starts out closed to others.
    with NewDirectory(output_path, 0o700) as new:
        output_fd = os.open(new.path, _OPEN_DIRECTORY)
        try:
            if manifest is None:
                fill(output_fd)
            else:
                write_new("manifest", manifest, 0o644, dir_fd=output_fd)
                os.mkdir("rootfs", 0o700, dir_fd=output_fd)
                target_fd = os.open("rootfs", _OPEN_DIRECTORY, dir_fd=output_fd)
                try:
                    fill(target_fd)
                finally:
                    os.close(target_fd)
            replaces = overwrite and os.path.lexists(output_path)
            if replaces:
                # A power cut must not leave neither.
                syncfs(output_fd)
        finally:
            os.close(output_fd)
        new.commit(replaces=replaces, exists=_EXISTS)


def _check_output(path: str, data_dir: str, *, overwrite: bool) -> None:
    real_path = os.path.realpath(path)
    if real_path == "/":
        raise UsageError("this would delete your root filesystem. Refusing.")
    real_data = os.path.realpath(data_dir)
    if f"{real_data}/".startswith(f"{real_path}/") or real_path.startswith(f"{real_data}/"):
        # Around them, or among them.
        raise UsageError("this would delete your images and pods. Refusing.")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(_EXISTS)


def _open_layer(store: Store, record: ImageRecord) -> int:
    path = store.layer_path(record.layers[0])
    try:
        return os.open(path, _OPEN_DIRECTORY)
    except PermissionError:
        raise HostError(f"layer {path} can be read by root only", hint="run the command as root") from None


def _open_split(store: Store, key: ImageKey) -> int:
    path = store.split_path(key)
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as e:
        raise StoreError(
            f"cannot read {path}: {e.strerror}", hint=f"rkt image rm {key.medium}, then fetch it again"
        ) from e
