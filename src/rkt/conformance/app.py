# SPDX-License-Identifier: Apache-2.0
"""The app of the kit's pods: an image made on the spot of the host's shell and a few programs, for any architecture.

What it does is chosen by its first word. It tells what it finds in files of its own root, which the kit reads from
outside, so nothing depends on how a stage1 passes output on.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import tarfile

from rkt.errors import HostError
from rkt.fetch.reference import host_labels
from rkt.values import AC_VERSION

NAME = "example.com/rkt-stage1-check-app"
#: File that the app writes when it is up; the word ``end`` is its last line.
REPORT = "report"
#: Status with which it ends when SIGTERM gave it its time.
STOPPED = 7
#: Line that it writes to standard output when it is up.
HELLO = "the app is up"
_PROGRAMS = ("sh", "cat", "env", "sleep", "rm")
_DIRECTORIES = ("bin", "proc", "sys", "dev", "etc", "tmp")
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PT_INTERP = 3
_SCRIPT = r"""#!/bin/sh
# What a pod of `rkt stage1 check` runs.
mode=$1
tell() {
    for word; do printf 'arg [%s]\n' "$word"; done
    for fd in /proc/$$/fd/*; do echo "fd ${fd##*/}"; done
    env
    while read -r line; do echo "status $line"; done < /proc/$$/status
    echo end
}
case $mode in
exit) echo "@HELLO@"; exit "$2" ;;
signal) kill -"$2" $$ ;;
report)
    shift
    tell "$@" > /report
    exit 9
    ;;
entered)
    shift
    [ -e /report ] && echo "sees the app"
    tell "$@" > /entered
    cat
    exit 9
    ;;
echo) while read -r line; do echo "got $line"; done; exit 0 ;;
again)
    # Fails the first time.
    [ -e /failed ] && exec sleep 1000
    echo > /failed
    exit 3
    ;;
fill)
    n=0
    while [ $n -lt 2000 ]; do echo "line $n of a log that is long enough to be rotated"; n=$((n + 1)); done
    exec sleep 1000
    ;;
stubborn) trap '' TERM ;;
# Not SIGTERM: the shell's child would swallow it until it executes something.
stay) trap 'kill -9 $!; sleep 0.1; echo stopped >> /stopped; exit @STOPPED@' TERM ;;
esac
tell "$@" > /report
echo "@HELLO@"
while :; do
    sleep 1000 &
    wait $!
done
"""


def write_image(path: str) -> None:
    """Write the image.

    Raises:
        HostError: a program that it needs is not on this host, or cannot be read.
    """
    script = _SCRIPT.replace("@HELLO@", HELLO).replace("@STOPPED@", str(STOPPED))
    files = {"check": script.encode()}
    for name in _PROGRAMS:
        found = shutil.which(name, path=_SEARCH)
        if found is None:
            raise HostError(f"the app of the pods needs the program {name}, which this host has not")
        for target, source in _with_libraries(f"bin/{name}", os.path.realpath(found)).items():
            if target not in files:
                with open(source, "rb") as stream:
                    files[target] = stream.read()
    manifest = {
        "acKind": "ImageManifest",
        "acVersion": AC_VERSION,
        "name": NAME,
        "labels": [
            {"name": name, "value": value} for name, value in {**host_labels(), "version": "1"}.items()
        ],
        "app": {"exec": ["/check"], "user": "0", "group": "0"},
    }
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        _add(archive, "manifest", json.dumps(manifest).encode(), 0o644)
        parents = {name[:i] for name in files for i, c in enumerate(name) if c == "/"}
        for directory in sorted({"", *_DIRECTORIES, *parents}):
            entry = tarfile.TarInfo(f"rootfs/{directory}".rstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name in sorted(files):
            _add(archive, f"rootfs/{name}", files[name], 0o755)


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, len(data)
    archive.addfile(entry, io.BytesIO(data))


def _with_libraries(target: str, source: str) -> dict[str, str]:
    """Path in the image -> path on the host of a program, its loader and its libraries."""
    files = {target: source}
    loader = interpreter(source)
    if not loader:
        return files
    files[loader.lstrip("/")] = os.path.realpath(loader)
    # What ldd prints is the loader's own list; glibc and musl both make it.
    done = subprocess.run(
        [loader, "--list", source], capture_output=True, text=True, env={"LC_ALL": "C"}, check=False
    )
    for line in done.stdout.splitlines():
        _, arrow, right = line.partition("=>")
        library = (right if arrow else line).split()[0] if (right if arrow else line).split() else ""
        if library.startswith("/"):
            files[library.lstrip("/")] = os.path.realpath(library)
    return files


def interpreter(path: str) -> str:
    """The loader that an ELF program names; empty for a static one."""
    with open(path, "rb") as stream:
        head = stream.read(64)
        if head[:4] != b"\x7fELF":
            raise HostError(f"{path} is not a program that can be copied")
        wide = head[4] == 2
        order = "<" if head[5] == 1 else ">"
        if wide:
            offset, size, count = struct.unpack_from(order + "Q", head, 32) + struct.unpack_from(
                order + "2H", head, 54
            )
        else:
            offset, size, count = struct.unpack_from(order + "I", head, 28) + struct.unpack_from(
                order + "2H", head, 42
            )
        for number in range(count):
            stream.seek(offset + number * size)
            entry = stream.read(size)
            if struct.unpack_from(order + "I", entry)[0] != _PT_INTERP:
                continue
            start, length = (
                struct.unpack_from(order + "Q", entry, 8) + struct.unpack_from(order + "Q", entry, 32)
                if wide
                else struct.unpack_from(order + "I", entry, 4) + struct.unpack_from(order + "I", entry, 16)
            )
            stream.seek(start)
            return stream.read(length).rstrip(b"\0").decode()
    return ""
