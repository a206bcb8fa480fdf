# SPDX-License-Identifier: Apache-2.0
"""The flavour's program: the name it is called by says which entrypoint is wanted (spec runtime §1.5)."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the entrypoint named like the program; anything that fails is one line on stderr and status 254."""
    from rkt.errors import EXIT_FAILURE, RktError

    entrypoint = os.path.basename(sys.argv[0])
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        if entrypoint == "run":
            from rkt.stage1.ns.run import main as run

            return run(arguments)
        if entrypoint == "enter":
            from rkt.stage1.ns.enter import main as enter

            return enter(arguments)
        if entrypoint == "stop":
            from rkt.stage1.ns.stop import main as stop

            return stop(arguments)
        if entrypoint == "gc":
            from rkt.stage1.ns.gc import main as gc

            return gc(arguments)
        sys.stderr.write(f"stage1: no entrypoint {entrypoint!r}\n")
    except RktError as e:
        sys.stderr.write(f"stage1: {e.message}\n")
        if e.hint:
            sys.stderr.write(f"hint: {e.hint}\n")
        if debug:
            raise
    except OSError as e:
        sys.stderr.write(f"stage1: {e.strerror or e}{f': {e.filename}' if e.filename else ''}\n")
        if debug:
            raise
    return EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
