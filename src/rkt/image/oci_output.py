# SPDX-License-Identifier: Apache-2.0
"""Docker and OCI images as files: image layouts, in a directory or a tar, and Docker's archives.

Blobs are written first, each under the digest that it turned out to have; what names them comes last, and the whole
appears under its name at once or not at all. The same images give the same bytes: members of a tar are root's, from
1970, in the order in which they are put.

Sources: OCI image-spec, image-layout.md; moby, image/spec/spec.md ("Combined Image JSON + Filesystem Changeset Format").
"""

from __future__ import annotations

import contextlib
import hashlib
import os

from rkt.errors import ImageError, UsageError
from rkt.image import tarformat
from rkt.image.compression import NONE, encoder
from rkt.image.output import NewDirectory, NewFile
from rkt.image.tarformat import Member
from rkt.linux.files import sync_directory, write_all, write_new
from rkt.schema import jsontext
from rkt.schema.oci import OCI_INDEX
from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, Self

    class Sink(Protocol):
        """Where files go."""

        def begin(self) -> int:
            """Start a file whose name is not known yet; returns the descriptor that receives its content."""

        def end(self, name: str, size: int) -> None:
            """Name the file; one of that name that is there already is the same."""

        def put(self, name: str, data: bytes) -> None:
            """A small file."""

        def commit(self) -> None:
            """Let the whole appear under its name."""

        def __enter__(self) -> Self: ...
        def __exit__(self, *_: object) -> None: ...


LAYOUT_VERSION = b'{"imageLayoutVersion":"1.0.0"}'
#: Annotations of descriptors in ``index.json``: what the reference is called within the layout, and everywhere.
REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"
#: Kinds of output.
OCI = "oci"
DOCKER_ARCHIVE = "docker-archive"
_BLOBS = "blobs/sha256"
#: As others compress layers: a tenth larger than at most, in a third of the time.
_GZIP_LEVEL = 6
_HEADER = bytes(tarformat.BLOCK)
_EXISTS = "output exists (try --overwrite)"


class Blob(Record):
    """What was written.

    Attributes:
        digest: of the bytes as they were written; ``size_bytes`` their number.
        diff_id: of the bytes before compression.
    """

    digest: str
    size_bytes: int
    diff_id: str

    def descriptor(self, media_type: str) -> dict[str, Any]:
        """As manifests have it."""
        return {"mediaType": media_type, "digest": self.digest, "size": self.size_bytes}


class BlobWriter:
    """One blob on its way to a sink."""

    __slots__ = ("_diff", "_encoder", "_fd", "_plain", "_sink", "_size", "_stored")

    def __init__(self, sink: Sink, compression: str) -> None:
        self._sink = sink
        self._fd = sink.begin()
        self._encoder = encoder(compression, gzip_level=_GZIP_LEVEL)
        self._plain = compression == NONE
        self._diff = hashlib.sha256()
        self._stored = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        """More of it."""
        self._diff.update(data)
        self._put(self._encoder.compress(data))

    def _put(self, data: bytes) -> None:
        if data:
            if not self._plain:
                self._stored.update(data)
            self._size += len(data)
            write_all(self._fd, data)

    def finish(self, name: Callable[[str], str]) -> Blob:
        """The last byte was written; ``name`` makes the file's name of the hex digest."""
        self._put(self._encoder.flush())
        diff = self._diff.hexdigest()
        stored = diff if self._plain else self._stored.hexdigest()
        self._sink.end(name(stored), self._size)
        return Blob(digest=f"sha256:{stored}", size_bytes=self._size, diff_id=f"sha256:{diff}")


class DirectorySink:
    """Files below a new directory."""

    def __init__(self, path: str, *, overwrite: bool) -> None:
        """Make a directory beside.

        Raises:
            UsageError: the output exists and may not be replaced, or is something else than an image layout.
            ImageError: the file system refused.
        """
        self._path = path
        self._overwrite = overwrite
        if os.path.lexists(path):
            if not overwrite:
                raise UsageError(_EXISTS)
            if not _is_layout(path):
                raise UsageError(f"output {path!r} is no image layout: it is not replaced")
        self._fd = -1
        self._directory = NewDirectory(path, 0o755)
        try:
            os.makedirs(f"{self._directory.path}/{_BLOBS}", 0o755)
        except OSError as e:
            raise ImageError(f"cannot create {path}: {e.strerror}") from e

    def begin(self) -> int:
        """A file that gets its name later."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(f"{self._directory.path}/blob", flags, 0o644)
        return self._fd

    def end(self, name: str, size: int) -> None:
        """Give it its name."""
        os.fchmod(self._fd, 0o644)
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        os.rename(f"{self._directory.path}/blob", f"{self._directory.path}/{name}")

    def put(self, name: str, data: bytes) -> None:
        """A small file."""
        write_new(f"{self._directory.path}/{name}", data, 0o644)

    def commit(self) -> None:
        """Give the directory its name; what it replaces is removed when the new one is in its place.

        Raises:
            UsageError: somebody made something of that name meanwhile.
            ImageError: the file system refused; or it has its name, and what it replaces cannot be removed.
        """
        try:
            for name in (_BLOBS, "blobs", "."):
                sync_directory(f"{self._directory.path}/{name}")
        except OSError as e:
            raise ImageError(f"cannot write {self._path}: {e.strerror}") from e
        replaces = self._overwrite and os.path.lexists(self._path) and _is_layout(self._path)
        self._directory.commit(replaces=replaces, exists=_EXISTS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._directory.__exit__()


class TarSink:
    """Members of a tar, which is a new file."""

    def __init__(self, path: str, *, overwrite: bool) -> None:
        """Create the file, see ``NewFile``."""
        self._file = NewFile(path, overwrite=overwrite, exists=_EXISTS)
        self._names: set[str] = set()
        self._begin = 0

    def begin(self) -> int:
        """A member whose header is written when its name and size are known."""
        self._begin = os.lseek(self._file.fd, 0, os.SEEK_CUR)
        write_all(self._file.fd, _HEADER)
        return self._file.fd

    def end(self, name: str, size: int) -> None:
        """Write the header, and what fills the last block."""
        fd = self._file.fd
        if name in self._names:
            os.ftruncate(fd, self._begin)
            os.lseek(fd, self._begin, os.SEEK_SET)
            return
        self._names.add(name)
        write_all(fd, bytes(tarformat.padding(size)))
        end = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, self._begin, os.SEEK_SET)
        write_all(fd, _header(name, size))
        os.lseek(fd, end, os.SEEK_SET)

    def put(self, name: str, data: bytes) -> None:
        """A small file."""
        write_all(self.begin(), data)
        self.end(name, len(data))

    def commit(self) -> None:
        """End the archive and give the file its name."""
        write_all(self._file.fd, tarformat.END)
        self._file.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *rest: object) -> None:
        self._file.__exit__(*rest)


def open_sink(path: str, kind: str, *, overwrite: bool) -> contextlib.AbstractContextManager[Sink]:
    """Where an output goes: an image layout is a directory unless its name ends in ``.tar``.

    Args:
        path: of the output.
        kind: ``OCI`` or ``DOCKER_ARCHIVE``.
        overwrite: whether what exists is replaced.
    """
    if kind == DOCKER_ARCHIVE or path.endswith(".tar"):
        return TarSink(path, overwrite=overwrite)
    return DirectorySink(path, overwrite=overwrite)


def blob_name(digest: str) -> str:
    """Name in a layout of a blob with this hex digest."""
    return f"{_BLOBS}/{digest}"


def put_blob(sink: Sink, data: bytes) -> Blob:
    """A document into a layout."""
    writer = BlobWriter(sink, NONE)
    writer.write(data)
    return writer.finish(blob_name)


def write_index(sink: Sink, manifest: bytes, media_type: str, reference: str) -> str:
    """End a layout of one image; returns the manifest's digest.

    Args:
        sink: has the blobs.
        manifest: the very bytes.
        media_type: theirs.
        reference: ``name:tag``, or a tag, or empty.
    """
    descriptor = put_blob(sink, manifest).descriptor(media_type)
    if reference:
        annotations = {REF_NAME: tag_of(reference)}
        if ":" in reference:
            annotations = {FULL_NAME: reference, **annotations}
        descriptor["annotations"] = annotations
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]}
    sink.put("oci-layout", LAYOUT_VERSION)
    sink.put("index.json", jsontext.dump(index).encode())
    digest: str = descriptor["digest"]
    return digest


def digest_of(data: bytes) -> str:
    """``sha256:`` and hex digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tag_of(reference: str) -> str:
    """``1.0`` of ``example.com:80/app:1.0``, and of ``1.0``."""
    return reference.rpartition(":")[2]


def archive_index(config: str, layers: list[str], reference: str) -> bytes:
    """``manifest.json`` of Docker's archives.

    Args:
        config: name of its file.
        layers: names of theirs, the bottom one first.
        reference: ``name:tag`` or empty.
    """
    entry = {"Config": config, "RepoTags": [reference] if ":" in reference else [], "Layers": layers}
    return jsontext.dump([entry]).encode()


def _header(name: str, size: int) -> bytes:
    """One block, whatever the size: room for it was left before the size was known."""
    if size < 1 << 33:
        return tarformat.render(Member(name.encode(), tarformat.REGULAR, size=size))
    # More than eleven octal digits: as GNU tar writes it, in base 256.
    block = bytearray(tarformat.render(Member(name.encode(), tarformat.REGULAR)))
    block[124:136] = b"\x80" + size.to_bytes(11, "big")
    block[257:265] = b"ustar  \0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _is_layout(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "oci-layout")) or (os.path.isdir(path) and not os.listdir(path))
