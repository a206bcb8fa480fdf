# SPDX-License-Identifier: Apache-2.0
"""The flavour's program."""

from __future__ import annotations

import sys

from rkt.stage1.common.program import run_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.program import Entrypoint


def main() -> int:
    """Run the entrypoint named like the program; returns its exit status."""
    return run_program(_find)


def _find(entrypoint: str) -> Entrypoint | None:
    if entrypoint == "run":
        from rkt.stage1.nspawn.run import main as run

        return run
    if entrypoint == "enter":
        from rkt.stage1.nspawn.enter import main as enter

        return enter
    if entrypoint == "stop":
        from rkt.stage1.common.stop import main as stop

        return stop
    if entrypoint == "gc":
        from rkt.stage1.nspawn.gc import main as gc

        return gc
    if entrypoint == "attach":
        from rkt.stage1.common.attach import main as attach

        return attach
    if entrypoint.startswith("app-"):
        from rkt.stage1.common.app import main as app

        return lambda arguments: app(entrypoint, arguments)
    return None


if __name__ == "__main__":
    sys.exit(main())
