# SPDX-License-Identifier: Apache-2.0
"""``rkt image create``: an ACI from a directory or a tar."""

from __future__ import annotations

import os
import sys

from rkt.cli.command import BOOL, LIST, Command, Flag, Invocation
from rkt.cli.output import message, write
from rkt.cli.parse import FlagError
from rkt.errors import ConfigError, ImageError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.image.create import Created, Options

#: ``rkt.image.compression.KINDS``, which completion and help should not import.
_COMPRESSIONS = ("none", "gzip", "bzip2", "xz")
_OWNERS = ("auto", "keep", "root")
_MAX_MANIFEST_BYTES = 4 << 20


def _run(invocation: Invocation) -> int:
    from rkt.image.compose import compose_manifest
    from rkt.image.output import NewFile

    values = invocation.values
    if not invocation.words:
        raise FlagError("an output file is expected")
    output_path, *exec_words = invocation.words
    if bool(values["rootfs"]) == bool(values["tar"]):
        raise UsageError("one of --rootfs=DIR and --tar=FILE is expected")
    if not output_path.endswith(".aci"):
        raise UsageError(f"extension must be .aci (given {output_path!r})")
    base = _read_manifest(values["manifest"]) if values["manifest"] else None
    manifest = compose_manifest(values, exec_words, base)
    options = _options(invocation)
    with NewFile(output_path, overwrite=values["overwrite"]) as output:
        created = _create(invocation, output.fd, manifest, options)
        output.commit()
    for notice in created.notices[:10]:
        message(invocation.settings, notice)
    if len(created.notices) > 10:
        message(invocation.settings, f"… and {len(created.notices) - 10} more left out")
    write(f"{created.image_id}\n")
    return 0


def _create(invocation: Invocation, out_fd: int, manifest: bytes, options: Options) -> Created:
    from rkt.image.create import create_aci

    rootfs_path, tar_path = invocation.values["rootfs"], invocation.values["tar"]
    if tar_path == "-":
        return create_aci(out_fd, manifest, options, tar_fd=sys.stdin.fileno())
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if rootfs_path else 0)
    try:
        fd = os.open(rootfs_path or tar_path, flags)
    except OSError as e:
        raise ImageError(f"cannot open {rootfs_path or tar_path}: {e.strerror}") from e
    try:
        if rootfs_path:
            return create_aci(out_fd, manifest, options, rootfs_fd=fd)
        return create_aci(out_fd, manifest, options, tar_fd=fd)
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
        if not text.isascii() or not text.isdigit() or len(text) > 11:
            raise UsageError(f"invalid timestamp {text!r}: seconds since 1970, or keep, is expected")
        seconds = int(text)
    owner = values["owner"]
    # Without root, a tree can only belong to the caller, who means nothing inside the image.
    root_owner = owner == "root" or (owner == "auto" and os.geteuid() != 0)
    return Options(compression=values["compression"], timestamp_seconds=seconds, root_owner=root_owner)


COMMAND = Command(
    name="image create",
    summary="make an image from a directory or a tar",
    usage="--rootfs=DIR|--tar=FILE|- --name=NAME[:VERSION] [FLAGS] OUTPUT.aci [-- COMMAND [ARG…]]",
    description=(
        "Writes an App Container Image whose root file system is a directory, or the content of a tar (gzip, bzip2 and "
        "xz are understood), and prints its image ID. The manifest is made from the flags, or read from a file and "
        "changed by the flags. The words after -- are the command that the image runs.\n"
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
            help="none, gzip, bzip2 or xz",
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
    ),
)
