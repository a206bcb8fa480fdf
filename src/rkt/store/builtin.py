# SPDX-License-Identifier: Apache-2.0
"""The stage1 images of the installation: imported once, vouched for by the root-owned list beside them."""

from __future__ import annotations

import os

from rkt.errors import ImageError, Stage1Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.config.settings import Settings
    from rkt.store.record import ImageRecord
    from rkt.values import ImageID


def import_builtin_stage1(settings: Settings, path: str, image_id: ImageID) -> ImageRecord:
    """Import one of them.

    Args:
        settings: of the running command.
        path: the image file.
        image_id: the ID that ``stage1.json`` lists for it.
    Raises:
        NotVerified: the list is missing, may be changed by others, or does not name this image.
        ImageError: the file is not the image that is listed.
        Stage1Error: the file cannot be read.
    """
    from rkt.schema.appc import parse_image_manifest
    from rkt.store import importer
    from rkt.store.cas import Store
    from rkt.store.layout import setup_data_dir
    from rkt.store.staging import Staging
    from rkt.trust.policy import judge_builtin

    setup_data_dir(settings.data_dir)
    try:
        blob_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise Stage1Error(
            f"cannot read stage1 image {path}: {e.strerror}", hint="make setup, or install again"
        ) from e
    try:
        with Staging(settings.data_dir) as staging:
            unpacked = importer.unpack(
                staging, blob_fd, settings.installation, blob_sha256=importer.hash_file(blob_fd)
            )
            if unpacked.image_id != image_id:
                raise ImageError(
                    f"stage1 image {path} has ID {unpacked.image_id.key.medium}…, {image_id.key.medium}… is listed",
                    hint="make setup, or install again",
                )
            name = parse_image_manifest(unpacked.manifest).name
            verdict = judge_builtin(name, image_id, settings)
            return importer.commit(Store(settings.data_dir), staging, unpacked, verdict, origin=path)
    finally:
        os.close(blob_fd)
