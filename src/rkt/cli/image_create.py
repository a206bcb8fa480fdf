# SPDX-License-Identifier: Apache-2.0
"""``rkt image create``: an ACI or an OCI image from a directory or a tar."""

from __future__ import annotations

import contextlib
import os
import sys

from rkt.cli.command import BOOL, LIST, Command, Flag, Invocation
from rkt.cli.output import message, write
from rkt.cli.parse import FlagError
from rkt.errors import ConfigError, ImageError, UsageError, quoted
from rkt.values import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rkt.image.create import Options
    from rkt.image.oci_write import Layer
    from rkt.store.record import ImageRecord

#: ``rkt.image.compression.KINDS`` and ``rkt.image.oci_write.COMPRESSIONS``, which completion and help should not import.
_ACI_COMPRESSIONS = ("none", "gzip", "bzip2", "xz")
_OCI_COMPRESSIONS = ("none", "gzip", "zstd")
_COMPRESSIONS = ("none", "gzip", "bzip2", "xz", "zstd")
_FORMATS = ("aci", "oci", "docker-archive")
_OWNERS = ("auto", "keep", "root")
_MAX_MANIFEST_BYTES = 4 << 20


def _run(invocation: Invocation) -> int:
    values = invocation.values
    if not invocation.words:
        raise FlagError("an output file is expected")
    output_path, *exec_words = invocation.words
    if values["rootfs"] and values["tar"]:
        raise UsageError("only one of --rootfs=DIR and --tar=FILE is expected")
    if not (values["rootfs"] or values["tar"] or (values["from"] and values["format"] != "aci")):
        raise UsageError("one of --rootfs=DIR and --tar=FILE is expected")
    if values["format"] != "aci":
        from rkt.privsep import libraries

        libraries.enable(invocation.settings.installation)
    make = _make_aci if values["format"] == "aci" else _make_oci
    image_id, notices = make(invocation, output_path, exec_words)
    for notice in notices[:10]:
        message(invocation.settings, notice)
    if len(notices) > 10:
        message(invocation.settings, f"… and {len(notices) - 10} more left out")
    write(f"{image_id}\n")
    return 0


def _make_aci(invocation: Invocation, output_path: str, exec_words: list[str]) -> tuple[str, list[str]]:
    from rkt.image.compose import compose_manifest
    from rkt.image.create import create_aci
    from rkt.image.output import NewFile

    values = invocation.values
    if not output_path.endswith(".aci"):
        raise UsageError(f"extension must be .aci (given {quoted(output_path)})", hint="or give --format=oci")
    if values["compression"] not in _ACI_COMPRESSIONS:
        raise UsageError(f"an ACI cannot be compressed by {values['compression']}")
    base = _read_manifest(values["manifest"]) if values["manifest"] else None
    if values["from"]:
        base = _above(invocation)
    manifest = compose_manifest(values, exec_words, base)
    options = _options(invocation)
    with NewFile(output_path, overwrite=values["overwrite"]) as output, _source(values) as source:
        created = create_aci(output.fd, manifest, options, **source)
        output.commit()
    return created.image_id, created.notices


def _make_oci(invocation: Invocation, output_path: str, exec_words: list[str]) -> tuple[str, list[str]]:
    from rkt.image import oci_compose
    from rkt.image.compose import parse_pairs
    from rkt.image.oci_create import NewOci, create_oci

    values = invocation.values
    if output_path.endswith(".aci"):
        raise UsageError(
            f"an OCI image is expected, but the output is {quoted(output_path)}", hint="--format=aci"
        )
    if values["compression"] not in _OCI_COMPRESSIONS:
        raise UsageError(
            f"a layer cannot be compressed by {values['compression']}", hint="--compression=gzip"
        )
    oci_compose.check_flags(values)
    options = _options(invocation)
    with _base_parts(invocation) as (layers, config), _source(values) as source:
        image = NewOci(
            config=oci_compose.compose_config(values, exec_words, config),
            annotations=parse_pairs(values, "annotation"),
            reference=oci_compose.reference_of(values),
            base=layers,
        )
        created = create_oci(
            output_path, values["format"], image, options, overwrite=values["overwrite"], **source
        )
    return created.digest, created.notices


def _fetch_base(invocation: Invocation) -> ImageRecord:
    """The image of ``--from``, which is fetched if it is not there."""
    from rkt.fetch.dependencies import Fetcher

    with Fetcher(invocation.settings, pull_policy="new") as fetcher:
        record = fetcher.image(invocation.values["from"])
        fetcher.dependencies(record)
    return record


def _above(invocation: Invocation) -> bytes:
    """A manifest that depends on the image of ``--from``."""
    from rkt.image.compose import compose_above
    from rkt.store.cas import Store

    if invocation.values["manifest"]:
        raise UsageError("cannot use both --from and --manifest")
    record = _fetch_base(invocation)
    if record.key.is_oci:
        raise UsageError(
            f"an image on top of {invocation.values['from']} is a Docker or OCI image as well",
            hint="--format=oci",
        )
    manifest = Store(invocation.settings.data_dir).manifest_bytes(record.key)
    return compose_above(invocation.values, manifest, record.image_id)


@contextlib.contextmanager
def _base_parts(invocation: Invocation) -> Iterator[tuple[list[Layer], dict[str, Any] | None]]:
    """Layers and configuration of the image of ``--from``; none without."""
    if not invocation.values["from"]:
        yield [], None
        return
    from rkt.image.oci_export import base_parts
    from rkt.store.cas import Store

    record = _fetch_base(invocation)
    with base_parts(Store(invocation.settings.data_dir), record.key) as parts:
        yield parts


@contextlib.contextmanager
def _source(values: dict[str, Any]) -> Iterator[dict[str, int]]:
    """What the root file system is made of."""
    rootfs_path, tar_path = values["rootfs"], values["tar"]
    if not rootfs_path and not tar_path:
        yield {}
        return
    if tar_path == "-":
        yield {"tar_fd": sys.stdin.fileno()}
        return
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if rootfs_path else 0)
    try:
        fd = os.open(rootfs_path or tar_path, flags)
    except OSError as e:
        raise ImageError(f"cannot open {rootfs_path or tar_path}: {e.strerror}") from e
    try:
        yield {"rootfs_fd" if rootfs_path else "tar_fd": fd}
    finally:
        os.close(fd)


def _read_manifest(path: str) -> bytes:
    """The operator's own file, or what a pipe says."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as e:
        raise ConfigError(f"cannot read manifest {path}: {e.strerror}") from e
    if len(data) > _MAX_MANIFEST_BYTES:
        raise ConfigError(f"manifest {path} is larger than {_MAX_MANIFEST_BYTES} bytes")
    return data


def _options(invocation: Invocation) -> Options:
    from rkt.image.create import Options

    values = invocation.values
    text = values["timestamp"] or os.environ.get("SOURCE_DATE_EPOCH", "") or "0"
    seconds: int | None = None
    if text != "keep":
        if not is_number(text, most_digits=11):
            raise UsageError(f"invalid timestamp {quoted(text)}: seconds since 1970, or keep, is expected")
        seconds = int(text)
    owner = values["owner"]
    # Without root, a tree can only belong to the caller, who means nothing inside the image.
    root_owner = owner == "root" or (owner == "auto" and os.geteuid() != 0)
    return Options(compression=values["compression"], timestamp_seconds=seconds, root_owner=root_owner)


COMMAND = Command(
    name="image create",
    summary="make an image from a directory or a tar",
    usage="[--from=IMAGE] --rootfs=DIR|--tar=FILE|- --name=NAME[:VERSION] [FLAGS] OUTPUT [-- COMMAND [ARG…]]",
    description=(
        "Writes an App Container Image, or an OCI image, whose root file system is a directory, or the content of a tar "
        "(gzip, bzip2 and xz are understood), and prints its image ID. The manifest is made from the flags, or read from a "
        "file and changed by the flags. The words after -- are the command that the image runs.\n"
        "\n"
        "With --format=oci the output is an image layout with one image, whose manifest digest is printed: a directory, or "
        "a tar of one if the name ends in .tar. With --format=docker-archive it is a tar for `docker load`, and what is "
        "printed is Docker's image ID. The command becomes the entrypoint. What only an ACI can say (isolators, event "
        "handlers, dependencies…) is refused.\n"
        "\n"
        "With --from the files go on top of another image, whose settings the flags change. An ACI on top of an ACI depends "
        "on it, by its image ID, and has the files alone. With another format the image has the layers of the other one, of "
        "an ACI one layer with all its files, and one more; then --rootfs and --tar may be left out, to change settings "
        "alone. A file .wh.NAME hides NAME of the layers below.\n"
        "\n"
        "The same input gives the same bytes: members are sorted, and times later than --timestamp become that, which "
        "is 1970 unless the environment variable SOURCE_DATE_EPOCH says otherwise. Sockets and device nodes are left "
        "out, and of the extended attributes all but file capabilities and user.*.\n"
        "\n"
        "The image is not compressed unless asked for; then `rkt image export` of the fetched image gives back exactly "
        "the file that was made here. It is not signed: see `rkt image sign`."
    ),
    flags=(
        Flag(
            name="rootfs",
            help="directory that becomes the root file system",
            metavar="DIR",
            completes="directory",
        ),
        Flag(
            name="tar",
            help="tar of the root file system, - for standard input",
            metavar="FILE",
            completes="file",
        ),
        Flag(
            name="from",
            default="",
            help="image to put the files on top of: in the store, or fetched",
            metavar="IMAGE",
            completes="image",
        ),
        Flag(
            name="format",
            default="aci",
            help="aci; oci, an image layout: a directory, or a tar if the output ends in .tar; docker-archive",
            metavar="FORMAT",
            choices=_FORMATS,
        ),
        Flag(name="name", help="image name, with an optional version", metavar="NAME[:VERSION]"),
        Flag(name="manifest", help="manifest to start from", metavar="FILE", completes="file"),
        Flag(
            name="label",
            kind=LIST,
            help="label of the image, an empty value removes it",
            metavar="NAME=VALUE",
        ),
        Flag(name="annotation", kind=LIST, help="annotation of the image", metavar="NAME=VALUE"),
        Flag(name="exec", kind=LIST, help="the command, word by word or as a JSON list", metavar="WORD"),
        Flag(name="user", help="user to run as: number, name in the image, or path", metavar="USER"),
        Flag(name="group", help="group to run as", metavar="GROUP"),
        Flag(name="supplementary-gids", kind=LIST, help="further groups", metavar="GID[,GID…]"),
        Flag(name="working-dir", help="directory to start in", metavar="PATH"),
        Flag(name="environment", kind=LIST, help="environment variable", metavar="NAME=VALUE"),
        Flag(
            name="mount-point", kind=LIST, help="place for a volume", metavar="NAME,path=PATH[,readOnly=BOOL]"
        ),
        Flag(
            name="port",
            kind=LIST,
            help="port that the app listens on",
            metavar="NAME,protocol=PROTO,port=N[,count=N][,socketActivated=BOOL]",
        ),
        Flag(name="isolator", kind=LIST, help="isolator with its value as JSON", metavar="NAME=JSON"),
        Flag(name="memory", help="memory limit", metavar="QUANTITY"),
        Flag(name="cpu", help="cpu limit in cores, 500m is half of one", metavar="QUANTITY"),
        Flag(name="cpu-shares", help="weight of cpu time, 2 to 262144", metavar="N"),
        Flag(name="oom-score-adj", help="-1000 to 1000", metavar="N"),
        Flag(name="caps-retain", kind=LIST, help="capabilities to keep", metavar="CAP[,CAP…]"),
        Flag(
            name="caps-remove",
            kind=LIST,
            help="capabilities to remove from the default",
            metavar="CAP[,CAP…]",
        ),
        Flag(
            name="seccomp",
            help="system call filter",
            metavar="mode=retain|remove[,errno=E],SYSCALL[,SYSCALL…]",
        ),
        Flag(
            name="event-handler",
            kind=LIST,
            help="command before the start or after the stop, a path or a JSON list",
            metavar="pre-start|post-stop=COMMAND",
        ),
        Flag(
            name="dependency",
            kind=LIST,
            help="image below this one, later ones lie over earlier ones",
            metavar="NAME[:VERSION][,LABEL=VALUE…][,imageID=ID][,size=BYTES]",
        ),
        Flag(
            name="path-whitelist",
            kind=LIST,
            help="path that stays visible, all others vanish",
            metavar="PATH",
        ),
        Flag(name="user-label", kind=LIST, help="label of the app, any text", metavar="NAME=VALUE"),
        Flag(name="user-annotation", kind=LIST, help="annotation of the app, any text", metavar="NAME=VALUE"),
        Flag(
            name="compression",
            default="none",
            help="none, gzip, bzip2 or xz for ACIs; none, gzip or zstd for layers",
            metavar="KIND",
            choices=_COMPRESSIONS,
        ),
        Flag(
            name="timestamp",
            help="latest modification time in seconds since 1970, or keep",
            metavar="SECONDS|keep",
        ),
        Flag(
            name="owner",
            default="auto",
            help="owners of files: keep, root, or auto (root unless run by root)",
            metavar="WHO",
            choices=_OWNERS,
        ),
        Flag(name="overwrite", kind=BOOL, default=False, help="replace the output file"),
    ),
    run=_run,
    completes="file",
    examples=(
        (
            "rkt image create --rootfs=hello --name=example.com/hello:1.0.0 hello.aci -- /bin/hello",
            "an image that runs /bin/hello",
        ),
        (
            "docker export mycontainer | rkt image create --tar=- --name=example.com/web --port=http,port=80 web.aci -- /bin/web",
            "the file system of a container of another engine",
        ),
        (
            "rkt image create --format=oci --rootfs=hello --name=example.com/hello:1.0.0 hello.tar -- /bin/hello",
            "an OCI image, for other programs",
        ),
        (
            "rkt image create --from=docker://debian:12 --format=oci --rootfs=files --name=example.com/web:1 web -- /srv/web",
            "files on top of an image of a registry",
        ),
    ),
)
