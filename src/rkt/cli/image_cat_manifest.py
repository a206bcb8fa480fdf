# SPDX-License-Identifier: Apache-2.0
"""``rkt image cat-manifest``: the manifest of a stored image (spec cli §2.22)."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag, Invocation
from rkt.cli.output import print_json, write_document
from rkt.cli.parse import FlagError


def _run(invocation: Invocation) -> int:
    from rkt.schema import jsontext
    from rkt.store.cas import Store

    if len(invocation.words) != 1:
        raise FlagError("one image is expected")
    store = Store(invocation.settings.data_dir)
    data = store.manifest_bytes(store.resolve(invocation.words[0]))
    if invocation.values["pretty-print"]:
        print_json(jsontext.parse(data, what="image manifest"), pretty=True)
    else:
        write_document(data.decode("utf-8").rstrip("\n") + "\n")
    return 0


COMMAND = Command(
    name="image cat-manifest",
    summary="print the manifest of a stored image",
    usage="[--pretty-print=BOOL] IMAGE",
    description="Prints the image manifest, indented by tabs, or with --pretty-print=false exactly as the image has it.",
    flags=(Flag(name="pretty-print", kind=BOOL, default=True, help="indent the output"),),
    run=_run,
    completes="image",
    examples=(("rkt image cat-manifest example.com/hello", "print the manifest"),),
)
