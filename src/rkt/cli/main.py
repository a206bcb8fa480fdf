# SPDX-License-Identifier: Apache-2.0
"""The program: which verb, with which settings, and how it ends.

Only this module prints errors and only its caller exits. One verb's module is imported, no other (design §8).
"""

from __future__ import annotations

import os
import sys

from rkt.cli.command import Command, Invocation
from rkt.cli.parse import GLOBAL_FLAGS, FlagError, UnknownCommand, find, parse
from rkt.config.settings import InsecureOptions, Settings
from rkt.errors import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_NO_COMMAND,
    HostError,
    RktError,
    UsageError,
    quoted,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rkt.cli.command import Flag
    from rkt.cli.parse import Parsed
    from rkt.config.settings import Installation

#: Every verb and the module that does it, in the order of the list in the help.
COMMANDS = {
    "run": "run",
    "prepare": "prepare",
    "run-prepared": "run_prepared",
    "start": "start",
    "explain": "explain",
    "why": "why",
    "list": "list",
    "status": "status",
    "logs": "logs",
    "top": "top",
    "stats": "stats",
    "events": "events",
    "wait": "wait",
    "enter": "enter",
    "attach": "attach",
    "update": "update",
    "pause": "pause",
    "unpause": "unpause",
    "stop": "stop",
    "rm": "rm",
    "gc": "gc",
    "cat-manifest": "cat_manifest",
    "cp": "cp",
    "export": "export",
    "app sandbox": "app_sandbox",
    "app add": "app_add",
    "app start": "app_start",
    "app stop": "app_stop",
    "app rm": "app_rm",
    "app list": "app_list",
    "app status": "app_status",
    "app exec": "app_exec",
    "fetch": "fetch",
    "trust": "trust",
    "trust list": "trust_list",
    "trust rm": "trust_rm",
    "lock": "lock",
    "image cat-manifest": "image_cat_manifest",
    "image create": "image_create",
    "image export": "image_export",
    "image extract": "image_extract",
    "image fetch": "fetch",
    "image gc": "image_gc",
    "image list": "image_list",
    "image push": "image_push",
    "image render": "image_render",
    "image rm": "image_rm",
    "image sign": "image_sign",
    "image verify": "image_verify",
    "stage1 check": "stage1_check",
    "net list": "net_list",
    "net check": "net_check",
    "net gc": "net_gc",
    "metadata-service": "metadata_service",
    "check-host": "check_host",
    "config": "config",
    "version": "version",
    "completion": "completion",
    "help": "help",
}
#: Status of a program ended by SIGPIPE, as shells report it.
_EXIT_BROKEN_PIPE = 141
#: Soft limit of open files that is left as it is.
_ENOUGH_FILES = 1024
#: Files and directories are made with the modes the code states; this is the bound for those it does not.
_UMASK = 0o027


def load_command(name: str) -> Command:
    """The table entry of a verb; imports its module."""
    module_name = f"rkt.cli.{COMMANDS[name]}"
    try:
        __import__(module_name)
    except ModuleNotFoundError as e:
        if e.name != module_name:
            raise
        # A package may leave commands out.
        raise HostError(f"the command {name} is not part of this installation") from None
    command: Command = sys.modules[module_name].COMMAND
    return command if command.name == name else command.replace(name=name, hidden=True)


def load_commands() -> list[Command]:
    """All verbs of this installation, for help, completion and man pages."""
    commands = []
    for name in COMMANDS:
        try:
            commands.append(load_command(name))
        except HostError:
            continue
    return commands


def _flags_of(name: str) -> tuple[Flag, ...]:
    if name not in COMMANDS:
        return GLOBAL_FLAGS
    command = load_command(name)
    if not command.app_flags:
        return command.flags + GLOBAL_FLAGS
    from rkt.cli.app_args import APP_FLAGS

    return (*(APP_FLAGS[n] for n in command.app_flags), *command.flags, *GLOBAL_FLAGS)


class _Ending:
    """What is known when the program ends: how to word an error."""

    def __init__(self) -> None:
        self.prefix = "rkt"
        self.command: Command | None = None
        self.debug = False
        self.json = False


def _raise_own_limits() -> None:
    """Soft limits of the caller that rkt itself could not live with become the hard ones (invariant HH8).

    An app may do the same to itself, so it gets nothing by inheriting them.
    """
    try:
        fd = os.open("/proc/self/limits", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # without /proc there will be no pod, but help and versions
    try:
        lines = os.read(fd, 4096).splitlines()
    finally:
        os.close(fd)
    for line in lines:
        if not line.startswith((b"Max open files", b"Max file size")):
            continue
        soft, hard = line[25:].split()[:2]
        enough = soft == b"unlimited" or (line.startswith(b"Max open") and int(soft) >= _ENOUGH_FILES)
        if not enough and soft != hard:
            import resource

            for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
                most = resource.getrlimit(number)[1]
                resource.setrlimit(number, (most, most))
            return


def main(argv: list[str], installation: Installation) -> int:
    """Run one command line.

    Args:
        argv: the program's name and its words.
        installation: where the program's own parts are.
    Returns:
        The exit status (spec cli §1.3).
    """
    _open_standard_descriptors()
    os.umask(_UMASK)
    _raise_own_limits()
    ending = _Ending()
    words = argv[1:]
    # Known before anything is parsed, so that errors of parsing have their tree too.
    ending.debug = "--debug" in (words[: words.index("--")] if "--" in words else words)
    try:
        status = _run(words, installation, ending)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException as e:  # noqa: BLE001 - the outermost frame: every ending gets its status and its words
        return _failed(e, ending)
    return status


def _open_standard_descriptors() -> None:
    """Give 0, 1 and 2 to /dev/null when the caller closed them: the next file opened would become one of them."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)
            os.set_inheritable(fd, True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    # A name that the locale cannot write must not end the program.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _run(words: list[str], installation: Installation, ending: _Ending) -> int:
    if words == ["--version"]:
        words = ["version"]
    found = find(words, list(COMMANDS), _flags_of)
    if not found.name:
        if _asks_for_help(found.words):
            return _print_help("")
        return _no_command()
    if found.name not in COMMANDS:
        return _print_help(found.name)
    ending.prefix = found.name.rpartition(" ")[2]
    ending.command = command = load_command(found.name)
    parsed = parse(found.words, command)
    ending.debug = parsed.values["debug"]
    if parsed.help:
        return _print_help(found.name)
    for flag in parsed.deprecated:
        _to_stderr(f"Flag --{flag.name} has been deprecated, use --{flag.deprecated} instead\n")
    ending.json = str(parsed.values.get("format", "")).startswith("json")
    unprivileged = command.needs_root and os.geteuid() != 0
    if unprivileged and not command.for_members:
        raise HostError("cannot run as unprivileged user", hint=f"sudo rkt {found.name} …")
    settings = _settings(parsed, installation, ending.prefix)
    if unprivileged:
        from rkt.store.member import require_member

        require_member(settings.data_dir, found.name)
    if parsed.words and not command.usage:
        # ``rkt gc UUID`` must not look as if it had collected that pod only.
        raise UsageError(f"unexpected argument {quoted(parsed.words[0])}")
    invocation = Invocation(
        command=command,
        settings=settings,
        values=parsed.values,
        given=parsed.given,
        words=parsed.words,
        apps=parsed.apps,
        mounts=parsed.mounts,
    )
    if parsed.values["cpuprofile"] or parsed.values["memprofile"]:
        from rkt.cli.profile import run_profiled

        return run_profiled(invocation)
    return command.run(invocation)


def _asks_for_help(words: list[str]) -> bool:
    return "-h" in words or "--help" in words


def _print_help(name: str) -> int:
    from rkt.cli.help import help_for

    sys.stdout.write(help_for(name))
    return 0


def _no_command() -> int:
    from rkt.cli.help import help_for

    _to_stderr(f"missing command\n\n{help_for('')}")
    return EXIT_NO_COMMAND


def _settings(parsed: Parsed, installation: Installation, prefix: str) -> Settings:
    """The global flags, and the data directory: ``--dir``, else configuration ``paths``, else the default."""
    values = parsed.values
    settings = Settings(
        installation=installation,
        system_config_dir=_absolute(values, "system-config"),
        local_config_dir=_absolute(values, "local-config"),
        user_config_dir=_absolute(values, "user-config") if values["user-config"] else "",
        insecure=InsecureOptions.parse(values["insecure-options"]),
        debug=values["debug"],
        authfile=os.path.abspath(values["authfile"]) if values["authfile"] else "",
        trust_keys_from_https=values["trust-keys-from-https"],
        platform=_platform(values),
        command=prefix,
    )
    if "dir" in parsed.given:
        data_dir = _absolute(values, "dir")
    else:
        from rkt.config.paths import configured_data_dir

        data_dir = configured_data_dir(settings) or values["dir"]
    return settings.replace(data_dir=os.path.realpath(data_dir))


def _platform(values: dict[str, Any]) -> str:
    """``--platform`` of the commands that have it."""
    text: str = values.get("platform") or ""
    if text:
        from rkt.schema.oci import Platform

        text = str(Platform.parse(text))
    return text


def _absolute(values: dict[str, Any], name: str) -> str:
    if not values[name]:
        raise FlagError(f'invalid value "" for --{name}: a directory is expected')
    path: str = values[name]
    return os.path.abspath(path)


def _failed(e: BaseException, ending: _Ending) -> int:
    """Say why it ended; returns the exit status."""
    try:
        status = _report(e, ending)
        sys.stdout.flush()
        return status
    except OSError:
        # Nobody reads stdout or stderr any more; whatever is still buffered must not fail again at exit.
        _abandon_output()
        return _EXIT_BROKEN_PIPE if isinstance(e, BrokenPipeError) else EXIT_FAILURE


def _abandon_output() -> None:
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _report(e: BaseException, ending: _Ending) -> int:
    if isinstance(e, SystemExit):
        return e.code if isinstance(e.code, int) else EXIT_FAILURE
    if isinstance(e, KeyboardInterrupt):
        _to_stderr(f"{ending.prefix}: interrupted\n")
        return EXIT_INTERRUPTED
    if isinstance(e, BrokenPipeError) and not e.filename:
        _abandon_output()
        return _EXIT_BROKEN_PIPE
    if isinstance(e, UnknownCommand):
        from rkt.cli.failure import unknown_command

        _to_stderr(unknown_command(e))
        return EXIT_FAILURE
    from rkt.cli.failure import describe, json_line, usage

    text = describe(e, ending.prefix, debug=ending.debug)
    if isinstance(e, FlagError):
        name = ending.command.name if ending.command else ""
        text = describe(e, "Error", debug=ending.debug) + "\n" + usage(ending.command, name)
    elif isinstance(e, UsageError) and not e.hint and ending.command:
        text += f"hint: rkt help {ending.command.name}\n"
    if ending.json:
        text += json_line(e)
    _to_stderr(text)
    return e.exit_status if isinstance(e, RktError) else EXIT_FAILURE


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
