# SPDX-License-Identifier: Apache-2.0
"""How a verb describes itself: flags, words, help. ``cli.parse`` reads these, and so do help, completion, man pages."""

from __future__ import annotations

from rkt.schema.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rkt.config.settings import Settings
    from rkt.pod.request import AppRequest, MountRequest

#: ``--flag`` or ``--flag=true|false``.
BOOL = "bool"
#: ``--flag VALUE`` or ``--flag=VALUE``; the last one wins.
STRING = "string"
#: Like ``STRING``, but repeated values add up to a list.
LIST = "list"
#: A Go duration such as ``30m`` or ``1h30m``; a plain ``0`` is accepted. Parsed to seconds (float).
DURATION = "duration"


class Flag(Record):
    """One flag.

    Attributes:
        name: without dashes.
        kind: one of the words above.
        default: value when absent: False, "", [] or, for a duration, seconds.
        help: one line for people, lower case, no full stop.
        bare: value of ``--flag`` alone, for a flag whose value may be left out; then a value needs ``=``.
        metavar: what the value is called in man pages and completion.
        choices: words allowed, offered by completion and checked by the parser.
        hidden: works, but is left out of help.
        deprecated: the name of the flag to use instead; prints a notice.
        completes: ``image``, ``pod``, ``file``, ``directory`` or empty.
        short: one letter that stands for it after one dash, of a flag without a value.
    """

    name: str
    kind: str = STRING
    default: Any = None
    help: str = ""
    bare: str = ""
    metavar: str = ""
    choices: tuple[str, ...] = ()
    hidden: bool = False
    deprecated: str = ""
    completes: str = ""
    short: str = ""


class Command(Record):
    """One verb.

    Attributes:
        name: ``run`` or ``image list``.
        summary: one line for lists of commands.
        usage: words after the name, ``[--volume=…] IMAGE [-- args… [---]]…``.
        description: paragraphs for help and man page.
        flags: this verb's own flags; global flags are added by the parser.
        run: does it and returns the exit status; raises ``RktError`` otherwise.
        app_flags: accept per-app flags and image arguments (spec cli §1.6); names of those accepted.
        needs_root: refused early for others with ``cannot run as unprivileged user``.
        for_members: members of the group ``rkt`` are not refused.
        tail: stop parsing flags at the first word (``enter``), the rest is ``Invocation.words``.
        completes: what positional words are: ``image``, ``pod``, ``file``, ``shell``, ``command`` or empty.
        examples: (command line, what it does) for the man page.
        other_flags: of a command that people may mistake this one for; ``other_hint`` says so then.
    """

    name: str
    summary: str
    run: Callable[[Invocation], int]
    usage: str = ""
    description: str = ""
    flags: tuple[Flag, ...] = ()
    app_flags: tuple[str, ...] = ()
    needs_root: bool = False
    for_members: bool = False
    tail: bool = False
    hidden: bool = False
    completes: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    other_flags: tuple[Flag, ...] = ()
    other_hint: str = ""


class Invocation(Record):
    """A parsed command line.

    Attributes:
        values: flag name -> value, every flag of the verb present, defaults filled in.
        given: names of the flags that were written.
        words: positional words (not for verbs with image arguments).
        apps: image arguments with their flags; ``mounts``: global ``--mount`` values.
    """

    command: Command
    settings: Settings
    values: dict[str, Any]
    given: frozenset[str] = frozenset()
    words: list[str] = []
    apps: list[AppRequest] = []
    mounts: list[MountRequest] = []
