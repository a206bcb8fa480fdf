# SPDX-License-Identifier: Apache-2.0
"""Sockets of the host's service manager, on their way through the pod's systemd to the apps (spec runtime §3.10).

systemd-nspawn hands what was passed to it to the pod's systemd. That one, before it does anything else, gives each socket to
the loaded unit that names its address, and closes the others; ``Sockets=`` of an app's service says from which unit the app
has its own. These units do nothing else:

- systemd never opens a socket for one: a condition that does not hold keeps it from starting any. So one that did not get
  what was passed has nothing, and its app is not started: ``confirm``.
- A client starts nothing. A unit leaves its sockets alone as long as one of its services is active, and beside the app's,
  which only the supervisor starts, each has a service that always is, and has no process.
- Descriptors of one unit come in the order of its lines, those of several in none. So an app has all of its from one.
"""

from __future__ import annotations

import os

from rkt.errors import Stage1Error, quoted
from rkt.linux.listening import FIRST_FD
from rkt.stage1.common import activation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.linux.listening import Listening
    from rkt.stage1.common.pod import LoadedPod

#: Of no app: names that begin like that are systemd's.
_KEEPER = "systemd-sockets.service"
#: No app is called that.
_DROP_IN = "_sockets.conf"
#: There from the beginning, so that the units that are wanted are loaded when descriptors are given away.
_FIRST = "system.slice"
_LISTEN = {"tcp": "ListenStream", "udp": "ListenDatagram"}


def hold(pod: LoadedPod, *, is_mutable: bool) -> list[list[Listening]]:
    """What was passed, in the order in which it was, by the unit that is to have it.

    Args:
        pod: its apps say who gets which.
        is_mutable: whether apps come later, of which nothing is known yet: then each socket has a unit.
    Raises:
        UsageError: there are sockets that no app declares.
        Stage1Error: systemd cannot tell two apart.
    """
    if is_mutable:
        held = [[each] for each in activation.passed() if each.protocol in _LISTEN]
    else:
        activation.check(pod)
        held = [own for app in pod.apps if (own := activation.own(pod, app))]
    seen: dict[str, Listening] = {}
    for each in sorted((each for group in held for each in group), key=lambda each: each.fd):
        other = seen.setdefault(_listen(each), each)
        if other is not each:
            raise Stage1Error(
                f"the sockets that were passed as descriptors {other} and {each} have one address, by which the flavour nspawn tells them apart",
                hint="run without --stage1-name",
            )
    return held


def give(held: Sequence[Sequence[Listening]]) -> dict[str, str]:
    """Let the program that this process executes have them; returns the variables that tell of them."""
    last = max((each.fd for group in held for each in group), default=FIRST_FD - 1)
    for fd in range(FIRST_FD, last + 1):
        os.set_inheritable(fd, True)
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(last + 1 - FIRST_FD)}


def unit_name(fd: int) -> str:
    """The unit that has the sockets of which the first was passed as that descriptor."""
    return f"sockets-{fd}.socket"


def unit_files(held: Sequence[Sequence[Listening]]) -> dict[str, bytes | str]:
    """Units of the pod, names as for ``units.app_units``."""
    names = [unit_name(group[0].fd) for group in held]
    files: dict[str, bytes | str] = {
        name: (_UNIT + "".join(f"{_listen(each)}\n" for each in group)).encode()
        for name, group in zip(names, held, strict=True)
    }
    files[_KEEPER] = _KEEPER_UNIT
    files[f"default.target.d/{_DROP_IN}"] = f"[Unit]\nWants={_KEEPER}\n".encode()
    files[f"{_FIRST}.d/{_DROP_IN}"] = f"[Unit]\nWants={' '.join(names)}\n".encode()
    return files


def _listen(socket: Listening) -> str:
    """The directive that names a socket's address; of a link's own the link does not count."""
    address = socket.address.partition("%")[0]
    return f"{_LISTEN[socket.protocol]}={f'[{address}]' if ':' in address else address}:{socket.port}"


def confirm(leader: int, app: str, fds: Sequence[int]) -> None:
    """Make sure that the pod's systemd still has an app's sockets, those that were passed and not others.

    Raises:
        Stage1Error: it has not.
        OSError: it is gone.
    """
    there = set()
    for name in os.listdir(f"/proc/{leader}/fd"):
        try:
            there.add(os.readlink(f"/proc/{leader}/fd/{name}"))
        except FileNotFoundError:
            continue
    for fd in fds:
        if f"socket:[{os.fstat(fd).st_ino}]" not in there:
            raise Stage1Error(
                f"app {quoted(app)} cannot have the socket that was passed as descriptor {fd}: the pod's systemd has let go of it"
            )


#: No condition is looked at where a unit has got its sockets: then it is started already.
_UNIT = f"""[Unit]
Description=Passed sockets
DefaultDependencies=no
IgnoreOnIsolate=yes
ConditionPathExists=!/
[Socket]
Service={_KEEPER}
TriggerLimitIntervalSec=0
"""
_KEEPER_UNIT = b"""[Unit]
Description=Keeper of passed sockets
DefaultDependencies=no
IgnoreOnIsolate=yes
RefuseManualStop=yes
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStop=/usr/bin/true
"""
