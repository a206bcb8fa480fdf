# SPDX-License-Identifier: Apache-2.0
"""A download that can be continued: bytes so far, and what the server said that tells one version from another.

Runs in ``rkt-fetch`` on two descriptors; the validators are sealed in the second one, which nobody but a later
``rkt-fetch`` for the same URL or the same digest reads. They are written before the first byte of a new version, after the old bytes are
gone, so that at no moment old bytes stand beside new validators. Even then ``If-Range`` asks the server, and signature
or digest decides about the result (invariant RG9).
"""

from __future__ import annotations

import errno
import hashlib
import os
from email.utils import parsedate_to_datetime

from rkt.errors import DamagedRecord
from rkt.schema.envelope import open_sealed, seal
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VALIDATORS_FORMAT = "rkt.partial"
VALIDATORS_VERSION = 1
MAX_VALIDATORS_BYTES = 1 << 14
_MAX_HEADER = 1024
_CHUNK_BYTES = 1 << 20
#: A date is a strong validator when the file had not changed for so long (RFC 9110, 8.8.2.2).
_SETTLED_SECONDS = 60.0


class Validators(Record):
    """What is known of the version of a file that the bytes so far belong to.

    Attributes:
        url: as asked for; the digest of what is named by one, wherever it comes from.
        etag: strong entity tag, else empty.
        last_modified: date that is old enough to be trusted, else empty.
        size_bytes: of the whole file, -1 when the server did not say.
    """

    url: str
    etag: str = ""
    last_modified: str = ""
    size_bytes: int = -1

    @property
    def if_range(self) -> str:
        """Value of ``If-Range``; empty when there is none that proves anything."""
        return self.etag or self.last_modified

    def seal(self) -> bytes:
        """The bytes of the validators' file."""
        body = {
            "url": self.url,
            "etag": self.etag,
            "lastModified": self.last_modified,
            "size": self.size_bytes,
        }
        return seal(VALIDATORS_FORMAT, VALIDATORS_VERSION, body)


def read_validators(headers: Mapping[str, str], url: str, size_bytes: int | None) -> Validators:
    """What an answer with status 200 says of its version."""
    etag = headers.get("ETag", "")
    strong = etag.startswith('"') and etag.endswith('"') and 2 < len(etag) <= _MAX_HEADER
    return Validators(
        url=url,
        etag=etag if strong and etag.isascii() and etag.isprintable() else "",
        last_modified=_settled_date(headers),
        size_bytes=-1 if size_bytes is None else size_bytes,
    )


def parse_validators(data: bytes) -> Validators | None:
    """Bytes of a validators' file; None for anything but what ``Validators.seal`` wrote."""
    try:
        version, body = open_sealed(data, VALIDATORS_FORMAT, "of a partial download")
    except DamagedRecord:
        return None
    if version != VALIDATORS_VERSION or set(body) != {"url", "etag", "lastModified", "size"}:
        return None
    size: Any = body["size"]
    texts: list[Any] = [body["url"], body["etag"], body["lastModified"]]
    if type(size) is not int or size < -1 or not all(type(text) is str for text in texts):
        return None
    if not all(text.isascii() and text.isprintable() for text in texts):
        return None
    return Validators(url=texts[0], etag=texts[1], last_modified=texts[2], size_bytes=size)


def _settled_date(headers: Mapping[str, str]) -> str:
    text = headers.get("Last-Modified", "")
    if not text or len(text) > 64 or not (text.isascii() and text.isprintable()):
        return ""
    try:
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return ""
    return text if age.total_seconds() >= _SETTLED_SECONDS else ""


class ResumableFile:
    """The bytes so far and their validators.

    Attributes:
        fd: the file.
        size_bytes: of the bytes so far.
        validators: of those bytes; None when nothing can be continued.
    """

    def __init__(self, fd: int, validators_fd: int, url: str) -> None:
        """``validators_fd`` may be -1: then they last as long as this object."""
        self.fd = fd
        self._validators_fd = validators_fd
        self.size_bytes = os.fstat(fd).st_size
        self.validators: Validators | None = None
        if validators_fd >= 0:
            found = parse_validators(os.pread(validators_fd, MAX_VALIDATORS_BYTES, 0))
            if found is not None and found.url == url:
                self.validators = found

    def offset(self) -> int:
        """From which byte to ask for the rest; 0 is a download from the beginning.

        A complete file is asked for its last byte: the answer tells whether it is still the current version.
        """
        known = self.validators
        if known is None or not known.if_range or not self.size_bytes:
            return 0
        if known.size_bytes < 0:
            return self.size_bytes
        if self.size_bytes > known.size_bytes:
            return 0
        return min(self.size_bytes, known.size_bytes - 1)

    def restart(self, validators: Validators | None) -> None:
        """Forget the bytes so far; those to come belong to these validators."""
        self._replace_validators(b"")
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self.size_bytes = 0
        self.validators = validators
        if validators is not None:
            self._replace_validators(validators.seal())

    def go_on(self, offset: int) -> None:
        """Write behind so many bytes."""
        os.ftruncate(self.fd, offset)
        os.lseek(self.fd, offset, os.SEEK_SET)
        self.size_bytes = offset

    def write(self, data: bytes) -> None:
        """Write every byte."""
        view = memoryview(data)
        while view:
            count = os.write(self.fd, view)
            self.size_bytes += count
            view = view[count:]

    def _replace_validators(self, data: bytes) -> None:
        if self._validators_fd >= 0:
            os.ftruncate(self._validators_fd, 0)
            os.pwrite(self._validators_fd, data, 0)


class BlobFile(ResumableFile):
    """A blob that is named by its digest, which is hashed while it comes.

    Bytes so far of the same digest are gone on with wherever they came from: whether they are good, the digest of the
    whole tells, and when they are not, they are forgotten.
    """

    def __init__(self, fd: int, validators_fd: int, digest: str, size_bytes: int) -> None:
        """``digest`` is ``sha256:…``, of so many bytes."""
        super().__init__(fd, validators_fd, digest)
        self._own = Validators(url=digest, size_bytes=size_bytes)
        if self.validators != self._own:
            self.validators = None
        self._hash = hashlib.sha256()
        self._hashed_bytes = 0

    def offset(self) -> int:
        """From which byte to ask for the rest; the size of the whole when nothing is missing."""
        return self.size_bytes if self.validators and self.size_bytes <= self._own.size_bytes else 0

    @property
    def is_complete(self) -> bool:
        """Whether as many bytes are there as there should be."""
        return self.validators is not None and self.size_bytes == self._own.size_bytes

    def restart(self, validators: Validators | None) -> None:
        """As above; what a server says of its version has no say."""
        super().restart(None if validators is None else self._own)
        self._hash, self._hashed_bytes = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        """Hash and write every byte."""
        self._hash_to(self.size_bytes)
        super().write(data)
        self._hash.update(data)
        self._hashed_bytes += len(data)

    def digest(self) -> str:
        """Of the bytes so far."""
        self._hash_to(self.size_bytes)
        return f"sha256:{self._hash.hexdigest()}"

    def _hash_to(self, offset: int) -> None:
        """Bring the hash to the first so many bytes."""
        if self._hashed_bytes > offset:
            self._hash, self._hashed_bytes = hashlib.sha256(), 0
        while self._hashed_bytes < offset:
            data = os.pread(self.fd, min(_CHUNK_BYTES, offset - self._hashed_bytes), self._hashed_bytes)
            if not data:
                raise OSError(errno.EIO, "the file became shorter")
            self._hash.update(data)
            self._hashed_bytes += len(data)
