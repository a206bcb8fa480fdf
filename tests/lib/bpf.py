# SPDX-License-Identifier: Apache-2.0
"""Interpreters for the two kinds of BPF programs that the engine makes, so that tests can ask them anything."""

from __future__ import annotations

import struct

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
AUDIT_ARCH_I386 = 0x40000003


def run_seccomp(program: bytes, number: int, arguments: tuple[int, ...] = (), *, arch: int) -> int:
    """Action of a seccomp filter for one call. Source: Documentation/networking/filter.rst, <linux/seccomp.h>."""
    padded = [value & 0xFFFFFFFFFFFFFFFF for value in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    instructions = list(struct.iter_unpack("=HBBI", program))
    position = accumulator = 0
    while True:
        code, if_true, if_false, value = instructions[position]
        position += 1
        if code == 0x06:  # RET K
            return int(value)
        if code == 0x20:  # LD W ABS
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:  # ALU AND K
            accumulator &= value
        elif code == 0x05:  # JA
            position += value
        elif code in {0x15, 0x25, 0x35, 0x45}:
            hit = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            position += if_true if hit else if_false
        else:
            raise AssertionError(f"instruction {code:#x} is not known to this interpreter")


def run_device_program(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Verdict of a cgroup device program. Source: <linux/bpf.h>, ``struct bpf_cgroup_dev_ctx``."""
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers = [0] * 11
    instructions = list(struct.iter_unpack("=BBhi", program))
    position = 0
    while True:
        code, packed, offset, value = instructions[position]
        position += 1
        target, source = packed & 15, packed >> 4
        if code == 0x95:
            return registers[0]
        if code == 0x61:
            (registers[target],) = struct.unpack_from("=I", context, offset)
        elif code == 0xBF:
            registers[target] = registers[source]
        elif code == 0xB7:
            registers[target] = value
        elif code == 0x57:
            registers[target] &= value
        elif code == 0x77:
            registers[target] >>= value
        elif code == 0x55:
            position += offset if registers[target] != value else 0
        else:
            raise AssertionError(f"instruction {code:#x} is not known to this interpreter")
