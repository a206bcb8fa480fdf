# SPDX-License-Identifier: Apache-2.0
"""Device policy of a cgroup, which allows by list: by the files of version 1, or a small BPF program for version 2.

The program is put together by hand.

Source: <linux/bpf.h>; ``struct bpf_cgroup_dev_ctx`` is three u32: access << 16 | type, major, minor.
"""

from __future__ import annotations

import errno
import os
import struct

from rkt.linux import cgroupfs, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt.linux.cgroup import Group

    #: ``b`` or ``c``, major, minor or None for all, some of ``rwm``.
    Rule = tuple[str, int, int | None, str]

#: Everything is refused but these.
DEFAULT_DEVICES: tuple[Rule, ...] = (
    ("c", 1, 3, "rwm"),  # null
    ("c", 1, 5, "rwm"),  # zero
    ("c", 1, 7, "rwm"),  # full
    ("c", 1, 8, "rwm"),  # random
    ("c", 1, 9, "rwm"),  # urandom
    ("c", 5, 0, "rwm"),  # tty
    ("c", 5, 1, "rw"),  # console
    ("c", 5, 2, "rw"),  # ptmx
    ("c", 136, None, "rw"),  # pts/*
    ("c", 10, 200, "rw"),  # net/tun
)

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2
BPF_DEVCG_ACC = {"m": 1, "r": 2, "w": 4}
BPF_DEVCG_DEV = {"b": 1, "c": 2}

_LDX_W = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOV_X = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_MOV_K = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_AND_K = 0x57  # BPF_ALU64 | BPF_AND | BPF_K
_RSH_K = 0x77  # BPF_ALU64 | BPF_RSH | BPF_K
_JNE_K = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_EXIT = 0x95  # BPF_JMP | BPF_EXIT
_INSTRUCTION = struct.Struct("=BBhi")


def restrict(group: Group, allowed: Sequence[Rule]) -> None:
    """Refuse every device but those of ``allowed``, with version 1 files or, without them, a version 2 program.

    Call it before the group has children: version 1 refuses later (``EBUSY``).

    Raises:
        OSError: ``ENOTSUP`` with neither, or what the kernel says.
    """
    for hierarchy, _, directory in group.places:
        if "devices" in hierarchy.controllers:
            cgroupfs.write(f"{directory}/devices.deny", b"a")
            admit(group, allowed)
            return
    directory = group.unified_directory or ""
    if not directory:
        raise OSError(errno.ENOTSUP, "no cgroup for a device policy", group.name)
    _attach(directory, allowed)


def admit(group: Group, more: Sequence[Rule]) -> None:
    """Let a group whose policy is a version 1 one have more devices; groups below it go on without them.

    In version 2 a policy cannot be widened, so a group whose children may come to differ should have none itself.
    """
    for hierarchy, _, directory in group.places:
        if "devices" not in hierarchy.controllers:
            continue
        fd = os.open(f"{directory}/devices.allow", os.O_WRONLY | os.O_CLOEXEC)
        try:
            for kind, major, minor, access in more:
                text = f"{kind} {major}:{'*' if minor is None else minor} {access}"
                try:
                    os.write(fd, text.encode())
                except PermissionError:
                    group.warnings.append(f"device {text} is not allowed to this host's own cgroup")
        finally:
            os.close(fd)


def assemble(allowed: Sequence[Rule]) -> bytes:
    """The program: 1 for an access that some rule allows whole, else 0.

    Args:
        allowed: the rules.
    """

    def instruction(code: int, target: int, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
        return _INSTRUCTION.pack(code, source << 4 | target, offset, value)

    # r2 access, r3 type, r4 major, r5 minor
    program = [
        instruction(_LDX_W, 2, 1, 0),
        instruction(_MOV_X, 3, 2),
        instruction(_AND_K, 3, value=0xFFFF),
        instruction(_RSH_K, 2, value=16),
        instruction(_LDX_W, 4, 1, 4),
        instruction(_LDX_W, 5, 1, 8),
    ]
    for kind, major, minor, access in allowed:
        refused = 7 & ~sum(BPF_DEVCG_ACC[letter] for letter in access)
        steps = [(_JNE_K, 3, BPF_DEVCG_DEV[kind]), (_JNE_K, 4, major)]
        if minor is not None:
            steps.append((_JNE_K, 5, minor))
        # To the next rule when a step does not fit: over the other steps, the access test (3) and the verdict (2).
        left = len(steps) + 4
        for code, register, value in steps:
            program.append(instruction(code, register, offset=left, value=value))
            left -= 1
        program += [
            instruction(_MOV_X, 6, 2),
            instruction(_AND_K, 6, value=refused),
            instruction(_JNE_K, 6, offset=2, value=0),
            instruction(_MOV_K, 0, value=1),
            instruction(_EXIT, 0),
        ]
    program += [instruction(_MOV_K, 0, value=0), instruction(_EXIT, 0)]
    return b"".join(program)


def load(program: bytes) -> int:
    """Load a program; the caller owns the descriptor.

    Raises:
        OSError: ``EPERM`` without CAP_BPF and CAP_NET_ADMIN or CAP_SYS_ADMIN, ``EINVAL`` without CONFIG_CGROUP_BPF.
    """
    instructions = bytearray(program)
    licence = bytearray(b"Apache-2.0\0")
    # union bpf_attr for BPF_PROG_LOAD up to expected_attach_type; both buffers are held by names until it returns.
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        BPF_PROG_TYPE_CGROUP_DEVICE,
        len(program) // _INSTRUCTION.size,
        libc.address_of(instructions),
        libc.address_of(licence),
        0,
        0,
        0,
        0,
        0,
        b"rkt_devices",
        0,
        BPF_CGROUP_DEVICE,
    )
    fd = libc.bpf(BPF_PROG_LOAD, attributes)
    os.set_inheritable(fd, False)
    return fd


def _attach(directory: str, allowed: Sequence[Rule]) -> None:
    """Load the program for a list of rules and attach it to a cgroup, in addition to programs of its ancestors.

    The kernel drops the program with the cgroup.
    """
    program_fd = load(assemble(allowed))
    try:
        cgroup_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            libc.bpf(
                BPF_PROG_ATTACH,
                struct.pack("=IIIII", cgroup_fd, program_fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI, 0),
            )
        finally:
            os.close(cgroup_fd)
    finally:
        os.close(program_fd)
