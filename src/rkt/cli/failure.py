# SPDX-License-Identifier: Apache-2.0
"""How errors read (spec cli §1.4); imported when there is one."""

from __future__ import annotations

from rkt.errors import RktError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rkt.cli.command import Command
    from rkt.cli.parse import UnknownCommand

#: Deepest chain that is shown; a longer one is a cycle or noise.
_MAX_DEPTH = 32


def describe(e: BaseException, prefix: str, *, debug: bool) -> str:
    """Lines for stderr.

    Without ``debug``: ``PREFIX: MESSAGE: INNERMOST CAUSE``; with it the whole chain as a tree, and for an error that is
    a mistake of ours the traceback. Notes and the hint follow.
    """
    chain = list(causes(e))
    if debug:
        lines = [f"{prefix}: {_words(e)}"]
        lines += [f"{'  ' * depth}└─{_words(cause)}" for depth, cause in enumerate(chain)]
        lines += _notes(e, chain)
        if _is_ours(e):
            import traceback

            lines += "".join(traceback.format_exception(e)).rstrip("\n").split("\n")
    else:
        text = _words(e)
        if chain:
            innermost = _words(chain[-1])
            # Whoever raised the outer error often quotes the inner one already.
            if innermost not in text and _reason(chain[-1]) not in text:
                text = f"{text}: {innermost}"
        lines = [f"{prefix}: {text}", *_notes(e, chain)]
    hint = _hint(e)
    if hint:
        lines.append(f"hint: {hint}")
    return printable("".join(f"{line}\n" for line in lines))


def causes(e: BaseException) -> Iterator[BaseException]:
    """The errors that led to this one, outermost first; only those named by ``raise … from``."""
    seen = {id(e)}
    cause = e.__cause__
    while cause is not None and id(cause) not in seen and len(seen) < _MAX_DEPTH:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _is_ours(e: BaseException) -> bool:
    """Whether the error is no failure that anybody foresaw."""
    return not isinstance(e, (RktError, OSError))


def _words(e: BaseException) -> str:
    if isinstance(e, RktError):
        return e.message
    if isinstance(e, OSError) and e.strerror:
        names = [_path(name) for name in (e.filename, e.filename2) if name is not None]
        return f"{' -> '.join(names)}: {e.strerror}" if names else e.strerror
    if isinstance(e, BaseExceptionGroup):
        return f"{e.message}: " + "; ".join(_words(member) for member in e.exceptions)
    if isinstance(e, OSError):
        return str(e)
    if isinstance(e, MemoryError):
        return "out of memory"
    return f"internal error: {type(e).__name__}: {e}".rstrip(": ")


def _reason(e: BaseException) -> str:
    """The words of an error without its path."""
    return e.strerror if isinstance(e, OSError) and e.strerror else _words(e)


def _path(name: object) -> str:
    if isinstance(name, bytes):
        import os

        return os.fsdecode(name)
    return str(name)


def _notes(e: BaseException, chain: list[BaseException]) -> list[str]:
    """What ``add_note`` added: failures of cleaning up."""
    return [f"  note: {note}" for error in (e, *chain) for note in getattr(error, "__notes__", ())]


def _hint(e: BaseException) -> str:
    if isinstance(e, RktError):
        return e.hint
    if isinstance(e, OSError):
        from rkt.linux.disk import remedy

        return remedy(e.errno)
    if isinstance(e, MemoryError):
        return ""
    return "this is a mistake in rkt; run it again with --debug and report what it prints"


def unknown_command(e: UnknownCommand) -> str:
    """The error, near matches, and where to look."""
    lines = [f"Error: {e.message}"]
    if e.suggestions:
        lines += ["", "Did you mean this?", *(f"\t{name}" for name in e.suggestions)]
    lines += ["", f"Run '{e.parent} --help' for usage."]
    return printable("".join(f"{line}\n" for line in lines))


def usage(command: Command | None, name: str) -> str:
    """What is printed below an error about a flag."""
    from rkt.cli.help import usage_section

    head = f"rkt {name}".rstrip()
    return f"{usage_section(command)}\nRun '{head} --help' for all options.\n"


def json_line(e: BaseException) -> str:
    """The error for programs, one line (``--format=json``)."""
    from rkt.schema import jsontext

    error = {
        "code": e.code if isinstance(e, RktError) else "os" if isinstance(e, OSError) else "internal",
        "message": _words(e),
        "hint": _hint(e),
    }
    return jsontext.dump({"error": error}) + "\n"
