# SPDX-License-Identifier: Apache-2.0
"""From words to an ``Invocation``: flags, their kinds, where they may stand (spec cli §1.1).

``find`` says which command is meant, ``parse`` reads its flags. Both know flags only through the tables of
``cli.command``, so help, completion and man pages cannot disagree with what is accepted. ``argparse`` is not used: it
costs 10 ms and knows neither flags before the command word nor the grammar of image arguments.
"""

from __future__ import annotations

from rkt.cli.command import BOOL, DURATION, LIST, STRING, Flag
from rkt.errors import UsageError, quoted
from rkt.schema.record import Record
from rkt.values import parse_boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from rkt.cli.app_args import AppReader
    from rkt.cli.command import Command
    from rkt.pod.request import AppRequest, MountRequest

#: Accepted by every command, before or after the command word (spec cli §3).
GLOBAL_FLAGS = (
    Flag(
        name="authfile",
        default="",
        help="file with credentials for registries, as podman and Docker write it",
        metavar="FILE",
        completes="file",
    ),
    Flag(name="cpuprofile", default="", hidden=True),
    Flag(name="debug", kind=BOOL, default=False, help="print diagnostics, and errors with all their causes"),
    Flag(
        name="dir",
        default="/var/lib/rkt",
        help="data directory",
        metavar="DIR",
        completes="directory",
    ),
    Flag(
        name="insecure-options",
        default="none",
        help="protections to switch off for this command: none, image, tls, ondisk, http, pubkey, capabilities, "
        "paths, seccomp, all-fetch, all-run, all",
        metavar="WORD[,WORD…]",
    ),
    Flag(
        name="local-config",
        default="/etc/rkt",
        help="the administrator's configuration directory",
        metavar="DIR",
        completes="directory",
    ),
    Flag(name="memprofile", default="", hidden=True),
    Flag(
        name="system-config",
        default="/usr/lib/rkt",
        help="the vendor's configuration directory",
        metavar="DIR",
        completes="directory",
    ),
    Flag(
        name="trust-keys-from-https",
        kind=BOOL,
        default=False,
        help="accept keys discovered over https without asking",
    ),
    Flag(
        name="user-config",
        default="",
        help="a third configuration directory, overrides the others; not used for keys",
        metavar="DIR",
        completes="directory",
    ),
)

_HELP = frozenset(("-h", "--help"))
_WANTS_VALUE = frozenset((STRING, LIST, DURATION))
#: What ``_stray`` returns for a flag that is unknown or lacks its value.
_BAD_FLAG = -1


class FlagError(UsageError):
    """A flag cannot be used like that; ``cli.main`` prints the command's usage below the message."""


class UnknownFlag(FlagError):
    """The command has no flag of that name."""

    def __init__(self, name: str, *, hint: str = "") -> None:
        super().__init__(f"unknown flag: --{name}", hint=hint)
        self.name = name


class UnknownCommand(UsageError):
    """No command answers to that word."""

    def __init__(self, word: str, parent: str, suggestions: list[str]) -> None:
        super().__init__(f'unknown command "{word}" for "{parent}"')
        self.parent = parent
        self.suggestions = suggestions


class Found(Record):
    """The command that a command line means.

    Attributes:
        name: ``run``, ``image list``, a group such as ``image``, or empty: no command word.
        words: everything but the command's own words, in order.
    """

    name: str
    words: list[str]


class Parsed(Record):
    """Flags and words of one command line; see ``Invocation`` for the fields."""

    values: dict[str, Any]
    given: frozenset[str]
    words: list[str]
    apps: list[AppRequest]
    mounts: list[MountRequest]
    deprecated: list[Flag]
    help: bool = False


def parse_bool(text: str, *, what: str) -> bool:
    """The value of a flag that is true or false."""
    try:
        return parse_boolean(text)
    except UsageError:
        raise FlagError(f"invalid value {quoted(text)} for {what}: true or false is expected") from None


def parse_duration(text: str, *, what: str) -> float:
    """The value of a flag that is a duration, in seconds."""
    from rkt.schema.duration import parse_duration as parse

    try:
        return parse(text)
    except UsageError as e:
        raise FlagError(f"invalid value for {what}: {e.message}") from None


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance, for "did you mean"."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def near(word: str, names: Iterable[str]) -> list[str]:
    """Names at edit distance of at most 2, or that start with ``word`` (spec cli §1.1)."""
    lowered = word.lower()
    return [
        name
        for name in names
        if (lowered and name.startswith(lowered)) or edit_distance(lowered, name) <= min(2, len(name) - 1)
    ]


def _suggestions(word: str, group: str, names: Iterable[str]) -> list[str]:
    """What a word that is no command may be meant to be."""
    from rkt.cli.other_words import WORDS

    known = () if group else WORDS.get(word, ())
    return list(known) or near(word, names)


def match(word: str, names: list[str]) -> str:
    """The name that ``word`` is, or is a unique prefix of; empty otherwise."""
    if word in names:
        return word
    fitting = [name for name in names if name.startswith(word)] if word else []
    return fitting[0] if len(fitting) == 1 else ""


def find(words: list[str], commands: list[str], flags_of: Callable[[str], tuple[Flag, ...]]) -> Found:
    """Which command is meant.

    Flags of a command may stand before its name, so what a word before the name is - value of a flag or command -
    depends on the command. The first word that names a command for which everything before it is flags wins.

    Args:
        words: without the program's name.
        commands: every name, groups left out: ``run``, ``image list``.
        flags_of: all flags that a command or group accepts, global ones included; called for candidates only.
    Raises:
        UnknownCommand: a word stands where a command is expected and is none.
        FlagError: no command is named, and a flag is not a global one.
    """
    first: tuple[str, list[str]] | None = None
    for name, before, after in _candidates(words, commands):
        if not before or _stray(before, flags_of(name)) is None:
            return Found(name=name, words=before + after)
        first = first or (name, before)
    name, before = first or ("", words)
    stray = _stray(before, flags_of(name))
    if stray is not None and stray != _BAD_FLAG:
        group, choices = _level(name, before[stray], words, commands)
        raise UnknownCommand(
            before[stray], f"rkt {group}".rstrip(), _suggestions(before[stray], group, choices)
        )
    if stray is not None:
        # The flags before the command word do not fit; reading them says why.
        read_flags(before, flags_of(name))
    return Found(name=name, words=before)


def _candidates(words: list[str], commands: list[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Every reading of the words as (command, words before it, words after it), most natural first."""
    for i, top in _named(words, 0, top_level(commands)):
        subcommands = members(top, commands)
        if not subcommands:
            yield top, words[:i], words[i + 1 :]
            continue
        for j, sub in _named(words, i + 1, subcommands):
            if top in commands and words[j] != sub:
                continue  # its words may be files, which nobody should take for an abbreviation
            yield f"{top} {sub}", words[:i] + words[i + 1 : j], words[j + 1 :]
        if top in commands:
            # A command of its own as well, such as ``trust``: what stands after it are its words.
            yield top, words[:i], words[i + 1 :]
        else:
            yield top, words[:i] + words[i + 1 :], []


def top_level(commands: list[str]) -> list[str]:
    """First words of all commands, each once, in order."""
    return list(dict.fromkeys(name.partition(" ")[0] for name in commands))


def members(group: str, commands: list[str]) -> list[str]:
    """Second words of a group's commands; empty when ``group`` is a command."""
    return [name[len(group) + 1 :] for name in commands if name.startswith(f"{group} ")]


def _named(words: list[str], start: int, names: list[str]) -> Iterator[tuple[int, str]]:
    for i in range(start, len(words)):
        if words[i] == "--":
            return
        if not words[i].startswith("-"):
            name = match(words[i], names)
            if name:
                yield i, name


def _level(name: str, stray: str, words: list[str], commands: list[str]) -> tuple[str, list[str]]:
    """Where the stray word stands: the group it should be a member of or "", and what could stand there."""
    group = name.partition(" ")[0]
    subcommands = members(group, commands)
    if subcommands:
        tops = top_level(commands)
        group_index = next(i for i, word in enumerate(words) if match(word, tops) == group)
        # ``rkt foo image``: the stray word stands before the group.
        if stray in words[group_index + 1 :]:
            return group, subcommands
    return "", top_level(commands)


def _stray(before: list[str], flags: tuple[Flag, ...]) -> int | None:
    """``None`` when all words are flags and their values, else the index of the first that is not, or ``_BAD_FLAG``."""
    table = {flag.name: flag for flag in flags}
    i = 0
    while i < len(before):
        word = before[i]
        if word not in _HELP:
            if not word.startswith("-") or word == "-":
                return i
            name, equals, _ = word[2:].partition("=")
            flag = table.get(name) if word.startswith("--") else None
            if flag is None:
                return _BAD_FLAG
            if not equals and flag.kind in _WANTS_VALUE and not flag.bare:
                i += 1
                if i == len(before):
                    return _BAD_FLAG
        i += 1
    return None


def read_flags(words: list[str], flags: tuple[Flag, ...]) -> None:
    """Read words that should all be flags, for the error they raise."""
    reader = _Reader(flags)
    i = 0
    while i < len(words):
        if words[i] in _HELP:
            i += 1
        else:
            i = reader.take(words, i, reader.table)


class _Reader:
    """Values gathered so far."""

    def __init__(self, flags: tuple[Flag, ...]) -> None:
        self.table = {flag.name: flag for flag in flags}
        self.values: dict[str, Any] = {
            flag.name: list(flag.default or ()) if flag.kind == LIST else flag.default for flag in flags
        }
        self.given: set[str] = set()
        self.deprecated: list[Flag] = []

    def take(
        self,
        words: list[str],
        i: int,
        table: dict[str, Flag],
        put: Callable[[Flag, Any], None] | None = None,
    ) -> int:
        """Read the flag at ``words[i]``; returns the index of the first word after it and its value."""
        word = words[i]
        if len(word) == 2:
            word = next((f"--{flag.name}" for flag in table.values() if flag.short == word[1]), word)
        if not word.startswith("--"):
            raise FlagError(
                f"unknown shorthand flag: {quoted(word[1])} in {word}",
                hint=f"flags start with two dashes: -{word}" if word[1:].partition("=")[0] in table else "",
            )
        name, equals, text = word[2:].partition("=")
        flag = table.get(name)
        if flag is None:
            raise _unknown_flag(name, table)
        i += 1
        if not equals:
            if flag.kind == BOOL:
                text = "true"
            elif flag.bare:
                text = flag.bare
            elif i == len(words):
                raise FlagError(f"flag needs an argument: --{name}")
            else:
                text = words[i]
                i += 1
        value = _value(flag, text)
        if flag.deprecated and flag not in self.deprecated:
            self.deprecated.append(flag)
        if put is not None:
            put(flag, value)
            return i
        self.given.add(name)
        if flag.kind == LIST:
            self.values[name].append(value)
        else:
            self.values[name] = value
        return i


def _value(flag: Flag, text: str) -> Any:
    what = f"--{flag.name}"
    if flag.kind == BOOL:
        return parse_bool(text, what=what)
    if flag.kind == DURATION:
        return parse_duration(text, what=what)
    if flag.choices and text not in flag.choices and text != flag.default:
        if flag.name == "format":
            raise FlagError(f"Invalid format option: {text}", hint=f"use {_alternatives(flag.choices)}")
        raise FlagError(f"invalid value {quoted(text)} for {what}: {_alternatives(flag.choices)} is expected")
    return text


def _alternatives(words: tuple[str, ...]) -> str:
    shown = [word for word in words if word]
    return ", ".join(shown[:-1]) + f" or {shown[-1]}" if len(shown) > 1 else shown[0]


def _unknown_flag(name: str, table: dict[str, Flag]) -> UnknownFlag:
    known = [flag.name for flag in table.values() if not flag.hidden and not flag.deprecated]
    suggestions = near(name, known)
    hint = "did you mean " + " or ".join(f"--{s}" for s in suggestions[:3]) + "?" if suggestions else ""
    return UnknownFlag(name, hint=hint)


def parse(words: list[str], command: Command) -> Parsed:
    """Read all words of a command line but the command's own.

    Raises:
        FlagError: a flag is unknown, misplaced, or has no or a wrong value.
        UsageError: image arguments break their grammar (spec cli §1.6).
    """
    try:
        if command.app_flags:
            from rkt.cli.app_args import AppReader

            return _parse_apps(words, command, AppReader(command.app_flags))
        return _parse_words(words, command)
    except UnknownFlag as e:
        if any(flag.name == e.name for flag in command.other_flags):
            raise UnknownFlag(e.name, hint=command.other_hint) from None
        raise


def _parse_words(words: list[str], command: Command) -> Parsed:
    reader = _Reader(command.flags + GLOBAL_FLAGS)
    rest: list[str] = []
    wants_help = False
    i = 0
    while i < len(words):
        word = words[i]
        if word == "--":
            rest += words[i + 1 :]
            break
        if word in _HELP:
            wants_help = True
            i += 1
        elif word.startswith("-") and word != "-":
            i = reader.take(words, i, reader.table)
        elif command.tail:
            # ``enter``: what follows the first word is somebody else's command line.
            rest += words[i:]
            break
        else:
            rest.append(word)
            i += 1
    return _parsed(reader, words=rest, wants_help=wants_help)


def _parse_apps(words: list[str], command: Command, apps: AppReader) -> Parsed:
    """The state machine of spec cli §1.6; an empty word is kept inside an argument list (design §9.8)."""
    reader = _Reader(command.flags + GLOBAL_FLAGS)
    before_image = {**apps.table, **reader.table}
    after_image = {**reader.table, **apps.table}
    wants_help = inside_args = dashes_eaten = False
    i = 0
    while i < len(words):
        word = words[i]
        if inside_args:
            if word == "---":
                inside_args = False
            else:
                apps.add_argument(word)
            i += 1
        elif word == "--":
            # As in rkt, one directly after the command word only ends the flags there.
            if apps.has_image or dashes_eaten:
                apps.begin_arguments()
                inside_args = True
            dashes_eaten = True
            i += 1
        elif word in {"---", ""}:
            i += 1
        elif word in _HELP:
            wants_help = True
            i += 1
        elif word.startswith("-") and word != "-":
            name = word[2:].partition("=")[0]
            if apps.has_image:
                i = reader.take(words, i, after_image, apps.put if name in apps.table else None)
            elif name in apps.table and name not in reader.table:
                i = reader.take(words, i, before_image, apps.put)
            else:
                i = reader.take(words, i, before_image)
        else:
            apps.add_image(word)
            dashes_eaten = True
            i += 1
    requests = apps.requests()
    # With a pod manifest, any --mount is a conflict that the command names.
    if not wants_help and not reader.values.get("pod-manifest"):
        apps.check_mounts(reader.values.get("volume"))
    return _parsed(reader, apps=requests, mounts=apps.mounts, wants_help=wants_help)


def _parsed(
    reader: _Reader,
    *,
    wants_help: bool,
    words: Iterable[str] = (),
    apps: Iterable[AppRequest] = (),
    mounts: Iterable[MountRequest] = (),
) -> Parsed:
    return Parsed(
        values=reader.values,
        given=frozenset(reader.given),
        words=list(words),
        apps=list(apps),
        mounts=list(mounts),
        deprecated=reader.deprecated,
        help=wants_help,
    )
