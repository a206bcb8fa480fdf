# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import io
import os
import threading
from typing import TYPE_CHECKING

import pytest

from rkt.errors import ImageError
from rkt.image import compression
from rkt.image.compression import Decompressor, ReadAhead, detect, encoder
from rkt.image.limits import DEFAULT_LIMITS, Limits
from rkt.image.tarformat import Chunks, members
from tests.lib import aci

if TYPE_CHECKING:
    from collections.abc import Iterator

TAR = aci.aci_tar(aci.Entry("rootfs/a", content=os.urandom(5000) * 3))
COMPRESSED = ("gzip", "bzip2", "xz")


@pytest.fixture(params=["library", "zlib"], autouse=True)
def _gzip_decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds with and without the fast gzip library."""
    if request.param == "zlib":
        monkeypatch.setattr(compression, "_igzip", None)


def unpack(data: bytes, limits: Limits = DEFAULT_LIMITS, step: int = 1 << 20) -> bytes:
    """All output; input arrives in steps."""
    stream = io.BytesIO(data)
    return b"".join(Decompressor(lambda count: stream.read(min(count, step)), limits))


@pytest.mark.parametrize("kind", compression.KINDS)
@pytest.mark.parametrize("step", [1, 100, 1 << 20])
def test_round_trip(kind: str, step: int) -> None:
    """Each format gives back what went in, however the input is cut."""
    assert unpack(aci.compress(TAR, kind), step=step) == TAR


@pytest.mark.parametrize("kind", compression.KINDS)
def test_kind_is_told_by_magic(kind: str) -> None:
    """The first bytes tell the format."""
    assert detect(aci.compress(TAR, kind)[:512]) == kind


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_members_are_concatenated(kind: str, step: int) -> None:
    """Two compressed members are one stream."""
    data = aci.compress(TAR[:1000], kind) + aci.compress(TAR[1000:], kind)
    assert unpack(data, step=step) == TAR


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("junk", [b"x", b"junk" * 100, b"\0", b"\x1f\x8b", b"BZh"])
def test_trailing_bytes_are_refused(kind: str, junk: bytes) -> None:
    """Bytes behind the last member are an error, not ignored."""
    with pytest.raises(ImageError, match="trailing"):
        unpack(aci.compress(TAR, kind) + junk)


def test_xz_padding_in_fours() -> None:
    """Of the formats, xz alone may be followed by zeros, in fours, also between streams."""
    first, second = aci.compress(TAR[:1000], "xz"), aci.compress(TAR[1000:], "xz")
    assert unpack(first + bytes(8) + second + bytes(4), step=3) == TAR
    for data in (first + bytes(3), first + bytes(5) + second):
        with pytest.raises(ImageError, match="trailing"):
            unpack(data)


@pytest.mark.parametrize("kind", COMPRESSED)
def test_truncation_is_an_error(kind: str) -> None:
    """A stream that ends anywhere before its last byte is refused."""
    data = aci.compress(TAR, kind)
    for length in (*range(1, 40), len(data) // 2, len(data) - 9, len(data) - 1):
        with pytest.raises(ImageError):
            unpack(data[:length])


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_damaged_stream_is_refused(kind: str) -> None:
    """A flipped bit in the middle does not pass the format's own checksum."""
    data = bytearray(aci.compress(TAR, kind))
    data[len(data) // 2] ^= 4
    with pytest.raises(ImageError, match=r"damaged|truncated|trailing"):
        unpack(bytes(data))


def test_unknown_formats_are_refused() -> None:
    """Neither tar nor compressed: an error, the name of the file does not matter."""
    for data in (b"", b"PK\x03\x04" + bytes(600), b"#!/bin/sh\n", b"\x01" + bytes(1023)):
        with pytest.raises(ImageError, match=r"unknown image filetype|empty"):
            unpack(data)


@pytest.mark.parametrize(
    ("offset", "magic"),
    [
        (0, b"hsqs"),
        (1024, b"\xe2\xe1\xf5\xe0"),
        (1080, b"\x53\xef"),
        (0, b"\x45\x3d\xcd\x28"),
        (32769, b"CD001"),
    ],
    ids=["squashfs", "erofs", "ext4", "cramfs", "iso9660"],
)
def test_file_systems_are_no_images(offset: int, magic: bytes) -> None:
    """A file system in a file is refused, and so never given to the kernel to be read (UN20)."""
    data = bytes(offset) + magic + bytes(4096)
    with pytest.raises(ImageError, match=r"unknown image filetype|behind the end"):
        list(members(Chunks(iter([unpack(data)])), DEFAULT_LIMITS))


@pytest.mark.parametrize("kind", COMPRESSED)
def test_bombs_stop_early(kind: str) -> None:
    """Output that is out of proportion to the input ends the read, long before the end of the bomb."""
    bomb = aci.compress(bytes(24 << 20), kind)
    limits = DEFAULT_LIMITS.replace(ratio=100, ratio_free_bytes=1 << 20)
    decompressor = Decompressor(io.BytesIO(bomb).read, limits)
    with pytest.raises(ImageError, match="expands more than"):
        for _ in decompressor:
            pass
    assert decompressor.output_bytes < 16 << 20


def test_size_and_time_have_limits() -> None:
    """A stream longer than allowed, or slower, is refused."""
    with pytest.raises(ImageError, match="larger than"):
        unpack(TAR, DEFAULT_LIMITS.replace(tar_bytes=1000))
    with pytest.raises(ImageError, match="seconds"):
        unpack(TAR, DEFAULT_LIMITS.replace(time_seconds=-1))


def test_xz_decoder_memory_is_bounded() -> None:
    """An xz stream that asks for a huge dictionary is refused."""
    with pytest.raises(ImageError, match=r"[Mm]emory"):
        unpack(aci.compress(TAR, "xz"), DEFAULT_LIMITS.replace(decoder_memory_bytes=1 << 20))


@pytest.mark.parametrize("kind", compression.KINDS)
def test_encoders_are_reproducible(kind: str) -> None:
    """The output of an encoder depends on its input only."""

    def encode() -> bytes:
        engine = encoder(kind)
        return engine.compress(TAR) + engine.flush()

    first = encode()
    assert first == encode()
    assert unpack(first) == TAR
    if kind == "gzip":
        assert gzip.decompress(first) == TAR
        assert first[3:8] == bytes(5)  # no name, no time


def test_read_ahead_passes_chunks_and_errors_on() -> None:
    """The second thread changes neither order nor errors, and ends when it is closed early."""

    def chunks(*, failing: bool) -> Iterator[bytes]:
        for i in range(50):
            yield b"%d" % i
        if failing:
            raise ImageError("at the end")

    before = threading.active_count()
    ahead = ReadAhead(chunks(failing=False))
    assert list(ahead) == [b"%d" % i for i in range(50)]
    ahead.close()
    ahead = ReadAhead(chunks(failing=True))
    with pytest.raises(ImageError, match="at the end"):
        list(ahead)
    ahead.close()
    ahead = ReadAhead(chunks(failing=False))
    assert next(iter(ahead)) == b"0"
    ahead.close()
    assert threading.active_count() == before
