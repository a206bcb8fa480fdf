# SPDX-License-Identifier: Apache-2.0
"""Making an OCI image from a directory or a tar, alone or on top of another image: one new layer, as ``image.create``."""

from __future__ import annotations

import time

from rkt.image.create import TarWriter, write_members, write_tree
from rkt.image.oci_compose import with_layers
from rkt.image.oci_output import open_sink
from rkt.image.oci_write import Document, Layer, write_image
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rkt.image.create import Options


class NewOci(Record):
    """What to make.

    Attributes:
        config: as ``oci_compose.compose_config`` returns it.
        annotations: of the manifest.
        reference: ``name:tag``, may be empty.
        base: layers below the new one, the bottom one first.
    """

    config: dict[str, Any]
    annotations: dict[str, str] = {}
    reference: str = ""
    base: list[Layer] = []


class CreatedOci(Record):
    """What was made.

    Attributes:
        digest: see ``oci_write.Written``.
        notices: what was left out, one line each.
    """

    digest: str
    notices: list[str]


def create_oci(
    output_path: str,
    kind: str,
    image: NewOci,
    options: Options,
    *,
    overwrite: bool,
    rootfs_fd: int | None = None,
    tar_fd: int | None = None,
) -> CreatedOci:
    """Write an OCI image.

    Args:
        output_path: of the layout or archive.
        kind: ``oci_output.OCI`` or ``DOCKER_ARCHIVE``.
        image: what is around the new layer.
        options: how the layer is written.
        overwrite: whether what exists is replaced.
        rootfs_fd: directory that becomes the new layer; or
        tar_fd: tar of it. With neither the image has the layers of its base alone.
    Raises:
        ImageError: a file cannot be read, or the tar breaks a rule.
        UsageError: the output exists.
    """
    notices: list[str] = []

    def produce(write: Callable[[bytes], object]) -> None:
        writer = TarWriter(write, options)
        if rootfs_fd is not None:
            notices.extend(write_tree(writer, rootfs_fd))
        else:
            assert tar_fd is not None
            notices.extend(write_members(writer, tar_fd))
        writer.finish()

    new = [] if rootfs_fd is None and tar_fd is None else [Layer(produce=produce)]

    def finish(diff_ids: list[str]) -> Document:
        config = with_layers(
            image.config,
            diff_ids,
            added=len(new),
            created=created_text(options.timestamp_seconds),
            created_by="rkt image create",
        )
        return Document(config=config, annotations=image.annotations)

    with open_sink(output_path, kind, overwrite=overwrite) as sink:
        written = write_image(
            sink,
            kind,
            [*image.base, *new],
            finish,
            compression=options.compression,
            reference=image.reference,
        )
        sink.commit()

    return CreatedOci(digest=written.digest, notices=notices)


def created_text(seconds: int | None) -> str:
    """The time at which an image was made: the one that bounds its files', or nothing."""
    return "" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
