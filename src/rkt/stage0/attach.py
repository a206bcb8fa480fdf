# SPDX-License-Identifier: Apache-2.0
"""Attach to the streams of a running app, by exec of stage1's attach entrypoint (spec runtime §1.5, §3.9)."""

from __future__ import annotations

import os
import sys

from rkt.errors import PodError, Stage1Error, UsageError, quoted
from rkt.pod import status
from rkt.schema.appc import ANNOTATION_STREAMS
from rkt.stage0 import contract
from rkt.stage0.enter import check_running
from rkt.stage0.run import stage1_environment
from rkt.stage0.stage1 import program_root, read_program
from rkt.store.cas import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod

LIST = "list"
AUTO = "auto"
_STREAMS = ("stdin", "stdout", "stderr")
_TERMINAL = ("tty-in", "tty-out")
#: A pod that was just started has no apps yet; they are there within milliseconds.
_READY_SECONDS = 15.0


def parse_mode(mode: str) -> list[str]:
    """``--mode`` as words for stage1.

    Raises:
        UsageError: it names what there is not, nothing, or what does not go together.
    """
    if mode in {LIST, AUTO}:
        return [f"--action={'list' if mode == LIST else 'auto-attach'}"]
    wanted: set[str] = set()
    for word in mode.split(",") if mode else ():
        if word == "tty":
            wanted.update(_TERMINAL)
        elif word in _STREAMS or word in _TERMINAL:
            wanted.add(word)
        else:
            raise UsageError(
                f"invalid attach mode: unknown endpoint {quoted(word)}",
                hint="--mode=list, auto, or some of stdin, stdout, stderr, or of tty, tty-in, tty-out",
            )
    if not wanted:
        raise UsageError(
            "invalid attach mode: mode must specify at least one endpoint to attach", hint="--mode=auto"
        )
    if wanted.intersection(_STREAMS) and wanted.intersection(_TERMINAL):
        raise UsageError(
            f"invalid attach mode: incompatible endpoints {quoted(mode)}, "
            "cannot simultaneously attach TTY and streams",
            hint="rkt attach --mode=list UUID",
        )
    return [
        "--action=custom-attach",
        *(f"--{word}={'true' if word in wanted else 'false'}" for word in (*_TERMINAL, *_STREAMS)),
    ]


def check_interactive(manifest: bytes) -> None:
    """``--interactive`` agrees with the modes of the app's streams, and the app is not to be started again by itself.

    Args:
        manifest: of the pod.
    Raises:
        UsageError: they do not.
    """
    from rkt.schema.appc import parse_pod_manifest
    from rkt.schema.streams import TTY, parse_streams

    for app in parse_pod_manifest(manifest).apps:
        if app.annotations.get(contract.ANNOTATION_RESTART, "no") != "no":
            raise UsageError("--interactive and --restart exclude each other")
        modes = set(parse_streams(app.annotations).modes)
        if not any(name.startswith(ANNOTATION_STREAMS) for name in app.annotations):
            continue
        if modes != {TTY}:
            raise UsageError(
                f"app {quoted(app.name)}: --interactive gives an app the caller's terminal, and --stdin, --stdout or --stderr "
                "say otherwise",
                hint="without --interactive, and rkt attach; or all three =tty, to attach beside the caller",
            )
        if not os.isatty(0):
            raise UsageError(
                f"app {quoted(app.name)} is to have the caller's terminal, and standard input is none",
                hint="without --interactive, and rkt attach",
            )


def check_log_directory(manifest: bytes) -> None:
    """The directory of the host that is to have plain logs is there.

    Args:
        manifest: of a pod that is about to run.
    Raises:
        UsageError: it is not.
    """
    from rkt.schema.appc import parse_pod_manifest
    from rkt.schema.streams import parse_log_mode

    _, directory = parse_log_mode(parse_pod_manifest(manifest).annotations)
    if directory and not os.path.isdir(directory):
        raise UsageError(f"log directory {quoted(directory)} is not a directory", hint=f"mkdir {directory}")


def attach(settings: Settings, pod: Pod, app: str, words: list[str]) -> NoReturn:
    """Become the client of an app.

    Args:
        settings: of the running command.
        pod: running.
        app: its name.
        words: from ``parse_mode``, and further flags for stage1.
    Raises:
        PodError: the pod does not run.
        Stage1Error: stage1 cannot, or cannot be executed.
    """
    check_running(pod)
    program = read_program(pod)
    if not program.has(contract.ANNOTATION_ATTACH):
        raise Stage1Error("rkt attach not implemented for pod's stage1", hint=f"rkt logs {pod.uuid.short}")
    status.wait_until(pod, lambda p: not p.is_running or status.container_pid(p) is not None, _READY_SECONDS)
    if not pod.is_running:
        raise PodError(f'pod "{pod.uuid}" isn\'t currently running')
    root = program_root(pod, Store(settings.data_dir))
    environment = stage1_environment()
    # For a stage1 that has to act inside the pod (spec runtime §1.5, "Crossing entrypoints").
    if program.has(contract.ANNOTATION_ENTER):
        environment[contract.ENV_ENTER_COMMAND] = f"{root}/{program.entrypoint(contract.ANNOTATION_ENTER)}"
    environment[contract.ENV_ENTER_PID] = str(status.container_pid(pod) or "")
    arguments = [f"--app={app}", f"--debug={'true' if settings.debug else 'false'}", *words]
    _exec(f"{root}/{program.entrypoint(contract.ANNOTATION_ATTACH)}", arguments, pod, environment)


def _exec(program: str, arguments: list[str], pod: Pod, environment: dict[str, str]) -> NoReturn:
    from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal

    signal(SIGPIPE, SIG_DFL)
    signal(SIGXFSZ, SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(pod.path)
    try:
        os.execve(program, [program, *arguments], environment)
    except OSError as e:
        raise Stage1Error(f"cannot execute stage1 {program}: {e.strerror}") from e
