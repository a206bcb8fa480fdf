# SPDX-License-Identifier: Apache-2.0
"""Start a program inside a running app, by exec of stage1's enter entrypoint (spec runtime §1.5)."""

from __future__ import annotations

import os
import sys

from rkt.errors import HostError, NotFound, PodError, Stage1Error, UsageError
from rkt.pod import status
from rkt.stage0 import contract, roots
from rkt.stage0.messages import tell
from rkt.stage0.run import stage1_environment
from rkt.stage0.stage1 import program_root, read_program
from rkt.store.cas import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rkt.config.settings import Settings
    from rkt.pod.lifecycle import Pod

_SHELLS = ("/bin/bash", "/bin/sh")
#: A pod that was just started has no pid yet; stage1 writes it within milliseconds.
_PID_TIMEOUT_SECONDS = 30.0


def check_running(pod: Pod) -> None:
    """Refuse what only a running pod can do.

    Raises:
        PodError: it does not run.
    """
    if not pod.is_running:
        raise PodError(f'pod "{pod.uuid}" isn\'t currently running', hint=f"rkt status {pod.uuid.short}")


def choose_app(pod: Pod, wanted: str, command: str) -> str:
    """The app that ``--app`` names, or the only one.

    Raises:
        NotFound: no such app.
        PodError: there is none.
        UsageError: there are several, and none was named.
    """
    apps = [app.name for app in status.read_summary(pod).apps]
    if wanted:
        if wanted not in apps:
            hint = f"apps: {', '.join(apps)}" if apps else ""
            raise NotFound(f'no app "{wanted}" in pod "{pod.uuid}"', hint=hint)
        return wanted
    if not apps:
        raise pod.lacks("contains zero apps")
    if len(apps) > 1:
        raise UsageError(
            f"pod contains multiple apps: {', '.join(apps)}",
            hint=f'specify app using "rkt {command} --app= ..."',
        )
    return apps[0]


def enter(settings: Settings, pod: Pod, app: str, words: list[str]) -> NoReturn:
    """Become a program inside the app.

    Args:
        settings: of the running command.
        pod: running, see ``check_running``.
        app: its name.
        words: command and arguments; empty for a shell.
    Raises:
        PodError: the pod does not run.
        Stage1Error: stage1 cannot be executed.
    """
    check_not_paused(pod)
    store = Store(settings.data_dir)
    if not words:
        words = [_shell(pod, store, app)]
        tell(settings, f'no command specified, assuming "{words[0]}"')
    _enter(pod, store, app, words)


def enter_pod(settings: Settings, pod: Pod, words: list[str]) -> NoReturn:
    """Become a program in the pod's own root, beside its apps.

    Args:
        settings: of the running command.
        pod: running, see ``check_running``.
        words: command and arguments; empty for a shell.
    Raises:
        PodError: the pod does not run, or has no root of its own.
        Stage1Error: stage1 cannot be executed.
    """
    stage1 = read_program(pod)
    if not stage1.has(contract.ANNOTATION_ENTER_POD):
        raise PodError(
            f'pod "{pod.uuid}" has no root of its own beside its apps: {stage1.name} has none',
            hint=f"rkt enter --app=APP {pod.uuid.short}; pods of coreos.com/rkt/stage1-nspawn have one",
        )
    check_not_paused(pod)
    if not words:
        # What is in the pod's root is the host's, so what the host has is there.
        words = [_SHELLS[0] if os.path.exists(_SHELLS[0]) else _SHELLS[1]]
        tell(settings, f'no command specified, assuming "{words[0]}"')
    _enter(pod, Store(settings.data_dir), "", words)


def check_not_paused(pod: Pod) -> None:
    """Refuse what a paused pod would wait for.

    Raises:
        PodError: it is paused.
    """
    if status.is_paused(pod):
        raise PodError(f'pod "{pod.uuid}" is paused', hint=f"rkt unpause {pod.uuid.short}")


def _enter(pod: Pod, store: Store, app: str, words: list[str]) -> NoReturn:
    pid = _pid(pod)
    program = f"{program_root(pod, store)}/{read_program(pod).entrypoint(contract.ANNOTATION_ENTER)}"
    environment = stage1_environment()
    environment.setdefault("TERM", "vt100")
    os.chdir(pod.path)
    _exec(program, [f"--pid={pid}", f"--appname={app}", "--", *words], environment)


def _exec(program: str, arguments: list[str], environment: dict[str, str]) -> NoReturn:
    from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal

    from rkt.linux.interpreter import seal_in_own_namespace

    try:
        seal_in_own_namespace()
    except OSError as e:
        raise HostError(f"cannot make a mount namespace to enter from: {e.strerror}") from e
    signal(SIGPIPE, SIG_DFL)
    signal(SIGXFSZ, SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(program, [program, *arguments], environment)
    except OSError as e:
        raise Stage1Error(f"cannot execute stage1 {program}: {e.strerror}") from e


def _pid(pod: Pod) -> int:
    found: list[int] = []

    def known(now: Pod) -> bool:
        pid = status.container_pid(now)
        if pid is not None:
            found.append(pid)
        return pid is not None or not now.is_running

    status.wait_until(pod, known, _PID_TIMEOUT_SECONDS)
    if not pod.is_running:
        raise PodError(f'pod "{pod.uuid}" isn\'t currently running')
    if not found:
        raise PodError(f'pod "{pod.uuid}" has no first process yet', hint="try again in a moment")
    return found[0]


def _shell(pod: Pod, store: Store, app: str) -> str:
    """Either bash, as in rkt, or sh in images that have no bash; seen from outside, without running anything."""
    return _SHELLS[0] if _has_file(pod, store, app, _SHELLS[0]) else _SHELLS[1]


def _has_file(pod: Pod, store: Store, app: str, path: str) -> bool:
    from rkt.linux import libc

    if pod.has(contract.OVERLAY_PREPARED):
        key = roots.tree_key(pod, app)
        directories = [f"{pod.path}/{roots.upper_path(key, app)}"]
        directories += [f"{store.layer_path(layer)}/rootfs" for layer in roots.layer_keys(pod, app)]
    else:
        directories = [f"{pod.path}/{roots.app_root(app)}"]
    for directory in directories:
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # What the pod may have changed is resolved inside its own root (EN2).
            os.close(
                libc.openat2(
                    root, path.encode(), os.O_PATH, libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS
                )
            )
        except OSError:
            continue
        finally:
            os.close(root)
        return True
    return False
