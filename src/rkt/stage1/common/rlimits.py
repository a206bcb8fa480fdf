# SPDX-License-Identifier: Apache-2.0
"""Limits of an app's processes, setrlimit(2), from ``os/linux/rlimits``; imported when there is one.

What the operator asks for above the hard limit of whoever runs the pod takes CAP_SYS_RESOURCE, and without it is
refused before the app is forked. What an image asks for, and what a command that enters gets, is cut to what is there:
lower is tighter.
"""

from __future__ import annotations

import resource

from rkt.errors import Stage1Error, quoted
from rkt.linux import libc
from rkt.schema import isolators
from rkt.stage1.common import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt.stage1.common.pod import PodApp

#: Number, soft and hard limit.
Limit = tuple[int, int, int]

_CAP_SYS_RESOURCE = 1 << 24
_NR_OPEN = "/proc/sys/fs/nr_open"


class RaiseLimits(steps.Step):
    """Raise hard limits, while that is still allowed; what an app gets in the end is set last (``stage2.exec``)."""

    __slots__ = ("limits",)

    def __init__(self, limits: list[Limit]) -> None:
        self.limits = limits

    def describe(self) -> str:
        """See ``Step``."""
        return f"raise {len(self.limits)} hard limits"

    def apply(self, root_fd: int) -> None:
        """See ``Step``."""
        for number, _, hard in self.limits:
            resource.setrlimit(number, (resource.getrlimit(number)[0], hard))


def app_limits(app: PodApp, *, entering: bool) -> list[Limit]:
    """The limits of an app or of a command that enters it.

    Raises:
        Stage1Error: one is higher than this process may give.
    """
    own = app.image.app.isolators if app.image.app is not None else []
    wishes = [each.value for each in own if each.name == isolators.RLIMITS]
    pairs: dict[str, dict[str, int]] = {}
    for isolator in app.app.isolators:
        if isolator.name == isolators.RLIMITS:
            pairs.update(isolator.value)
    limits = []
    for name, pair in pairs.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}")
        soft, hard = pair["soft"], pair["hard"]
        allowed = resource.getrlimit(number)[1]
        if _exceeds(hard, allowed):
            if entering or any(wish.get(name) == pair for wish in wishes):
                hard = allowed
                soft = hard if _exceeds(soft, hard) else soft
            else:
                _check_raise(app.name, name, hard, allowed)
        limits.append((number, soft, hard))
    return limits


def raising_steps(limits: list[Limit]) -> list[steps.Step]:
    """The step that raises those hard limits that are above this process's own, if there are any."""
    higher = [each for each in limits if _exceeds(each[2], resource.getrlimit(each[0])[1])]
    return [RaiseLimits(higher)] if higher else []


def _check_raise(app: str, name: str, hard: int, allowed: int) -> None:
    what = f"app {quoted(app)}: limit {name} of {_text(hard)}"
    if not libc.capget()[0] & _CAP_SYS_RESOURCE:
        raise Stage1Error(
            f"{what} is more than the {_text(allowed)} that can be given here: raising it takes CAP_SYS_RESOURCE",
            hint=f"--ulimit={name}={_text(allowed)}",
        )
    if name == "nofile":
        with open(_NR_OPEN, encoding="ascii") as file:
            most = int(file.read())
        if _exceeds(hard, most):
            raise Stage1Error(f"{what} is more than the {most} of fs.nr_open", hint=f"--ulimit={name}={most}")


def _exceeds(one: int, other: int) -> bool:
    if other == resource.RLIM_INFINITY:
        return False
    return one == resource.RLIM_INFINITY or one > other


def _text(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
