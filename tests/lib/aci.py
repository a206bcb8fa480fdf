# SPDX-License-Identifier: Apache-2.0
"""App Container Images of every shape, hostile ones too, made without the code under test.

``write_aci(path, ["/bin/hello"], files={"bin/hello": (data, 0o755)})`` is enough for most tests. For odd archives,
list ``Entry`` objects and call ``tar_bytes``; for broken ones, ``header`` takes anything for each field.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BLOCK = 512
END = bytes(2 * BLOCK)
#: appc architectures by the kernel's names, where they differ.
ARCH = {"x86_64": "amd64", "i686": "i386"}.get(os.uname().machine, os.uname().machine)


def octal(value: int, width: int) -> bytes:
    """A numeric header field."""
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    """A numeric header field in GNU's form for large and negative numbers."""
    data = bytearray(value.to_bytes(width, "big", signed=value < 0))
    data[0] |= 0x80
    return bytes(data)


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    mode: bytes | int = 0o644,
    uid: bytes | int = 0,
    gid: bytes | int = 0,
    size: bytes | int = 0,
    mtime: bytes | int = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One header block; ``bytes`` go in as they are."""

    def number(value: bytes | int, width: int) -> bytes:
        return octal(value, width) if isinstance(value, int) else value.ljust(width, b"\0")

    block = b"".join(
        [
            name.ljust(100, b"\0"),
            number(mode, 8),
            number(uid, 8),
            number(gid, 8),
            number(size, 12),
            number(mtime, 12),
            b" " * 8,
            kind,
            link.ljust(100, b"\0"),
            magic,
            bytes(64 + 16),
            prefix.ljust(155, b"\0"),
            bytes(12),
        ]
    )
    assert len(block) == BLOCK, len(block)
    stored = b"%06o\0 " % sum(block) if checksum is None else checksum
    return block[:148] + stored + block[156:]


def padded(content: bytes) -> bytes:
    """Content and the zeros up to the next block."""
    return content + bytes(-len(content) % BLOCK)


def pax_record(keyword: bytes, value: bytes) -> bytes:
    """One record of a PAX header."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def pax(records: Mapping[bytes, bytes], kind: bytes = b"x") -> bytes:
    """A PAX header with its content."""
    payload = b"".join(pax_record(k, v) for k, v in records.items())
    return header(b"PaxHeader", kind, size=len(payload)) + padded(payload)


def gnu_long(name: bytes, kind: bytes = b"L") -> bytes:
    """A GNU long name (``L``) or long link name (``K``)."""
    payload = name + b"\0"
    return header(b"././@LongLink", kind, size=len(payload), magic=b"ustar  \0") + padded(payload)


@dataclass
class Entry:
    """A member; ``before`` is put in front of its header."""

    path: str | bytes
    kind: bytes = b"0"
    content: bytes = b""
    mode: int = 0o644
    uid: int | bytes = 0
    gid: int | bytes = 0
    mtime: int | bytes = 0
    link: str | bytes = b""
    records: dict[bytes, bytes] = field(default_factory=dict)
    before: bytes = b""

    def to_bytes(self) -> bytes:
        """Header and content; what does not fit ustar goes to a PAX header."""
        path, link = (p.encode() if isinstance(p, str) else p for p in (self.path, self.link))
        records = dict(self.records)
        if len(path) > 100:
            records[b"path"], path = path, path[-100:]
        if len(link) > 100:
            records[b"linkpath"], link = link, link[-100:]
        head = header(
            path,
            self.kind,
            mode=self.mode,
            uid=self.uid,
            gid=self.gid,
            size=len(self.content),
            mtime=self.mtime,
            link=link,
        )
        return self.before + (pax(records) if records else b"") + head + padded(self.content)


def directory(path: str | bytes, mode: int = 0o755, **rest: Any) -> Entry:
    """A directory."""
    return Entry(path, b"5", mode=mode, **rest)


def symlink(path: str | bytes, target: str | bytes, **rest: Any) -> Entry:
    """A symbolic link."""
    return Entry(path, b"2", link=target, mode=0o777, **rest)


def hard_link(path: str | bytes, target: str | bytes, **rest: Any) -> Entry:
    """A hard link; the target is a path of the archive."""
    return Entry(path, b"1", link=target, **rest)


def fifo(path: str | bytes, **rest: Any) -> Entry:
    """A named pipe."""
    return Entry(path, b"6", **rest)


def device(path: str | bytes, kind: bytes = b"3", **rest: Any) -> Entry:
    """A character (``3``) or block (``4``) device."""
    return Entry(path, kind, **rest)


def image_manifest(
    name: str = "example.com/app", exec_: Iterable[str] | None = ("/bin/app",), **more: Any
) -> dict[str, Any]:
    """A valid image manifest; keywords of ``app`` by their appc names replace or add members of the app section."""
    app = more.pop("app", {})
    labels = {"os": "linux", "arch": ARCH, **more.pop("labels", {})}
    manifest: dict[str, Any] = {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": name,
        "labels": [{"name": k, "value": v} for k, v in labels.items()],
    }
    if exec_ is not None:
        manifest["app"] = {"exec": list(exec_), "user": "0", "group": "0", **app}
    return {**manifest, **more}


def manifest_entry(manifest: dict[str, Any] | bytes | None = None) -> Entry:
    """The member ``manifest``."""
    if not isinstance(manifest, bytes):
        manifest = json.dumps(image_manifest() if manifest is None else manifest).encode()
    return Entry("manifest", content=manifest)


def tar_bytes(entries: Iterable[Entry | bytes], end: bytes = END) -> bytes:
    """A tar of entries; ``bytes`` among them go in as they are."""
    return b"".join([*(e if isinstance(e, bytes) else e.to_bytes() for e in entries), end])


def aci_tar(*entries: Entry | bytes, manifest: dict[str, Any] | bytes | None = None) -> bytes:
    """An uncompressed ACI: manifest, ``rootfs``, then the entries (paths with ``rootfs/``)."""
    return tar_bytes([manifest_entry(manifest), directory("rootfs"), *entries])


def compress(data: bytes, kind: str) -> bytes:
    """``none``, ``gzip``, ``bzip2`` or ``xz``."""
    if kind == "none":
        return data
    if kind == "gzip":
        return gzip.compress(data, 6, mtime=0)
    return bz2.compress(data) if kind == "bzip2" else lzma.compress(data)


def image_id(tar: bytes) -> str:
    """The image ID of an uncompressed ACI."""
    return f"sha512-{hashlib.sha512(tar).hexdigest()}"


def write_aci(
    path: str | os.PathLike[str],
    exec_: Iterable[str] | None = ("/bin/app",),
    *,
    name: str = "example.com/app",
    files: Mapping[str, bytes | tuple[bytes, int]] | None = None,
    links: Mapping[str, str] | None = None,
    entries: Iterable[Entry] = (),
    compression: str = "none",
    **manifest: Any,
) -> str:
    """Write an ACI and return its image ID.

    Args:
        path: file to make.
        exec_: the command, ``None`` for an image without app section.
        name: image name.
        files: path below the root -> content (mode 0644) or (content, mode); directories are made as needed.
        links: path below the root -> text of a symbolic link.
        entries: more members, in archive paths.
        compression: see ``compress``.
        manifest: see ``image_manifest``.
    """
    members: dict[str, Entry] = {}

    def parents(inner: str) -> None:
        parts = inner.split("/")[:-1]
        for i in range(1, len(parts) + 1):
            directory_path = "rootfs/" + "/".join(parts[:i])
            members.setdefault(directory_path, directory(directory_path))

    for inner, value in (files or {}).items():
        content, mode = value if isinstance(value, tuple) else (value, 0o644)
        parents(inner.strip("/"))
        full = f"rootfs/{inner.strip('/')}"
        members[full] = Entry(full, content=content, mode=mode)
    for inner, target in (links or {}).items():
        parents(inner.strip("/"))
        members[f"rootfs/{inner.strip('/')}"] = symlink(f"rootfs/{inner.strip('/')}", target)
    tar = aci_tar(*members.values(), *entries, manifest=image_manifest(name, exec_, **manifest))
    with open(path, "wb") as stream:
        stream.write(compress(tar, compression))
    return image_id(tar)
