# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from rkt.fetch.layout_worker import OCI, open_files, read_document
from rkt.fetch.opener import Opener
from rkt.schema.oci import OCI_MANIFEST, Descriptor
from rkt.values import Digest

if TYPE_CHECKING:
    from pathlib import Path


# A worker's connection ends with the worker.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_file_of_a_layout_is_open_at_a_time(tmp_path: Path) -> None:
    """However many documents a layout has, the worker that may have 256 files open reads them all."""
    blobs = tmp_path / "blobs/sha256"
    blobs.mkdir(parents=True)
    entries = []
    for number in range(8):
        data = b"%d" % number
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        entries.append(
            Descriptor(media_type=OCI_MANIFEST, digest=Digest(f"sha256:{name}"), size_bytes=len(data))
        )
    directory_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with Opener(directory_fd) as opener:
            files = open_files(OCI, {"opener": opener.worker_fd})
            assert [read_document(files, entry) for entry in entries] == [b"%d" % n for n in range(8)]
            # One here, and one that the opener may not have closed yet.
            assert len(_open_below(str(blobs))) <= 2
    finally:
        os.close(directory_fd)


def _open_below(directory: str) -> list[str]:
    """Files below a directory that this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [path for path in found if path.startswith(f"{directory}/")]
