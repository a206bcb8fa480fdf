# SPDX-License-Identifier: Apache-2.0
"""Decompression with every byte accounted for (invariants UN10, UN17), and reproducible compression.

The format is told by its first bytes, never by a file name (spec cli §8.3). Concatenated members are one stream, as
RFC 1952 and the xz and bzip2 formats say. Bytes behind the last member, and an end before it, are errors: gzip(1) and
others let both pass, which hides content from whoever checks. Everything is imported at the top, because the worker
that runs this cannot open files any more.
"""

from __future__ import annotations

import bz2
import lzma
import os
import threading
import time
import zlib
from queue import SimpleQueue

from rkt.errors import HostError, ImageError

_igzip: Any
try:
    from isal import igzip_lib as _igzip
except ImportError:  # zlib does the same at a third of the speed
    _igzip = None
_zstd: Any
try:  # from Python 3.14 on
    from compression import zstd as _zstd  # type: ignore[import-not-found, no-redef, unused-ignore]
except ImportError:
    try:
        from backports import zstd as _zstd
    except ImportError:  # an installation without its libraries, or a command that did not ask for them
        _zstd = None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Protocol

    from rkt.image.limits import Limits

    class _Decoder(Protocol):
        @property
        def eof(self) -> bool: ...
        @property
        def needs_input(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...

    class _Encoder(Protocol):
        def compress(self, data: bytes, /) -> bytes: ...
        def flush(self) -> bytes: ...


NONE = "none"
GZIP = "gzip"
BZIP2 = "bzip2"
XZ = "xz"
ZSTD = "zstd"
#: What an ACI may be compressed with, and what ``image create --compression`` accepts.
KINDS = (NONE, GZIP, BZIP2, XZ)
#: What a layer of an OCI or Docker image may be compressed with.
LAYER_KINDS = (*KINDS, ZSTD)
#: Most bytes that are asked of a decoder at a time; small enough to be hashed and written while they are in the
#: processor's cache.
CHUNK_BYTES = 256 << 10
_READ_BYTES = 64 << 10
_TAR_MAGIC_OFFSET = 257
_MAGICS = ((b"\x1f\x8b", GZIP), (b"BZh", BZIP2), (b"\xfd7zXZ\x00", XZ), (b"\x28\xb5\x2f\xfd", ZSTD))


def detect(head: bytes, kinds: Sequence[str] = KINDS) -> str:
    """Kind of compression by magic bytes.

    Args:
        head: the first 512 bytes, or all there are.
        kinds: those that may be.
    Raises:
        ImageError: neither compressed in one of these ways nor a tar.
    """
    for magic, kind in _MAGICS:
        if head.startswith(magic) and kind in kinds:
            return kind
    # A tar of nothing has no header with a magic.
    if head[_TAR_MAGIC_OFFSET : _TAR_MAGIC_OFFSET + 5] == b"ustar" or head == bytes(512):
        return NONE
    *some, last = [kind for kind in kinds if kind != NONE]
    raise ImageError(f"unknown image filetype: neither tar nor tar compressed by {', '.join(some)} or {last}")


class _ZlibDecoder:
    """zlib's gzip decoder with the interface that bz2 and lzma have."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes:
        tail = self._decoder.unconsumed_tail
        return self._decoder.decompress(tail + data if tail else data, max_length)


def _decoder(kind: str, limits: Limits) -> _Decoder:
    if kind == GZIP:
        if _igzip is None:
            return _ZlibDecoder()
        decoder: _Decoder = _igzip.IgzipDecompressor(flag=_igzip.DECOMP_GZIP)
        return decoder
    if kind == BZIP2:
        return bz2.BZ2Decompressor()
    if kind == ZSTD:
        library = _zstd_library()
        # The window is what a decoder needs memory for.
        window_log = limits.decoder_memory_bytes.bit_length() - 1
        made: _Decoder = library.ZstdDecompressor(
            options={library.DecompressionParameter.window_log_max: window_log}
        )
        return made
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=limits.decoder_memory_bytes)


_DECODER_ERRORS: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
if _igzip is not None:
    _DECODER_ERRORS = (*_DECODER_ERRORS, _igzip.IsalError)
if _zstd is not None:
    _DECODER_ERRORS = (*_DECODER_ERRORS, _zstd.ZstdError)


def _zstd_library() -> Any:
    if _zstd is None:
        raise HostError("zstd cannot be used: the library backports.zstd is not installed", hint="make setup")
    return _zstd


def _fail(kind: str, members: int, error: object) -> ImageError:
    where = f"damaged {kind} data" if members == 0 else f"trailing bytes behind the {kind} data"
    return ImageError(f"{where}: {error}")


class Decompressor:
    """Iterates over the decompressed bytes of a descriptor.

    Attributes:
        kind: how the input is compressed, known after the first chunk.
        input_bytes: compressed bytes read so far; ``output_bytes`` what came out.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        limits: Limits,
        *,
        seen: Callable[[bytes], object] | None = None,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        """Prepare.

        Args:
            read: returns up to that many bytes, b"" at the end.
            limits: ratio, size and time are held against these.
            seen: is given every compressed byte in order, for hashing.
            kinds: how the input may be compressed.
        """
        self.kind = ""
        self.input_bytes = 0
        self.output_bytes = 0
        self._read = read
        self._limits = limits
        self._seen = seen
        self._kinds = kinds
        self._deadline_monotonic = time.monotonic() + limits.time_seconds

    def _more(self, count: int = _READ_BYTES) -> bytes:
        data = self._read(count)
        self.input_bytes += len(data)
        if self._seen is not None:
            self._seen(data)
        return data

    def _judge(self, chunk: bytes) -> bytes:
        limits = self._limits
        self.output_bytes += len(chunk)
        if self.output_bytes > limits.tar_bytes:
            raise ImageError(f"the image is larger than {limits.tar_bytes} bytes")
        if (
            self.output_bytes > limits.ratio_free_bytes
            and self.output_bytes > limits.ratio * self.input_bytes
        ):
            raise ImageError(
                f"the image expands more than {limits.ratio} times "
                f"({self.input_bytes} bytes became {self.output_bytes})"
            )
        return chunk

    def _on_time(self) -> None:
        if time.monotonic() > self._deadline_monotonic:
            raise ImageError(f"the image took more than {self._limits.time_seconds} seconds to unpack")

    def __iter__(self) -> Iterator[bytes]:
        head = b""
        while len(head) < 512 and (data := self._more()):
            head += data
        if not head:
            raise ImageError("the image is empty")
        self.kind = detect(head[:512], self._kinds)
        if self.kind == NONE:
            while head:
                self._on_time()
                yield self._judge(head)
                head = self._more(CHUNK_BYTES)
            return
        yield from self._members(head)

    def _members(self, data: bytes) -> Iterator[bytes]:
        kind = self.kind
        members = 0
        decoder = _decoder(kind, self._limits)
        while True:
            self._on_time()
            try:
                chunk = decoder.decompress(data, CHUNK_BYTES)
            except _DECODER_ERRORS as e:
                raise _fail(kind, members, e) from None
            if chunk:
                yield self._judge(chunk)
            data = b""
            if decoder.eof:
                members += 1
                data = self._next_member(decoder.unused_data)
                if not data:
                    return
                decoder = _decoder(kind, self._limits)
            elif decoder.needs_input:
                data = self._more()
                if not data and members:
                    raise _fail(kind, members, "a member that does not end")
                if not data:
                    raise ImageError(f"truncated {kind} data: it ends after {self.input_bytes} bytes")

    def _next_member(self, unused: bytes) -> bytes:
        """What follows a finished member; xz alone allows zeros there, in fours (xz file format §2.2)."""
        data = unused or self._more()
        if self.kind != XZ:
            return data
        zeros = 0
        while data and not (rest := data.lstrip(b"\0")):
            zeros += len(data)
            data = self._more()
        if data:
            zeros += len(data) - len(rest)
            data = rest
        if zeros % 4:
            raise ImageError("trailing bytes behind the xz data: padding is not a multiple of four")
        return data


class ReadAhead:
    """Runs an iterator of chunks in a thread of its own, a few chunks ahead.

    Decoders and hashes release the interpreter lock, so decompression and hashing of the stream overlap with writing
    the tree. Without permission to start a thread, the chunks are made in turn.
    """

    def __init__(self, chunks: Iterator[bytes], depth: int = 16) -> None:
        self._chunks = chunks
        # Queues written in C: a chunk is handed over thousands of times.
        self._ready: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(depth):
            self._free.put(None)
        self._stop = False
        self._thread: threading.Thread | None = threading.Thread(target=self._fill, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None

    def _fill(self) -> None:
        last: BaseException | None = None
        get, put = self._free.get, self._ready.put
        try:
            for chunk in self._chunks:
                get()
                if self._stop:
                    break
                put(chunk)
        except BaseException as e:  # noqa: BLE001 - handed to the consuming thread
            last = e
        put(last)

    def __iter__(self) -> Iterator[bytes]:
        if self._thread is None:
            yield from self._chunks
            return
        get, put = self._ready.get, self._free.put
        while True:
            item = get()
            if isinstance(item, bytes):
                put(None)
                yield item
            elif item is None:
                return
            else:
                raise item

    def close(self) -> None:
        """Stop and join the thread."""
        if self._thread is not None:
            self._stop = True
            self._free.put(None)
            self._thread.join()


def fd_reader(fd: int) -> Callable[[int], bytes]:
    """A ``read`` for ``Decompressor`` from a descriptor."""
    return lambda count: os.read(fd, count)


class _Plain:
    """The encoder of ``none``."""

    __slots__ = ()

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def encoder(kind: str, *, gzip_level: int = 9) -> _Encoder:
    """A compressor whose output depends on its input only: no name, no time in the gzip header."""
    if kind == NONE:
        return _Plain()
    if kind == GZIP:
        return zlib.compressobj(gzip_level, zlib.DEFLATED, 31)
    if kind == BZIP2:
        return bz2.BZ2Compressor(9)
    if kind == ZSTD:
        compressor: _Encoder = _zstd_library().ZstdCompressor(level=3)
        return compressor
    return lzma.LZMACompressor(lzma.FORMAT_XZ, preset=6)
