# SPDX-License-Identifier: Apache-2.0
"""A program that makes system calls by any of the three ways into an x86-64 kernel, and tells how each ended.

It is written here as machine code, because nothing can be assumed that compiles, and because no C library makes calls
by the entry of 32-bit programs (``int 0x80``) or by the numbers of x32 from one and the same program. ``build`` puts a
table of probes behind it. A probe is a list of steps, made in a child process of its own; a step is one call, whose
arguments may be results of earlier steps; the answer of a probe is the result of its last step.

The program refuses to run where ``MARK`` is not at the root, and in the host's own pid namespace: some calls of a probe
would succeed there.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

#: File at the root of images in which the probe may run.
MARK = "rkt-confinement-probe"
#: Status of a probe that was started elsewhere.
EXIT_REFUSED = 97
#: Answer of a probe whose child was killed.
KILLED = 0x7FFFFFFF
#: Bit in the numbers of x32.
X32 = 0x40000000
#: Room for what calls write, and the address of an all-zero structure.
BUFFER = 0x500800
ZEROES = 0x501800

_BASE = 0x400000
_TABLE = 0x401000
_TOP = 0x502000
_PAGE = 0x1000
_CODE = """\
# Refuse to run elsewhere than in a container made for it: access of the mark, then readlink of the pid namespace.
_start:
    b8 15 00 00 00           | mov eax, 0x15
    bf 13 02 40 00           | mov edi, 0x400213
    31 f6                    | xor esi, esi
    0f 05                    | syscall
    85 c0                    | test eax, eax
    0f 85 f0 00 00 00        | jne 40017e
    b8 59 00 00 00           | mov eax, 0x59
    bf 2a 02 40 00           | mov edi, 0x40022a
    be 00 04 50 00           | mov esi, 0x500400
    ba 40 00 00 00           | mov edx, 0x40
    0f 05                    | syscall
    83 f8 10                 | cmp eax, 0x10
    0f 85 d1 00 00 00        | jne 40017e
    48 8b 04 25 00 04 50 00  | mov rax, ds:0x500400
    48 3b 04 25 3c 02 40 00  | cmp rax, ds:0x40023c
    75 16                    | jne 4000d5
    48 8b 04 25 08 04 50 00  | mov rax, ds:0x500408
    48 3b 04 25 44 02 40 00  | cmp rax, ds:0x400244
    0f 84 a9 00 00 00        | je 40017e
# One shared page, through which children answer: mmap(0, 4096, READ|WRITE, SHARED|ANONYMOUS, -1, 0).
contained:
    b8 09 00 00 00           | mov eax, 0x9
    31 ff                    | xor edi, edi
    be 00 10 00 00           | mov esi, 0x1000
    ba 03 00 00 00           | mov edx, 0x3
    41 ba 21 00 00 00        | mov r10d, 0x21
    49 83 c8 ff              | or r8, 0xffffffffffffffff
    45 31 c9                 | xor r9d, r9d
    0f 05                    | syscall
    49 89 c7                 | mov r15, rax
    41 bc 00 10 40 00        | mov r12d, 0x401000
# Each probe in a child of its own: fork, wait4.
probe:
    41 8b 1c 24              | mov ebx, dword [r12]
    85 db                    | test ebx, ebx
    74 6f                    | je 400175
    49 c7 07 ff ff ff 7f     | mov [r15], 0x7fffffff
    b8 39 00 00 00           | mov eax, 0x39
    0f 05                    | syscall
    85 c0                    | test eax, eax
    74 6d                    | je 400185
    89 c7                    | mov edi, eax
    31 f6                    | xor esi, esi
    31 d2                    | xor edx, edx
    45 31 d2                 | xor r10d, r10d
    b8 3d 00 00 00           | mov eax, 0x3d
    0f 05                    | syscall
    49 8b 17                 | mov rdx, [r15]
    bf 00 04 50 00           | mov edi, 0x500400
    b9 10 00 00 00           | mov ecx, 0x10
# The answer as sixteen digits and a line feed.
digit:
    48 c1 c2 04              | rol rdx, 0x4
    89 d0                    | mov eax, edx
    83 e0 0f                 | and eax, 0xf
    83 c0 30                 | add eax, 0x30
    83 f8 3a                 | cmp eax, 0x3a
    72 03                    | jb 400149
    83 c0 27                 | add eax, 0x27
put:
    88 07                    | mov byte [rdi], al
    ff c7                    | inc edi
    ff c9                    | dec ecx
    75 e4                    | jne 400135
    c6 07 0a                 | mov byte [rdi], 0xa
    b8 01 00 00 00           | mov eax, 0x1
    89 c7                    | mov edi, eax
    be 00 04 50 00           | mov esi, 0x500400
    ba 11 00 00 00           | mov edx, 0x11
    0f 05                    | syscall
    41 8b 1c 24              | mov ebx, dword [r12]
    c1 e3 06                 | shl ebx, 0x6
    4d 8d 64 1c 08           | lea r12, [r12+rbx*1+0x8]
    eb 89                    | jmp 4000fe
done:
    31 ff                    | xor edi, edi
# exit_group
exit:
    b8 e7 00 00 00           | mov eax, 0xe7
    0f 05                    | syscall
refuse:
    bf 61 00 00 00           | mov edi, 0x61
    eb f2                    | jmp 400177
# The steps of one probe, one after the other.
child:
    41 89 de                 | mov r14d, ebx
    41 bd 00 00 50 00        | mov r13d, 0x500000
    49 83 c4 08              | add r12, 0x8
step:
    31 c9                    | xor ecx, ecx
# Arguments that are results of earlier steps of this probe.
argument:
    41 0f a3 4c 24 08        | bt dword [r12+0x8], ecx
    73 12                    | jae 4001ae
    49 8b 44 cc 10           | mov rax, [r12+rcx*8+0x10]
    48 8b 04 c5 00 00 50 00  | mov rax, [rax*8+0x500000]
    49 89 44 cc 10           | mov [r12+rcx*8+0x10], rax
plain:
    ff c1                    | inc ecx
    83 f9 06                 | cmp ecx, 0x6
    72 df                    | jb 400194
    41 8b 44 24 04           | mov eax, dword [r12+0x4]
    49 8b 54 24 20           | mov rdx, [r12+0x20]
    49 8b 74 24 18           | mov rsi, [r12+0x18]
    49 8b 7c 24 10           | mov rdi, [r12+0x10]
    41 83 3c 24 00           | cmp dword [r12], 0x0
    75 13                    | jne 4001e3
    4d 8b 54 24 28           | mov r10, [r12+0x28]
    4d 8b 44 24 30           | mov r8, [r12+0x30]
    4d 8b 4c 24 38           | mov r9, [r12+0x38]
    0f 05                    | syscall
    eb 17                    | jmp 4001fa
# The entry of 32-bit programs.
compat:
    89 fb                    | mov ebx, edi
    89 f1                    | mov ecx, esi
    41 8b 74 24 28           | mov esi, dword [r12+0x28]
    41 8b 7c 24 30           | mov edi, dword [r12+0x30]
    41 8b 6c 24 38           | mov ebp, dword [r12+0x38]
    cd 80                    | int 0x80
    48 98                    | cdqe
keep:
    49 89 45 00              | mov [r13+0x0], rax
    49 89 07                 | mov [r15], rax
    49 83 c5 08              | add r13, 0x8
    49 83 c4 40              | add r12, 0x40
    41 ff ce                 | dec r14d
    75 84                    | jne 400192
    e9 62 ff ff ff           | jmp 400175
marker:
"""


class Result(NamedTuple):
    """An argument: the result of an earlier step of the same probe."""

    step: int


class Step(NamedTuple):
    """One system call.

    Attributes:
        number: with ``X32`` for a call of that ABI.
        arguments: integers, texts and bytes (passed by address, with a zero at the end), or results of earlier steps.
        compat: by the entry of 32-bit programs, with their numbers.
    """

    number: int
    arguments: Sequence[int | str | bytes | Result] = ()
    compat: bool = False


def build(probes: Sequence[Sequence[Step]]) -> bytes:
    """The program as an ELF file of x86-64; it prints one line per probe, see ``answers``."""
    table_bytes = sum(8 + 64 * len(steps) for steps in probes) + 8
    strings = bytearray()
    table = bytearray()
    for steps in probes:
        table += struct.pack("=II", len(steps), 0)
        for step in steps:
            words = [0] * 6
            results = 0
            for index, argument in enumerate(step.arguments):
                if isinstance(argument, Result):
                    results |= 1 << index
                    words[index] = argument.step
                elif isinstance(argument, int):
                    words[index] = argument & 2**64 - 1
                else:
                    text = argument.encode() if isinstance(argument, str) else argument
                    words[index] = _TABLE + table_bytes + len(strings)
                    strings += text + b"\0"
            table += struct.pack("=IIII6Q", step.compat, step.number, results, 0, *words)
    table += bytes(8)
    assert len(table) == table_bytes
    code = b"".join(
        bytes.fromhex(line.partition("|")[0]) for line in _CODE.splitlines() if line.startswith(" ")
    )
    code += f"/{MARK}\0/proc/self/ns/pid\0pid:[4026531836]".encode()
    load = struct.pack(
        "=IIQQQQQQ", 1, 7, 0, _BASE, _BASE, _TABLE - _BASE + len(table) + len(strings), _TOP - _BASE, _PAGE
    )
    head = struct.pack(
        "=16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 2, 62, 1, _BASE + 64 + len(load), 64, 0, 0, 64, len(load), 1, 0, 0, 0,
    )  # fmt: skip
    return (head + load + code).ljust(_TABLE - _BASE, b"\0") + bytes(table) + bytes(strings)


def answers(text: str) -> list[int]:
    """What the program printed: a negative errno, what the call returned, or ``KILLED``."""
    return [value - 2**64 if value >> 63 else value for value in (int(line, 16) for line in text.split())]
