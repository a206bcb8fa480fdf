# SPDX-License-Identifier: Apache-2.0
"""Tries something in a child, in which it may ruin its namespaces, limits and rights; nothing of it is left."""

from __future__ import annotations

import os
import select
import signal
import time

from rkt.errors import RktError
from rkt.linux import libc
from rkt.stage0.host.facts import UNSEEN, Trial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 20.0
_MAX_BYTES = 4096
_WORKED, _REFUSED, _COULD_NOT_TRY = b"+-?"


class CannotTry(Exception):
    """The caller has not the rights that the attempt begins with; it says nothing of the host."""


def attempt(act: Callable[[], str], *, seconds: float = _SECONDS) -> Trial:
    """Do something in a child.

    Args:
        act: does it, and returns what was learnt. Raises ``OSError`` or ``RktError`` when it cannot be done, ``CannotTry``
            when nothing can be said.
        seconds: after these it is killed, with all that it started.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        _act(act, read_end, write_end)
    os.close(write_end)
    try:
        answer = _listen(read_end, time.monotonic() + seconds)
    finally:
        os.close(read_end)
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)  # it is a child that nobody waited for, so the number is its own
        os.waitpid(pid, 0)
    return _parse(answer, seconds)


def _listen(fd: int, deadline: float) -> bytes | None:
    """All that the child says; None when it does not end in time."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    answer = b""
    while poll.poll(max(0, int((deadline - time.monotonic()) * 1000))):
        chunk = os.read(fd, _MAX_BYTES)
        if not chunk:
            return answer
        answer += chunk
    return None


def _parse(answer: bytes | None, seconds: float) -> Trial:
    if answer is None:
        return Trial(text=f"it did not end within {seconds:g} seconds")
    number, _, text = answer[1:].decode("utf-8", "replace").partition(" ")
    if answer[:1] == b"?":
        return UNSEEN
    if answer[:1] in {b"+", b"-"}:
        return Trial(done=answer[:1] == b"+", errno=int(number), text=text)
    return Trial(text="it ended without a word")


def _act(act: Callable[[], str], read_end: int, write_end: int) -> None:
    """In the child."""
    word, number, text = _REFUSED, 0, ""
    try:
        os.setpgid(0, 0)
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.close(read_end)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        text = act()
        word = _WORKED
    except CannotTry:
        word = _COULD_NOT_TRY
    except OSError as e:
        number, text = e.errno or 0, e.strerror or str(e)
    except RktError as e:
        text = e.message
    except BaseException as e:  # noqa: BLE001 - whatever it was, it did not work, and the parent says so
        text = f"{type(e).__name__}: {e}"
    finally:
        said = bytes([word]) + f"{number} {text}".encode("utf-8", "replace")[: _MAX_BYTES - 1]
        os.write(write_end, said)
        os._exit(0)


def become_root() -> None:
    """Have a user who is not root become root of a user namespace; root stays what it is.

    Raises:
        CannotTry: the host does not let users have one.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return
    try:
        libc.unshare(libc.CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
                stream.write(text)
    except OSError as e:
        raise CannotTry from e


def in_child(act: Callable[[], str]) -> str:
    """Do something in a child of the attempt, as what needs a new pid namespace has to; an error is passed on."""
    trial = attempt(act)
    if not trial.was_tried:
        raise CannotTry
    if not trial.done:
        raise OSError(trial.errno, trial.text)
    return trial.text
