# SPDX-License-Identifier: Apache-2.0
"""What vouches for a Docker or OCI image, from where the image is: root's side.

``rkt-fetch`` looks for it (``fetch.evidence_worker``) and says where it was; nothing of it is read here.
"""

from __future__ import annotations

import base64
import binascii
import os

from rkt.errors import FetchError, InvalidManifest
from rkt.privsep.wire import foreign_text
from rkt.schema import jsontext
from rkt.trust.dsse import PREDICATES_FOR
from rkt.trust.evidence import MAX_PIECES, MAX_WRITTEN_BYTES, Evidence
from rkt.trust.rules import OPENPGP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from rkt.fetch.oci_source import Source
    from rkt.values import Digest

_TEXTS = ("signature", "certificate", "chain", "log_entry")


def collect(
    source: Source, digests: Sequence[Digest], kinds: Collection[str], lookasides: Collection[str] = ("",)
) -> list[Evidence]:
    """Evidence about an image.

    Args:
        source: where the image is.
        digests: of its manifest and, where there is one, of its index.
        kinds: of the requirements that it is for; none of others is looked for.
        lookasides: URLs of those of kind ``openpgp``, where signatures of images of registries are; an empty one stands for
            that of the registry's configuration.
    Raises:
        FetchError: whether there is any cannot be told. That there is none is no error.
        ConfigError: a URL may not be asked.
    """
    found = source.messages(digests, lookasides) if OPENPGP in kinds else []
    return [*found, *_collect(source, digests, kinds)]


def _collect(source: Source, digests: Sequence[Digest], kinds: Collection[str]) -> list[Evidence]:
    wanted = sorted(kind for kind in kinds if kind in PREDICATES_FOR)
    if not wanted:
        return []
    fd = os.memfd_create("evidence", os.MFD_CLOEXEC)
    try:
        source.evidence(digests, wanted, fd)
        data = os.pread(fd, MAX_WRITTEN_BYTES + 1, 0)
    finally:
        os.close(fd)
    try:
        values = jsontext.parse(data, what="the evidence", limit_bytes=MAX_WRITTEN_BYTES)
        if len(values) > MAX_PIECES + 1:
            raise FetchError(f"rkt-fetch reported {len(values)} pieces of evidence")
        return [_evidence(value) for value in values]
    except (KeyError, TypeError, binascii.Error, ValueError, InvalidManifest) as e:
        raise FetchError("rkt-fetch reported no evidence") from e


def _evidence(value: dict[str, Any]) -> Evidence:
    return Evidence(
        kind=str(value["kind"]),
        source=foreign_text(value["source"]),
        data=base64.b64decode(value["data"], validate=True),
        problem=foreign_text(value["problem"]),
        **{name: str(value[name]) for name in _TEXTS},
    )
