# SPDX-License-Identifier: Apache-2.0
"""A flavour's program: the name it is called by says which entrypoint is wanted (spec runtime §1.5)."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    #: What carries an entrypoint out: its arguments to its exit status.
    Entrypoint = Callable[[list[str]], int]

#: Set while the program is started again.
_SEALED = "RKT_STAGE1_SEALED"


def run_program(find: Callable[[str], Entrypoint | None]) -> int:
    """Run the entrypoint named like the program; anything that fails is one line on stderr and status 254.

    ``UUID`` in the hint of an error stands for the pod's own.

    Args:
        find: imports what carries an entrypoint out, by its name; ``None`` for a name that the flavour has not.
    """
    from rkt.errors import EXIT_FAILURE, RktError

    entrypoint = os.path.basename(sys.argv[0])
    arguments = sys.argv[1:]
    uuid = "UUID"
    try:
        # The pod's directory; where an entrypoint has gone since does not matter.
        uuid = os.path.basename(os.getcwd())
        if entrypoint in {"run", "enter"}:
            _seal_interpreter()
        found = find(entrypoint)
        if found is not None:
            return found(arguments)
        sys.stderr.write(f"stage1: no entrypoint {entrypoint!r}\n")
    except RktError as e:
        sys.stderr.write(f"stage1: {e.message}\n")
        if e.hint:
            sys.stderr.write(f"hint: {e.hint.replace('UUID', uuid[:8])}\n")
        _trace(arguments)
    except OSError as e:
        from rkt.linux.disk import remedy

        sys.stderr.write(f"stage1: {e.strerror or e}{f': {e.filename}' if e.filename else ''}\n")
        if hint := remedy(e.errno):
            sys.stderr.write(f"hint: {hint}\n")
        _trace(arguments)
    except ImportError as e:
        # A descriptor too few, or an image that somebody has changed.
        sys.stderr.write(f"stage1: a part of the program cannot be loaded: {e}\n")
        _trace(arguments)
    return EXIT_FAILURE


def _trace(arguments: list[str]) -> None:
    """For whoever asks for it, where the exception that is being handled came from."""
    if "--debug" in arguments:
        import traceback

        traceback.print_exc()


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
