# SPDX-License-Identifier: Apache-2.0
"""The form of every small record on disk: one line of JSON that names its format, its version and its own checksum.

::

    {"format":"rkt.image","version":1,"checksum":"sha256:<64 hex>","body":{…}}

The checksum is over the compact dump of ``body``. It finds bit rot, truncation and hand edits; it is no signature:
whoever may write the store may seal a record, which is why readers also look at the owner of the file.
"""

from __future__ import annotations

try:  # the built-in modules load in 0.1 ms; hashlib brings OpenSSL and 4 ms (docs/devel/start-up.md)
    from _sha2 import sha256  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]
    except ImportError:  # an interpreter built without them
        from hashlib import sha256

from rkt.errors import DamagedRecord, InvalidManifest
from rkt.schema import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Largest record, in bytes.
MAX_RECORD_BYTES = 1 << 20


def sha256_hex(data: bytes) -> str:
    """Hex digest of a small piece of data, without the start-up cost of ``hashlib``."""
    digest: str = sha256(data).hexdigest()
    return digest


def seal(record_format: str, version: int, body: dict[str, Any]) -> bytes:
    """The bytes to store; ``body`` holds JSON values only."""
    text = jsontext.dump(body)
    checksum = sha256_hex(text.encode())
    head = f'{{"format":"{record_format}","version":{version},"checksum":"sha256:{checksum}","body":'
    return f"{head}{text}}}\n".encode()


def open_sealed(data: bytes, record_format: str, what: str) -> tuple[int, dict[str, Any]]:
    """Take a record apart.

    Args:
        data: the bytes of the file.
        record_format: the format that is expected.
        what: names the record in errors, normally its path.
    Returns:
        version and body; the caller judges the version.
    Raises:
        DamagedRecord: anything but what ``seal`` wrote.
    """
    try:
        document = jsontext.parse(data, what=what, limit_bytes=MAX_RECORD_BYTES)
    except InvalidManifest as e:
        raise DamagedRecord(f"record {what} is damaged: {e.message}") from e
    if not isinstance(document, dict) or set(document) != {"format", "version", "checksum", "body"}:
        raise DamagedRecord(f"record {what} is damaged: it is not a sealed record")
    body = document["body"]
    version = document["version"]
    if document["format"] != record_format:
        raise DamagedRecord(f"record {what} has format {document['format']!r}, {record_format!r} is expected")
    if not isinstance(body, dict) or type(version) is not int:
        raise DamagedRecord(f"record {what} is damaged: it is not a sealed record")
    try:
        checksum = sha256_hex(jsontext.dump(body).encode())
    except UnicodeEncodeError as e:
        raise DamagedRecord(f"record {what} is damaged: {e}") from e
    if document["checksum"] != f"sha256:{checksum}":
        raise DamagedRecord(f"record {what} is damaged: its checksum does not match")
    return version, body
