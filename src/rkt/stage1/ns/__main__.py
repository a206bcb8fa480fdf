# SPDX-License-Identifier: Apache-2.0
"""The flavour's program: the name it is called by says which entrypoint is wanted (spec runtime §1.5)."""

from __future__ import annotations

import os
import sys

#: Set while the program is started again.
_SEALED = "RKT_STAGE1_SEALED"


def main() -> int:
    """Run the entrypoint named like the program; anything that fails is one line on stderr and status 254."""
    from rkt.errors import EXIT_FAILURE, RktError

    entrypoint = os.path.basename(sys.argv[0])
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        if entrypoint in {"run", "enter"}:
            _seal_interpreter()
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
        if entrypoint == "attach":
            from rkt.stage1.ns.attach import main as attach

            return attach(arguments)
        if entrypoint.startswith("app-"):
            from rkt.stage1.ns.app import main as app

            return app(entrypoint, arguments)
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


def _seal_interpreter() -> None:
    """Start again from a read-only mount where stage0 has not seen to that (CVE-2019-5736).

    Raises:
        Stage1Error: it did not help; the pod could write to the interpreter.
        OSError: the mount was refused.
    """
    from rkt.linux import interpreter

    if interpreter.is_sealed():
        return
    if os.environ.pop(_SEALED, ""):
        from rkt.errors import Stage1Error

        raise Stage1Error("the interpreter of stage1 cannot be made read-only for the pod")
    interpreter.seal_in_own_namespace()
    os.execve(sys.argv[0], sys.argv, {**os.environ, _SEALED: "1"})


if __name__ == "__main__":
    sys.exit(main())
