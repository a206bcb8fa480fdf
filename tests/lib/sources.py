# SPDX-License-Identifier: Apache-2.0
"""Images of layouts and archives brought by the worker, before anything is unpacked."""

from __future__ import annotations

import os
import sysconfig
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rkt.config.settings import Installation, Settings
from rkt.fetch.layout import LocalSource
from rkt.fetch.oci_reference import parse_local
from rkt.fetch.oci_source import Blob, Resolved
from rkt.schema.oci import Platform, parse_manifest
from rkt.store.layout import setup_data_dir
from rkt.store.staging import Staging
from rkt.values import Digest
from tests.lib.rkt import ROOT

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

INSTALLATION = Installation(
    package_path=os.path.join(ROOT, "src"),
    library_paths=[sysconfig.get_path("purelib")],
    stage1_images_path="",
)


@dataclass
class Fetched:
    """What a source brought.

    Attributes:
        known: whether it was the one that was had already.
        events: what the worker said while it copied.
    """

    resolved: Resolved
    manifest: bytes
    config: bytes
    index: bytes
    name: str
    blobs: list[bytes] = field(default_factory=list)
    known: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)


def bring(
    base: Path,
    reference: str,
    platform: Platform | None = None,
    *,
    known: str = "",
    resolved_only: bool = False,
) -> Fetched:
    """Resolve a reference and copy all its layers; nothing of it is left.

    Args:
        base: a directory of the test.
        reference: ``oci:…``, ``oci-archive:…`` or ``docker-archive:…``.
        platform: of this host, if not given.
        known: a digest that is had already.
        resolved_only: leave the layers.
    """
    settings = Settings(installation=INSTALLATION, data_dir=f"{base}/data")
    setup_data_dir(settings.data_dir)
    kind, _, rest = reference.partition(":")
    with (
        Staging(settings.data_dir) as staging,
        LocalSource(parse_local(kind, rest), platform or Platform.of_host(), settings) as source,
    ):
        resolved = source.resolve(staging, Digest.parse(known) if known else None)
        if resolved is None:
            return Fetched(Resolved(digest=Digest.parse(known), media_type=""), b"", b"", b"", "", known=True)
        manifest_data, config, index = (
            _read(f"{staging.path}/{name}") for name in ("manifest", "config", "index")
        )
        fetched = Fetched(resolved, manifest_data, config, index, source.name)
        if resolved_only:
            return fetched
        manifest = parse_manifest(fetched.manifest, resolved.media_type)
        with ExitStack() as stack:
            wanted = []
            for number, layer in enumerate(manifest.layers):
                fd = staging.create(f"blob{number}")
                stack.callback(os.close, fd)
                # What an earlier attempt left.
                os.write(fd, b"left over")
                wanted.append(Blob(digest=layer.digest, size_bytes=layer.size_bytes, fd=fd, validators_fd=-1))
            received = source.blobs(wanted, fetched.events.append)
            assert [r.size_bytes for r in received] == [layer.size_bytes for layer in manifest.layers]
            fetched.blobs = [_read(f"{staging.path}/blob{number}") for number in range(len(wanted))]
        return fetched


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()
