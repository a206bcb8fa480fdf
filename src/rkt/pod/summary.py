# SPDX-License-Identifier: Apache-2.0
"""What ``rkt list`` shows of a pod, in one small file, so that a thousand pods cost no manifest to parse.

``summary`` in the pod directory is a symbolic link whose text is the record, so that one system call reads it and one
writes it whole; nobody follows it. A record too long for a link of every file system is a regular file instead. UTF-8,
fields separated by tabs::

    rkt.summary<TAB>1<TAB>CREATED-NS<TAB>POD-NAME<TAB>INSECURE-OPTIONS<TAB>NETWORKS
    APP<TAB>IMAGE-NAME[:VERSION]<TAB>IMAGE-KEY          one line per app, in the manifest's order

NETWORKS is empty for a pod that has no network to show, else ``1``: then ``net-info.json`` is to be read.

In every field ``%``, tab, line feed, carriage return and NUL are written ``%XX``. It is derived from ``pod``,
``pod-created``, ``name``, ``insecure-options`` and ``appsinfo``; where it is missing or from another version, those
are read instead.
"""

from __future__ import annotations

import os

from rkt.linux.files import read_bounded, write_new
from rkt.schema.record import Record
from rkt.values import is_number

FILE = "summary"
FORMAT = "rkt.summary"
VERSION = "1"
#: XFS keeps links of up to 1023 bytes, the others more.
_MAX_LINK_BYTES = 1000
_MAX_FILE_BYTES = 4 * 1024 * 1024
_FILE_MODE = 0o640
_ESCAPES = (("%", "%25"), ("\t", "%09"), ("\n", "%0A"), ("\r", "%0D"), ("\0", "%00"))


class AppSummary(Record):
    """One app.

    Attributes:
        image: ``name:version``, or the name alone; ``--`` if its manifest cannot be read.
        image_id: key of the image.
    """

    name: str
    image: str
    image_id: str


class Summary(Record):
    """One pod.

    Attributes:
        created_ns: since the epoch.
        name: the users' name, empty for none.
        insecure: ``--insecure-options`` in force, comma separated, empty for none.
        networks: whether the pod was started with networks that stage1 records.
    """

    created_ns: int
    name: str = ""
    insecure: str = ""
    networks: bool = False
    apps: list[AppSummary] = []


def _escape(text: str) -> str:
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    return text


def _unescape(text: str) -> str:
    for plain, escaped in reversed(_ESCAPES):
        text = text.replace(escaped, plain)
    return text


def render(summary: Summary) -> bytes:
    """The file's bytes."""
    lines: list[tuple[str, ...]] = [
        (
            FORMAT,
            VERSION,
            str(summary.created_ns),
            summary.name,
            summary.insecure,
            "1" if summary.networks else "",
        )
    ]
    lines += [(app.name, app.image, app.image_id) for app in summary.apps]
    return "".join("\t".join(map(_escape, line)) + "\n" for line in lines).encode("utf-8", "replace")


def parse_rows(data: bytes) -> list[list[str]] | None:
    """The lines as lists of fields, the first being the pod's; ``None`` for another version or a damaged file."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    if not text.startswith(f"{FORMAT}\t{VERSION}\t") or text[-1] != "\n":
        return None
    rows = [line.split("\t") for line in text[:-1].split("\n")]
    if len(rows[0]) != 6 or not is_number(rows[0][2]) or any(len(row) != 3 for row in rows[1:]):
        return None
    if "%" in text:
        rows = [[_unescape(field) for field in row] for row in rows]
    return rows


def parse(data: bytes) -> Summary | None:
    """Likewise as a record."""
    rows = parse_rows(data)
    if rows is None:
        return None
    _, _, created, name, insecure, networks = rows[0]
    return Summary(
        created_ns=int(created),
        name=name,
        insecure=insecure,
        networks=bool(networks),
        apps=[AppSummary(name=app, image=image, image_id=image_id) for app, image, image_id in rows[1:]],
    )


def write(dir_fd: int, summary: Summary) -> None:
    """Write the summary of a pod, whose directory is open; one that is there is replaced at once."""
    data = render(summary)
    name = f".{FILE}.{os.getpid():x}"
    if len(data) <= _MAX_LINK_BYTES:
        try:
            os.symlink(data, FILE, dir_fd=dir_fd)
        except FileExistsError:
            os.symlink(data, name, dir_fd=dir_fd)
            os.rename(name, FILE, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    else:
        write_new(name, data, _FILE_MODE, dir_fd=dir_fd)
        os.rename(name, FILE, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def read(dir_fd: int) -> Summary | None:
    """The summary of a pod; ``None`` when there is none that is understood."""
    try:
        data = os.readlink(FILE.encode(), dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    except OSError:
        # A regular file, or what ``read_bounded`` refuses.
        data = read_bounded(FILE, _MAX_FILE_BYTES, dir_fd=dir_fd)
    return parse(data)
