# SPDX-License-Identifier: Apache-2.0
"""``rkt image list``: what is in the store, and who vouches for it (spec cli §2.16)."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.output import FORMATS, human_size, human_time, long_time, message, print_json, print_table
from rkt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.cli.command import Invocation
    from rkt.errors import RktError
    from rkt.store.record import ImageRecord

_HEADERS = {
    "id": "ID",
    "name": "NAME",
    "size": "SIZE",
    "importtime": "IMPORT TIME",
    "lastused": "LAST USED",
    "verdict": "VERDICT",
}
_SORT_FIELDS = ("name", "importtime", "lastused", "size")


class _Row:
    """One image with the values that are shown."""

    __slots__ = ("last_used_ns", "record")

    def __init__(self, record: ImageRecord, last_used_ns: int) -> None:
        self.record = record
        # Nobody knows: it was used at least when it was imported.
        self.last_used_ns = last_used_ns or record.import_time_ns

    def sort_key(self, field: str) -> str | int:
        if field == "name":
            return self.record.full_name
        if field == "lastused":
            return self.last_used_ns
        return self.record.size_bytes if field == "size" else self.record.import_time_ns

    def cell(self, field: str, now_ns: int, *, full: bool) -> str:
        record = self.record
        if field == "id":
            return record.key if full else record.key.short
        if field == "name":
            return record.full_name
        if field == "size":
            return str(record.size_bytes) if full else human_size(record.size_bytes)
        if field == "verdict":
            return _verdict(record, full=full)
        time_ns = self.last_used_ns if field == "lastused" else record.import_time_ns
        return long_time(time_ns) if full else human_time(time_ns, now_ns)

    def to_json(self) -> dict[str, Any]:
        record = self.record
        return {
            "id": record.key,
            "name": record.full_name,
            "import_time": record.import_time_ns,
            "last_used_time": self.last_used_ns,
            "size": record.size_bytes,
            "verdict": record.verdict.to_json(),
        }


def _verdict(record: ImageRecord, *, full: bool) -> str:
    """Who vouches for it; an image that nobody vouches for catches the eye (invariant SG16)."""
    verdict = record.verdict
    if verdict.kind == "insecure":
        return f"NOT VERIFIED ({verdict.rule})" if full else "NOT VERIFIED"
    if verdict.kind == "openpgp" and full:
        return f"{verdict.kind} {verdict.fingerprint} ({verdict.rule})"
    return verdict.kind


def run(invocation: Invocation) -> int:
    """Print the images; damaged records are named on stderr and hide nothing."""
    import time

    from rkt.store.cas import Store

    values = invocation.values
    fields = _words(values["fields"], tuple(_HEADERS), "--fields")
    sort = _words(values["sort"], _SORT_FIELDS, "--sort")
    if values["order"] not in {"asc", "desc"}:
        raise UsageError(f"wrong sort order {values['order']!r}", hint="use --order=asc or --order=desc")
    store = Store(invocation.settings.data_dir)
    damaged: list[RktError] = []
    rows = [_Row(record, store.last_used_ns(record.key)) for record in store.records(damaged)]
    rows.sort(key=lambda row: row.record.key)
    rows.sort(key=lambda row: [row.sort_key(field) for field in sort], reverse=values["order"] == "desc")
    if values["format"]:
        print_json([row.to_json() for row in rows], pretty=values["format"] == "json-pretty")
    else:
        now_ns = time.time_ns()
        table = [[row.cell(field, now_ns, full=values["full"]) for field in fields] for row in rows]
        if not values["no-legend"]:
            table.insert(0, [_HEADERS[field] for field in fields])
        print_table(table)
    for error in damaged:
        message(invocation.settings, error.message + (f" (hint: {error.hint})" if error.hint else ""))
    return 0


def _words(text: str, known: tuple[str, ...], flag: str) -> list[str]:
    words = text.split(",")
    for word in words:
        if word not in known:
            raise UsageError(f"unknown field {word!r} in {flag}", hint=f"use {', '.join(known)}")
    if len(set(words)) != len(words):
        raise UsageError(f"a field is given twice in {flag}")
    return words


COMMAND = Command(
    name="image list",
    summary="list the images of the store",
    description=(
        "The size is that of the uncompressed image. The verdict says how the image was verified when it was fetched: "
        "openpgp (a trusted key signed it), builtin (a stage1 image of the installation), or NOT VERIFIED. "
        "Whether it may run is decided anew at each start."
    ),
    flags=(
        Flag(
            name="fields",
            default="id,name,size,importtime,lastused,verdict",
            help="columns, in this order",
            metavar="FIELD[,FIELD…]",
        ),
        Flag(name="sort", default="importtime", help="sort by these fields", metavar="FIELD[,FIELD…]"),
        Flag(name="order", default="asc", help="asc or desc", metavar="ORDER"),
        Flag(name="no-legend", kind=BOOL, default=False, help="leave out the line of headings"),
        Flag(name="full", kind=BOOL, default=False, help="whole hashes, bytes, and times with their date"),
        Flag(name="format", default="", choices=FORMATS, help="json or json-pretty", metavar="FORMAT"),
    ),
    examples=(("rkt image list --fields=name,verdict --sort=name", "who vouches for what"),),
    run=run,
)
