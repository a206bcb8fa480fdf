# SPDX-License-Identifier: Apache-2.0
"""``rkt cat-manifest``: print a pod's manifest (spec cli §2.15)."""

from __future__ import annotations

from rkt.cli.command import BOOL, Command, Flag
from rkt.cli.pod_flags import UUID_FILE_FLAG, one_pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.cli.command import Invocation


def run(invocation: Invocation) -> int:
    """Print it indented, or as it is."""
    from rkt.cli.output import print_json, write_document
    from rkt.schema import jsontext
    from rkt.stage0 import contract

    with one_pod(invocation) as pod:
        data = pod.read(contract.POD_MANIFEST)
        if data is None:
            raise pod.lacks("has no manifest yet")
        if invocation.values["pretty-print"]:
            print_json(jsontext.parse(data, what="pod manifest"), pretty=True)
        else:
            write_document(data.decode("utf-8", "backslashreplace") + "\n")
    return 0


COMMAND = Command(
    name="cat-manifest",
    summary="print a pod's manifest",
    usage="UUID",
    run=run,
    flags=(
        Flag(name="pretty-print", kind=BOOL, default=True, help="indent the manifest by tabs"),
        UUID_FILE_FLAG,
    ),
    completes="pod",
)
