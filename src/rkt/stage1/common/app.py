# SPDX-License-Identifier: Apache-2.0
"""The ``app-…`` entrypoints: pass one change of a live pod on to its supervisor and wait for the answer (spec runtime §1.5)."""

from __future__ import annotations

from rkt.errors import Stage1Error
from rkt.stage0 import contract
from rkt.stage1.common import control


def main(operation: str, argv: list[str]) -> int:
    """Carry out ``app-add``, ``app-start``, ``app-stop``, ``app-rm`` or ``app-update`` of ``--app=NAME``; returns the exit status.

    Raises:
        Stage1Error: the supervisor refused, or nobody supervises the pod.
    """
    name = next((word.partition("=")[2] for word in argv if word.startswith("--app=")), "")
    if not name:
        raise Stage1Error("the app is missing")
    client = control.connect()
    answer = control.ask(client, {"op": operation, "app": name})
    if answer is None:
        raise Stage1Error("the pod ended meanwhile")
    if answer.get("ok"):
        return 0
    if answer.get("code") == "not-running":
        return contract.EXIT_APP_NOT_RUNNING
    raise Stage1Error(str(answer.get("error")), hint=str(answer.get("hint") or ""))
