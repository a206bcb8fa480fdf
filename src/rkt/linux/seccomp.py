# SPDX-License-Identifier: Apache-2.0
"""System call filters: profiles compiled to BPF by libseccomp.

The default filter is compiled when stage1 is built and only loaded at run time (``libc.seccomp_load``). This module is
for that build, and for the workers of a fetch; what isolators of apps ask for is put before the default filter by
``seccomp_isolators``.

A program has two parts, each compiled by libseccomp and joined here. The first answers the refused arguments of calls
that are otherwise allowed and hands everything else to the second, the list of calls. libseccomp alone cannot say "all
but these two values of one argument": its rules compare an argument once, and 64 bits of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

from rkt.linux import seccomp_profiles as profiles
from rkt.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Comparison = tuple[int, int, int, int]

# <linux/seccomp.h>: offsets in struct seccomp_data; of an argument, the half with the low bits.
_DATA_NR, _DATA_ARCH = 0, 4
_DATA_ARGUMENT_0 = 16 if sys.byteorder == "little" else 20
# <seccomp.h>
SCMP_ACT_KILL_PROCESS = 0x80000000
SCMP_ACT_ALLOW = 0x7FFF0000
SCMP_FLTATR_ACT_BADARCH = 2
SCMP_FLTATR_CTL_OPTIMIZE = 8
_ERROR = -1  # __NR_SCMP_ERROR: no architecture has a call of that name

# <linux/bpf_common.h>, <linux/filter.h>
_INSTRUCTION = struct.Struct("=HBBI")
_BPF_LD_W_ABS = 0x20
_BPF_RET_K = 0x06
_BPF_JMP_JA = 0x05
_BPF_JMP_JEQ_K = 0x15
_BPF_MAXINSNS = 4096


def scmp_act_errno(number: int) -> int:
    """Action that makes a call fail with an errno."""
    return 0x00050000 | number


class Profile:
    """What a filter answers to each call.

    Attributes:
        default: action for calls that are not named.
        allowed: names of allowed calls.
        refused: name to action of those that get another answer than ``default``.
        conditional: (name, comparisons) of calls allowed with some arguments.
        exceptions: (name, errno, comparisons) of calls in ``allowed`` that fail with some arguments.
    """

    __slots__ = ("allowed", "conditional", "default", "exceptions", "refused")

    def __init__(
        self,
        default: int,
        allowed: Iterable[str],
        refused: dict[str, int],
        conditional: Sequence[tuple[str, tuple[Comparison, ...]]] = (),
        exceptions: Sequence[tuple[str, int, tuple[Comparison, ...]]] = (),
    ) -> None:
        self.default = default
        self.allowed = sorted(allowed)
        self.refused = refused
        self.conditional = conditional
        self.exceptions = exceptions


def default_profile() -> Profile:
    """The filter of an app that asks for nothing else."""
    return Profile(
        scmp_act_errno(errno.ENOSYS),
        profiles.words(profiles.ALLOWED.values()),
        dict.fromkeys(profiles.words(profiles.REFUSED.values()), scmp_act_errno(errno.EPERM)),
        profiles.CONDITIONAL,
        profiles.EXCEPTIONS,
    )


def compile_filter(profile: Profile) -> bytes:
    """Compile for this machine's architecture; other ABIs of it, such as i386 and x32, answer ENOSYS (RN15).

    Returns:
        An array of ``struct sock_filter`` for ``libc.seccomp_load``.
    Raises:
        OSError: libseccomp is not installed, or refuses.
    """
    library = Library()
    rules: list[tuple[str, int, tuple[Comparison, ...]]] = [
        *((name, SCMP_ACT_ALLOW, ()) for name in profile.allowed),
        *((name, action, ()) for name, action in profile.refused.items()),
        *((name, SCMP_ACT_ALLOW, comparisons) for name, comparisons in profile.conditional),
    ]
    program = library.compile(profile.default, rules)
    if profile.exceptions:
        exceptions = [(name, scmp_act_errno(number), rest) for name, number, rest in profile.exceptions]
        program = _chain(library.compile(SCMP_ACT_ALLOW, exceptions), program)
    if len(program) // _INSTRUCTION.size > _BPF_MAXINSNS:
        raise OSError(errno.E2BIG, "the filter has more instructions than the kernel takes")
    return program


def compile_pod_filter() -> bytes:
    """What is refused to a whole pod whose apps are confined by systemd, which says the rest of the default filter itself.

    It is loaded before systemd-nspawn and has what a unit cannot say: conditions on arguments other than those of
    ``clone``, which systemd needs, and an answer to other ABIs that is no signal. Everything else is let through.

    Raises:
        OSError: as ``compile_filter``.
    """
    exceptions = [
        (name, scmp_act_errno(number), rest) for name, number, rest in profiles.EXCEPTIONS if name != "clone"
    ]
    library = Library()
    return _chain(_conditions(library), library.compile(SCMP_ACT_ALLOW, exceptions))


def _conditions(library: Library) -> bytes:
    """A program that answers ENOSYS to ``profiles.CONDITIONAL`` with other first arguments; libseccomp cannot say "none of"."""
    arch = syscalls.AUDIT_ARCH.get(os.uname().machine)
    values: dict[str, list[int]] = {}
    for name, comparisons in profiles.CONDITIONAL:
        values.setdefault(name, []).append(comparisons[0][2])
    code: list[tuple[int, int, int, int]] = []
    for name, allowed in values.items():
        number = library.resolve(name)
        if arch is None or number is None or number < 0:
            continue
        rest = len(allowed) + 1
        code += [
            (_BPF_LD_W_ABS, 0, 0, _DATA_ARCH),
            (_BPF_JMP_JEQ_K, 0, rest + 3, arch),
            (_BPF_LD_W_ABS, 0, 0, _DATA_NR),
            (_BPF_JMP_JEQ_K, 0, rest + 1, number),
            (_BPF_LD_W_ABS, 0, 0, _DATA_ARGUMENT_0),
            *((_BPF_JMP_JEQ_K, rest - 1 - index, 0, value) for index, value in enumerate(allowed)),
            (_BPF_RET_K, 0, 0, scmp_act_errno(errno.ENOSYS)),
        ]
    code.append((_BPF_RET_K, 0, 0, SCMP_ACT_ALLOW))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def _chain(first: bytes, second: bytes) -> bytes:
    """One program: where the first would allow, the second decides."""
    count = len(first) // _INSTRUCTION.size
    joined = bytearray(first)
    for index, (code, _, _, value) in enumerate(_INSTRUCTION.iter_unpack(first)):
        if code == _BPF_RET_K and value == SCMP_ACT_ALLOW:
            # Jumps count from the next instruction; the rest of the first part lies between.
            _INSTRUCTION.pack_into(joined, index * _INSTRUCTION.size, _BPF_JMP_JA, 0, 0, count - index - 1)
    return bytes(joined) + second


class _Argument(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class Library:
    """libseccomp by ctypes."""

    __slots__ = ("_library", "_numbers")

    def __init__(self) -> None:
        """Load it.

        Raises:
            OSError: it is not installed.
        """
        library = ctypes.CDLL("libseccomp.so.2")
        library.seccomp_init.restype = ctypes.c_void_p
        library.seccomp_init.argtypes = (ctypes.c_uint32,)
        library.seccomp_release.restype = None
        library.seccomp_release.argtypes = (ctypes.c_void_p,)
        library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
        library.seccomp_rule_add_array.argtypes = (
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_void_p,
        )
        library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
        library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
        self._library = library
        self._numbers = {**profiles.NUMBERS, **profiles.NUMBERS_OF.get(os.uname().machine, {})}

    def resolve(self, name: str) -> int | None:
        """Number of a call here, negative for one of other architectures only, None when nobody knows it."""
        number: int = self._library.seccomp_syscall_resolve_name(name.encode())
        return self._numbers.get(name) if number == _ERROR else number

    def compile(self, default: int, rules: Iterable[tuple[str, int, tuple[Comparison, ...]]]) -> bytes:
        """One program; calls that this architecture lacks are left out, and get the default answer if ever made.

        Args:
            default: action for everything else.
            rules: (call, action, comparisons that must all hold).
        """
        library = self._library
        context = library.seccomp_init(default)
        if not context:
            raise OSError(errno.EINVAL, "seccomp_init failed")
        try:
            _check(
                library.seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, scmp_act_errno(errno.ENOSYS)),
                "seccomp_attr_set",
            )
            # 2: a binary tree instead of a list. Older libraries only have the list, which is right but slower.
            library.seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2)
            for name, action, comparisons in rules:
                number = self.resolve(name)
                if number is None or number < 0 or action == default:
                    continue
                array = (_Argument * len(comparisons))(
                    *(
                        # MASKED takes the mask first, then the value.
                        _Argument(index, operator, mask, value)
                        if operator == profiles.MASKED
                        else _Argument(index, operator, value, 0)
                        for index, operator, value, mask in comparisons
                    )
                )
                # ``array`` is a local name, so it outlives the call, which copies it.
                _check(library.seccomp_rule_add_array(context, action, number, len(comparisons), array), name)
            fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
            try:
                _check(library.seccomp_export_bpf(context, fd), "seccomp_export_bpf")
                return os.pread(fd, os.fstat(fd).st_size, 0)
            finally:
                os.close(fd)
        finally:
            library.seccomp_release(context)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"libseccomp: {os.strerror(-result)}", what)
