# SPDX-License-Identifier: Apache-2.0
"""Filters that seccomp isolators ask for, as a short program before the default filter.

The program looks at the number of a call only. It gives its own answer, or leaves the call to the default filter, which
has what takes libseccomp to express: conditions on arguments, and what is said to calls of other ABIs. So such a filter
is made in a fraction of a millisecond wherever an app starts or is entered, and there is nothing to cache.

- A retain set allows its names, what ``profiles.IMPLICIT`` lists, and nothing else. Conditions on arguments stay as in
  the default filter, whoever names the call.
- A remove set takes its names away from the default filter: rkt let everything else pass, but lists of what is bad age
  (invariant RN14).
"""

from __future__ import annotations

import errno
import os
import struct

from rkt.linux import seccomp_profiles as profiles
from rkt.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    _Resolver = Callable[[Iterable[str]], list[int]]

RETAIN = "os/linux/seccomp-retain-set"
REMOVE = "os/linux/seccomp-remove-set"

# <linux/seccomp.h>
_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_RET_ALLOW = 0x7FFF0000
_DATA_NR, _DATA_ARCH = 0, 4
# <linux/bpf_common.h>
_INSTRUCTION = struct.Struct("=HBBI")
_LD_W_ABS, _RET_K, _JA, _JEQ_K, _JGT_K, _JGE_K = 0x20, 0x06, 0x05, 0x15, 0x25, 0x35
_MAX_INSTRUCTIONS = 4096
#: Numbers of x32 have this bit.
_X32 = 0x40000000
#: Instead of an action: what follows, the default filter, decides.
_DEFAULT = None


class Wish:
    """What the seccomp isolator of an app says, checked.

    Attributes:
        kind: ``RETAIN`` or ``REMOVE``; empty when there is no isolator.
        names: calls, wildcards expanded.
        action: for calls that are refused.
        everything: no filter at all.
    """

    __slots__ = ("action", "everything", "kind", "names")

    def __init__(self, kind: str, names: Sequence[str], action: int, *, everything: bool) -> None:
        self.kind = kind
        self.names = names
        self.action = action
        self.everything = everything


def parse(isolators: Iterable[tuple[str, Sequence[str], str]]) -> Wish:
    """Check seccomp isolators.

    Args:
        isolators: (isolator name, set, errno such as ``EPERM`` or empty to kill).
    Raises:
        ValueError: more than one isolator, an unknown wildcard or errno, or a name to remove that no architecture knows.
    """
    given = list(isolators)
    if not given:
        return Wish("", (), 0, everything=False)
    if len(given) > 1:
        raise ValueError("too many seccomp isolators specified")
    kind, names, errno_name = given[0]
    action = _RET_KILL_PROCESS
    if errno_name:
        number = getattr(errno, errno_name, None)
        if not isinstance(number, int):
            raise ValueError(f"unknown errno {errno_name}")
        action = _RET_ERRNO | number
    everything = "@appc.io/all" in names
    listed = profiles.expand(name for name in names if name not in {"@appc.io/all", "@appc.io/empty"})
    if kind == REMOVE:
        if everything:
            raise ValueError("removing @appc.io/all would leave no system call")
        for name in listed:
            if not syscalls.is_known(name):
                raise ValueError(f"no system call is named {name}")
    elif kind != RETAIN:
        raise ValueError(f"not a seccomp isolator: {kind}")
    return Wish(kind, listed, action, everything=everything)


def compile_isolators(isolators: Iterable[tuple[str, Sequence[str], str]], default: bytes) -> bytes:
    """The filter that seccomp isolators ask for.

    Args:
        isolators: see ``parse``.
        default: the compiled default filter.
    Returns:
        An array of ``struct sock_filter``, empty for no filter.
    Raises:
        ValueError: see ``parse``.
        OSError: the machine is not known, or the filter gets too long.
    """
    wish = parse(isolators)
    if wish.everything:
        return b""
    if not wish.names and wish.kind != RETAIN:
        return default
    machine = os.uname().machine
    arch = syscalls.AUDIT_ARCH.get(machine)
    if arch is None:
        raise OSError(errno.ENOTSUP, f"seccomp isolators are not known on {machine}")
    resolve = _resolver(machine)
    if wish.kind == REMOVE:
        verdicts = dict.fromkeys(resolve(wish.names), wish.action)
        program = _program(arch, verdicts, _DEFAULT)
    else:
        program = _program(arch, _retained(wish.names, resolve), wish.action)
    if len(program + default) // _INSTRUCTION.size > _MAX_INSTRUCTIONS:
        raise OSError(errno.E2BIG, "the filter has more instructions than the kernel takes")
    return program + default


def _retained(names: Sequence[str], resolve: _Resolver) -> dict[int, int | None]:
    """Number -> what happens to a call of a retain set; what the default filter knows is left to its conditions."""
    known = frozenset(profiles.default_names())
    wanted = {*names, *profiles.words((profiles.IMPLICIT,))}
    verdicts: dict[int, int | None] = dict.fromkeys(
        resolve(name for name in wanted if name not in known), _RET_ALLOW
    )
    # clone3 cannot be looked into; a retained clone stands for both, and C libraries ask for it first (RN17).
    verdicts.update(
        dict.fromkeys(resolve([*(name for name in wanted if name in known), *profiles.NOT_THERE]), _DEFAULT)
    )
    return verdicts


def _resolver(machine: str) -> _Resolver:
    """Names to the numbers of those that the machine has."""
    table = syscalls.numbers(machine)
    if table is None:
        from rkt.linux.seccomp import Library

        library = Library()
        return lambda names: [
            n for n in (library.resolve(name) for name in names) if n is not None and n >= 0
        ]
    return lambda names: [table[name] for name in names if name in table]


def _program(arch: int, verdicts: Mapping[int, int | None], otherwise: int | None) -> bytes:
    """Instructions that give each number its verdict, with the default filter expected behind them.

    Source: Documentation/networking/filter.rst.
    """
    # Of another ABI: the default filter has the answer.
    code: list[tuple[int, int, int, int | None]] = [
        (_LD_W_ABS, 0, 0, _DATA_ARCH),
        (_JEQ_K, 1, 0, arch),
        (_JA, 0, 0, _DEFAULT),
        (_LD_W_ABS, 0, 0, _DATA_NR),
        (_JGE_K, 0, 1, _X32),
        (_JA, 0, 0, _DEFAULT),
    ]
    for low, high, verdict in _ranges(verdicts):
        if low == high:
            code.append((_JEQ_K, 0, 1, low))
        else:
            code += [(_JGE_K, 0, 2, low), (_JGT_K, 1, 0, high)]
        code.append(_leaf(verdict))
    code.append(_leaf(otherwise))
    packed = bytearray()
    for index, (operation, if_true, if_false, value) in enumerate(code):
        # Only jumps to the default filter are without a value; they count from the next instruction.
        known = len(code) - index - 1 if value is None else value
        packed += _INSTRUCTION.pack(operation, if_true, if_false, known)
    return bytes(packed)


def _leaf(verdict: int | None) -> tuple[int, int, int, int | None]:
    return (_JA, 0, 0, _DEFAULT) if verdict is _DEFAULT else (_RET_K, 0, 0, verdict)


def _ranges(verdicts: Mapping[int, int | None]) -> list[tuple[int, int, int | None]]:
    """Neighbouring numbers with the same verdict, as (first, last, verdict)."""
    found: list[tuple[int, int, int | None]] = []
    for number in sorted(verdicts):
        if found and found[-1][1] == number - 1 and found[-1][2] == verdicts[number]:
            found[-1] = (found[-1][0], number, verdicts[number])
        else:
            found.append((number, number, verdicts[number]))
    return found
