# SPDX-License-Identifier: Apache-2.0
"""Compressed streams against other decoders, and archives of images with the documents in them."""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import os
import sys
import zlib

from rkt.errors import ImageError, InvalidManifest, RktError
from rkt.fetch.layout_worker import Resolve
from rkt.image.compression import LAYER_KINDS, Decompressor
from rkt.image.limits import DEFAULT_LIMITS
from rkt.schema import oci
from rkt.values import Digest
from tests.fuzz.target import Target
from tests.fuzz.targets.archives import fix_checksums
from tests.fuzz.targets.documents import JSON_PIECES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LIMITS = DEFAULT_LIMITS.replace(tar_bytes=1 << 20, ratio_free_bytes=1 << 18, time_seconds=20)


def _gzip(data: bytes) -> bytes:
    """All members by zlib, nothing between or behind them. It wants to know all flags, of which none changes the content."""
    found = b""
    while data:
        decoder = zlib.decompressobj(wbits=31)
        data = data[:3] + bytes([data[3] & 0x1F]) + data[4:]
        found += decoder.decompress(data)
        assert decoder.eof, "the library wants more"
        data = decoder.unused_data
    return found


def _xz(data: bytes) -> bytes:
    """All streams, with the padding that the format allows."""
    found = b""
    while data.strip(b"\0"):
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
        data = data.lstrip(b"\0")
        found += decoder.decompress(data)
        assert decoder.eof, "the library wants more"
        data = decoder.unused_data
    return found


_OTHERS = {"gzip": _gzip, "bzip2": bz2.decompress, "xz": _xz, "zstd": zstd.decompress}


def read_compressed(data: bytes) -> None:
    """What comes out is what another decoder makes of all of it, however it comes in, and never more than is allowed."""
    whole = Decompressor(io.BytesIO(data).read, _LIMITS, kinds=LAYER_KINDS)
    found = b"".join(whole)
    assert len(found) == whole.output_bytes <= _LIMITS.tar_bytes, "more than is allowed"
    assert whole.input_bytes == len(data), "something was not read"
    stream = io.BytesIO(data)
    pieces = Decompressor(lambda count: stream.read(min(count, 97)), _LIMITS, kinds=LAYER_KINDS)
    assert b"".join(pieces) == found, "in pieces it is another"
    if whole.kind in _OTHERS:
        assert _OTHERS[whole.kind](data) == found, "another decoder reads something else"


def _memory(data: bytes = b"") -> int:
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read_archive(data: bytes) -> None:
    """Documents of an archive are whole and what the answer says they are; members that layers are in are named plainly."""
    kind = "docker-archive" if data[:1] == b"d" else "oci-archive"
    request = {
        "kind": kind,
        "reference": "",
        "platform": {"os": "linux", "architecture": "amd64", "variant": ""},
        "uid": 0,
        "limit_bytes": 1 << 20,
    }
    fds = {name: _memory() for name in ("archive", "index", "manifest", "config")}
    fds["source"] = _memory(fix_checksums(data[1:]))
    try:
        answer = Resolve(request).run(fds, lambda _: None)
        manifest = os.pread(fds["manifest"], 1 << 22, 0)
        assert answer["digest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}", "another digest"
        document = oci.parse_manifest(manifest, answer["media_type"])
        config = os.pread(fds["config"], 1 << 22, 0)
        assert document.config.digest == f"sha256:{hashlib.sha256(config).hexdigest()}", (
            "another configuration"
        )
        assert len(answer["layers"]) == len(oci.parse_config(config).diff_ids), "other layers"
        for layer in answer["layers"]:
            assert Digest.parse(layer["digest"]) == layer["digest"], "no digest"
            assert layer["size"] >= 0, "a size below nothing"
    finally:
        for fd in fds.values():
            os.close(fd)


TARGETS = (
    Target(
        name="compressed",
        read=read_compressed,
        refuses=(ImageError,),
        pieces=(b"\x1f\x8b\x08\0", b"BZh91AY&SY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x04", b"\x50\x2a\x4d\x18\x04\0\0\0", b"YZ"),
    ),
    Target(
        name="image-archive",
        read=read_archive,
        refuses=(RktError, InvalidManifest),
        pieces=(*JSON_PIECES, b'"Config"', b'"RepoTags"', b'"Layers"', b'"manifests"', b'"config"', b'"digest"', b"manifest.json", b"index.json", b"oci-layout", b"../", b"2", b"1",
                b"ustar\x0000", b"/"),
        max_bytes=16 << 10,
    ),
)  # fmt: skip
