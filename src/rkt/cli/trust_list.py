# SPDX-License-Identifier: Apache-2.0
"""``rkt trust list``: which keys are trusted for what."""

from __future__ import annotations

import os

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.format_flag import FORMAT_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.cli.command import Invocation
    from rkt.trust.keystore import Entry

_HEADINGS = ["PREFIX", "FINGERPRINT", "IDENTITIES", "STATE", "FILE"]


def run(invocation: Invocation) -> int:
    """Print the files of the key store; one that cannot be used is an error, as it is for every verification."""
    from rkt.cli.output import print_json, print_table
    from rkt.trust.keystore import Keystore, name_prefixes

    store = Keystore(invocation.settings)
    name = invocation.values["name"]
    entries = store.entries()
    if name:
        above = name_prefixes(name)
        entries = [entry for entry in entries if not entry.prefix or entry.prefix in above]
        counting = store.listing(name).keys
    rows = [_row(entry) for entry in entries]
    if name:
        for row in rows:
            file = counting.get(row["fingerprint"])
            row["counts"] = file is not None and file.path == row["file"]
    if invocation.values["format"]:
        print_json(rows, pretty=invocation.values["format"] == "json-pretty")
        return 0
    table = [] if invocation.values["no-legend"] else [_HEADINGS]
    for row in rows:
        state = row["state"]
        if name and state == "trusted" and not row["counts"]:
            state = "not for this name"
        prefix = row["prefix"] or "(every name)"
        table.append([prefix, row["fingerprint"], "; ".join(row["identities"]), state, row["file"]])
    print_table(table)
    return 0


def _row(entry: Entry) -> dict[str, Any]:
    state = "mask" if entry.empty else "masked" if entry.masked_by else "trusted"
    problem = ""
    identities: list[str] = []
    if not entry.empty:
        identities, problem = _describe(entry)
        if problem and state == "trusted":
            state = f"does not count: {problem}"
    return {
        "prefix": entry.prefix,
        "fingerprint": entry.fingerprint,
        "identities": identities,
        "state": state,
        "masked_by": entry.masked_by,
        "local": entry.local,
        "file": os.path.abspath(entry.path),
    }


def _describe(entry: Entry) -> tuple[list[str], str]:
    """Identities of a key, and why it cannot count."""
    import time

    from rkt.errors import RktError
    from rkt.trust.keys import load_keys

    try:
        key = load_keys(entry.path)[0]
    except RktError as e:
        return [], e.message
    if key.fingerprint != entry.fingerprint:
        return key.identities, f"it is another key, {key.fingerprint}"
    return key.identities, key.problem(int(time.time()))


COMMAND = Command(
    name="trust list",
    summary="list the trusted keys",
    description=(
        "One line for each file of the key store: the prefix of image names that it is about, the fingerprint, who the "
        "key says it belongs to, and its state: trusted; masked, by an empty file that takes it back; mask, for such an "
        "empty file; or why the key does not count, such as that it expired."
    ),
    flags=(
        Flag(name="name", default="", metavar="NAME", help="only what concerns this image name"),
        Flag(name="no-legend", kind=BOOL, default=False, help="leave out the line of headings"),
        FORMAT_FLAG,
    ),
    examples=(
        ("rkt trust list", "see every key"),
        ("rkt trust list --name=example.com/app", "see which keys count for one image"),
    ),
    run=run,
)
