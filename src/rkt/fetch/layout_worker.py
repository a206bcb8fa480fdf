# SPDX-License-Identifier: Apache-2.0
"""Image layouts and archives of Docker and OCI images, read by ``rkt-fetch`` without network.

======================  ==============================================================================================
``oci:DIR``             a directory; files come from the command's ``Opener``
``oci-archive:FILE``    the same in a tar
``docker-archive:FILE`` a tar as ``docker save`` writes it: ``manifest.json`` names configuration and layers by path
======================  ==============================================================================================

A tar may be compressed; it is then unpacked into staging first. Its members are looked up by name and never written
anywhere, so that a name can do no harm; a link leads to another member or nowhere. Blobs are copied into the files that
the command prepared, and held against digest and size on the way.

A Docker archive has no manifest of a registry. One is made of what it has, always the same: ``schemaVersion`` 2 of Docker,
with the configuration's very bytes.
"""

from __future__ import annotations

import array
import hashlib
import os
import posixpath
import socket

from rkt.errors import FetchError, ImageError, InvalidManifest, RktError
from rkt.fetch import lookaside_worker, opener
from rkt.image import tarformat
from rkt.image.compression import LAYER_KINDS, NONE, Decompressor, detect
from rkt.image.limits import DEFAULT_LIMITS
from rkt.image.tarformat import show
from rkt.linux.files import write_all
from rkt.privsep import confine
from rkt.schema import jsontext, oci
from rkt.schema.oci import Index, Platform
from rkt.schema.record import Record
from rkt.trust.message import MAX_MESSAGE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    from rkt.privsep.worker import Emit
    from rkt.schema.oci import Descriptor, ImageConfig, Manifest

    class Files(Protocol):
        """The files of a layout or archive."""

        def open(self, name: str) -> Extent:
            """A file by the name that it has in a layout; to be read before the next one is opened."""


#: Kinds of sources, and the words before the colon of a reference.
OCI = "oci"
OCI_ARCHIVE = "oci-archive"
DOCKER_ARCHIVE = "docker-archive"
#: Imported by ``socket`` on use, when nothing can be imported any more.
_ON_USE = (array,)
_CHUNK_BYTES = 1 << 20
_BLOBS = "blobs/sha256/"
_DOCKER_INDEX = "manifest.json"
_REF_NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"
_MAX_LINKS = 8
_MAX_MEMBERS = 50_000
_MAX_NESTED = 4
#: More names than these are not shown.
_MAX_SHOWN = 10
_GZIP_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_ZSTD_LAYER = "application/vnd.docker.image.rootfs.diff.tar.zstd"
_PLAIN_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_LAYER_MAGICS = ((b"\x1f\x8b", _GZIP_LAYER), (b"\x28\xb5\x2f\xfd", _ZSTD_LAYER))


class Extent(Record):
    """A part of an open file.

    Attributes:
        fd: the file.
        offset, size_bytes: which part.
    """

    fd: int
    offset: int
    size_bytes: int

    def read(self, limit_bytes: int, what: str) -> bytes:
        """All of it."""
        if self.size_bytes > limit_bytes:
            raise ImageError(
                f"{what} is too large: {self.size_bytes} bytes, at most {limit_bytes} are accepted"
            )
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """All of it in pieces."""
        position, end = self.offset, self.offset + self.size_bytes
        while position < end:
            data = os.pread(self.fd, min(_CHUNK_BYTES, end - position), position)
            if not data:
                raise FetchError("a file became shorter while it was read")
            position += len(data)
            yield data

    def head(self, count: int) -> bytes:
        """The first bytes."""
        return os.pread(self.fd, min(count, self.size_bytes), self.offset)


class _Directory:
    """A layout in a directory, of which one file is open at a time: this process may have few, and a layout has many."""

    def __init__(self, connection_fd: int) -> None:
        # With family and type, the kernel is not asked for them.
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, os.dup(connection_fd))
        self._fd = -1

    def open(self, name: str) -> Extent:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._fd = opener.ask(self._connection, name.removeprefix(_BLOBS))
        return Extent(fd=self._fd, offset=0, size_bytes=os.fstat(self._fd).st_size)


class _Headers:
    """What ``tarformat.members`` reads headers from: a file, of which contents are passed over."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.position = 0

    def take(self, count: int, /) -> bytes:
        data = os.pread(self._fd, count, self.position)
        self.position += len(data)
        return data


class _Archive:
    """The members of a tar."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._extents: dict[str, Extent] = {}
        self._links: dict[str, str] = {}
        self._repeated: set[str] = set()
        size = os.fstat(fd).st_size
        source = _Headers(fd)
        for member in tarformat.members(source, DEFAULT_LIMITS.replace(entries=_MAX_MEMBERS)):
            name = posixpath.normpath(os.fsdecode(member.path))
            if member.kind == tarformat.DIRECTORY:
                continue
            if name in self._extents or name in self._links:
                self._repeated.add(name)
            if member.kind == tarformat.REGULAR:
                if source.position + member.size > size:
                    raise ImageError(f"the tar is truncated: it ends inside {show(member.path)!r}")
                self._extents[name] = Extent(fd=fd, offset=source.position, size_bytes=member.size)
                source.position += member.size
            elif member.kind == tarformat.SYMLINK:
                # Docker's old layouts link a layer that two images share.
                self._links[name] = posixpath.normpath(
                    posixpath.join(posixpath.dirname(name), os.fsdecode(member.link))
                )
            elif member.kind == tarformat.HARD_LINK:
                self._links[name] = posixpath.normpath(os.fsdecode(member.link))

    def open(self, name: str) -> Extent:
        wanted = name
        for _ in range(_MAX_LINKS):
            if name in self._repeated:
                raise ImageError(f"the archive has {_shown(name)} more than once")
            if name in self._extents:
                return self._extents[name]
            if name not in self._links:
                break
            name = self._links[name]
        raise ImageError(f"the archive has no file {_shown(wanted)}")

    def __contains__(self, name: str) -> bool:
        return name in self._extents or name in self._links


def open_files(kind: str, fds: dict[str, int]) -> Files:
    """The files of a source: ``opener`` of a directory, or ``source``, which is not compressed."""
    return _Directory(fds["opener"]) if kind == OCI else _Archive(fds["source"])


class Resolve:
    """Find one image and copy its documents.

    The request: ``kind``; ``reference``, may be empty; ``platform``, with ``os``, ``architecture`` and ``variant``;
    ``uid``; ``limit_bytes`` for an archive that is compressed. Descriptors: ``opener`` of a directory, else ``source`` and
    the empty file ``archive``; the empty files ``index``, ``manifest``, ``config``.

    The result: ``digest`` and ``media_type`` of the manifest; ``index_digest`` and ``index_media_type``, empty when there is
    no index; ``name``, what the image is called in there, may be empty; ``archive_bytes``, size of the
    archive in ``archive``, 0 when ``source`` is not compressed; ``layers``, each with ``digest``, ``size``, ``media_type``,
    ``diff_id`` and ``member``, which ``Blobs`` wants to hear.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self._kind: str = request["kind"]
        self._reference: str = request["reference"]
        self._platform = Platform(**request["platform"])
        self._uid = int(request["uid"])
        self._limit_bytes = int(request["limit_bytes"])

    def confine(self, fds: dict[str, int]) -> None:
        """Keep the descriptors; no network, no files."""
        confine.begin(b"rkt-fetch", network=False)
        limit = max(self._limit_bytes, oci.MAX_DOCUMENT_BYTES)
        confine.confine_fetch(network=False, file_size_bytes=limit, uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Find and copy."""
        archive_bytes = 0
        if self._kind == OCI:
            return self._layout(_Directory(fds["opener"]), fds)
        source = fds["source"]
        if _is_compressed(source):
            archive_bytes = _decompress(source, fds["archive"], self._limit_bytes)
            source = fds["archive"]
        archive = _Archive(source)
        if self._kind == OCI_ARCHIVE and opener.MARK not in archive and _DOCKER_INDEX in archive:
            raise ImageError(f"the archive has no {opener.MARK}", hint="use docker-archive:FILE")
        find = self._docker if self._kind == DOCKER_ARCHIVE else self._layout
        answer = find(archive, fds)
        return {**answer, "archive_bytes": archive_bytes}

    def _layout(self, files: Files, fds: dict[str, int]) -> dict[str, Any]:
        _check_version(files.open(opener.MARK).read(oci.MAX_DOCUMENT_BYTES, opener.MARK))
        data = files.open(opener.INDEX).read(oci.MAX_DOCUMENT_BYTES, opener.INDEX)
        entry = self._entry(files, oci.parse_index(data))
        name = _name(entry)
        index = ("", "")
        for _ in range(_MAX_NESTED):
            if entry.media_type not in oci.INDEXES:
                break
            data = read_document(files, entry)
            if index == ("", ""):
                index = (str(entry.digest), entry.media_type)
                write_all(fds["index"], data)
            entry = oci.parse_index(data, entry.media_type).choose(self._platform)
        data = read_document(files, entry)
        manifest = oci.parse_manifest(data, entry.media_type)
        manifest.check_image()
        config_data = read_document(files, manifest.config)
        config = oci.parse_config(config_data)
        oci.check_together(manifest, config)
        write_all(fds["manifest"], data)
        write_all(fds["config"], config_data)
        members = [f"{_BLOBS}{layer.digest.hex}" for layer in manifest.layers]
        return _answer(manifest, config, str(entry.digest), members, index=index, name=name)

    def _entry(self, files: Files, index: Index) -> Descriptor:
        """The entry of ``index.json`` that the reference means."""
        images = [d for d in index.manifests if d.media_type in (*oci.MANIFESTS, *oci.INDEXES)]
        if self._reference:
            if self._reference.startswith("sha256:"):
                # Whoever made the layout may have called something else so.
                found = [entry for entry in images if entry.digest == self._reference]
                found = found or [d for d in self._nested(files, images) if d.digest == self._reference]
            else:
                found = [entry for entry in images if self._reference in _names(entry)]
            if not found:
                raise _no_such(self._reference, [_name(entry) or str(entry.digest) for entry in images])
        else:
            found = images = [entry for entry in images if not oci.is_artifact(entry)]
            if len({_name(entry) for entry in found}) > 1:
                raise _several([_name(entry) or str(entry.digest) for entry in images])
        if not found:
            raise ImageError("the image layout has no image")
        if any(entry.urls for entry in found):
            raise InvalidManifest("the image is to be had from elsewhere: foreign URLs are not followed")
        if len({entry.digest for entry in found}) == 1:
            return found[0]
        if all(entry.platform is None for entry in found):
            raise _several([str(entry.digest) for entry in found])
        return index.replace(manifests=found).choose(self._platform)

    def _nested(self, files: Files, entries: list[Descriptor]) -> Iterator[Descriptor]:
        """What the indexes among the entries have."""
        for entry in entries:
            if entry.media_type in oci.INDEXES:
                yield from oci.parse_index(read_document(files, entry), entry.media_type).manifests

    def _docker(self, archive: _Archive, fds: dict[str, int]) -> dict[str, Any]:
        if _DOCKER_INDEX not in archive and opener.INDEX in archive:
            raise ImageError(f"the archive has no {_DOCKER_INDEX}", hint="use oci-archive:FILE")
        entry = self._docker_entry(
            _docker_entries(archive.open(_DOCKER_INDEX).read(oci.MAX_DOCUMENT_BYTES, _DOCKER_INDEX))
        )
        config_data = archive.open(_member(entry["Config"])).read(oci.MAX_DOCUMENT_BYTES, "the configuration")
        config = oci.parse_config(config_data)
        members = [_member(name) for name in entry["Layers"]]
        if len(members) != len(config.diff_ids):
            raise InvalidManifest(
                f"the archive lists {len(members)} layers, but the configuration has {len(config.diff_ids)} diff IDs"
            )
        layers = [
            _describe(archive.open(name), str(diff_id))
            for name, diff_id in zip(members, config.diff_ids, strict=True)
        ]
        document = {
            "schemaVersion": 2,
            "mediaType": oci.DOCKER_MANIFEST,
            "config": {
                "mediaType": oci.DOCKER_CONFIG,
                "size": len(config_data),
                "digest": _digest(config_data),
            },
            "layers": layers,
        }
        data = jsontext.dump(document).encode()
        manifest = oci.parse_manifest(data, oci.DOCKER_MANIFEST)
        manifest.check_image()
        write_all(fds["manifest"], data)
        write_all(fds["config"], config_data)
        tags = entry["RepoTags"] or [""]
        name = self._reference if self._reference in tags else tags[0]
        return _answer(manifest, config, _digest(data), members, index=("", ""), name=name)

    def _docker_entry(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        names = [(entry["RepoTags"] or [entry["Config"]])[0] for entry in entries]
        wanted = self._reference
        if not wanted:
            if len(entries) > 1:
                raise _several(names)
            return entries[0]
        for entry in entries:
            if _plain(wanted) in {_plain(tag) for tag in entry["RepoTags"]} or wanted == entry["Config"]:
                return entry
        raise _no_such(wanted, names)


class Blobs:
    """Copy blobs.

    The request: ``kind``; ``uid``; ``blobs``, each with ``digest``, ``size`` and ``member`` as ``Resolve`` told it.
    Descriptors: ``opener`` or ``source``, which is what ``Resolve`` left in ``archive`` if it left something; the files
    ``blob0``, ``blob1``…. Events: ``{"kind": "progress", "index", "done", "total"}``. The result: ``blobs``, each with
    ``size_bytes`` and ``kept_bytes``.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self._kind: str = request["kind"]
        self._uid = int(request["uid"])
        self._blobs: list[dict[str, Any]] = request["blobs"]

    def confine(self, fds: dict[str, int]) -> None:
        """Keep the descriptors; no network, no files."""
        confine.begin(b"rkt-fetch", network=False)
        limit = max([int(blob["size"]) for blob in self._blobs], default=0)
        confine.confine_fetch(network=False, file_size_bytes=limit, uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Copy."""
        files = open_files(self._kind, fds)
        done = []
        for index, blob in enumerate(self._blobs):
            emit({"kind": "started", "index": index, "kept": 0, "total": int(blob["size"])})
            extent = files.open(blob["member"])
            _copy(extent, fds[f"blob{index}"], blob["digest"], int(blob["size"]), index, emit)
            done.append({"size_bytes": extent.size_bytes, "kept_bytes": 0})
        return {"blobs": done}


class Messages:
    """Signed OpenPGP messages of an archive: ``places``, directories in which ``signature-1`` and so on are; ``uid``.

    Events as ``fetch.lookaside_worker`` sends them. Descriptor: ``source``, as of ``Blobs``.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self._uid = int(request["uid"])
        self._places: list[str] = request["places"]

    def confine(self, fds: dict[str, int]) -> None:
        """Keep the descriptor; no network, no files."""
        confine.begin(b"rkt-fetch", network=False)
        confine.confine_fetch(network=False, file_size_bytes=0, uid=self._uid)

    def run(self, fds: dict[str, int], emit: Emit) -> dict[str, Any]:
        """Read."""
        archive = _Archive(fds["source"])
        for place in self._places:
            for number in range(1, lookaside_worker.MAX_SIGNATURES + 1):
                name = f"{place}/signature-{number}"
                if name not in archive:
                    break
                try:
                    data = archive.open(name).read(MAX_MESSAGE_BYTES, name)
                except ImageError as e:
                    emit(lookaside_worker.describe_problem(e.message, name))
                else:
                    emit(lookaside_worker.describe(data, name))
            else:
                emit(lookaside_worker.describe_problem(lookaside_worker.MORE, place))
        return {}


def _copy(extent: Extent, target: int, digest: str, size: int, index: int, emit: Emit) -> None:
    if extent.size_bytes != size:
        raise ImageError(f"blob {digest} must have {size} bytes, but has {extent.size_bytes}")
    found = hashlib.sha256()
    done = 0
    for data in extent.chunks():
        found.update(data)
        write_all(target, data)
        done += len(data)
        if done % (_CHUNK_BYTES << 3) == 0 or done == size:
            emit({"kind": "progress", "index": index, "done": done, "total": size})
    if f"sha256:{found.hexdigest()}" != digest:
        raise ImageError(f"blob {digest} has other content: its digest is sha256:{found.hexdigest()}")


def read_document(files: Files, wanted: Descriptor) -> bytes:
    """A document that another one names, held against what that says of it."""
    extent = files.open(f"{_BLOBS}{wanted.digest.hex}")
    data = extent.read(oci.MAX_DOCUMENT_BYTES, f"blob {wanted.digest}")
    if len(data) != wanted.size_bytes:
        raise ImageError(f"blob {wanted.digest} must have {wanted.size_bytes} bytes, but has {len(data)}")
    if _digest(data) != wanted.digest:
        raise ImageError(f"blob {wanted.digest} has other content: its digest is {_digest(data)}")
    return data


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _answer(
    manifest: Manifest,
    config: ImageConfig,
    digest: str,
    members: list[str],
    *,
    index: tuple[str, str],
    name: str,
) -> dict[str, Any]:
    layers = [
        {
            "digest": str(layer.digest),
            "size": layer.size_bytes,
            "media_type": layer.media_type,
            "diff_id": str(diff_id),
            "member": member,
        }
        for layer, diff_id, member in zip(manifest.layers, config.diff_ids, members, strict=True)
    ]
    return {
        "digest": digest,
        "media_type": manifest.media_type,
        "index_digest": index[0],
        "index_media_type": index[1],
        "name": name,
        "archive_bytes": 0,
        "layers": layers,
    }


def _check_version(data: bytes) -> None:
    value = jsontext.parse(data, what=opener.MARK)
    version = value.get("imageLayoutVersion") if isinstance(value, dict) else None
    if version != "1.0.0":
        raise InvalidManifest(f"an image layout of version 1.0.0 is expected, {opener.MARK} has another")


def _name(entry: Descriptor) -> str:
    return entry.annotations.get(_FULL_NAME) or entry.annotations.get(_REF_NAME, "")


def _names(entry: Descriptor) -> tuple[str, ...]:
    """All that an entry is called."""
    values = (entry.annotations.get(_FULL_NAME), entry.annotations.get(_REF_NAME))
    return tuple(filter(None, values))


def _plain(tag: str) -> str:
    """A tag of Docker as people type it: without what Docker, podman and skopeo put before short names."""
    if ":" not in tag.rpartition("/")[2]:
        tag += ":latest"
    for prefix in ("docker.io/library/", "docker.io/", "localhost/"):
        if tag.startswith(prefix):
            return tag.removeprefix(prefix)
    return tag


def _docker_entries(data: bytes) -> list[dict[str, Any]]:
    value = jsontext.parse(data, what=_DOCKER_INDEX)
    if not isinstance(value, list) or not value:
        raise InvalidManifest(f"{_DOCKER_INDEX} must be a list of images")
    entries = []
    for item in value:
        if not isinstance(item, dict):
            raise InvalidManifest(f"an image in {_DOCKER_INDEX} must be an object")
        tags = item.get("RepoTags") or []
        entry = {"Config": item.get("Config"), "RepoTags": tags, "Layers": item.get("Layers") or []}
        if not isinstance(entry["Config"], str) or not _are_texts(tags) or not _are_texts(entry["Layers"]):
            raise InvalidManifest(f"an image in {_DOCKER_INDEX} has no usable Config, RepoTags and Layers")
        entries.append(entry)
    return entries


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _member(name: str) -> str:
    """A path of ``manifest.json`` as members are looked up."""
    return posixpath.normpath(name)


def _describe(extent: Extent, diff_id: str) -> dict[str, Any]:
    """A layer of a Docker archive as manifests have it; a compressed one is read to its end for its digest."""
    head = extent.head(4)
    for magic, media_type in _LAYER_MAGICS:
        if head.startswith(magic):
            found = hashlib.sha256()
            for data in extent.chunks():
                found.update(data)
            return {
                "mediaType": media_type,
                "size": extent.size_bytes,
                "digest": f"sha256:{found.hexdigest()}",
            }
    return {"mediaType": _PLAIN_LAYER, "size": extent.size_bytes, "digest": diff_id}


def _is_compressed(fd: int) -> bool:
    return detect(os.pread(fd, tarformat.BLOCK, 0), LAYER_KINDS) != NONE


def _decompress(source: int, target: int, limit_bytes: int) -> int:
    """Unpack an archive into a file; returns its size."""
    os.lseek(source, 0, os.SEEK_SET)
    limits = DEFAULT_LIMITS.replace(tar_bytes=limit_bytes)
    total = 0
    for chunk in Decompressor(lambda count: os.read(source, count), limits, kinds=LAYER_KINDS):
        write_all(target, chunk)
        total += len(chunk)
    return total


def _shown(name: str) -> str:
    return repr(show(os.fsencode(name)))


def _listed(names: list[str]) -> str:
    unique = sorted(set(names))
    more = f" and {len(unique) - _MAX_SHOWN} more" if len(unique) > _MAX_SHOWN else ""
    return ", ".join(unique[:_MAX_SHOWN]) + more


def _several(names: list[str]) -> RktError:
    return ImageError(
        f"there is more than one image: {_listed(names)}", hint="put one of the names behind a colon"
    )


def _no_such(wanted: str, names: list[str]) -> RktError:
    if not names:
        return ImageError("there is no image")
    return ImageError(f'there is no image "{wanted}", but {_listed(names)}')
