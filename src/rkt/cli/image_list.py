# SPDX-License-Identifier: Apache-2.0
"""``rkt image list``: what is in the store, and who vouches for it (spec cli §2.16)."""

from __future__ import annotations

import os

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG
from rkt.cli.output import human_size, human_time, long_time, message, print_json, print_table
from rkt.cli.pod_flags import report
from rkt.errors import UsageError, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.cli.command import Invocation
    from rkt.config.settings import Settings
    from rkt.errors import RktError
    from rkt.store.cas import Store
    from rkt.store.pending import Pending
    from rkt.store.record import ImageRecord

_HEADERS = {
    "id": "ID",
    "name": "NAME",
    "size": "SIZE",
    "importtime": "IMPORT TIME",
    "lastused": "LAST USED",
    "verdict": "VERDICT",
}
#: Verdict on an image that a member fetched and root has not judged yet.
PENDING = "pending"
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


class _PendingRow(_Row):
    """One image that a member fetched: what is shown of it is what the member claims."""

    __slots__ = ("_uid",)

    def __init__(self, pending: Pending) -> None:
        from rkt.store.record import ImageRecord
        from rkt.trust.verdict import Verdict

        self._uid = pending.home.uid
        super().__init__(
            ImageRecord(
                key=pending.key,
                image_id=pending.image_id,
                name=pending.name,
                labels=pending.labels,
                import_time_ns=pending.fetched_ns,
                origin="",
                size_bytes=pending.size_bytes,
                tree_size_bytes=0,
                verdict=Verdict(
                    kind=PENDING, name=pending.name, rule=f"fetched by user {self._uid}", checked_at=0
                ),
                layers=[],
                manifest_digest="",
            ),
            0,
        )

    def cell(self, field: str, now_ns: int, *, full: bool) -> str:
        if field == "verdict" and full:
            return f"{PENDING} ({self.record.verdict.rule})"
        return super().cell(field, now_ns, full=full)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "pending": True, "uid": self._uid}


def _verdict(record: ImageRecord, *, full: bool) -> str:
    """Who vouches for it; an image that nobody vouches for catches the eye (invariant SG16)."""
    verdict = record.verdict
    if verdict.kind == "insecure":
        return f"NOT VERIFIED ({verdict.rule})" if full else "NOT VERIFIED"
    if verdict.is_unsigned:
        return f"NOT SIGNED ({verdict.rule})" if full else "NOT SIGNED"
    if verdict.kind == "policy":
        signed = [fact for fact in verdict.facts if fact.signer]
        if full:
            return f"{', '.join(f'{fact.kind} {fact.signer}' for fact in signed)} ({verdict.rule})"
        return ", ".join(dict.fromkeys(fact.kind for fact in signed))
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
        raise UsageError(
            f"wrong sort order {quoted(values['order'])}", hint="use --order=asc or --order=desc"
        )
    settings = invocation.settings
    store = Store(settings.data_dir)
    damaged: list[RktError] = []
    rows = [_Row(record, store.last_used_ns(record.key)) for record in store.records(damaged)]
    rows = _with_members(rows, store, settings)
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
        report(settings, error)
    return 0


def _with_members(rows: list[_Row], store: Store, settings: Settings) -> list[_Row]:
    """The rows without images that members removed, and with those that they fetched."""
    from rkt.store.pending import Spool

    with Spool(settings.data_dir) as spool:
        if not spool.homes:
            return rows
        removed = set(spool.removed(store))
        if removed:
            from rkt.stage0.keep import stage1_keys

            removed -= stage1_keys(settings, store)
        rows = [row for row in rows if row.record.key not in removed]
        seen = {row.record.key for row in rows}
        for pending in spool.pending():
            if pending.key not in seen:
                seen.add(pending.key)
                rows.append(_PendingRow(pending))
    if removed and os.geteuid() == 0:
        message(
            settings, f"{len(removed)} image(s) that members removed are still on disk (hint: rkt image gc)"
        )
    return rows


def _words(text: str, known: tuple[str, ...], flag: str) -> list[str]:
    words = text.split(",")
    for word in words:
        if word not in known:
            raise UsageError(f"unknown field {quoted(word)} in {flag}", hint=f"use {', '.join(known)}")
    if len(set(words)) != len(words):
        raise UsageError(f"a field is given twice in {flag}")
    return words


COMMAND = Command(
    name="image list",
    summary="list the images of the store",
    description=(
        "The size is that of the uncompressed image. The verdict says how the image was verified when it was fetched: "
        "openpgp (a trusted key signed it), what a rule of the trust policy asked for (openpgp, cosign, keyless, slsa), NOT SIGNED (a rule "
        "let it pass), builtin (a stage1 image of the installation), or NOT VERIFIED. "
        "Whether it may run is decided anew at each start.\n\n"
        "Images that members of the group rkt fetched, and that no command of root has needed yet, have the verdict "
        "pending: root will judge them when they are needed, and what is shown of them is what that member says. In JSON "
        'they have the members "pending": true and "uid". Images that a member removed are not shown; rkt image gc takes '
        "them."
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
        FORMAT_FLAG,
    ),
    examples=(("rkt image list --fields=name,verdict --sort=name", "who vouches for what"),),
    run=run,
)
